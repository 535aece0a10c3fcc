//! The runs of a study, built to be timed: nothing is learnt and nothing kept.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{Device, Var};
use docent_detect::FasterRcnn;
use docent_distill::{Channels, Distiller, Progress};

use crate::build::{Built, build_for_timing};
use crate::data::{Batch, Data};
use crate::detector::Detector;
use crate::recipe::{ModelRecipe, Recipe};
use crate::step::Lesson;
use crate::update::update;
use crate::{Error, Optimizer, ParamStore, Result, TeacherCache, TrainState, clip_grad_norm, save_checkpoint};

/// A run that a recipe's study would make.
pub(crate) struct Probe<'a> {
    /// The run's name in its study.
    pub name: &'static str,
    /// Its epochs by the recipe.
    pub epochs: usize,
    pub built: &'a Built,
    pub taught: Option<(&'a FasterRcnn, &'a dyn Distiller)>,
    adapters: &'a [(String, Var)],
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
    notes: &mut Vec<String>,
    mut f: impl FnMut(&Probe<'_>) -> Result<()>,
) -> Result<()> {
    let classes = data.train.categories().len() + 1;
    let build = |who: &str, model: &ModelRecipe, notes: &mut Vec<String>| -> Result<Built> {
        let built = build_for_timing(model, classes, recipe.seed)?;
        notes.extend(built.notes.iter().map(|note| format!("{who}: {note}")));
        Ok(built)
    };
    let epochs = recipe.schedule.epochs;

    let mut teacher = None;
    if let (Some(part), Some(method)) = (&recipe.teacher, &recipe.distill) {
        let model = match &part.checkpoint {
            Some(path) => {
                let detector = Detector::load(path)?;
                detector.meta.check_categories(path, data.val.categories())?;
                notes.push(format!("teacher: {}", path.display()));
                detector.model
            }
            None => {
                let model = ModelRecipe { model: part.model.clone(), init: part.init.clone() };
                let built = build("teacher", &model, notes)?;
                f(&Probe::alone("teacher", part.epochs.unwrap_or(epochs), &built, recipe))?;
                built.model.detached()
            }
        };
        teacher = Some((model, method));
    }
    let built = build("student", &recipe.student, notes)?;
    f(&Probe::alone("baseline", epochs, &built, recipe))?;
    if let Some((teacher, method)) = &teacher {
        let store = ParamStore::new(recipe.seed, &Device::Cpu);
        let [student, theirs] = [&built.model, teacher].map(|model| Channels::of(model.config()));
        let distiller = method.build(&student, &theirs, store.var_builder())?;
        let (taught, adapters) = (Some((teacher, distiller.as_ref())), store.trainable());
        f(&Probe { name: "distilled", epochs, built: &built, taught, adapters: &adapters, recipe })?;
    }
    Ok(())
}

impl<'a> Probe<'a> {
    fn alone(name: &'static str, epochs: usize, built: &'a Built, recipe: &'a Recipe) -> Self {
        Self { name, epochs, built, taught: None, adapters: &[], recipe }
    }

    /// What makes steps of this run.
    pub fn stepper(&self) -> Result<Stepper<'a>> {
        let student = self.built.store.trainable();
        let config = self.recipe.schedule.optimizer();
        Ok(Stepper {
            name: self.name,
            epochs: self.epochs,
            model: &self.built.model,
            store: &self.built.store,
            taught: self.taught,
            optimizers: [config.build(student.clone())?, config.build(self.adapters.to_vec())?],
            params: [student, self.adapters.to_vec()],
            recipe: self.recipe,
        })
    }
}

/// Makes steps with a learning rate of 0: the whole arithmetic, and no change.
pub(crate) struct Stepper<'a> {
    name: &'static str,
    epochs: usize,
    model: &'a FasterRcnn,
    store: &'a ParamStore,
    taught: Option<(&'a FasterRcnn, &'a dyn Distiller)>,
    optimizers: [Optimizer; 2],
    params: [Vec<(String, Var)>; 2],
    recipe: &'a Recipe,
}

impl Stepper<'_> {
    /// Forward and backward over `parts`, then the update; seconds of both.
    ///
    /// # Errors
    /// A loss that is not finite: what follows would time the arithmetic of NaN.
    pub fn step(&mut self, parts: &[Batch], cache: Option<&TeacherCache>) -> Result<[f64; 2]> {
        let start = Instant::now();
        let lesson = self.taught.map(|(teacher, distiller)| Lesson { teacher, distiller, cache });
        let progress =
            Progress { epoch: 1, epochs: self.epochs, iteration: 1, iterations: self.epochs, milestones: &[] };
        let params = self.params.each_ref().map(Vec::as_slice);
        let out = update(self.model, lesson.as_ref(), parts, &progress, self.recipe.seed, &params, false)?;
        let Some(gradients) = out.gradients else {
            return Err(Error::Diverged {
                run: self.name.to_owned(),
                step: 1,
                images: parts.iter().flat_map(|part| part.ids.iter().copied()).collect(),
                what: format!("the loss is {}", out.total),
            });
        };
        let passes = start.elapsed().as_secs_f64();
        let start = Instant::now();
        for (optimizer, params) in self.optimizers.iter_mut().zip(params) {
            let clip = clip_grad_norm(params, &gradients, Some(self.recipe.schedule.clip))?;
            optimizer.step(&gradients, 0.0, clip.factor)?;
        }
        Ok([passes, start.elapsed().as_secs_f64()])
    }

    /// Seconds that writing the run's state takes, and its weights, with the system's temporary folder in place of the study's.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn save_seconds(&self) -> Result<[f64; 2]> {
        let model = self.store.snapshot()?;
        let adapters = self.params[1].iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let state = TrainState {
            momentum: self.optimizers[0].state()?,
            adapters,
            adapter_momentum: self.optimizers[1].state()?,
            ema: if self.recipe.schedule.ema.is_some() { model.clone() } else { BTreeMap::new() },
            model,
            ..TrainState::default()
        };
        let path = std::env::temp_dir().join(format!("docent-timing-{}.safetensors", std::process::id()));
        let timed = |save: &dyn Fn() -> Result<String>| -> Result<f64> {
            let start = Instant::now();
            save()?;
            Ok(start.elapsed().as_secs_f64())
        };
        let seconds = timed(&|| state.save(&path, None))
            .and_then(|whole| Ok([whole, timed(&|| save_checkpoint(&path, &state.model, &BTreeMap::new()))?]));
        // Half a file may be all that a full disk left.
        let _ = std::fs::remove_file(&path);
        seconds
    }
}
