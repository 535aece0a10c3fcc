//! Smooth L1, and plain L1 at beta 0.

use candle_core::Tensor;

use super::{FusedLoss, check_indices, fused};
use crate::{Error, Result};

/// Smooth L1 distance of the values at `indices` to their targets, summed and divided by `normalizer`.
///
/// A term is `d² / (2 beta)` where `|d| < beta`, else `|d| - beta / 2`, with `d = x - target` (Girshick, Fast R-CNN;
/// PyTorch's `smooth_l1_loss`). With `beta` 0 it is `|d|`, whose gradient at 0 is 0. An index may repeat; each time counts.
///
/// # Shapes
/// `x`: any; `indices`: P flat indices into `x` in row-major order; `targets`: P values. Result: `[]`.
///
/// # Errors
/// If an index is out of range, a target is not finite (a degenerate box was encoded), the lengths differ, `beta` is
/// negative or not finite, `x` is not f32 on the CPU, or `normalizer` is not finite and above 0.
pub fn smooth_l1(x: &Tensor, indices: &[usize], targets: &[f32], beta: f32, normalizer: f32) -> Result<Tensor> {
    if !(beta.is_finite() && beta >= 0.0) {
        return Err(Error::operand(SmoothL1::NAME, format!("beta is {beta}; it must be finite and at least 0")));
    }
    check_indices(SmoothL1::NAME, x.elem_count(), indices, targets, "finite", |_| true)?;
    fused(x, SmoothL1 { indices: indices.to_vec(), targets: targets.to_vec(), beta }, normalizer)
}

struct SmoothL1 {
    indices: Vec<usize>,
    targets: Vec<f32>,
    beta: f32,
}

impl FusedLoss for SmoothL1 {
    const NAME: &'static str = "smooth_l1";

    fn sum(&self, x: &[f32]) -> Result<f64> {
        let beta = f64::from(self.beta);
        let term = |d: f64| if d.abs() < beta { 0.5 * d * d / beta } else { d.abs() - 0.5 * beta };
        Ok(self.indices.iter().zip(&self.targets).map(|(&p, &t)| term(f64::from(x[p] - t))).sum())
    }

    fn gradient(&self, x: &[f32], scale: f32, dx: &mut [f32]) -> Result<()> {
        for (&p, &t) in self.indices.iter().zip(&self.targets) {
            let d = x[p] - t;
            let slope = if d.abs() < self.beta {
                d / self.beta
            } else if d == 0.0 {
                0.0
            } else if d.is_nan() {
                d
            } else {
                d.signum()
            };
            dx[p] += scale * slope;
        }
        Ok(())
    }
}
