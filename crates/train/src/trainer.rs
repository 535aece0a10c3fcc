//! The trainer: a student, its optimizer and what else a step changes. It knows no file and no data set.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use docent_distill::Progress;

use crate::batch::Batch;
use crate::clip::clip_grad_norm;
use crate::ema::{Ema, EmaConfig};
use crate::error::{Error, Result};
use crate::events::StepRecord;
use crate::gradients::{GradientReducer, SingleProcess};
use crate::optim::{Optimizer, OptimizerConfig};
use crate::schedule::{Schedule, ScheduleConfig};
use crate::step::{StudentModel, TeacherContext};
use crate::update::update;

/// The settings of a training.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TrainerConfig {
    /// Seed of the choice of anchors and RoIs.
    pub seed: u64,
    /// Passes over the data.
    pub epochs: usize,
    /// Steps of a pass.
    pub steps_per_epoch: usize,
    /// The learning rate with factor 1.
    pub lr: f64,
    /// How the learning rate moves.
    pub lr_schedule: ScheduleConfig,
    /// SGD or AdamW.
    pub optimizer: OptimizerConfig,
    /// Bound of the gradient's 2-norm, for student and adapters each; None is without.
    pub max_grad_norm: Option<f64>,
    /// A moving average of the weights, which then is what is evaluated and reported.
    pub ema: Option<EmaConfig>,
}

impl TrainerConfig {
    /// `epochs` passes of `steps_per_epoch` steps at learning rate `lr`: SGD, warm-up, two drops, gradients bounded by 10, no average.
    pub fn new(epochs: usize, steps_per_epoch: usize, lr: f64) -> Self {
        Self {
            seed: 0,
            epochs,
            steps_per_epoch,
            lr,
            lr_schedule: ScheduleConfig::default(),
            optimizer: OptimizerConfig::default(),
            max_grad_norm: Some(10.0),
            ema: None,
        }
    }

    /// With another seed.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// With another movement of the learning rate.
    #[must_use]
    pub fn lr_schedule(self, lr_schedule: ScheduleConfig) -> Self {
        Self { lr_schedule, ..self }
    }

    /// With another optimizer.
    #[must_use]
    pub fn optimizer(self, optimizer: OptimizerConfig) -> Self {
        Self { optimizer, ..self }
    }

    /// With another bound of the gradient's norm, or without one.
    #[must_use]
    pub fn max_grad_norm(self, max_grad_norm: Option<f64>) -> Self {
        Self { max_grad_norm, ..self }
    }

    /// With a moving average of the weights, or without one.
    #[must_use]
    pub fn ema(self, ema: Option<EmaConfig>) -> Self {
        Self { ema, ..self }
    }
}

/// Trains a student, alone or with a teacher, one step at a time.
///
/// [`Trainer::state`] holds everything that a step changes. A trainer that [loads](Trainer::load_state) it goes on with the same bits.
pub struct Trainer<'a> {
    config: TrainerConfig,
    student: StudentModel<'a>,
    teacher: Option<TeacherContext<'a>>,
    schedule: Schedule,
    params: Vec<(String, Var)>,
    optimizer: Optimizer,
    adapters: Vec<(String, Var)>,
    adapter_optimizer: Optimizer,
    ema: Option<Ema>,
    reducer: Box<dyn GradientReducer + 'a>,
    steps_done: usize,
}

/// Everything that a step changes. The tensors are copies or are never written to.
#[derive(Debug, Clone, Default)]
pub struct TrainerState {
    /// Steps done.
    pub step: usize,
    /// The model ([`docent_model::ParamStore::snapshot`]).
    pub model: BTreeMap<String, Tensor>,
    /// The optimizer's buffers ([`Optimizer::state`]).
    pub optimizer: BTreeMap<String, Tensor>,
    /// The distiller's adapters.
    pub adapters: BTreeMap<String, Tensor>,
    /// The buffers of the adapters' optimizer.
    pub adapter_optimizer: BTreeMap<String, Tensor>,
    /// The moving average ([`Ema::state`]), where there is one.
    pub ema: BTreeMap<String, Tensor>,
}

