//! A run: one training, one folder.
//!
//! The folder is a contract: `recipe.toml`, `manifest.json`, `metrics.jsonl`, `checkpoints/{last,best}.safetensors` beside
//! `checkpoints/last.state.safetensors` and the state before it, `tensorboard/` where that is wanted, and `detections.json` and
//! `result.json` once it is finished.

mod folder;
mod saved;
mod state;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use docent_model::{CheckpointMeta, files, save_checkpoint};
use docent_train::evaluate::{Evaluation, cost, evaluate};
use docent_train::events::{EvalRecord, Event, EventSink, Fanout};
use docent_train::{
    Batch, CancelToken, EarlyStop, Patience, StudentModel, TeacherContext, Trainer, TrainerConfig, scale_lr,
};

use crate::data::{Data, train_loader};
use crate::error::{Error, Result};
use crate::jsonl::JsonlWriter;
use crate::manifest::{Manifest, resident_mib};
use crate::recipe::Recipe;
use crate::recipe_identity;
use crate::summary::RunSummary;
use crate::tensorboard::TensorBoardWriter;
use state::check_finite;

pub use folder::RunFolder;
pub use state::{Best, RunState, STATE_FORMAT};

/// What a run trains, and from what.
pub struct RunPlan<'a> {
    /// Name in the study: `teacher`, `alone`, `distilled`.
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
    pub cancel: &'a CancelToken,
}

/// Trains, evaluates and writes the folder; goes on after a checkpoint that is there already.
///
/// # Errors
/// [`Error::Stopped`] after a request to stop, with everything up to there kept. When data cannot be read, something cannot be
/// written, or a loss or gradient is not finite (the step and its images are named; the last checkpoint stays).
pub fn run(
    plan: &RunPlan<'_>,
    student: StudentModel<'_>,
    teacher: Option<TeacherContext<'_>>,
    sink: &mut dyn EventSink,
) -> Result<RunSummary> {
    let folder = RunFolder::new(plan.study, plan.name);
    let mut run = Run::new(plan, student, teacher, &folder)?;
    run.restore()?;
    let done = run.trainer.steps_done();
    run.check_cancel()?;
    files::create_dir(&folder.path().join("checkpoints"))?;
    files::write_atomic(&folder.recipe(), plan.recipe.to_toml()?.as_bytes())?;
    files::write_json(&folder.manifest(), &plan.manifest)?;

    let mut log = JsonlWriter::resume(&folder.metrics(), done, run.epochs_done)?;
    let logged = log.last_step();
    let mut board = match plan.recipe.log.tensorboard {
        true => {
            let recipe = plan.recipe.to_toml()?;
            Some(TensorBoardWriter::resume(&folder.tensorboard(), done, run.epochs_done, &recipe)?)
        }
        false => None,
    };
    let mut writers: Vec<&mut dyn EventSink> = vec![&mut log];
    writers.extend(board.as_mut().map(|board| board as &mut dyn EventSink));
    writers.push(sink);
    let mut sink = Fanout::new(writers);
    sink.event(&Event::RunStarted { run: plan.name.to_owned(), steps: run.trainer.total_steps(), done })?;
    for text in std::mem::take(&mut run.warnings) {
        sink.event(&Event::Warning { text })?;
    }
    if logged < done {
        let text = format!("{} lacks steps {} to {done}: they were lost", folder.metrics().display(), logged + 1);
        sink.event(&Event::Warning { text })?;
    }
    sink.event(&Event::Note { text: run.rate_note()? })?;
    let start = Instant::now();
    let summary = run.train(&mut sink)?;
    files::write_json(&folder.result(), &summary)?;
    sink.event(&Event::RunFinished { run: plan.name.to_owned(), seconds: start.elapsed().as_secs_f64() })?;
    Ok(summary)
}

