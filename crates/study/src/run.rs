//! A run: one training, one folder.
//!
//! The folder is a contract: `recipe.toml`, `manifest.json`, `metrics.jsonl`, `checkpoints/{last,best}.safetensors` beside
//! `checkpoints/last.state.safetensors` and the state before it, `tensorboard/` where that is wanted, and `detections.json` and
//! `result.json` once it is finished.

mod folder;
mod saved;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use candle_core::{Tensor, Var};
use docent_detect::FasterRcnn;
use docent_distill::{Distiller, Progress};

use crate::checkpoint::{CheckpointMeta, save_checkpoint};
use crate::data::{Batch, Data, train_loader};
use crate::evaluate::{Evaluation, cost, evaluate};
use crate::events::{EvalRecord, Event, EventSink, Fanout, JsonlWriter, StepRecord};
use crate::manifest::{Manifest, resident_mib};
use crate::recipe::Recipe;
use crate::schedule::{Schedule, scale_lr};
use crate::state::{Best, check_finite};
use crate::step::Lesson;
use crate::summary::RunSummary;
use crate::tensorboard::TensorBoardWriter;
use crate::update::update;
use crate::{
    EarlyStop, Ema, Error, Optimizer, ParamStore, Patience, Result, Stop, TeacherCache, clip_grad_norm, experiment,
    files,
};

pub use folder::RunFolder;

/// What a run trains, and from what.
pub struct RunPlan<'a> {
    /// Name in the study: `teacher`, `baseline`, `distilled`.
    pub name: &'a str,
    /// The study's recipe.
    pub recipe: &'a Recipe,
    /// Passes over the data.
    pub epochs: usize,
    /// Ends them before, where AP rises no more.
    pub early_stop: Option<EarlyStop>,
    /// The open data.
    pub data: &'a Data,
    /// The study's folder; the run's is `name` in it.
    pub study: &'a Path,
    /// Everything the manifest says.
    pub manifest: Manifest,
    /// Asks the run to stop.
    pub stop: &'a Stop,
}

/// The model that a run trains.
pub struct Learner<'a> {
    /// The detector.
    pub model: &'a FasterRcnn,
    /// Its tensors.
    pub store: &'a ParamStore,
}

/// A teacher, the way it teaches and the tensors that are trained for that.
pub struct Teaching<'a> {
    /// The trained detector, plain tensors.
    pub teacher: &'a FasterRcnn,
    /// Its pyramids of images that were seen, for every run that it teaches.
    pub cache: &'a TeacherCache,
    /// The distillation.
    pub distiller: &'a dyn Distiller,
    /// The distillation's own parameters (adapters); they stay out of the student's checkpoint.
    pub store: &'a ParamStore,
}

/// Trains, evaluates and writes the folder; goes on after a checkpoint that is there already.
///
/// # Errors
/// [`Error::Stopped`] after a request to stop, with everything up to there kept. When data cannot be read, something cannot be
/// written, or a loss or gradient is not finite (the step and its images are named; the last checkpoint stays).
pub fn run(
    plan: &RunPlan<'_>,
    learner: &Learner<'_>,
    teaching: Option<&Teaching<'_>>,
    sink: &mut dyn EventSink,
) -> Result<RunSummary> {
    let folder = RunFolder::new(plan.study, plan.name);
    let mut trainer = Trainer::new(plan, learner, teaching, &folder)?;
    let done = trainer.restore()?;
    plan.stop.check(plan.name, done)?;
    files::create_dir(&folder.path().join("checkpoints"))?;
    files::write_atomic(&folder.recipe(), plan.recipe.to_toml()?.as_bytes())?;
    files::write_json(&folder.manifest(), &plan.manifest)?;

    let mut log = JsonlWriter::resume(&folder.metrics(), done, trainer.epochs_done)?;
    let logged = log.last_step();
    let mut board = match plan.recipe.log.tensorboard {
        true => {
            let recipe = plan.recipe.to_toml()?;
            Some(TensorBoardWriter::resume(&folder.tensorboard(), done, trainer.epochs_done, &recipe)?)
        }
        false => None,
    };
    let mut writers: Vec<&mut dyn EventSink> = vec![&mut log];
    writers.extend(board.as_mut().map(|board| board as &mut dyn EventSink));
    writers.push(sink);
    let mut sink = Fanout::new(writers);
    sink.event(&Event::RunStarted { run: plan.name.to_owned(), steps: trainer.schedule.total_steps(), done })?;
    for text in std::mem::take(&mut trainer.warnings) {
        sink.event(&Event::Warning { text })?;
    }
    if logged < done {
        let text = format!("{} lacks steps {} to {done}: they were lost", folder.metrics().display(), logged + 1);
        sink.event(&Event::Warning { text })?;
    }
    sink.event(&Event::Note { text: trainer.rate_note()? })?;
    let start = Instant::now();
    let summary = trainer.train(done, &mut sink)?;
    files::write_json(&folder.result(), &summary)?;
    sink.event(&Event::RunFinished { run: plan.name.to_owned(), seconds: start.elapsed().as_secs_f64() })?;
    Ok(summary)
}

