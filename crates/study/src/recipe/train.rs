//! A recipe's `[train]`: length, optimizer, learning rate, and what is done with the weights on the way.

use docent_train::{
    AdamWConfig, EarlyStop, EmaConfig, MilestoneUnit, OptimizerConfig, OptimizerKind, ParamGroup, ScheduleConfig,
    SgdConfig,
};
use serde::{Deserialize, Serialize};

use super::data::one;
use crate::error::{Error, Result};

/// Length, optimizer and learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch: usize,
    /// Parts that a step's images go through the network in, one after the other, so that a big batch needs no big memory; 1 is
    /// all at once. Their gradients are added up: see [`docent_train::update`]. Must divide `batch`.
    #[serde(default = "one")]
    pub accumulation_steps: usize,
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
    #[serde(default = "max_grad_norm")]
    pub max_grad_norm: f64,
    /// Warm-up, then steps or a cosine.
    #[serde(default)]
    pub lr_schedule: ScheduleConfig,
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

impl TrainRecipe {
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
        if self.lr_schedule.unit == MilestoneUnit::Epoch {
            let stretch = epochs as f64 / self.epochs as f64;
            self.lr_schedule.milestones.iter_mut().for_each(|m| *m *= stretch);
        }
        self.epochs = epochs;
    }

    pub(super) fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Recipe(message));
        if self.epochs == 0 || self.batch == 0 || self.reference_batch == 0 {
            return fail("train.epochs, train.batch and train.reference_batch must be at least 1".into());
        }
        if self.accumulation_steps == 0 || !self.batch.is_multiple_of(self.accumulation_steps) {
            return fail(format!(
                "train.accumulation_steps = {} does not divide train.batch = {}",
                self.accumulation_steps, self.batch
            ));
        }
        for (key, value) in [
            ("lr", self.lr),
            ("momentum", self.momentum),
            ("weight_decay", self.weight_decay),
            ("max_grad_norm", self.max_grad_norm),
        ] {
            if !value.is_finite() || value < 0.0 {
                return fail(format!("train.{key} = {value}: must be finite and not negative"));
            }
        }
        if self.momentum >= 1.0 {
            return fail(format!("train.momentum = {}: must be below 1", self.momentum));
        }
        self.optimizer().validate().map_err(|e| Error::Recipe(format!("train: {e}")))?;
        if let Some(ema) = &self.ema {
            ema.validate().map_err(|e| Error::Recipe(format!("train.ema: {e}")))?;
        }
        self.lr_schedule.validate().map_err(|e| Error::Recipe(format!("train.lr_schedule: {e}")))
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
fn max_grad_norm() -> f64 {
    10.0
}
