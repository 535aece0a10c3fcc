//! What the loop says: typed events, and the writers that take them. Nothing in the loop knows a writer.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::pairs;

/// One distillation term of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TermRecord {
    /// The distiller's name of it: `feat`, `cls`, `reg`.
    pub name: String,
    /// The loss before weight and decay.
    pub raw: f64,
    /// What reaches the total: r(t) * weight * raw.
    pub weighted: f64,
}

/// The distillation part of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DistillRecord {
    /// Every term, raw and weighted.
    pub terms: Vec<TermRecord>,
    /// r(t), the decay's factor.
    pub decay: f64,
    /// Sum of the weighted terms over the sum of the detection losses (0 where that is 0).
    pub ratio: f64,
    /// Gated share, mask sum, the teacher's entropy, ...
    #[serde(with = "pairs")]
    pub stats: Vec<(String, f64)>,
}

/// How detection and distillation pull at the student in one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Cosine between the gradient of the distillation and that of the detection losses, over the student's parameters; 0
    /// where one of them is 0.
    pub cosine: f64,
    /// 2-norm of the distillation's gradient over that of the detection losses' (0 where that is 0).
    pub norm_ratio: f64,
    /// Each weighted term over the sum of the detection losses, by name.
    #[serde(with = "pairs")]
    pub terms: Vec<(String, f64)>,
}

/// One training step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// 1-based number of the step in its run.
    pub step: usize,
    /// Steps of the whole run.
    pub steps: usize,
    /// 1-based epoch.
    pub epoch: usize,
    /// Learning rate of this step.
    pub lr: f64,
    /// The detection losses by name, as the detector names them.
    #[serde(with = "pairs")]
    pub losses: Vec<(String, f64)>,
    /// What is differentiated: detection plus distillation.
    pub total: f64,
    /// 2-norm of the student's gradient before clipping.
    pub grad_norm: f64,
    /// 2-norm of the adapters' gradient before clipping, where there are adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_grad_norm: Option<f64>,
    /// Positive proposals in the batch.
    pub positives: usize,
    /// Seconds the loop waited for data.
    pub data_seconds: f64,
    /// Seconds of the whole step, data included.
    pub step_seconds: f64,
    /// Resident memory in MiB after the step (0 where the system does not tell).
    pub memory_mib: f64,
    /// The distillation terms, in a distillation run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distill: Option<DistillRecord>,
    /// How the two losses pull, in the steps that `diagnose.every` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<Diagnosis>,
}

/// COCO figures at a point of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// Steps done.
    pub step: usize,
    /// Epochs done.
    pub epoch: usize,
    /// AP at IoU 0.50:0.95.
    pub ap: f64,
    /// AP at IoU 0.50.
    pub ap50: f64,
    /// AP at IoU 0.75.
    pub ap75: f64,
    /// Seconds the evaluation took.
    pub seconds: f64,
}

/// Anything a run or a study has to say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run begins or goes on.
    RunStarted {
        /// The run's name in its study.
        run: String,
        /// Steps of the whole run.
        steps: usize,
        /// Steps already done (after a resume).
        done: usize,
    },
    /// A finished run is not repeated.
    RunSkipped {
        /// The run's name in its study.
        run: String,
    },
    /// A step was made.
    Step(StepRecord),
    /// Images evaluated so far.
    Evaluating {
        /// Images done.
        done: usize,
        /// Images in all.
        total: usize,
    },
    /// The model was scored.
    Evaluated(EvalRecord),
    /// State was written.
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Steps done.
        step: usize,
    },
    /// A run ended.
    RunFinished {
        /// The run's name in its study.
        run: String,
        /// Seconds since it (re)started.
        seconds: f64,
    },
    /// Something went wrong and was got over: a damaged state, in whose place the one before it was taken.
    Warning {
        /// The sentence.
        text: String,
    },
    /// Something a reader of the log should know: a scaled rate, a frozen list, a dropped annotation.
    Note {
        /// The sentence.
        text: String,
    },
}

/// A writer of events.
pub trait EventSink {
    /// Takes one event.
    ///
    /// # Errors
    /// When it cannot be written; the run stops, with what was written so far intact.
    fn event(&mut self, event: &Event) -> Result<()>;

    /// Called before a state is written: what was taken so far must outlast a power cut that the state outlasts. A writer that
    /// keeps nothing has nothing to do.
    ///
    /// # Errors
    /// As [`EventSink::event`].
    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Several writers as one.
#[derive(Default)]
pub struct Fanout<'a> {
    sinks: Vec<&'a mut dyn EventSink>,
}

impl<'a> Fanout<'a> {
    /// All of `sinks`, in this order.
    pub fn new(sinks: Vec<&'a mut dyn EventSink>) -> Self {
        Self { sinks }
    }
}

impl StepRecord {
    /// The detection loss of this name.
    pub fn loss(&self, name: &str) -> Option<f64> {
        self.losses.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// The sum of the detection losses.
    pub fn detection(&self) -> f64 {
        self.losses.iter().map(|(_, value)| value).sum()
    }
}

impl EventSink for Fanout<'_> {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.event(event))
    }

    fn sync(&mut self) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.sync())
    }
}