/// The state of a run between two steps.
struct Trainer<'a> {
    plan: &'a RunPlan<'a>,
    learner: &'a Learner<'a>,
    teaching: Option<&'a Teaching<'a>>,
    folder: &'a RunFolder,
    schedule: Schedule,
    steps_per_epoch: usize,
    student: Vec<(String, Var)>,
    optimizer: Optimizer,
    adapters: Vec<(String, Var)>,
    adapter_optimizer: Optimizer,
    ema: Option<Ema>,
    /// Seconds of training so far, earlier starts included.
    seconds: f64,
    /// Highest AP so far.
    best: Option<Best>,
    /// What an early stop waits for.
    patience: Patience,
    /// Epochs whose steps and evaluation are done.
    epochs_done: usize,
    /// Images of the last step: those to look at when it has left no number to go on with.
    images: Vec<u64>,
    /// What a reader of the log must know of the state that was taken over.
    warnings: Vec<String>,
    recipe_digest: String,
}

impl<'a> Trainer<'a> {
    fn new(
        plan: &'a RunPlan<'a>,
        learner: &'a Learner<'a>,
        teaching: Option<&'a Teaching<'a>>,
        folder: &'a RunFolder,
    ) -> Result<Self> {
        let s = &plan.recipe.schedule;
        let steps_per_epoch = plan.data.train.len().div_ceil(s.batch);
        let lr = scale_lr(s.lr, s.reference_batch, s.batch)?;
        let schedule = Schedule::new(&s.rate, lr, plan.epochs, steps_per_epoch)?;
        let config = s.optimizer();
        let student = learner.store.trainable();
        let adapters = teaching.map_or(Vec::new(), |t| t.store.trainable());
        Ok(Self {
            optimizer: config.build(student.clone())?,
            adapter_optimizer: config.build(adapters.clone())?,
            ema: s.ema.map(|config| Ema::new(config, learner.store)).transpose()?,
            plan,
            learner,
            teaching,
            folder,
            schedule,
            steps_per_epoch,
            student,
            adapters,
            seconds: 0.0,
            best: None,
            patience: Patience::default(),
            epochs_done: 0,
            images: Vec::new(),
            warnings: Vec::new(),
            recipe_digest: experiment::digest(plan.recipe)?,
        })
    }

    fn rate_note(&self) -> Result<String> {
        let s = &self.plan.recipe.schedule;
        let (mut unused, unused_by_adapters) = (self.optimizer.unused_groups(), self.adapter_optimizer.unused_groups());
        unused.retain(|pattern| unused_by_adapters.contains(pattern));
        let warning = match unused.as_slice() {
            [] => String::new(),
            patterns => format!("; no parameter's name fits schedule.groups {}", patterns.join(", ")),
        };
        Ok(format!(
            "learning rate {} = {} for batch {} scaled to batch {}; {} trainable tensors, {} frozen{warning}",
            scale_lr(s.lr, s.reference_batch, s.batch)?,
            s.lr,
            s.reference_batch,
            s.batch,
            self.student.len(),
            self.plan.manifest.frozen.len()
        ))
    }

