//! The runs of a study, built to be timed: nothing is learnt and nothing kept.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{Device, Var};
use docent_distill::{Channels, Progress};
use docent_model::{ParamStore, Predictor, save_checkpoint};
use docent_train::update::update;
use docent_train::{Batch, Optimizer, StudentModel, TeacherContext, TeacherPyramids, TrainerState, clip_grad_norm};

use crate::build::{Built, build_for_timing};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::recipe::{ModelRecipe, Recipe};
use crate::registry::Registry;
use crate::run::RunState;

/// A run that a recipe's study would make.
pub(crate) struct TimedRun<'a> {
    /// The run's name in its study.
    pub name: &'static str,
    /// Its epochs by the recipe.
    pub epochs: usize,
    pub student: StudentModel<'a>,
    /// Its teacher, without a cache.
    pub teacher: Option<TeacherContext<'a>>,
    recipe: &'a Recipe,
}

/// Builds each run of the study with the weights that are given, and hands it to `f`. Where a file of first weights is missing,
/// random ones stand in: they cost the same. `notes` takes what a log should say of that.
///
/// # Errors
/// `f`'s own; weights that do not fit.
pub(crate) fn each_run(
    recipe: &Recipe,
    data: &Data,
    registry: &Registry,
    notes: &mut Vec<String>,
    mut f: impl FnMut(&TimedRun<'_>) -> Result<()>,
) -> Result<()> {
    let classes = data.train.categories().len() + 1;
    let build = |who: &str, model: &ModelRecipe, notes: &mut Vec<String>| -> Result<Built> {
        let built = build_for_timing(model, classes, recipe.seed, &registry.models)?;
        notes.extend(built.notes.iter().map(|note| format!("{who}: {note}")));
        Ok(built)
    };
    let epochs = recipe.train.epochs;

    let mut teacher = None;
    if let (Some(part), Some(method)) = (&recipe.teacher, &recipe.distill) {
        let model = match &part.checkpoint {
            Some(path) => {
                let predictor = Predictor::load(path, &registry.models)?;
                predictor.meta.check_categories(path, data.val.categories())?;
                notes.push(format!("teacher: {}", path.display()));
                predictor.model
            }
            None => {
                let model = ModelRecipe { model: part.model.clone(), init: part.init.clone() };
                let built = build("teacher", &model, notes)?;
                f(&TimedRun::alone("teacher", part.epochs.unwrap_or(epochs), &built, recipe))?;
                built.model
            }
        };
        teacher = Some((model, method));
    }
    let built = build("student", &recipe.student, notes)?;
    f(&TimedRun::alone("alone", epochs, &built, recipe))?;
    if let Some((model, method)) = &teacher {
        let store = ParamStore::new(recipe.seed, &Device::Cpu);
        let (student, theirs) = (Channels::of(&*built.model), Channels::of(&**model));
        let distiller = registry.distillers.distiller(method, &student, &theirs, store.var_builder())?;
        let teacher = TeacherContext { model: &**model, distiller: distiller.as_ref(), store: &store, cache: None };
        f(&TimedRun { teacher: Some(teacher), ..TimedRun::alone("distilled", epochs, &built, recipe) })?;
    }
    Ok(())
}

impl<'a> TimedRun<'a> {
    fn alone(name: &'static str, epochs: usize, built: &'a Built, recipe: &'a Recipe) -> Self {
        let student = StudentModel { model: &*built.model, store: &built.store };
        Self { name, epochs, student, teacher: None, recipe }
    }

    /// What makes steps of this run.
    pub fn timer(&self) -> Result<StepTimer<'a>> {
        let params = [self.student.store.trainable(), self.teacher.map_or(Vec::new(), |t| t.store.trainable())];
        let config = self.recipe.train.optimizer();
        Ok(StepTimer {
            name: self.name,
            epochs: self.epochs,
            student: self.student,
            teacher: self.teacher,
            optimizers: [config.build(params[0].clone())?, config.build(params[1].clone())?],
            params,
            recipe: self.recipe,
        })
    }
}

/// Makes steps with a learning rate of 0: the whole arithmetic, and no change.
pub(crate) struct StepTimer<'a> {
    name: &'static str,
    epochs: usize,
    student: StudentModel<'a>,
    teacher: Option<TeacherContext<'a>>,
    optimizers: [Optimizer; 2],
    params: [Vec<(String, Var)>; 2],
    recipe: &'a Recipe,
}

impl StepTimer<'_> {
    /// Forward and backward over `parts`, then the update; seconds of both.
    ///
    /// # Errors
    /// A loss that is not finite: what follows would time the arithmetic of NaN.
    pub fn step(&mut self, parts: &[Batch], cache: Option<&TeacherPyramids>) -> Result<[f64; 2]> {
        let start = Instant::now();
        let teacher = self.teacher.map(|teacher| TeacherContext { cache, ..teacher });
        let progress =
            Progress { epoch: 1, epochs: self.epochs, iteration: 1, iterations: self.epochs, milestones: &[] };
        let params = self.params.each_ref().map(Vec::as_slice);
        let out = update(self.student.model, teacher.as_ref(), parts, progress, self.recipe.seed, &params, false)?;
        let Some(gradients) = out.gradients else {
            let (images, what) = (parts.iter().flat_map(Batch::ids).collect(), format!("the loss is {}", out.total));
            return Err(Error::in_run(docent_train::Error::Diverged { step: 1, images, what }, self.name, 1));
        };
        let passes = start.elapsed().as_secs_f64();
        let start = Instant::now();
        for (optimizer, params) in self.optimizers.iter_mut().zip(params) {
            let clip = clip_grad_norm(params, &gradients, Some(self.recipe.train.max_grad_norm))?;
            optimizer.step(&gradients, 0.0, clip.factor)?;
        }
        Ok([passes, start.elapsed().as_secs_f64()])
    }

    /// Seconds that writing the run's state takes, and its weights, with the system's temporary folder in place of the study's.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn save_seconds(&self) -> Result<[f64; 2]> {
        let model = self.student.store.snapshot()?;
        let adapters = self.params[1].iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let trainer = TrainerState {
            step: 0,
            optimizer: self.optimizers[0].state()?,
            adapters,
            adapter_optimizer: self.optimizers[1].state()?,
            ema: if self.recipe.train.ema.is_some() { model.clone() } else { BTreeMap::new() },
            model,
        };
        let state = RunState { trainer, ..RunState::default() };
        let path = std::env::temp_dir().join(format!("docent-timing-{}.safetensors", std::process::id()));
        let timed = |save: &dyn Fn() -> Result<String>| -> Result<f64> {
            let start = Instant::now();
            save()?;
            Ok(start.elapsed().as_secs_f64())
        };
        let seconds = timed(&|| state.save(&path, None)).and_then(|whole| {
            Ok([whole, timed(&|| Ok(save_checkpoint(&path, &state.trainer.model, &BTreeMap::new())?))?])
        });
        // Half a file may be all that a full disk left.
        let _ = std::fs::remove_file(&path);
        seconds
    }
}
