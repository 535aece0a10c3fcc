//! Figures of the last steps and evaluations of a run, and how a step is told.

use docent_study::summary::percent;
use docent_train::events::{EvalRecord, StepRecord};

/// Steps that a figure of the view is the mean of.
pub const WINDOW: usize = 20;

/// What is shown of a run beside its last step.
#[derive(Default)]
pub struct Recent {
    /// The last steps, the newest at the end.
    pub steps: Vec<StepRecord>,
    /// The last evaluation, and the one with the highest AP.
    pub last: Option<EvalRecord>,
    pub best: Option<EvalRecord>,
}

impl Recent {
    pub fn step(&mut self, record: &StepRecord) {
        if self.steps.len() == WINDOW {
            self.steps.remove(0);
        }
        self.steps.push(record.clone());
    }

    pub fn evaluated(&mut self, record: &EvalRecord) {
        if self.best.as_ref().is_none_or(|best| record.ap > best.ap) {
            self.best = Some(record.clone());
        }
        self.last = Some(record.clone());
    }

    pub fn mean(&self, of: impl Fn(&StepRecord) -> f64) -> f64 {
        self.steps.iter().map(of).sum::<f64>() / self.steps.len().max(1) as f64
    }

    /// Share of the recent steps' time in which the loop waited for data.
    pub fn data_share(&self) -> f64 {
        self.mean(|s| s.data_seconds) / self.mean(|s| s.step_seconds).max(1e-9)
    }

    /// Seconds that the run's other steps take at the recent pace; evaluations come on top.
    pub fn seconds_left(&self, record: &StepRecord) -> f64 {
        self.mean(|s| s.step_seconds) * record.steps.saturating_sub(record.step) as f64
    }

    /// The recent steps' mean as a step, so that single steps' noise does not flicker.
    pub fn smoothed(&self, record: &StepRecord) -> StepRecord {
        let mut mean = record.clone();
        for (name, value) in &mut mean.losses {
            *value = self.mean(|s| s.loss(name).unwrap_or(0.0));
        }
        mean.total = self.mean(|s| s.total);
        mean.grad_norm = self.mean(|s| s.grad_norm);
        if let Some(d) = &mut mean.distill {
            let of = |s: &StepRecord, i: usize| s.distill.as_ref().and_then(|d| d.terms.get(i)).cloned();
            for (i, term) in d.terms.iter_mut().enumerate() {
                term.raw = self.mean(|s| of(s, i).map_or(0.0, |t| t.raw));
                term.weighted = self.mean(|s| of(s, i).map_or(0.0, |t| t.weighted));
            }
            d.ratio = self.mean(|s| s.distill.as_ref().map_or(0.0, |d| d.ratio));
        }
        mean
    }

    /// The last AP, and the best one where that is another.
    pub fn ap(&self) -> String {
        match (&self.last, &self.best) {
            (Some(last), Some(best)) if best.epoch != last.epoch => format!(
                "AP {} after epoch {} (best {} after epoch {})",
                percent(last.ap),
                last.epoch,
                percent(best.ap),
                best.epoch
            ),
            (Some(last), _) => format!("AP {} after epoch {}", percent(last.ap), last.epoch),
            (None, _) => "AP not measured yet".to_owned(),
        }
    }
}

/// The detection losses, by the detector's names of them.
pub fn detection(record: &StepRecord) -> String {
    let losses: Vec<String> = record.losses.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
    losses.join(" ")
}

/// The distillation terms, raw and as they reach the total; r(t); their ratio to the detection losses.
pub fn distillation(record: &StepRecord) -> String {
    let Some(d) = &record.distill else { return String::new() };
    let terms: Vec<String> = d.terms.iter().map(|t| format!("{} {:.3}>{:.3}", t.name, t.raw, t.weighted)).collect();
    format!("{} r {:.3} ratio {:.2}", terms.join(" "), d.decay, d.ratio)
}

/// Seconds as h:mm:ss or m:ss.
pub fn clock(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    if s >= 3600 {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    } else {
        format!("{}:{:02}", s / 60, s % 60)
    }
}
