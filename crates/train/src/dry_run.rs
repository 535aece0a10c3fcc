//! What a recipe would cost: its data indexed, its models built, three micro-steps of each run.

use std::time::Instant;

use candle_core::{Device, Var};
use docent_detect::FasterRcnn;
use docent_distill::{Channels, Distiller, Progress};

use crate::build::{Built, build_for_timing};
use crate::data::{Batch, Data, DataSummary, train_loader};
use crate::detector::Detector;
use crate::manifest::peak_mib;
use crate::recipe::{ModelRecipe, Recipe};
use crate::step::Lesson;
use crate::update::update;
use crate::{Error, ParamStore, Result, Sgd, SgdConfig, clip_grad_norm};

/// Images that go through each run's network, one by one.
pub const MICRO_STEPS: usize = 3;

/// One run's cost.
#[derive(Debug, Clone, PartialEq)]
pub struct RunCost {
    /// The run's name in its study.
    pub name: &'static str,
    /// Seconds of each micro-step: one image forward and backward, with its teacher where there is one.
    pub micro_seconds: Vec<f64>,
    /// Seconds of one step: as many micro-steps of the median as a step has images, and the update.
    pub step_seconds: f64,
    /// Steps of the whole run.
    pub steps: usize,
    /// Highest resident memory of the process so far, in MiB.
    pub peak_mib: f64,
}

impl RunCost {
    /// Seconds of the whole run, evaluation not counted.
    pub fn seconds(&self) -> f64 {
        self.step_seconds * self.steps as f64
    }
}

/// A study's cost.
#[derive(Debug, Clone, PartialEq)]
pub struct DryRun {
    /// Data set, digest, sizes.
    pub data: DataSummary,
    /// What a log should say: files of first weights, and where random ones stood in.
    pub notes: Vec<String>,
    /// The runs that the study would make.
    pub runs: Vec<RunCost>,
}

/// Indexes the data, builds the models with the weights that are given, and times each run of the study on the first training
/// images. Nothing is written, and nothing is kept of what was learnt. Where a file of first weights is missing, random ones stand
/// in: they cost the same.
///
/// # Errors
/// Data or weights that do not fit.
pub fn dry_run(recipe: &Recipe) -> Result<DryRun> {
    recipe.validate()?;
    let mut data = Data::open(&recipe.data)?;
    let classes = data.train.categories().len() + 1;
    let summary = data.summary();
    let epoch = data.train.len().div_ceil(recipe.schedule.batch);
    let few: Vec<usize> = (0..MICRO_STEPS.min(data.train.len())).collect();
    data.train = data.train.subset(&few).into();
    let mut dry = Dry { recipe, data: &data, epoch, notes: Vec::new(), runs: Vec::new() };

    let mut teacher = None;
    if let (Some(part), Some(method)) = (&recipe.teacher, &recipe.distill) {
        let model = match &part.checkpoint {
            Some(path) => {
                let detector = Detector::load(path)?;
                detector.meta.check_categories(path, data.val.categories())?;
                dry.notes.push(format!("teacher: {}", path.display()));
                detector.model
            }
            None => {
                let model = ModelRecipe { model: part.model.clone(), init: part.init.clone() };
                let built = dry.build("teacher", &model, classes)?;
                dry.time("teacher", part.epochs.unwrap_or(recipe.schedule.epochs), &built, None, &[])?;
                built.model.detached()
            }
        };
        teacher = Some((model, method));
    }
    let built = dry.build("student", &recipe.student, classes)?;
    let epochs = recipe.schedule.epochs;
    dry.time("baseline", epochs, &built, None, &[])?;
    if let Some((teacher, method)) = &teacher {
        let store = ParamStore::new(recipe.seed, &Device::Cpu);
        let [student, theirs] = [&built.model, teacher].map(|model| Channels::of(model.config()));
        let distiller = method.build(&student, &theirs, store.var_builder())?;
        dry.time("distilled", epochs, &built, Some((teacher, distiller.as_ref())), &store.trainable())?;
    }
    Ok(DryRun { data: summary, notes: dry.notes, runs: dry.runs })
}

struct Dry<'a> {
    recipe: &'a Recipe,
    data: &'a Data,
    epoch: usize,
    notes: Vec<String>,
    runs: Vec<RunCost>,
}

impl Dry<'_> {
    fn build(&mut self, who: &str, model: &ModelRecipe, classes: usize) -> Result<Built> {
        let built = build_for_timing(model, classes, self.recipe.seed)?;
        self.notes.extend(built.notes.iter().map(|note| format!("{who}: {note}")));
        Ok(built)
    }

    fn time(
        &mut self,
        name: &'static str,
        epochs: usize,
        built: &Built,
        taught: Option<(&FasterRcnn, &dyn Distiller)>,
        adapters: &[(String, Var)],
    ) -> Result<()> {
        let s = &self.recipe.schedule;
        let student = built.store.trainable();
        let config = SgdConfig { momentum: s.momentum, weight_decay: s.weight_decay, groups: s.groups.clone() };
        // The learning rate is 0: the whole arithmetic, and no change.
        let mut sgd = [Sgd::new(&config, student.clone())?, Sgd::new(&config, adapters.to_vec())?];
        let lesson = taught.map(|(teacher, distiller)| Lesson { teacher, distiller, cache: None });
        let progress = Progress { epoch: 1, epochs, iteration: 1, iterations: epochs * self.epoch, milestones: &[] };
        let (mut micro, mut updates) = (Vec::new(), 0.0);
        for items in train_loader(self.data, &self.recipe.data, 1, self.recipe.seed)?.epoch(0) {
            let start = Instant::now();
            let batch = Batch::new(&items?, &Device::Cpu)?;
            let parts = std::slice::from_ref(&batch);
            let params = [student.as_slice(), adapters];
            let out = update(&built.model, lesson.as_ref(), parts, &progress, self.recipe.seed, &params, false)?;
            let Some(gradients) = out.gradients else {
                return Err(Error::Diverged {
                    run: name.to_owned(),
                    step: 1,
                    images: batch.ids,
                    what: format!("the loss is {}", out.total),
                });
            };
            micro.push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            for (sgd, params) in sgd.iter_mut().zip(params) {
                let clip = clip_grad_norm(params, &gradients, Some(s.clip))?;
                sgd.step(&gradients, 0.0, clip.factor)?;
            }
            updates = start.elapsed().as_secs_f64();
        }
        let mut sorted = micro.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        self.runs.push(RunCost {
            name,
            micro_seconds: micro,
            step_seconds: s.batch as f64 * median + updates,
            steps: epochs * self.epoch,
            peak_mib: peak_mib(),
        });
        Ok(())
    }
}
