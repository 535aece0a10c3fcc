//! Binary cross-entropy from logits.

use candle_core::Tensor;

use super::{FusedLoss, check_indices, fused};
use crate::Result;

/// Binary cross-entropy of `sigmoid(x)` against targets, summed over the values at `indices` and divided by `normalizer`.
///
/// A term is `max(x, 0) - x y + ln(1 + exp(-|x|))`, as in PyTorch's `binary_cross_entropy_with_logits`: finite for
/// every finite logit. An index may repeat; each time counts.
///
/// # Shapes
/// `x`: any; `indices`: P flat indices into `x` in row-major order; `targets`: P probabilities. Result: `[]`.
///
/// # Errors
/// If an index is out of range, a target lies outside 0..=1, the lengths differ, `x` is not f32 on the CPU, or
/// `normalizer` is not finite and above 0.
pub fn bce_with_logits(x: &Tensor, indices: &[usize], targets: &[f32], normalizer: f32) -> Result<Tensor> {
    check_indices(Bce::NAME, x.elem_count(), indices, targets, "within 0..=1", |t| (0.0..=1.0).contains(&t))?;
    fused(x, Bce { indices: indices.to_vec(), targets: targets.to_vec() }, normalizer)
}

struct Bce {
    indices: Vec<usize>,
    targets: Vec<f32>,
}

impl FusedLoss for Bce {
    const NAME: &'static str = "bce_with_logits";

    fn sum(&self, x: &[f32]) -> Result<f64> {
        Ok(self.indices.iter().zip(&self.targets).map(|(&p, &y)| term(f64::from(x[p]), f64::from(y))).sum())
    }

    fn gradient(&self, x: &[f32], scale: f32, dx: &mut [f32]) -> Result<()> {
        for (&p, &y) in self.indices.iter().zip(&self.targets) {
            dx[p] += scale * (sigmoid(f64::from(x[p])) - f64::from(y)) as f32;
        }
        Ok(())
    }
}

fn term(x: f64, y: f64) -> f64 {
    // Not f64::max, which would hide a NaN.
    let positive = if x < 0.0 { 0.0 } else { x };
    positive - x * y + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}
