//! What optimizers share: parameter groups by name, and the checks of parameters, gradients and saved buffers.

use std::collections::BTreeSet;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use docent_tensor::with_f32;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Parameters that are treated apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamGroup {
    /// Names that belong here; `*` stands for any run of characters: `backbone.*`, `*.bias`.
    pub pattern: String,
    /// The learning rate is multiplied by this.
    #[serde(default = "one")]
    pub lr_mult: f64,
    /// Replaces the optimizer's weight decay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

fn one() -> f64 {
    1.0
}

/// Does `name` fit `pattern`, in which `*` stands for any run of characters?
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    // Without a star there is no further part, and the whole name must be used up.
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A parameter, and what its group says of it.
#[derive(Debug)]
pub(super) struct Param {
    pub name: String,
    pub var: Var,
    pub lr_mult: f64,
    pub weight_decay: f32,
}

impl Param {
    /// Its gradient, contiguous; None where the graph did not reach it.
    pub fn gradient(&self, grads: &GradStore) -> Result<Option<Tensor>> {
        let Some(grad) = grads.get(&self.var) else { return Ok(None) };
        if grad.shape() != self.var.shape() {
            let (g, p) = (grad.dims(), self.var.dims());
            return Err(Error::param(&self.name, format!("its gradient has shape {g:?}, it has {p:?}")));
        }
        Ok(Some(grad.contiguous()?))
    }

    /// The values of a saved buffer, which must have the parameter's shape.
    pub fn values(&self, what: &str, saved: &Tensor) -> Result<Vec<f32>> {
        if saved.shape() != self.var.shape() {
            let (saved, now) = (saved.dims(), self.var.dims());
            return Err(Error::param(&self.name, format!("saved {what} has shape {saved:?}, it has {now:?}")));
        }
        Ok(with_f32(saved, <[f32]>::to_vec)?)
    }
}

/// Checks `params` and gives each what its group says; the first group whose pattern fits a name decides.
pub(super) fn params_of(groups: &[ParamGroup], weight_decay: f64, params: Vec<(String, Var)>) -> Result<Vec<Param>> {
    let mut seen = BTreeSet::new();
    let mut checked = Vec::with_capacity(params.len());
    for (name, var) in params {
        if var.dtype() != DType::F32 || !var.is_contiguous() || !var.device().is_cpu() {
            let what = format!("{:?} on {:?}", var.dtype(), var.device().location());
            let needs = format!("an optimizer needs contiguous f32 values on the CPU, this is {what}");
            return Err(Error::param(name, needs));
        }
        if !seen.insert(name.clone()) {
            return Err(Error::param(name, "given to the optimizer twice"));
        }
        let group = group_of(groups, &name).map(|i| &groups[i]);
        let lr_mult = group.map_or(1.0, |g| g.lr_mult);
        let weight_decay = group.and_then(|g| g.weight_decay).unwrap_or(weight_decay) as f32;
        checked.push(Param { name, var, lr_mult, weight_decay });
    }
    Ok(checked)
}

fn group_of(groups: &[ParamGroup], name: &str) -> Option<usize> {
    groups.iter().position(|g| matches(&g.pattern, name))
}

/// Patterns that none of `names` fits first.
pub(super) fn unused_groups<'a>(groups: &'a [ParamGroup], names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let used: BTreeSet<_> = names.filter_map(|name| group_of(groups, name)).collect();
    let unused = groups.iter().enumerate().filter(|(i, _)| !used.contains(i));
    unused.map(|(_, g)| g.pattern.as_str()).collect()
}

/// Patterns are not empty, numbers finite and not negative.
pub(super) fn check_groups(groups: &[ParamGroup]) -> Result<()> {
    let ok = |v: f64| v.is_finite() && v >= 0.0;
    match groups.iter().find(|g| g.pattern.is_empty() || !ok(g.lr_mult) || !g.weight_decay.is_none_or(ok)) {
        None => Ok(()),
        Some(g) => {
            Err(Error::config("groups", format!("{g:?}: the pattern must not be empty, the numbers not negative")))
        }
    }
}

pub(super) fn finite_and_not_negative(field: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::config(field, format!("{value} must be finite and not negative")))
}

pub(super) fn check_rate(lr: f64, factor: f64) -> Result<()> {
    if lr.is_finite() && factor.is_finite() {
        return Ok(());
    }
    Err(Error::config("lr", format!("rate {lr} and gradient factor {factor} must be finite")))
}
