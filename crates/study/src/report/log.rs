//! A run's `metrics.jsonl` as series of points.

use std::path::Path;

use docent_model::files;
use docent_train::events::{EvalRecord, Event, StepRecord};

use crate::error::Result;

/// A curve has at most this many points; each is the mean of as many steps as that takes.
const POINTS: usize = 240;

/// Steps and evaluations of a run.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) steps: Vec<StepRecord>,
    pub(crate) evaluations: Vec<EvalRecord>,
}

impl Log {
    /// Reads the log; one that is not there is empty. A line that cannot be read is passed over: a run may be writing it just now.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut log = Self::default();
        for line in files::read_lines(path)?.unwrap_or_default().lines() {
            match serde_json::from_str(line) {
                Ok(Event::Step(record)) => log.steps.push(record),
                Ok(Event::Evaluated(record)) => log.evaluations.push(record),
                _ => {}
            }
        }
        Ok(log)
    }

    /// How many steps a point of [`Self::series`] stands for.
    pub(crate) fn steps_a_point(&self) -> usize {
        self.steps.len().div_ceil(POINTS).max(1)
    }

    /// (step, value) of the steps that have it, averaged.
    pub(crate) fn series(&self, value: impl Fn(&StepRecord) -> Option<f64>) -> Vec<(f64, f64)> {
        let mean = |steps: &[StepRecord]| {
            let known: Vec<f64> = steps.iter().filter_map(&value).filter(|v| v.is_finite()).collect();
            let last = steps.last().filter(|_| !known.is_empty())?;
            Some((last.step as f64, known.iter().sum::<f64>() / known.len() as f64))
        };
        self.steps.chunks(self.steps_a_point()).filter_map(mean).collect()
    }

    /// (epoch, value) of the evaluations.
    pub(crate) fn by_epoch(&self, value: impl Fn(&EvalRecord) -> f64) -> Vec<(f64, f64)> {
        self.evaluations.iter().map(|e| (e.epoch as f64, value(e))).filter(|(_, v)| *v >= 0.0).collect()
    }

    /// The first record of a distillation step, which names the terms and the other figures.
    pub(crate) fn distillation(&self) -> Option<&docent_train::events::DistillRecord> {
        self.steps.iter().find_map(|s| s.distill.as_ref())
    }
}
