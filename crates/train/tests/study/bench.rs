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
use docent_train::{Error, Result};
use tempfile::TempDir;

/// Three steps an epoch, the last of two images; the state is written in the middle of an epoch and at its end.
pub const RECIPE: &str = r#"
name = "tiny"
seed = 3

[data]
resize = { shortest = 48, longest = 64, rule = "antialias" }

[schedule]
epochs = 2
batch = 3
lr = 0.02
reference_batch = 3
rate = { warmup_iters = 2 }

[student.model]
backbone = { depth = 18, width = 0.125, norm = "batch_norm" }
fpn_channels = 16
anchors = { sizes = [8.0, 16.0, 32.0, 64.0, 128.0], ratios = [1.0] }
rpn = { pre_nms_train = 50, pre_nms_test = 30, post_nms_train = 30, post_nms_test = 20, samples = 32 }
roi = { samples = 16, hidden = 16, canonical_scale = 32.0, detections = 10 }

[teacher]
epochs = 1

[teacher.model]
backbone = { depth = 18, width = 0.25, norm = "batch_norm" }
fpn_channels = 24
anchors = { sizes = [8.0, 16.0, 32.0, 64.0, 128.0], ratios = [1.0] }
rpn = { pre_nms_train = 50, pre_nms_test = 30, post_nms_train = 30, post_nms_test = 20, samples = 32 }
roi = { samples = 16, hidden = 16, canonical_scale = 32.0, detections = 10 }

[distill]

[checkpoint]
steps = 2

[eval]
every = 1
timed_images = 1
"#;

/// Steps of a student.
pub const STEPS: usize = 6;

/// Data and room for studies; gone when it is dropped.
pub struct Bench {
    root: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        generate(&root.path().join("data"), &ShapesConfig { train: 8, val: 4, seed: 0 }).unwrap();
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
        let options = StudyOptions { dir: self.path(name), resume, provenance: Provenance::default() };
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