    fn train(&mut self, done: usize, sink: &mut dyn EventSink) -> Result<RunSummary> {
        let recipe = self.plan.recipe;
        let loader = train_loader(self.plan.data, &recipe.data, recipe.schedule.batch, recipe.seed)?;
        let mut step = done;
        let mut ended = None;
        for epoch in self.epochs_done..self.plan.epochs {
            let mut waited = Instant::now();
            let mut saved = step;
            for items in loader.epoch_from(epoch, step - epoch * self.steps_per_epoch) {
                let device = self.learner.store.device();
                let size = recipe.schedule.batch / recipe.schedule.accumulate;
                let items = match items {
                    Ok(items) => items,
                    // A picture that cannot be read ends the run; the steps before it need not be made again.
                    Err(fault) => {
                        if step > saved {
                            self.save(step, epoch, sink)?;
                        }
                        let text = format!(
                            "{}: stopped after step {step}, which is saved; with the file repaired, --resume goes on",
                            self.plan.name
                        );
                        sink.event(&Event::Warning { text })?;
                        return Err(fault.into());
                    }
                };
                let parts = items.chunks(size).map(|part| Batch::new(part, device)).collect::<Result<Vec<_>>>()?;
                let data_seconds = waited.elapsed().as_secs_f64();
                let mut record = self.step(step, epoch, &parts)?;
                step += 1;
                record.data_seconds = data_seconds;
                record.step_seconds = waited.elapsed().as_secs_f64();
                record.memory_mib = resident_mib();
                self.seconds += record.step_seconds;
                sink.event(&Event::Step(record))?;
                // An epoch's end is saved below.
                if !step.is_multiple_of(self.steps_per_epoch) {
                    let stop = self.plan.stop.requested();
                    if stop || step.is_multiple_of(recipe.checkpoint.steps) {
                        self.save(step, epoch, sink)?;
                        saved = step;
                    }
                    self.plan.stop.check(self.plan.name, step)?;
                }
                waited = Instant::now();
            }
            if epoch + 1 == self.plan.epochs {
                // Its evaluation is the final one.
                self.save(step, epoch, sink)?;
                break;
            }
            let every = recipe.eval.every;
            if every > 0 && (epoch + 1).is_multiple_of(every) {
                if self.plan.early_stop.is_some() {
                    // The evaluation may be the final one, to which a resume comes back.
                    self.save(step, epoch, sink)?;
                }
                match self.score(step, epoch + 1, sink) {
                    // This state comes back to the evaluation.
                    Err(stopped @ Error::Stopped { .. }) => {
                        self.save(step, epoch, sink)?;
                        return Err(stopped);
                    }
                    result => {
                        let result = result?;
                        if self.stops_early(result.metrics.ap(), epoch + 1, sink)? {
                            ended = Some(result);
                            break;
                        }
                    }
                }
            }
            self.save(step, epoch + 1, sink)?;
            self.plan.stop.check(self.plan.name, step)?;
        }
        let Evaluation { metrics, detections, .. } = match ended {
            Some(result) => result,
            None => self.score(step, self.plan.epochs, sink)?,
        };
        docent_coco::write_results(&self.folder.detections(), &detections)?;
        let Learner { model, store } = self.learner;
        let cost =
            self.with_reported(|| cost(model, store, &self.plan.data.val, &recipe.data, recipe.eval.timed_images))?;
        let checkpoint = Path::new(self.plan.name).join("checkpoints/last.safetensors");
        Ok(RunSummary::new(&metrics, &cost, self.seconds, step, checkpoint))
    }

    /// Forward, backward and update; `step` counts from 0.
    fn step(&mut self, step: usize, epoch: usize, parts: &[Batch]) -> Result<StepRecord> {
        let recipe = self.plan.recipe;
        let progress = Progress {
            epoch: epoch + 1,
            epochs: self.plan.epochs,
            iteration: step + 1,
            iterations: self.schedule.total_steps(),
            milestones: self.schedule.milestone_steps(),
        };
        let lesson = self.teaching.map(|t| Lesson { teacher: t.teacher, distiller: t.distiller, cache: Some(t.cache) });
        let params = [self.student.as_slice(), self.adapters.as_slice()];
        let diagnose = recipe.diagnose.every > 0 && step.is_multiple_of(recipe.diagnose.every);
        let model = self.learner.model;
        let out = update(model, lesson.as_ref(), parts, &progress, recipe.seed, &params, diagnose)?;
        self.images = parts.iter().flat_map(|part| part.ids.iter().copied()).collect();
        let Some(grads) = out.gradients else {
            let losses = format!("(detection losses {:?}, distillation {:?})", out.detection, out.distill);
            return Err(self.diverged(step + 1, format!("the loss is {} {losses}", out.total)));
        };
        let bound = Some(recipe.schedule.clip).filter(|clip| *clip > 0.0);
        let clip = clip_grad_norm(&self.student, &grads, bound)?;
        if !clip.is_finite() {
            return Err(self.diverged(step + 1, format!("the gradient's norm is {}", clip.norm)));
        }
        let lr = self.schedule.lr(step);
        self.optimizer.step(&grads, lr, clip.factor)?;
        let mut adapter_grad_norm = None;
        if !self.adapters.is_empty() {
            let clip = clip_grad_norm(&self.adapters, &grads, bound)?;
            if !clip.is_finite() {
                return Err(self.diverged(step + 1, format!("the adapters' gradient norm is {}", clip.norm)));
            }
            self.adapter_optimizer.step(&grads, lr, clip.factor)?;
            adapter_grad_norm = Some(clip.norm);
        }
        if let Some(ema) = &mut self.ema {
            ema.update(step + 1)?;
        }
        let [rpn_objectness, rpn_box, head_class, head_box] = out.detection;
        Ok(StepRecord {
            step: step + 1,
            steps: self.schedule.total_steps(),
            epoch: epoch + 1,
            lr,
            rpn_objectness,
            rpn_box,
            head_class,
            head_box,
            total: out.total,
            grad_norm: clip.norm,
            adapter_grad_norm,
            positives: out.positives,
            data_seconds: 0.0,
            step_seconds: 0.0,
            memory_mib: 0.0,
            distill: out.distill,
            diagnosis: out.diagnosis,
        })
    }