/// A run between two steps: the trainer, and what its folder needs besides.
struct Run<'a> {
    plan: &'a RunPlan<'a>,
    student: StudentModel<'a>,
    folder: &'a RunFolder,
    trainer: Trainer<'a>,
    steps_per_epoch: usize,
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

impl<'a> Run<'a> {
    fn new(
        plan: &'a RunPlan<'a>,
        student: StudentModel<'a>,
        teacher: Option<TeacherContext<'a>>,
        folder: &'a RunFolder,
    ) -> Result<Self> {
        let t = &plan.recipe.train;
        let steps_per_epoch = plan.data.train.len().div_ceil(t.batch);
        let lr = scale_lr(t.lr, t.reference_batch, t.batch)?;
        let config = TrainerConfig::new(plan.epochs, steps_per_epoch, lr)
            .seed(plan.recipe.seed)
            .lr_schedule(t.lr_schedule.clone())
            .optimizer(t.optimizer())
            .max_grad_norm(Some(t.max_grad_norm).filter(|bound| *bound > 0.0))
            .ema(t.ema);
        Ok(Self {
            plan,
            student,
            folder,
            trainer: Trainer::new(config, student, teacher)?,
            steps_per_epoch,
            seconds: 0.0,
            best: None,
            patience: Patience::default(),
            epochs_done: 0,
            images: Vec::new(),
            warnings: Vec::new(),
            recipe_digest: recipe_identity::digest(plan.recipe)?,
        })
    }

    fn rate_note(&self) -> Result<String> {
        let t = &self.plan.recipe.train;
        let warning = match self.trainer.unused_groups().as_slice() {
            [] => String::new(),
            patterns => format!("; no parameter's name fits train.groups {}", patterns.join(", ")),
        };
        Ok(format!(
            "learning rate {} = {} for batch {} scaled to batch {}; {} trainable tensors, {} frozen{warning}",
            scale_lr(t.lr, t.reference_batch, t.batch)?,
            t.lr,
            t.reference_batch,
            t.batch,
            self.trainer.trainable(),
            self.plan.manifest.frozen.len()
        ))
    }

    /// [`Error::Stopped`] when a stop was asked for.
    fn check_cancel(&self) -> Result<()> {
        self.plan.cancel.check().map_err(|e| self.named(e))
    }

    /// The error with the run's name and its step.
    fn named(&self, error: impl Into<Error>) -> Error {
        Error::in_run(error, self.plan.name, self.trainer.steps_done())
    }