impl<'a> Trainer<'a> {
    /// A trainer before its first step.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn new(config: TrainerConfig, student: StudentModel<'a>, teacher: Option<TeacherContext<'a>>) -> Result<Self> {
        let schedule = Schedule::new(&config.lr_schedule, config.lr, config.epochs, config.steps_per_epoch)?;
        let params = student.store.trainable();
        let adapters = teacher.map_or(Vec::new(), |teacher| teacher.store.trainable());
        Ok(Self {
            optimizer: config.optimizer.build(params.clone())?,
            adapter_optimizer: config.optimizer.build(adapters.clone())?,
            ema: config.ema.map(|ema| Ema::new(ema, student.store)).transpose()?,
            config,
            student,
            teacher,
            schedule,
            params,
            adapters,
            reducer: Box::new(SingleProcess),
            steps_done: 0,
        })
    }

    /// With another way to combine gradients; a process alone needs none.
    #[must_use]
    pub fn with_reducer(mut self, reducer: impl GradientReducer + 'a) -> Self {
        self.reducer = Box::new(reducer);
        self
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        self.steps_done
    }

    /// Steps of the whole training.
    pub fn total_steps(&self) -> usize {
        self.schedule.total_steps()
    }

    /// Trainable tensors of the student.
    pub fn trainable(&self) -> usize {
        self.params.len()
    }

    /// Patterns of the optimizer's groups that fit no parameter, of the student or of the adapters.
    pub fn unused_groups(&self) -> Vec<String> {
        let unused_by_adapters = self.adapter_optimizer.unused_groups();
        let mut unused = self.optimizer.unused_groups();
        unused.retain(|pattern| unused_by_adapters.contains(pattern));
        unused.into_iter().map(str::to_owned).collect()
    }

    /// Forward, backward and update on `parts`, which together are the step's images (see [`update`]). The record's times and
    /// memory are 0: they are the caller's to fill in. `diagnose` measures how detection and distillation pull.
    ///
    /// # Errors
    /// [`Error::Diverged`] where a loss or a gradient is not finite: the weights are as before the step, but BatchNorm's running
    /// statistics are not. When a shape does not fit.
    pub fn step(&mut self, parts: &[Batch], diagnose: bool) -> Result<StepRecord> {
        let step = self.steps_done;
        let epoch = step / self.config.steps_per_epoch + 1;
        let progress = Progress {
            epoch,
            epochs: self.config.epochs,
            iteration: step + 1,
            iterations: self.schedule.total_steps(),
            milestones: self.schedule.milestone_steps(),
        };
        let diverged = |what: String| {
            let images = parts.iter().flat_map(Batch::ids).collect();
            Error::Diverged { step: step + 1, images, what }
        };
        let params = [self.params.as_slice(), self.adapters.as_slice()];
        let (model, teacher) = (self.student.model, self.teacher.as_ref());
        let out = update(model, teacher, parts, progress, self.config.seed, &params, diagnose)?;
        let Some(mut gradients) = out.gradients else {
            let losses = format!("(detection losses {:?}, distillation {:?})", out.losses, out.distill);
            return Err(diverged(format!("the loss is {} {losses}", out.total)));
        };
        self.reducer.reduce(&mut gradients, &params)?;
        let bound = self.config.max_grad_norm;
        let clip = clip_grad_norm(&self.params, &gradients, bound)?;
        if !clip.is_finite() {
            return Err(diverged(format!("the gradient's norm is {}", clip.norm)));
        }
        let adapter_clip = match self.adapters.is_empty() {
            true => None,
            false => Some(clip_grad_norm(&self.adapters, &gradients, bound)?),
        };
        if let Some(clip) = adapter_clip.filter(|clip| !clip.is_finite()) {
            return Err(diverged(format!("the adapters' gradient norm is {}", clip.norm)));
        }
        let lr = self.schedule.lr(step);
        self.optimizer.step(&gradients, lr, clip.factor)?;
        if let Some(clip) = adapter_clip {
            self.adapter_optimizer.step(&gradients, lr, clip.factor)?;
        }
        self.steps_done += 1;
        if let Some(ema) = &mut self.ema {
            ema.update(self.steps_done)?;
        }
        Ok(StepRecord {
            step: self.steps_done,
            steps: self.schedule.total_steps(),
            epoch,
            lr,
            losses: out.losses,
            total: out.total,
            grad_norm: clip.norm,
            adapter_grad_norm: adapter_clip.map(|clip| clip.norm),
            positives: out.positives,
            data_seconds: 0.0,
            step_seconds: 0.0,
            memory_mib: 0.0,
            distill: out.distill,
            diagnosis: out.diagnosis,
        })
    }

    /// Everything that a step changes.
    ///
    /// # Errors
    /// Only candle's, on copying the tensors.
    pub fn state(&self) -> Result<TrainerState> {
        Ok(TrainerState {
            step: self.steps_done,
            model: self.student.store.snapshot()?,
            optimizer: self.optimizer.state()?,
            adapters: self.teacher.map_or(Ok(BTreeMap::new()), |teacher| teacher.store.snapshot())?,
            adapter_optimizer: self.adapter_optimizer.state()?,
            ema: self.ema.as_ref().map_or(Ok(BTreeMap::new()), Ema::state)?,
        })
    }

    /// Goes on from a state.
    ///
    /// # Errors
    /// Tensors that are missing, unknown or of another shape.
    pub fn load_state(&mut self, state: &TrainerState) -> Result<()> {
        self.student.store.restore(&state.model)?;
        self.optimizer.load_state(&state.optimizer)?;
        if let Some(teacher) = self.teacher {
            teacher.store.restore(&state.adapters)?;
            self.adapter_optimizer.load_state(&state.adapter_optimizer)?;
        }
        if let Some(ema) = &mut self.ema {
            ema.load_state(&state.ema)?;
        }
        self.steps_done = state.step;
        Ok(())
    }

    /// The weights that are evaluated and reported: the moving average of those of `state`, where there is one.
    pub fn reported(&self, state: &TrainerState) -> BTreeMap<String, Tensor> {
        let mut tensors = state.model.clone();
        tensors.extend(state.ema.iter().map(|(name, tensor)| (name.clone(), tensor.clone())));
        tensors
    }

    /// Calls `f` while the model holds the weights that are reported.
    ///
    /// # Errors
    /// `f`'s own; candle's, on exchanging the weights.
    pub fn with_reported<T, E: From<Error>>(
        &self,
        f: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        match &self.ema {
            Some(ema) => ema.applied(self.student.store, f),
            None => f(),
        }
    }
}
