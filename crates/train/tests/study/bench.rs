//! What the tests share: the recipe, its data, and a study in a folder of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use docent_coco::shapes::{ShapesConfig, generate};
use docent_train::events::{EvalRecord, Event, EventSink, StepRecord};
use docent_train::manifest::Provenance;
use docent_train::recipe::Recipe;
use docent_train::study::{self, StudyOptions};
use docent_train::summary::StudySummary;
use docent_train::{Error, Result, Stop};
use tempfile::TempDir;

/// The smallest recipe with everything in it.
pub const RECIPE: &str = include_str!("tiny.toml");

/// Steps of a student.
pub const STEPS: usize = 6;

/// Data and room for studies; gone when it is dropped.
pub struct Bench {
    root: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        generate(&root.path().join("data"), &ShapesConfig::default().train(8).val(4).seed(0)).unwrap();
        Self { root }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn recipe(&self, assignments: &[&str]) -> Recipe {
        let assignments: Vec<String> = assignments.iter().map(|a| (*a).to_owned()).collect();
        let mut recipe = Recipe::parse(RECIPE, &assignments).unwrap();
        recipe.data.dir = Some(self.path("data"));
        recipe
    }

    /// The recipe without a teacher: one run, `baseline`.
    pub fn alone(&self, assignments: &[&str]) -> Recipe {
        Recipe { teacher: None, distill: None, ..self.recipe(assignments) }
    }

    /// Have two studies the same weights and figures, to the last bit? Times and memory apart.
    pub fn assert_same(&self, a: &str, b: &str, runs: &[&str]) {
        for run in runs {
            let [x, y] = [a, b].map(|study| self.path(study).join(run));
            assert!(weights(&x, "last") == weights(&y, "last"), "last of {run} in {a} and {b}");
            assert!(weights(&x, "best") == weights(&y, "best"), "best of {run} in {a} and {b}");
            assert_eq!(timeless(&x), timeless(&y), "{run} in {a} and {b}");
        }
    }

    /// Runs a study in folder `name`, with everything it said.
    pub fn study(&self, recipe: &Recipe, name: &str, resume: bool) -> (Result<StudySummary>, Vec<Event>) {
        let mut sink = Recorder { events: Vec::new(), stop: |_: &Event| false };
        let result = self.study_into(recipe, name, resume, &mut sink);
        (result, sink.events)
    }

    pub fn study_into(
        &self,
        recipe: &Recipe,
        name: &str,
        resume: bool,
        sink: &mut dyn EventSink,
    ) -> Result<StudySummary> {
        self.study_until(recipe, name, resume, &Stop::default(), sink)
    }

    /// As [`Bench::study_into`], with somebody who may ask it to stop.
    pub fn study_until(
        &self,
        recipe: &Recipe,
        name: &str,
        resume: bool,
        stop: &Stop,
        sink: &mut dyn EventSink,
    ) -> Result<StudySummary> {
        let options =
            StudyOptions { dir: self.path(name), resume, provenance: Provenance::default(), stop: stop.clone() };
        study::run(recipe, &options, sink)
    }
}

/// Keeps every event, and fails at the one that `stop` chooses.
pub struct Recorder<F> {
    pub events: Vec<Event>,
    pub stop: F,
}

impl<F: FnMut(&Event) -> bool> EventSink for Recorder<F> {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.events.push(event.clone());
        if (self.stop)(event) { Err(Error::Recipe("stopped by the test".into())) } else { Ok(()) }
    }
}

/// The lines of a run's `metrics.jsonl`.
pub fn log(run: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The steps of a log.
pub fn steps(run: &Path) -> Vec<StepRecord> {
    let step = |event| if let Event::Step(record) = event { Some(record) } else { None };
    log(run).into_iter().filter_map(step).collect()
}

/// Steps and evaluations of a log without what a clock or the system's memory decides.
pub fn timeless(run: &Path) -> (Vec<StepRecord>, Vec<EvalRecord>) {
    let mut steps = steps(run);
    for s in &mut steps {
        (s.data_seconds, s.step_seconds, s.memory_mib) = (0.0, 0.0, 0.0);
    }
    let scored = |event| if let Event::Evaluated(record) = event { Some(record) } else { None };
    let evals = log(run).into_iter().filter_map(scored).map(|e| EvalRecord { seconds: 0.0, ..e });
    (steps, evals.collect())
}

/// The bytes of a run's checkpoint: `last` or `best`.
pub fn weights(run: &Path, which: &str) -> Vec<u8> {
    std::fs::read(run.join(format!("checkpoints/{which}.safetensors"))).unwrap()
}

/// A tensor's values as bits.
pub fn bits(tensors: &BTreeMap<String, Tensor>, name: &str) -> Vec<u32> {
    let values = tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}
