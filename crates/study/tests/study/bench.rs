//! What the tests share: the recipe, its data, and a study in a folder of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use docent_coco::Rgb8;
use docent_coco::shapes::{ShapesConfig, generate};
use docent_study::build::Built;
use docent_study::manifest::Provenance;
use docent_study::recipe::{ModelRecipe, Recipe};
use docent_study::study::{self, StudyOptions};
use docent_study::summary::StudySummary;
use docent_study::{Registry, Result};
use docent_train::events::{EvalRecord, Event, EventSink, StepRecord};
use docent_train::{CancelToken, Error};
use serde_json::{Value, json};
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
        generate(&root.path().join("data"), &ShapesConfig::default().train(8).val(4)).unwrap();
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

    /// The recipe without a teacher: one run, `alone`.
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
        self.study_until(recipe, name, resume, &CancelToken::default(), sink)
    }

    /// As [`Bench::study_into`], with somebody who may ask it to stop.
    pub fn study_until(
        &self,
        recipe: &Recipe,
        name: &str,
        resume: bool,
        cancel: &CancelToken,
        sink: &mut dyn EventSink,
    ) -> Result<StudySummary> {
        let options = StudyOptions {
            dir: self.path(name),
            resume,
            provenance: Provenance::default(),
            cancel: cancel.clone(),
            registry: Registry::builtin(),
        };
        study::run(recipe, &options, sink)
    }
}

/// Keeps every event, and fails at the one that `stop` chooses.
pub struct Recorder<F> {
    pub events: Vec<Event>,
    pub stop: F,
}

impl<F: FnMut(&Event) -> bool> EventSink for Recorder<F> {
    fn event(&mut self, event: &Event) -> docent_train::Result<()> {
        self.events.push(event.clone());
        if (self.stop)(event) { Err(Error::config("sink", "stopped by the test")) } else { Ok(()) }
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

/// Adds an image of one colour with one box, as wide as it, to a split.
pub fn add_image(data: &Path, split: &str, id: u64, (width, height): (usize, usize)) {
    let path = data.join(format!("annotations/instances_{split}.json"));
    let mut value: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let name = value["images"][0]["file_name"].as_str().unwrap().to_owned();
    let beside = ["images", split, &format!("{split}2017"), "."]
        .into_iter()
        .map(|folder| data.join(folder))
        .find(|folder| folder.join(&name).is_file())
        .unwrap();
    let name = Path::new(&name).with_file_name(format!("odd{id}.png"));
    Rgb8::filled(width, height, [(id % 251) as u8, 200, 90]).save_png(&beside.join(&name)).unwrap();
    let push = |list: &mut Value, item: Value| list.as_array_mut().unwrap().push(item);
    push(&mut value["images"], json!({ "id": id, "file_name": name, "width": width, "height": height }));
    let category = value["categories"][0]["id"].clone();
    let item = json!({ "id": id, "image_id": id, "category_id": category, "bbox": [0, 0, width, height],
                       "area": width * height, "iscrowd": 0 });
    push(&mut value["annotations"], item);
    std::fs::write(&path, value.to_string()).unwrap();
}

/// A detector for the seven classes of the drawn scenes, without its file of first weights.
pub fn build(recipe: &ModelRecipe, seed: u64) -> Built {
    docent_study::build::build(recipe, 7, seed, &Registry::builtin().models).unwrap()
}

/// The recipe's teacher, with random weights.
pub fn teacher(recipe: &Recipe) -> Built {
    let part = recipe.teacher.as_ref().unwrap();
    build(&ModelRecipe { model: part.model.clone(), init: part.init.clone() }, 2)
}

/// The backbone's tensors of a detector, under the names of a backbone's file.
pub fn backbone_of(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let short =
        |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix("backbone.body.")?.to_owned(), tensor.clone()));
    tensors.iter().filter_map(short).collect()
}

/// Step and images of a run that diverged.
pub fn diverged(error: &docent_study::Error) -> (usize, Vec<u64>) {
    let docent_study::Error::Diverged { source, .. } = error else { panic!("{error}") };
    match &**source {
        Error::Diverged { step, images, .. } => (*step, images.clone()),
        other => panic!("{other}"),
    }
}

/// A tensor's values as bits.
pub fn bits(tensors: &BTreeMap<String, Tensor>, name: &str) -> Vec<u32> {
    let values = tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}