    fn train(&mut self, sink: &mut dyn EventSink) -> Result<RunSummary> {
        let recipe = self.plan.recipe;
        let loader = train_loader(self.plan.data, &recipe.data, recipe.train.batch, recipe.seed)?;
        let part = recipe.train.batch / recipe.train.accumulation_steps;
        let mut ended = None;
        for epoch in self.epochs_done..self.plan.epochs {
            let mut waited = Instant::now();
            let mut saved = self.trainer.steps_done();
            for items in loader.epoch_from(epoch, saved - epoch * self.steps_per_epoch) {
                let items = match items {
                    Ok(items) => items,
                    // An image that cannot be read ends the run; the steps before it need not be made again.
                    Err(fault) => {
                        let step = self.trainer.steps_done();
                        if step > saved {
                            self.save(epoch, sink)?;
                        }
                        let text = format!(
                            "{}: stopped after step {step}, which is saved; with the file repaired, --resume goes on",
                            self.plan.name
                        );
                        sink.event(&Event::Warning { text })?;
                        return Err(fault.into());
                    }
                };
                let device = self.student.store.device();
                let parts = items.chunks(part).map(|part| Batch::new(part, device));
                let parts = parts.collect::<docent_train::Result<Vec<_>>>()?;
                let data_seconds = waited.elapsed().as_secs_f64();
                self.images = parts.iter().flat_map(Batch::ids).collect();
                let every = recipe.diagnose.every;
                let diagnose = every > 0 && self.trainer.steps_done().is_multiple_of(every);
                let mut record = self.trainer.step(&parts, diagnose).map_err(|e| self.named(e))?;
                record.data_seconds = data_seconds;
                record.step_seconds = waited.elapsed().as_secs_f64();
                record.memory_mib = resident_mib();
                let step = record.step;
                self.seconds += record.step_seconds;
                sink.event(&Event::Step(record))?;
                // An epoch's end is saved below.
                if !step.is_multiple_of(self.steps_per_epoch) {
                    if self.plan.cancel.requested() || step.is_multiple_of(recipe.checkpoint.steps) {
                        self.save(epoch, sink)?;
                        saved = step;
                    }
                    self.check_cancel()?;
                }
                waited = Instant::now();
            }
            if epoch + 1 == self.plan.epochs {
                // Its evaluation is the final one.
                self.save(epoch, sink)?;
                break;
            }
            let every = recipe.eval.every;
            if every > 0 && (epoch + 1).is_multiple_of(every) {
                if self.plan.early_stop.is_some() {
                    // The evaluation may be the final one, to which a resume comes back.
                    self.save(epoch, sink)?;
                }
                match self.score(epoch + 1, sink) {
                    // This state comes back to the evaluation.
                    Err(stopped @ Error::Stopped { .. }) => {
                        self.save(epoch, sink)?;
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
            self.save(epoch + 1, sink)?;
            self.check_cancel()?;
        }
        let Evaluation { metrics, detections, .. } = match ended {
            Some(result) => result,
            None => self.score(self.plan.epochs, sink)?,
        };
        docent_coco::write_results(&self.folder.detections(), &detections)?;
        let StudentModel { model, store } = self.student;
        let (val, loading) = (&self.plan.data.val, recipe.data.eval_loading());
        let cost = self.trainer.with_reported(|| cost(model, store, val, &loading, recipe.eval.timed_images))?;
        let checkpoint = Path::new(self.plan.name).join("checkpoints/last.safetensors");
        Ok(RunSummary::new(&metrics, &cost, self.seconds, self.trainer.steps_done(), checkpoint))
    }

    /// A weight that is not finite is the fault of the step whose update made it so.
    fn finite<T>(&self, checked: Result<T>) -> Result<T> {
        checked.map_err(|error| {
            let Error::Model(fault) = &error else { return error };
            let docent_model::Error::Param { name, message } = &**fault else { return error };
            let (step, images) = (self.trainer.steps_done(), self.images.clone());
            let what = format!("parameter `{name}` {message}");
            self.named(docent_train::Error::Diverged { step, images, what })
        })
    }

    /// Scores the held-out split and keeps the weights if they are the best so far.
    fn score(&mut self, epoch: usize, sink: &mut dyn EventSink) -> Result<Evaluation> {
        let Recipe { data, eval, .. } = self.plan.recipe;
        let (val, step) = (&self.plan.data.val, self.trainer.steps_done());
        let result = self.trainer.with_reported(|| {
            evaluate(self.student.model, val, &data.eval_loading(), eval.batch, |done, total| {
                self.plan.cancel.check()?;
                sink.event(&Event::Evaluating { done, total })
            })
        });
        let result = result.map_err(|e| self.named(e))?;
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
            let model = self.trainer.reported(&self.trainer.state()?);
            self.finite(model.iter().try_for_each(|(name, tensor)| check_finite(name, tensor)))?;
            save_checkpoint(&self.folder.best(), &model, &self.meta()?)?;
            self.best = Some(Best { step, ap: m.ap() });
        }
        Ok(result)
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

    fn meta(&self) -> Result<BTreeMap<String, String>> {
        let (recipe, categories) = (self.plan.recipe, self.plan.data.val.categories());
        let (config, step) = (self.student.model.config(), self.trainer.steps_done());
        Ok(CheckpointMeta::new(&config, categories, &recipe.data.resize, &recipe.name, step)?.to_map()?)
    }
}