    /// The error of a step that has left no number to go on with.
    fn diverged(&self, step: usize, what: String) -> Error {
        Error::Diverged { run: self.plan.name.to_owned(), step, images: self.images.clone(), what }
    }

    /// A weight that is not finite is the fault of the step whose update made it so.
    fn finite<T>(&self, step: usize, checked: Result<T>) -> Result<T> {
        checked.map_err(|error| match error {
            Error::Param { name, message } => self.diverged(step, format!("parameter `{name}` {message}")),
            other => other,
        })
    }

    /// Scores the held-out split and keeps the weights if they are the best so far.
    fn score(&mut self, step: usize, epoch: usize, sink: &mut dyn EventSink) -> Result<Evaluation> {
        let recipe = self.plan.recipe;
        let val = &self.plan.data.val;
        let result = self.with_reported(|| {
            evaluate(self.learner.model, val, &recipe.data, recipe.eval.batch, |done, total| {
                self.plan.stop.check(self.plan.name, step)?;
                sink.event(&Event::Evaluating { done, total })
            })
        })?;
        let m = &result.metrics;
        sink.event(&Event::Evaluated(EvalRecord {
            step,
            epoch,
            ap: m.ap(),
            ap50: m.ap50(),
            ap75: m.ap75(),
            seconds: result.seconds,
        }))?;
        if self.best.is_none_or(|best| m.ap() > best.ap) {
            let model = self.reported(&self.learner.store.snapshot()?)?;
            self.finite(step, model.iter().try_for_each(|(name, tensor)| check_finite(name, tensor)))?;
            save_checkpoint(&self.folder.best(), &model, &self.meta(step)?)?;
            self.best = Some(Best { step, ap: m.ap() });
        }
        Ok(result)
    }

    /// Calls `f` while the model holds the weights that are reported: their moving average, where there is one.
    fn with_reported<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        match &self.ema {
            Some(ema) => ema.applied(self.learner.store, f),
            None => f(),
        }
    }

    /// The weights that are reported, of those that are trained.
    fn reported(&self, trained: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = trained.clone();
        if let Some(ema) = &self.ema {
            tensors.extend(ema.state()?);
        }
        Ok(tensors)
    }

    /// Has AP risen so little for so long that the run ends with this evaluation?
    fn stops_early(&mut self, ap: f64, epoch: usize, sink: &mut dyn EventSink) -> Result<bool> {
        let Some(rule) = &self.plan.early_stop else { return Ok(false) };
        if !self.patience.exhausted_by(ap, rule) {
            return Ok(false);
        }
        let text = format!(
            "{}: stopped early after epoch {epoch} of {}: AP has not risen by more than {} in {} evaluations",
            self.plan.name, self.plan.epochs, rule.min_delta, rule.patience
        );
        sink.event(&Event::Note { text })?;
        Ok(true)
    }

    fn meta(&self, step: usize) -> Result<BTreeMap<String, String>> {
        let categories = self.plan.data.val.categories();
        let recipe = self.plan.recipe;
        CheckpointMeta::new(self.learner.model.config(), categories, &recipe.data.resize, &recipe.name, step)?.to_map()
    }
}
