//! The learning rate at each step: linear warm-up, then steps or a cosine.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrDecay {
    /// Multiplied by `gamma` at each milestone.
    #[default]
    Step,
    /// Half a cosine from 1 to `final_factor` over the whole run.
    Cosine,
    /// Not at all.
    Constant,
}

/// What a milestone counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MilestoneUnit {
    /// Share of all steps: 0.7 is reached after 70% of them.
    #[default]
    Fraction,
    /// Finished epochs: 8 is reached when the ninth epoch begins (mmdetection's and torchvision's counting).
    Epoch,
}

/// The shape of the learning rate over a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// `step` (default), `cosine` or `constant`.
    pub decay: LrDecay,
    /// Where `step` falls; default `[0.7, 0.9]`.
    pub milestones: Vec<f64>,
    /// `fraction` (default) or `epoch`.
    pub unit: MilestoneUnit,
    /// The factor of each milestone; default 0.1.
    pub gamma: f64,
    /// Where `cosine` ends, as a factor of the base rate; default 0.
    pub final_factor: f64,
    /// Steps of linear warm-up; default 50, 0 is none. Never more than half the run is spent on it.
    pub warmup_iters: usize,
    /// The first step's factor; default 0.001, as in torchvision's reference.
    pub warmup_start: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            decay: LrDecay::Step,
            milestones: vec![0.7, 0.9],
            unit: MilestoneUnit::Fraction,
            gamma: 0.1,
            final_factor: 0.0,
            warmup_iters: 50,
            warmup_start: 1e-3,
        }
    }
}

impl ScheduleConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// The first field out of range: factors lie in 0..=1, milestones rise and are positive, a fraction is at most 1.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in
            [("gamma", self.gamma), ("final_factor", self.final_factor), ("warmup_start", self.warmup_start)]
        {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::config(field, format!("{value} is not in 0..=1")));
            }
        }
        for (i, &m) in self.milestones.iter().enumerate() {
            if !m.is_finite() || m <= 0.0 || (i > 0 && m <= self.milestones[i - 1]) {
                return Err(Error::config("milestones", format!("{:?}: must be above 0 and rise", self.milestones)));
            }
            if self.unit == MilestoneUnit::Fraction && m > 1.0 {
                let hint = "lies beyond the run; with unit = \"epoch\" it would count epochs";
                return Err(Error::config("milestones", format!("{m} {hint}")));
            }
        }
        Ok(())
    }
}

/// A [`ScheduleConfig`] with a base rate and a length: asks nothing but the step, so a resumed run follows the same curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    base: f64,
    total: usize,
    warmup: usize,
    milestones: Vec<usize>,
    config: ScheduleConfig,
}

impl Schedule {
    /// `base` is the rate with factor 1; the run has `epochs * steps_per_epoch` steps.
    ///
    /// # Errors
    /// An invalid config, a base rate that is negative or not finite, a run without steps.
    pub fn new(config: &ScheduleConfig, base: f64, epochs: usize, steps_per_epoch: usize) -> Result<Self> {
        config.validate()?;
        if !base.is_finite() || base < 0.0 {
            return Err(Error::config("lr", format!("{base} is no learning rate")));
        }
        let total = epochs * steps_per_epoch;
        if total == 0 {
            return Err(Error::config(
                "epochs",
                format!("{epochs} epochs of {steps_per_epoch} steps: nothing to train"),
            ));
        }
        let steps = |m: f64| match config.unit {
            MilestoneUnit::Fraction => (m * total as f64).round() as usize,
            MilestoneUnit::Epoch => (m * steps_per_epoch as f64).round() as usize,
        };
        let milestones = config.milestones.iter().map(|&m| steps(m)).collect();
        // A short run with a long warm-up would never reach its rate.
        let warmup = config.warmup_iters.min(total / 2);
        Ok(Self { base, total, warmup, milestones, config: config.clone() })
    }

    /// The learning rate of step `step`, counted from 0.
    pub fn lr(&self, step: usize) -> f64 {
        self.base * self.factor(step)
    }

