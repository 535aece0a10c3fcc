//! The recipe's schedule: length, optimizer, learning rate, and what is done with the weights on the way.

use serde::{Deserialize, Serialize};

use super::data::one;
use crate::optim::{AdamWConfig, OptimizerConfig, OptimizerKind, ParamGroup, SgdConfig};
use crate::schedule::{MilestoneUnit, ScheduleConfig};
use crate::{EarlyStop, EmaConfig, Error, Result};

/// Length, optimizer and learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRecipe {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch: usize,
    /// Parts that a step's images go through the network in, one after the other, so that a big batch needs no big memory; 1 is
    /// all at once. Their gradients are added up: see [`crate::update`]. Must divide `batch`.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Learning rate at `reference_batch` images a step; scaled linearly to `batch`, and printed.
    pub lr: f64,
    /// The batch that `lr` is meant for.
    pub reference_batch: usize,
    /// `sgd` (default) or `adamw`.
    #[serde(default, skip_serializing_if = "is_sgd")]
    pub optimizer: OptimizerKind,
    /// SGD's momentum; AdamW takes no notice of it.
    #[serde(default = "momentum")]
    pub momentum: f64,
    /// AdamW's decay of the mean gradient and of the mean square; default `[0.9, 0.999]`. SGD takes no notice of it.
    #[serde(default = "betas", skip_serializing_if = "are_betas")]
    pub betas: [f64; 2],
    /// What AdamW adds to the root of the mean square; default 1e-8. SGD takes no notice of it.
    #[serde(default = "eps", skip_serializing_if = "is_eps")]
    pub eps: f64,
    /// Weight decay, on every trainable parameter as in torchvision's reference; AdamW's is decoupled, and 100 times as much is
    /// usual there.
    #[serde(default = "weight_decay")]
    pub weight_decay: f64,
    /// Bound of the gradient's 2-norm, for student and adapters each; 0 turns it off.
    #[serde(default = "clip")]
    pub clip: f64,
    /// Warm-up, then steps or a cosine.
    #[serde(default)]
    pub rate: ScheduleConfig,
    /// Parameters with a learning rate or weight decay of their own, by name; the first pattern that fits decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ParamGroup>,
    /// A moving average of the weights, which then is what is evaluated and reported. Absent: the weights themselves are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<EmaConfig>,
    /// Ends a student's training when its AP rises no more; refused where two students are compared. Absent: it goes on to the
    /// last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
}

impl TrainingRecipe {
    /// The optimizer that these fields mean.
    pub fn optimizer(&self) -> OptimizerConfig {
        let (weight_decay, groups) = (self.weight_decay, self.groups.clone());
        match self.optimizer {
            OptimizerKind::Sgd => OptimizerConfig::Sgd(SgdConfig { momentum: self.momentum, weight_decay, groups }),
            OptimizerKind::AdamW => {
                OptimizerConfig::AdamW(AdamWConfig { betas: self.betas, eps: self.eps, weight_decay, groups })
            }
        }
    }

    /// Sets the epochs; milestones that count epochs move in proportion.
    pub fn stretch_to(&mut self, epochs: usize) {
        if self.rate.unit == MilestoneUnit::Epoch {
            let stretch = epochs as f64 / self.epochs as f64;
            self.rate.milestones.iter_mut().for_each(|m| *m *= stretch);
        }
        self.epochs = epochs;
    }

    pub(super) fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Recipe(message));
        if self.epochs == 0 || self.batch == 0 || self.reference_batch == 0 {
            return fail("schedule.epochs, schedule.batch and schedule.reference_batch must be at least 1".into());
        }
        if self.accumulate == 0 || !self.batch.is_multiple_of(self.accumulate) {
            return fail(format!(
                "schedule.accumulate = {} does not divide schedule.batch = {}",
                self.accumulate, self.batch
            ));
        }
        for (key, value) in
            [("lr", self.lr), ("momentum", self.momentum), ("weight_decay", self.weight_decay), ("clip", self.clip)]
        {
            if !value.is_finite() || value < 0.0 {
                return fail(format!("schedule.{key} = {value}: must be finite and not negative"));
            }
        }
        if self.momentum >= 1.0 {
            return fail(format!("schedule.momentum = {}: must be below 1", self.momentum));
        }
        self.optimizer().validate().map_err(|e| Error::Recipe(format!("schedule: {e}")))?;
        if let Some(ema) = &self.ema {
            ema.validate().map_err(|e| Error::Recipe(format!("schedule.ema: {e}")))?;
        }
        self.rate.validate().map_err(|e| Error::Recipe(format!("schedule.rate: {e}")))
    }
}

fn is_sgd(kind: &OptimizerKind) -> bool {
    *kind == OptimizerKind::Sgd
}
fn momentum() -> f64 {
    0.9
}
fn betas() -> [f64; 2] {
    AdamWConfig::default().betas
}
fn are_betas(given: &[f64; 2]) -> bool {
    *given == betas()
}
fn eps() -> f64 {
    AdamWConfig::default().eps
}
fn is_eps(given: &f64) -> bool {
    *given == eps()
}
fn weight_decay() -> f64 {
    1e-4
}
fn clip() -> f64 {
    10.0
}
