//! Early stopping: ends a training whose AP rises no more.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// When a training ends before its last epoch.
///
/// Only a run that nothing is compared with may stop early: a teacher, or a student that trains alone. Student alone and distilled
/// student share one schedule, and a run that ends where its own AP happens to stall would compare schedules instead.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// Evaluations in a row that may pass without a rise; at least 1.
    pub patience: usize,
    /// How much higher AP must be to count as a rise; AP lies in 0..1, so 0.001 is a tenth of a point. Default 0: any rise counts.
    #[serde(default)]
    pub min_delta: f64,
}

impl EarlyStop {
    /// Checks ranges.
    ///
    /// # Errors
    /// A patience of 0, a `min_delta` that is not in 0..1.
    pub fn validate(&self) -> Result<()> {
        if self.patience == 0 {
            return Err(Error::config("patience", "0 would end the training at its first evaluation; give at least 1"));
        }
        if !(0.0..1.0).contains(&self.min_delta) {
            return Err(Error::config("min_delta", format!("{} is no difference of two APs in 0..1", self.min_delta)));
        }
        Ok(())
    }
}

/// How long a run has waited for a rise; part of its state.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Patience {
    /// The highest AP that counted as a rise.
    pub reference: Option<f64>,
    /// Evaluations since then.
    pub waited: usize,
}

impl Patience {
    /// Takes an evaluation's AP; has the patience ended?
    pub fn exhausted_by(&mut self, ap: f64, rule: &EarlyStop) -> bool {
        match self.reference {
            Some(reference) if ap <= reference + rule.min_delta => self.waited += 1,
            _ => *self = Self { reference: Some(ap), waited: 0 },
        }
        self.waited >= rule.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_counts_evaluations_without_a_rise() {
        let rule = EarlyStop { patience: 2, min_delta: 0.01 };
        let stops = |aps: &[f64]| {
            let mut patience = Patience::default();
            aps.iter().position(|&ap| patience.exhausted_by(ap, &rule))
        };
        assert_eq!(stops(&[0.1, 0.2, 0.3, 0.4]), None);
        assert_eq!(stops(&[0.1, 0.1, 0.1]), Some(2));
        // A rise of less than the difference is none, and does not move the reference either: two small ones make a big one.
        assert_eq!(stops(&[0.1, 0.106, 0.112, 0.112, 0.112]), Some(4));
        assert_eq!(stops(&[0.1, 0.105, 0.109]), Some(2));
        assert_eq!(stops(&[0.3, 0.1, 0.32, 0.1, 0.1]), Some(4));
        // No truth at all (-1) is no rise.
        assert_eq!(stops(&[-1.0, -1.0, -1.0]), Some(2));
    }

    #[test]
    fn bad_settings_are_named() {
        assert!(EarlyStop { patience: 0, min_delta: 0.0 }.validate().unwrap_err().to_string().contains("patience"));
        for min_delta in [-0.1, 1.0, f64::NAN] {
            assert!(EarlyStop { patience: 1, min_delta }.validate().unwrap_err().to_string().contains("min_delta"));
        }
    }
}
