//! The factor r(t) over all three terms, and its warm-up.

use crate::config::{DecayKind, DecayUnit, TaskAdaptiveConfig};
use crate::progress::Progress;

/// The form of r(t).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decay {
    /// Linear, cosine, step or none.
    pub kind: DecayKind,
    /// What t counts in the linear and cosine forms.
    pub unit: DecayUnit,
    /// Value of the linear and cosine forms at `t_max + 1`.
    pub end: f64,
}

impl Default for Decay {
    fn default() -> Self {
        Self { kind: DecayKind::Linear, unit: DecayUnit::Epoch, end: 0.0 }
    }
}

impl Decay {
    /// The form that a config names.
    pub fn from_config(config: &TaskAdaptiveConfig) -> Self {
        Self { kind: config.decay, unit: config.decay_unit, end: config.decay_end }
    }

    /// `r(t)` for `t = 1..=t_max`; the step form, which knows milestones only, is 1 here (see [`Decay::factor`]).
    ///
    /// Linear: `1 - (1 - end)(t - 1)/t_max`. Cosine: `end + (1 - end)(1 + cos(pi (t - 1)/t_max))/2`.
    /// `t = 0` counts as 1, `t > t_max` gives `end`, and `t_max = 0` gives 1.
    pub fn at(&self, t: usize, t_max: usize) -> f64 {
        if t_max == 0 {
            return 1.0;
        }
        let done = (t.max(1) - 1).min(t_max) as f64 / t_max as f64;
        match self.kind {
            DecayKind::Linear => 1.0 - (1.0 - self.end) * done,
            DecayKind::Cosine => self.end + (1.0 - self.end) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            DecayKind::Step | DecayKind::None => 1.0,
        }
    }

    /// `r` at the run's progress. The step form is `0.1^(milestones passed)`, whatever the unit: a milestone is a step.
    pub fn factor(&self, progress: &Progress<'_>) -> f64 {
        if self.kind == DecayKind::Step {
            let passed = progress.milestones.iter().filter(|&&m| progress.iteration > m).count();
            return 0.1f64.powi(passed as i32);
        }
        match self.unit {
            DecayUnit::Epoch => self.at(progress.epoch, progress.epochs),
            DecayUnit::Iteration => self.at(progress.iteration, progress.iterations),
        }
    }
}

/// The warm-up's factor `min(1, iteration / warmup)`; 1 without a warm-up.
pub fn warmup_factor(iteration: usize, warmup: usize) -> f64 {
    if warmup == 0 {
        return 1.0;
    }
    (iteration as f64 / warmup as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(epoch: usize, iteration: usize, milestones: &[usize]) -> Progress<'_> {
        Progress { epoch, epochs: 12, iteration, iterations: 1200, milestones }
    }

    #[test]
    fn twelve_epochs_go_from_one_to_a_twelfth() {
        let r = Decay::default();
        assert_eq!(r.at(1, 12), 1.0);
        assert!((r.at(2, 12) - 11.0 / 12.0).abs() < 1e-15);
        assert!((r.at(12, 12) - 1.0 / 12.0).abs() < 1e-15);
        assert_eq!(r.at(13, 12), 0.0);
    }

    #[test]
    fn the_end_is_reached_one_unit_after_the_last() {
        for kind in [DecayKind::Linear, DecayKind::Cosine] {
            let r = Decay { kind, end: 0.25, ..Default::default() };
            assert_eq!(r.at(1, 8), 1.0);
            assert!((r.at(9, 8) - 0.25).abs() < 1e-12);
            assert!((r.at(5, 8) - 0.625).abs() < 1e-12, "half way is half way");
            assert!(r.at(8, 8) > 0.25);
        }
    }

    #[test]
    fn cosine_has_known_values() {
        let r = Decay { kind: DecayKind::Cosine, ..Default::default() };
        assert!((r.at(4, 12) - 0.853_553_390_593_273_8).abs() < 1e-12);
        assert!((r.at(10, 12) - 0.146_446_609_406_726_2).abs() < 1e-12);
    }

    #[test]
    fn steps_follow_the_learning_rate() {
        let r = Decay { kind: DecayKind::Step, ..Default::default() };
        let milestones = [800, 1100];
        for (iteration, want) in [(1, 1.0), (800, 1.0), (801, 0.1), (1100, 0.1), (1101, 0.01)] {
            assert!((r.factor(&progress(1, iteration, &milestones)) - want).abs() < 1e-15, "{iteration}");
        }
    }

    #[test]
    fn the_unit_chooses_the_clock() {
        let by_step = Decay { unit: DecayUnit::Iteration, ..Default::default() };
        let here = progress(2, 151, &[]);
        assert!((by_step.factor(&here) - (1.0 - 150.0 / 1200.0)).abs() < 1e-15);
        assert!((Decay::default().factor(&here) - 11.0 / 12.0).abs() < 1e-15);
        let none = Decay { kind: DecayKind::None, ..Default::default() };
        assert_eq!(none.factor(&here), 1.0);
    }

    #[test]
    fn warm_up_rises_and_stays() {
        assert_eq!(warmup_factor(1, 0), 1.0);
        assert_eq!(warmup_factor(1, 4), 0.25);
        assert_eq!(warmup_factor(4, 4), 1.0);
        assert_eq!(warmup_factor(400, 4), 1.0);
    }

    #[test]
    fn an_empty_run_has_no_division_by_zero() {
        assert_eq!(Decay::default().at(1, 0), 1.0);
        assert_eq!(Decay::default().at(0, 3), 1.0);
    }
}
