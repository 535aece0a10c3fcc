//! Binary cross-entropy from logits.

use candle_core::Tensor;

use super::{Kernel, check_picks, fused};
use crate::Result;

/// Binary cross-entropy of `sigmoid(x)` against targets, summed over the picked values and divided by `normalizer`.
///
/// A term is `max(x, 0) - x y + ln(1 + exp(-|x|))`, as in PyTorch's `binary_cross_entropy_with_logits`: finite for
/// every finite logit. The picks may repeat; each counts.
///
/// # Shapes
/// `x`: any; `picks`: P flat indices into `x` in row-major order; `targets`: P probabilities. Result: `[]`.
///
/// # Errors
/// If a pick is out of range, a target lies outside 0..=1, the lengths differ, `x` is not f32 on the CPU, or
/// `normalizer` is not finite and above 0.
pub fn bce_with_logits(x: &Tensor, picks: &[usize], targets: &[f32], normalizer: f32) -> Result<Tensor> {
    check_picks(Bce::NAME, x.elem_count(), picks, targets, "within 0..=1", |t| (0.0..=1.0).contains(&t))?;
    fused(x, Bce { picks: picks.to_vec(), targets: targets.to_vec() }, normalizer)
}

struct Bce {
    picks: Vec<usize>,
    targets: Vec<f32>,
}

impl Kernel for Bce {
    const NAME: &'static str = "bce_with_logits";

    fn sum(&self, x: &[f32]) -> Result<f64> {
        Ok(self.picks.iter().zip(&self.targets).map(|(&p, &y)| term(f64::from(x[p]), f64::from(y))).sum())
    }

    fn gradient(&self, x: &[f32], scale: f32, dx: &mut [f32]) -> Result<()> {
        for (&p, &y) in self.picks.iter().zip(&self.targets) {
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
