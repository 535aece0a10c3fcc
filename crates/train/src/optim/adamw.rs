//! AdamW: Adam with decoupled weight decay.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Tensor, Var};
use docent_tensor::{cpu_slice, cpu_slice_mut, with_f32};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::CHUNK;
use super::params::{Param, ParamGroup, check_groups, check_rate, finite_and_not_negative, params_of, unused_groups};
use crate::error::{Error, Result};

/// AdamW's settings apart from the learning rate, which each step is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Decay of the mean gradient and of the mean square; default `[0.9, 0.999]`, both in 0..1.
    pub betas: [f64; 2],
    /// Added to the root of the mean square; default 1e-8.
    pub eps: f64,
    /// Default 1e-2 (PyTorch's), on every parameter that no group says otherwise of.
    pub weight_decay: f64,
    /// The first group whose pattern fits a name decides for it.
    pub groups: Vec<ParamGroup>,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 1e-2, groups: Vec::new() }
    }
}

impl AdamWConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// The first value out of range: betas lie in 0..1, the rest is finite and not negative.
    pub fn validate(&self) -> Result<()> {
        if !self.betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
            return Err(Error::config("betas", format!("{:?}: both must lie in 0..1", self.betas)));
        }
        finite_and_not_negative("eps", self.eps)?;
        finite_and_not_negative("weight_decay", self.weight_decay)?;
        check_groups(&self.groups)
    }
}

/// Adam with decoupled weight decay (Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019) as
/// `torch.optim.AdamW`, without AMSGrad.
///
/// ```text
/// p = p * (1 - lr * weight_decay)
/// g = factor * gradient
/// m = m + (1 - beta1) * (g - m)             m = v = 0 at a parameter's first step
/// v = beta2 * v + (1 - beta2) * g * g
/// p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
/// ```
/// t counts a parameter's own steps from 1. Arrays are f32, the factors that depend on t are computed in f64; one pass over
/// parameter, gradient and both moments, in place. A parameter without a gradient is skipped, its decay, moments and t too.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    params: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    param: Param,
    /// None until the first step.
    moments: Option<Moments>,
}

#[derive(Debug)]
struct Moments {
    steps: u32,
    mean: Vec<f32>,
    square: Vec<f32>,
}

/// The saved state's parts, as PyTorch calls them; a parameter's entries are `PART/NAME`.
const PARTS: [&str; 3] = ["step", "exp_avg", "exp_avg_sq"];

impl AdamW {
    /// An optimizer for `params` ([`docent_model::ParamStore::trainable`], or a distiller's adapters).
    ///
    /// # Errors
    /// As [`crate::Sgd::new`].
    pub fn new(config: &AdamWConfig, params: Vec<(String, Var)>) -> Result<Self> {
        config.validate()?;
        let params = params_of(&config.groups, config.weight_decay, params)?;
        let params = params.into_iter().map(|param| Slot { param, moments: None }).collect();
        Ok(Self { config: config.clone(), params })
    }

    /// Patterns that no parameter's name fits first.
    pub fn unused_groups(&self) -> Vec<&str> {
        unused_groups(&self.config.groups, self.params.iter().map(|s| s.param.name.as_str()))
    }

    /// One update, as [`crate::Sgd::step`].
    ///
    /// # Errors
    /// As [`crate::Sgd::step`].
    pub fn step(&mut self, grads: &GradStore, lr: f64, factor: f64) -> Result<usize> {
        check_rate(lr, factor)?;
        let [beta1, beta2] = self.config.betas;
        let mut updated = 0;
        for Slot { param, moments } in &mut self.params {
            let Some(grad) = param.gradient(grads)? else { continue };
            let zeros = || vec![0.0; grad.elem_count()];
            let moments = moments.get_or_insert_with(|| Moments { steps: 0, mean: zeros(), square: zeros() });
            moments.steps += 1;
            // From t itself, so that a resume needs no more than t.
            let correction = |beta: f64| 1.0 - beta.powf(f64::from(moments.steps));
            let lr = lr * param.lr_mult;
            let update = Update {
                keep: (1.0 - lr * f64::from(param.weight_decay)) as f32,
                factor: factor as f32,
                mean_share: (1.0 - beta1) as f32,
                beta2: beta2 as f32,
                square_share: (1.0 - beta2) as f32,
                rate: (lr / correction(beta1)) as f32,
                root: correction(beta2).sqrt() as f32,
                eps: self.config.eps as f32,
                moments: Mutex::new((&mut moments.mean, &mut moments.square)),
            };
            param.var.inplace_op2(&grad, &update).map_err(|e| Error::param(&param.name, e.to_string()))?;
            updated += 1;
        }
        Ok(updated)
    }

