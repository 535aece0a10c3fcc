//! The optimizer that a recipe names, behind one door.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{AdamW, AdamWConfig, Sgd, SgdConfig};
use crate::error::Result;

/// Which optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// [`Sgd`]
    #[default]
    Sgd,
    /// [`AdamW`]
    AdamW,
}

/// An optimizer's settings apart from the learning rate.
#[derive(Debug, Clone, PartialEq)]
pub enum OptimizerConfig {
    /// [`Sgd`]'s.
    Sgd(SgdConfig),
    /// [`AdamW`]'s.
    AdamW(AdamWConfig),
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::Sgd(SgdConfig::default())
    }
}

impl OptimizerConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// The first value out of range.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Sgd(config) => config.validate(),
            Self::AdamW(config) => config.validate(),
        }
    }

    /// An optimizer for `params`.
    ///
    /// # Errors
    /// As [`Sgd::new`].
    pub fn build(&self, params: Vec<(String, Var)>) -> Result<Optimizer> {
        Ok(match self {
            Self::Sgd(config) => Optimizer::Sgd(Sgd::new(config, params)?),
            Self::AdamW(config) => Optimizer::AdamW(AdamW::new(config, params)?),
        })
    }
}

/// One of the optimizers; the loop knows no more.
#[derive(Debug)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// Adam with decoupled weight decay.
    AdamW(AdamW),
}

impl Optimizer {
    /// One update; see [`Sgd::step`].
    ///
    /// # Errors
    /// As [`Sgd::step`].
    pub fn step(&mut self, grads: &GradStore, lr: f64, factor: f64) -> Result<usize> {
        match self {
            Self::Sgd(sgd) => sgd.step(grads, lr, factor),
            Self::AdamW(adamw) => adamw.step(grads, lr, factor),
        }
    }

    /// Copies of its buffers by name; see [`Sgd::state`] and [`AdamW::state`].
    ///
    /// # Errors
    /// Only candle's, on making the tensors.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        match self {
            Self::Sgd(sgd) => sgd.state(),
            Self::AdamW(adamw) => adamw.state(),
        }
    }

    /// Takes over what [`Optimizer::state`] gave, bit for bit.
    ///
    /// # Errors
    /// A state of other parameters, shapes or another optimizer; nothing is changed then.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        match self {
            Self::Sgd(sgd) => sgd.load_state(state),
            Self::AdamW(adamw) => adamw.load_state(state),
        }
    }

    /// Patterns of groups that no parameter's name fits first.
    pub fn unused_groups(&self) -> Vec<&str> {
        match self {
            Self::Sgd(sgd) => sgd.unused_groups(),
            Self::AdamW(adamw) => adamw.unused_groups(),
        }
    }
}
