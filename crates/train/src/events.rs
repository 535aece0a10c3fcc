//! What the loop says: typed events, and the writers that take them. Nothing in the loop knows a writer.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, files};

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
    /// Gated share, mask mass, the class term's floor, ...
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
    /// RPN objectness loss.
    pub rpn_objectness: f64,
    /// RPN box loss.
    pub rpn_box: f64,
    /// Box head's class loss.
    pub head_class: f64,
    /// Box head's box loss.
    pub head_box: f64,
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

impl EventSink for Fanout<'_> {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.event(event))
    }

    fn sync(&mut self) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.sync())
    }
}

/// Writes steps, evaluations and notes as lines of JSON: `metrics.jsonl`.
pub struct JsonlWriter {
    path: PathBuf,
    file: BufWriter<File>,
    last_step: usize,
}

impl JsonlWriter {
    /// Opens `path`, keeping of an earlier start what came before a state of `steps` steps and `epochs` epochs with their evaluations.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn resume(path: &Path, steps: usize, epochs: usize) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let (mut kept, mut last_step) = (String::new(), 0);
        if steps > 0 {
            for line in files::read_lines(path)?.unwrap_or_default().lines() {
                // A line that a killed process left half-written ends what can be kept.
                let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { break };
                // What followed the state comes again.
                let later = |key: &str, bound: usize| event[key].as_u64().is_some_and(|n| n > bound as u64);
                if later("step", steps) || (event["event"] == "evaluated" && later("epoch", epochs)) {
                    break;
                }
                if event["event"] == "step" {
                    last_step = event["step"].as_u64().map_or(last_step, |step| step as usize);
                }
                kept.push_str(line);
                kept.push('\n');
            }
        }
        files::write_atomic(path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(io)?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), last_step })
    }

    /// The last step that an earlier start has left; 0 where there is none.
    pub fn last_step(&self) -> usize {
        self.last_step
    }
}

impl EventSink for JsonlWriter {
    fn event(&mut self, event: &Event) -> Result<()> {
        if matches!(event, Event::Evaluating { .. }) {
            return Ok(());
        }
        let line = serde_json::to_string(event).map_err(|e| Error::file(&self.path, e.to_string()))?;
        // One write a line: a reader never sees half a step while the run lives.
        writeln!(self.file, "{line}").and_then(|()| self.file.flush()).map_err(|e| Error::io(&self.path, e))
    }

    fn sync(&mut self) -> Result<()> {
        self.file.get_ref().sync_data().map_err(|e| Error::io(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(step: usize, epoch: usize) -> Event {
        Event::Evaluated(EvalRecord { step, epoch, ap: 0.5, ap50: 0.7, ap75: 0.4, seconds: 1.0 })
    }

    fn checkpoint(step: usize) -> Event {
        Event::Checkpoint { path: "last.state.safetensors".into(), step }
    }

    #[test]
    fn resuming_keeps_what_belongs_to_the_checkpoint_and_drops_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let write = |(steps, epochs): (usize, usize), events: &[Event]| {
            let mut writer = JsonlWriter::resume(&path, steps, epochs).unwrap();
            events.iter().for_each(|e| writer.event(e).unwrap());
        };
        let read = || -> Vec<Event> {
            let text = std::fs::read_to_string(&path).unwrap();
            text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
        };
        // Two epochs of two steps; the state of step 2 was written before the evaluation and after it.
        let whole =
            [checkpoint(1), checkpoint(2), scored(2, 1), checkpoint(2), checkpoint(3), checkpoint(4), scored(4, 2)];
        let progress = Event::Evaluating { done: 1, total: 2 };
        let begin = || write((0, 0), &[&whole[..], std::slice::from_ref(&progress)].concat());
        begin();
        assert_eq!(read(), whole, "progress of an evaluation is not kept");
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"event\":\"evalu");
        std::fs::write(&path, text).unwrap();
        write((4, 2), &[scored(5, 2)]);
        assert_eq!(read(), [&whole[..], &[scored(5, 2)]].concat(), "the torn line is gone");
        for (state, kept) in [((4, 1), 6), ((3, 1), 5), ((2, 1), 4), ((2, 0), 2), ((1, 0), 1), ((0, 0), 0)] {
            begin();
            write(state, &[]);
            assert_eq!(read(), whole[..kept], "{state:?}");
        }
        std::fs::remove_file(&path).unwrap();
        write((2, 1), &[checkpoint(3)]);
        assert_eq!(read(), [checkpoint(3)]);
    }
}