    /// The rate's factor at `step`: the warm-up's `start + (1 - start) * step / warmup` while it lasts, times the decay's.
    pub fn factor(&self, step: usize) -> f64 {
        let c = &self.config;
        let warm = if step < self.warmup {
            c.warmup_start + (1.0 - c.warmup_start) * step as f64 / self.warmup as f64
        } else {
            1.0
        };
        let decay = match c.decay {
            LrDecay::Constant => 1.0,
            // A product, not a power: the same bits on every machine.
            LrDecay::Step => self.milestones.iter().filter(|&&m| step >= m).fold(1.0, |f, _| f * c.gamma),
            LrDecay::Cosine => {
                let done = step.min(self.total) as f64 / self.total as f64;
                c.final_factor + (1.0 - c.final_factor) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        };
        warm * decay
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> usize {
        self.total
    }

    /// Steps at which the rate falls (empty unless the decay is by steps).
    pub fn milestone_steps(&self) -> &[usize] {
        if self.config.decay == LrDecay::Step { &self.milestones } else { &[] }
    }
}

/// The linear scaling rule: `lr` was meant for `reference_batch` images a step, this is the rate for `batch`
/// (Goyal et al., *Accurate, Large Minibatch SGD*, 2017).
///
/// # Errors
/// A batch of 0.
pub fn scale_lr(lr: f64, reference_batch: usize, batch: usize) -> Result<f64> {
    if reference_batch == 0 || batch == 0 {
        return Err(Error::config(
            "batch",
            format!("batch {batch}, reference {reference_batch}: both must be at least 1"),
        ));
    }
    Ok(lr * batch as f64 / reference_batch as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} instead of {b}");
    }

    #[test]
    fn warm_up_is_linear_and_ends_at_the_base_rate() {
        let config = ScheduleConfig { warmup_iters: 4, warmup_start: 0.2, ..ScheduleConfig::default() };
        let s = Schedule::new(&config, 0.02, 10, 10).unwrap();
        // torch.optim.lr_scheduler.LinearLR(start_factor=0.2, total_iters=4) at lr 0.02
        for (step, want) in [0.004, 0.008, 0.012, 0.016, 0.02, 0.02].into_iter().enumerate() {
            close(s.lr(step), want);
        }
        let short = Schedule::new(&ScheduleConfig { warmup_iters: 500, ..config }, 1.0, 1, 10).unwrap();
        close(short.lr(5), 1.0);
        assert!(short.lr(4) < 1.0);
    }

    #[test]
    fn steps_by_fraction_and_by_epoch() {
        let config = ScheduleConfig { warmup_iters: 0, ..ScheduleConfig::default() };
        let s = Schedule::new(&config, 1.0, 2, 50).unwrap();
        assert_eq!(s.milestone_steps(), [70, 90]);
        for (step, want) in [(0, 1.0), (69, 1.0), (70, 0.1), (89, 0.1), (90, 0.01), (99, 0.01)] {
            close(s.lr(step), want);
        }
        let config =
            ScheduleConfig { milestones: vec![8.0, 11.0], unit: MilestoneUnit::Epoch, warmup_iters: 0, ..config };
        let s = Schedule::new(&config, 0.02, 12, 7).unwrap();
        assert_eq!(s.milestone_steps(), [56, 77]);
        close(s.lr(55), 0.02);
        close(s.lr(56), 0.002);
        close(s.lr(83), 0.0002);
    }

    #[test]
    fn cosine_and_constant() {
        let config = ScheduleConfig { decay: LrDecay::Cosine, warmup_iters: 0, ..ScheduleConfig::default() };
        let s = Schedule::new(&config, 2.0, 1, 8).unwrap();
        for (step, want) in [(0, 2.0), (2, 1.0 + 0.5f64.sqrt()), (4, 1.0), (8, 0.0), (9, 0.0)] {
            close(s.lr(step), want);
        }
        assert!(s.milestone_steps().is_empty());
        let s = Schedule::new(&ScheduleConfig { final_factor: 0.1, ..config.clone() }, 2.0, 1, 8).unwrap();
        close(s.lr(8), 0.2);
        let s = Schedule::new(&ScheduleConfig { decay: LrDecay::Constant, ..config }, 2.0, 1, 8).unwrap();
        close(s.lr(7), 2.0);
    }

    #[test]
    fn bad_settings_are_named() {
        let ok = ScheduleConfig::default();
        for (config, field) in [
            (ScheduleConfig { gamma: -0.1, ..ok.clone() }, "gamma"),
            (ScheduleConfig { gamma: f64::NAN, ..ok.clone() }, "gamma"),
            (ScheduleConfig { final_factor: 2.0, ..ok.clone() }, "final_factor"),
            (ScheduleConfig { warmup_start: 1.5, ..ok.clone() }, "warmup_start"),
            (ScheduleConfig { milestones: vec![0.9, 0.7], ..ok.clone() }, "milestones"),
            (ScheduleConfig { milestones: vec![0.0], ..ok.clone() }, "milestones"),
            (ScheduleConfig { milestones: vec![8.0], ..ok.clone() }, "epoch"),
        ] {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
        assert!(Schedule::new(&ok, f64::NAN, 1, 1).is_err());
        assert!(Schedule::new(&ok, 0.1, 0, 5).is_err());
    }

    #[test]
    fn missing_fields_take_defaults_and_unknown_ones_are_refused() {
        let read = |text: &str| serde_json::from_str::<ScheduleConfig>(text);
        let config = read(r#"{"decay": "step", "milestones": [8, 11], "unit": "epoch", "warmup_iters": 500}"#).unwrap();
        assert_eq!((config.milestones, config.warmup_iters, config.gamma), (vec![8.0, 11.0], 500, 0.1));
        assert!(read(r#"{"warmup": 500}"#).is_err());
        assert!(read(r#"{"decay": "poly"}"#).is_err());
    }

    #[test]
    fn the_rate_scales_with_the_batch() {
        close(scale_lr(0.02, 16, 4).unwrap(), 0.005);
        close(scale_lr(0.02, 4, 4).unwrap(), 0.02);
        assert!(scale_lr(0.02, 0, 4).is_err() && scale_lr(0.02, 4, 0).is_err());
    }
}
