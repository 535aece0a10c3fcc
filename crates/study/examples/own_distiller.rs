//! A distillation method of your own, run by docent from a recipe: `cargo run --release -p docent-study --example own_distiller -- DIR`.
//!
//! [`AttentionTransfer`] reads both models' pyramids. [`registry`] gives it a name, and `own_distiller.toml` names it. The study's
//! folder is DIR/study. The models are small and the training short: the example shows the calls, not a good figure.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use std::path::Path;

use candle_core::{DType, Tensor};
use docent_coco::shapes::{ShapesConfig, generate};
use docent_distill::methods::DistillerConfig;
use docent_distill::{DistillOutput, Distiller, Error, Needs, StepContext, Term};
use docent_study::manifest::Provenance;
use docent_study::recipe::Recipe;
use docent_study::study::{self, StudyOptions};
use docent_study::summary::StudySummary;
use docent_study::{Registry, Result};
use docent_train::CancelToken;
use docent_train::events::Fanout;

/// Attention transfer (Zagoruyko and Komodakis, ICLR 2017) on a pyramid: the student's maps shall be active where the teacher's are.
struct AttentionTransfer {
    weight: f64,
}

impl Distiller for AttentionTransfer {
    fn name(&self) -> &str {
        "attention_transfer"
    }

    fn needs(&self) -> Needs {
        Needs { pyramid: true, ..Needs::default() }
    }

    fn params(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }

    fn loss(&self, step: &StepContext<'_>) -> docent_distill::Result<DistillOutput> {
        let (student, teacher) = step.pyramids()?;
        let mut sum = Tensor::zeros((), DType::F32, teacher.levels[0].device())?;
        for (student, teacher) in student.levels.iter().zip(&teacher.levels) {
            sum = (sum + (attention(student)? - attention(teacher)?)?.sqr()?.mean_all()?)?;
        }
        let term = Term { name: "attention", raw: sum, weight: self.weight };
        Ok(DistillOutput { terms: vec![term], decay: 1.0, stats: Vec::new() })
    }
}

/// The mean square over the channels, scaled to length 1 in each image: `[B, C, H, W]` to `[B, H * W]`.
fn attention(map: &Tensor) -> candle_core::Result<Tensor> {
    let energy = map.sqr()?.mean(1)?.flatten_from(1)?;
    let length = (energy.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?;
    energy.broadcast_div(&length)
}

/// docent's detectors, backbones and methods, and `attention_transfer` with its setting `weight`.
pub fn registry() -> Registry {
    let mut registry = Registry::builtin();
    registry.distillers = registry.distillers.with_method("attention_transfer", |config, _student, _teacher, _vb| {
        let weight = match config {
            DistillerConfig::Other(config) => config.settings.get("weight").and_then(|weight| weight.as_f64()),
            _ => None,
        };
        let weight = weight.ok_or_else(|| Error::config("weight", "give a number"))?;
        Ok(Box::new(AttentionTransfer { weight }))
    });
    registry
}

/// Draws data in `dir` and runs the recipe, with some of its fields changed, in `dir`/study.
pub fn train(dir: &Path, changes: &[String]) -> Result<StudySummary> {
    generate(&dir.join("data"), &ShapesConfig::default().train(48).val(16))?;
    let mut recipe = Recipe::parse(include_str!("own_distiller.toml"), changes)?;
    recipe.data.dir = Some(dir.join("data"));
    let (dir, provenance, cancel) = (dir.join("study"), Provenance::default(), CancelToken::default());
    let options = StudyOptions { dir, resume: false, provenance, cancel, registry: registry() };
    study::run(&recipe, &options, &mut Fanout::default())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("name a folder to work in")?;
    print!("{}", train(Path::new(&dir), &[])?.table());
    Ok(())
}
