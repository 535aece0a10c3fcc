//! A whole study from a program: draw data, train teacher, student and distilled student, use the result.
//!
//! `cargo run --release -p docent-train --example study -- DIR` takes a minute or two and leaves DIR/study. The models are far too
//! small and the training far too short for good figures: it shows the way, not a result.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use std::path::PathBuf;

use docent_coco::shapes::{ShapesConfig, generate};
use docent_train::detector::Detector;
use docent_train::events::{Event, EventSink};
use docent_train::manifest::Provenance;
use docent_train::recipe::{Recipe, text_of};
use docent_train::study::{StudyOptions, run};
use docent_train::{Result, Stop};

/// A writer of events: one line for every tenth step and each evaluation.
struct Lines;

impl EventSink for Lines {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::RunStarted { run, steps, .. } => println!("{run}: {steps} steps"),
            Event::Step(step) if step.step % 10 == 0 => println!("  step {}: loss {:.3}", step.step, step.total),
            Event::Evaluated(record) => println!("  AP50 {:.3}", record.ap50),
            _ => {}
        }
        Ok(())
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("name a folder to work in")?);
    let data = generate(&dir.join("data"), &ShapesConfig::default().train(48).val(16).seed(0))?;

    // A shipped recipe with a few fields changed, as `docent train --set` does. A folder is data like any other.
    let mut changes = vec![format!("data.dir={:?}", dir.join("data").display().to_string())];
    changes.extend(
        ["data.source=folder", "schedule.epochs=6", "teacher.epochs=6", "teacher.floor=0.0"].map(str::to_owned),
    );
    let recipe = Recipe::parse(&text_of("shapes")?, &changes)?;
    let provenance = Provenance { version: "example".into(), revision: None, command: std::env::args().collect() };
    let options = StudyOptions { dir: dir.join("study"), resume: false, provenance, stop: Stop::default() };
    let summary = run(&recipe, &options, &mut Lines)?;
    print!("\n{}", summary.table());

    // The checkpoint alone is enough to detect.
    let detector = Detector::load(&options.dir.join("distilled/checkpoints/last.safetensors"))?;
    let found = detector.detect(&data.val.sample(0)?.image)?;
    println!("\n{} objects in the first held-out image; the surest:", found.len());
    for d in found.iter().take(3) {
        let name = detector.category(d.label).map_or("?", |c| c.name.as_str());
        println!("  {name} with {:.2} at {:.0?}", d.score, d.bbox);
    }
    Ok(())
}
