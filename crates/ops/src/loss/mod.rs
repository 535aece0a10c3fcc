//! Losses as single fused operations with an explicit normaliser.
//!
//! Each returns a scalar tensor (shape `[]`), `sum / normalizer`. The sum is taken in f64 in index order (or over fixed
//! chunks in index order), so it is the same for any number of threads. Only the first operand ever receives a
//! gradient; targets, labels, masks and a teacher's tensor are data. A sum over nothing is exactly 0, with a gradient of
//! zeros, whatever the values that were left out: nothing divides by a count that can be 0.

mod bce;
mod masked_l2;
mod smooth_l1;
mod softmax_cross_entropy;

pub use bce::bce_with_logits;
pub use masked_l2::masked_l2;
pub use smooth_l1::smooth_l1;
pub use softmax_cross_entropy::softmax_cross_entropy;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use docent_tensor::{F32View, f32_operand, f32_tensor, f32_values};

use crate::{Error, Result};

/// A loss of one tensor: its sum and the derivative of that sum, on plain slices. [`fused`] makes an operation of it.
pub trait FusedLoss: Send + Sync + 'static {
    /// The operation's name, for messages.
    const NAME: &'static str;

    /// The sum over all terms, before the normaliser, for the values `x` in row-major order.
    ///
    /// # Errors
    /// What the loss's own data may raise; most raise nothing.
    fn sum(&self, x: &[f32]) -> Result<f64>;

    /// Writes `scale * d sum / d x` to `dx`, which holds zeros and is as long as `x`.
    ///
    /// # Errors
    /// As for [`FusedLoss::sum`].
    fn gradient(&self, x: &[f32], scale: f32, dx: &mut [f32]) -> Result<()>;
}

/// `loss.sum(x) / normalizer` as a scalar tensor with a gradient for `x`: one node of the graph.
///
/// For losses beyond those of this module. What the loss assumes of `x` (its length, say) is the caller's to check.
///
/// ```
/// use candle_core::{Device, Var};
/// use docent_ops::{Result, loss::{FusedLoss, fused}};
///
/// /// The squares of the values above 0.
/// struct Hinge;
/// impl FusedLoss for Hinge {
///     const NAME: &'static str = "squared_hinge";
///     fn sum(&self, x: &[f32]) -> Result<f64> {
///         Ok(x.iter().map(|v| f64::from(v.max(0.0)).powi(2)).sum())
///     }
///     fn gradient(&self, x: &[f32], scale: f32, dx: &mut [f32]) -> Result<()> {
///         for (d, v) in dx.iter_mut().zip(x) {
///             *d = scale * 2.0 * v.max(0.0);
///         }
///         Ok(())
///     }
/// }
/// let x = Var::new(&[3f32, -1.0], &Device::Cpu)?;
/// let loss = fused(&x, Hinge, 2.0)?;
/// assert_eq!(loss.to_scalar::<f32>()?, 4.5);
/// assert_eq!(loss.backward()?.get(&x).unwrap().to_vec1::<f32>()?, [3.0, 0.0]);
/// # Ok::<_, docent_ops::Error>(())
/// ```
///
/// # Errors
/// If `x` is not f32 on the CPU, or `normalizer` is not finite and above 0.
pub fn fused<L: FusedLoss>(x: &Tensor, loss: L, normalizer: f32) -> Result<Tensor> {
    if !(normalizer.is_finite() && normalizer > 0.0) {
        return Err(Error::operand(
            L::NAME,
            format!("the normalizer is {normalizer}; it must be finite and above 0 (max(1, count) is usual)"),
        ));
    }
    let x = f32_operand(L::NAME, "x", x)?;
    Ok(x.apply_op1(Fused { loss, normalizer })?)
}

struct Fused<L> {
    loss: L,
    normalizer: f32,
}

impl<L: FusedLoss> CustomOp1 for Fused<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = f32_values(L::NAME, storage, layout)?;
        // An empty sum of floats is -0 in Rust; adding 0 makes it 0.
        let loss = (self.loss.sum(x)? / f64::from(self.normalizer) + 0.0) as f32;
        Ok((CpuStorage::F32(vec![loss]), Shape::from(())))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let scale = grad.to_scalar::<f32>()? / self.normalizer;
        let view = F32View::new(L::NAME, arg);
        let x = view.values()?;
        let mut dx = vec![0f32; x.len()];
        self.loss.gradient(x, scale, &mut dx)?;
        Ok(Some(f32_tensor(dx, arg.shape().clone())?))
    }
}

/// Checks the indices of a loss over `len` values: each in range, with one finite target that `fits`.
fn check_indices(
    op: &'static str,
    len: usize,
    indices: &[usize],
    targets: &[f32],
    wanted: &str,
    fits: impl Fn(f32) -> bool,
) -> Result<()> {
    if indices.len() != targets.len() {
        return Err(Error::operand(
            op,
            format!("{} indices, but {} targets; give one target for each index", indices.len(), targets.len()),
        ));
    }
    if let Some((i, &p)) = indices.iter().enumerate().find(|&(_, &p)| p >= len) {
        return Err(Error::operand(op, format!("indices[{i}] is {p}, but x has {len} values")));
    }
    if let Some((i, t)) = targets.iter().enumerate().find(|&(_, &t)| !(t.is_finite() && fits(t))) {
        return Err(Error::operand(op, format!("targets[{i}] is {t}; it must be {wanted}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