    /// Copies of the moments by part and parameter: `exp_avg/NAME`, `exp_avg_sq/NAME` of the parameter's shape and `step/NAME`, a
    /// scalar. A parameter that never had a gradient has none.
    ///
    /// # Errors
    /// Only candle's, on making the tensors.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for Slot { param, moments } in &self.params {
            let Some(moments) = moments else { continue };
            let like = |values: &[f32]| Tensor::from_slice(values, param.var.shape(), &Device::Cpu);
            // f32 holds every count up to 2^24, as PyTorch's own state does.
            let steps = Tensor::new(moments.steps as f32, &Device::Cpu)?;
            for (part, tensor) in PARTS.into_iter().zip([steps, like(&moments.mean)?, like(&moments.square)?]) {
                state.insert(format!("{part}/{}", param.name), tensor);
            }
        }
        Ok(state)
    }

    /// Takes over what [`AdamW::state`] gave, bit for bit. Parameters that `state` does not name start afresh.
    ///
    /// # Errors
    /// A name that is none of this optimizer's, another shape, a parameter with some of its parts; nothing is changed then.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let of = |part: &str, slot: &Slot| state.get(&format!("{part}/{}", slot.param.name));
        let mut loaded = Vec::with_capacity(self.params.len());
        for slot in &self.params {
            let [steps, mean, square] = PARTS.map(|part| of(part, slot));
            loaded.push(match (steps, mean, square) {
                (None, None, None) => None,
                (Some(steps), Some(mean), Some(square)) => Some(Moments {
                    steps: whole(&slot.param.name, steps)?,
                    mean: slot.param.values("exp_avg", mean)?,
                    square: slot.param.values("exp_avg_sq", square)?,
                }),
                _ => return Err(Error::param(&slot.param.name, "the saved state has only some of its moments")),
            });
        }
        if state.len() != PARTS.len() * loaded.iter().flatten().count() {
            let known =
                |name: &str| self.params.iter().any(|s| PARTS.iter().any(|p| name == format!("{p}/{}", s.param.name)));
            let name = state.keys().find(|name| !known(name)).map_or("", String::as_str);
            return Err(Error::param(name, "has a saved moment, but is not trained here (is it frozen now?)"));
        }
        for (slot, moments) in self.params.iter_mut().zip(loaded) {
            slot.moments = moments;
        }
        Ok(())
    }
}

/// A saved count of steps.
fn whole(name: &str, steps: &Tensor) -> Result<u32> {
    let values = with_f32(steps, <[f32]>::to_vec)?;
    match values.as_slice() {
        [n] if *n >= 1.0 && n.fract() == 0.0 && *n <= 16_777_216.0 => Ok(*n as u32),
        other => {
            Err(Error::param(name, format!("its saved number of steps is {other:?}; it must be one whole number")))
        }
    }
}

/// Mean and mean square of one parameter's gradients.
type MomentsMut<'a> = (&'a mut Vec<f32>, &'a mut Vec<f32>);

/// The update of one parameter.
struct Update<'a> {
    keep: f32,
    factor: f32,
    mean_share: f32,
    beta2: f32,
    square_share: f32,
    rate: f32,
    root: f32,
    eps: f32,
    /// In a lock because candle hands out the operation as shared.
    moments: Mutex<MomentsMut<'a>>,
}

impl Update<'_> {
    fn apply(&self, p: &mut [f32], g: &[f32], mean: &mut [f32], square: &mut [f32]) {
        for ((p, &g), (m, v)) in p.iter_mut().zip(g).zip(mean.iter_mut().zip(square)) {
            let g = self.factor * g;
            *m += self.mean_share * (g - *m);
            *v = self.beta2 * *v + self.square_share * g * g;
            *p = self.keep * *p - self.rate * *m / (v.sqrt() / self.root + self.eps);
        }
    }
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> candle_core::Result<()> {
        let (p, g) = (cpu_slice_mut(s1, l1)?, cpu_slice(s2, l2)?);
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let (mean, square) = &mut *moments;
        p.par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK)))
            .for_each(|((p, g), (m, v))| self.apply(p, g, m, v));
        Ok(())
    }
}
