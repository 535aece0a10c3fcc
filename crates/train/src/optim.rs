//! Optimizers: SGD and AdamW with weight decay, parameter groups and a state that can be saved.

mod adamw;
mod any;
mod params;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Tensor, Var};
use docent_tensor::{cpu_slice, cpu_slice_mut};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use adamw::{AdamW, AdamWConfig};
pub use any::{Optimizer, OptimizerConfig, OptimizerKind};
pub use params::ParamGroup;
pub use params::matches;
use params::{Param, check_groups, finite_and_not_negative, params_of, unused_groups};

/// Values updated by one task.
const CHUNK: usize = 1 << 15;

/// SGD's settings apart from the learning rate, which each step is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgdConfig {
    /// Default 0.9; 0 keeps no state.
    pub momentum: f64,
    /// Default 1e-4, on every parameter that no group says otherwise of.
    pub weight_decay: f64,
    /// The first group whose pattern fits a name decides for it.
    pub groups: Vec<ParamGroup>,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self { momentum: 0.9, weight_decay: 1e-4, groups: Vec::new() }
    }
}

impl SgdConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// The first value out of range: momentum lies in 0..1, the rest is finite and not negative.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.momentum) {
            return Err(Error::config("momentum", format!("{} is not in 0..1", self.momentum)));
        }
        finite_and_not_negative("weight_decay", self.weight_decay)?;
        check_groups(&self.groups)
    }
}

/// Stochastic gradient descent as `torch.optim.SGD` (no dampening, no Nesterov).
///
/// ```text
/// g   = factor * gradient + weight_decay * p
/// buf = g                      at a parameter's first step
/// buf = momentum * buf + g     afterwards
/// p   = p - lr * buf
/// ```
/// All in f32, one pass over parameter, gradient and buffer, in place. A parameter without a gradient is skipped, its buffer too.
#[derive(Debug)]
pub struct Sgd {
    config: SgdConfig,
    params: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    param: Param,
    /// None until the first step.
    momentum: Option<Vec<f32>>,
}

impl Sgd {
    /// An optimizer for `params` ([`docent_model::ParamStore::trainable`], or a distiller's adapters).
    ///
    /// # Errors
    /// Settings out of range; a parameter that is not f32, not contiguous or not on the CPU; a name given twice.
    pub fn new(config: &SgdConfig, params: Vec<(String, Var)>) -> Result<Self> {
        config.validate()?;
        let params = params_of(&config.groups, config.weight_decay, params)?;
        let params = params.into_iter().map(|param| Slot { param, momentum: None }).collect();
        Ok(Self { config: config.clone(), params })
    }

    /// Patterns that no parameter's name fits first: probably misspelt, and worth a line in the log.
    pub fn unused_groups(&self) -> Vec<&str> {
        unused_groups(&self.config.groups, self.params.iter().map(|s| s.param.name.as_str()))
    }

    /// One update. `factor` multiplies every gradient first: [`crate::Clip::factor`], or 1.
    ///
    /// Returns how many parameters had a gradient.
    ///
    /// # Errors
    /// A rate or factor that is not finite; a gradient of another shape or element type than its parameter. Parameters before the
    /// one named have been updated then.
    pub fn step(&mut self, grads: &GradStore, lr: f64, factor: f64) -> Result<usize> {
        params::check_rate(lr, factor)?;
        let momentum = self.config.momentum as f32;
        let mut updated = 0;
        for slot in &mut self.params {
            let param = &slot.param;
            let Some(grad) = param.gradient(grads)? else { continue };
            let first = slot.momentum.is_none();
            let buffer = match &mut slot.momentum {
                _ if momentum == 0.0 => None,
                some => Some(some.get_or_insert_with(|| vec![0.0; grad.elem_count()]).as_mut_slice()),
            };
            let update = Update {
                lr: (lr * param.lr_mult) as f32,
                factor: factor as f32,
                weight_decay: param.weight_decay,
                momentum,
                first,
                buffer: Mutex::new(buffer),
            };
            param.var.inplace_op2(&grad, &update).map_err(|e| Error::param(&param.name, e.to_string()))?;
            updated += 1;
        }
        Ok(updated)
    }

    /// Copies of the momentum buffers by parameter name. A parameter that never had a gradient has none.
    ///
    /// # Errors
    /// Only candle's, on making the tensors.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let buffers = self.params.iter().filter_map(|s| Some((&s.param, s.momentum.as_ref()?)));
        buffers.map(|(p, b)| Ok((p.name.clone(), Tensor::from_slice(b, p.var.shape(), &Device::Cpu)?))).collect()
    }

    /// Takes over buffers that [`Sgd::state`] gave, bit for bit. Parameters that `state` does not name start afresh.
    ///
    /// # Errors
    /// A name that is no parameter of this optimizer, another shape, or any buffer while the momentum is 0; nothing is changed then.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        if self.config.momentum == 0.0 && !state.is_empty() {
            return Err(Error::config(
                "momentum",
                "the saved state has momentum buffers, this optimizer has momentum 0",
            ));
        }
        if let Some(name) = state.keys().find(|n| !self.params.iter().any(|s| s.param.name == **n)) {
            return Err(Error::param(name, "has a saved momentum buffer, but is not trained here (is it frozen now?)"));
        }
        let saved = |slot: &Slot| state.get(&slot.param.name).map(|t| slot.param.values("momentum", t)).transpose();
        let buffers = self.params.iter().map(saved).collect::<Result<Vec<_>>>()?;
        for (slot, buffer) in self.params.iter_mut().zip(buffers) {
            slot.momentum = buffer;
        }
        Ok(())
    }
}

/// The update of one parameter.
struct Update<'a> {
    lr: f32,
    factor: f32,
    weight_decay: f32,
    momentum: f32,
    first: bool,
    /// In a lock because candle hands out the operation as shared.
    buffer: Mutex<Option<&'a mut [f32]>>,
}

impl Update<'_> {
    fn gradient(&self, p: f32, g: f32) -> f32 {
        let g = self.factor * g;
        // PyTorch leaves the gradient alone without decay: 0 * p would turn an infinite parameter into NaN.
        if self.weight_decay == 0.0 { g } else { g + self.weight_decay * p }
    }

    fn plain(&self, p: &mut [f32], g: &[f32]) {
        for (p, &g) in p.iter_mut().zip(g) {
            *p -= self.lr * self.gradient(*p, g);
        }
    }

    fn with_momentum(&self, p: &mut [f32], g: &[f32], buf: &mut [f32]) {
        // The first step takes the gradient itself, as PyTorch does: momentum * 0 + g would make +0 of a gradient of -0.
        let momentum = self.momentum;
        if self.first {
            for ((p, &g), b) in p.iter_mut().zip(g).zip(buf) {
                *b = self.gradient(*p, g);
                *p -= self.lr * *b;
            }
        } else {
            for ((p, &g), b) in p.iter_mut().zip(g).zip(buf) {
                *b = momentum * *b + self.gradient(*p, g);
                *p -= self.lr * *b;
            }
        }
    }
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> candle_core::Result<()> {
        let (p, g) = (cpu_slice_mut(s1, l1)?, cpu_slice(s2, l2)?);
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        match buffer.as_deref_mut() {
            None => p.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).for_each(|(p, g)| self.plain(p, g)),
            Some(buf) => p
                .par_chunks_mut(CHUNK)
                .zip(g.par_chunks(CHUNK))
                .zip(buf.par_chunks_mut(CHUNK))
                .for_each(|((p, g), b)| self.with_momentum(p, g, b)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
