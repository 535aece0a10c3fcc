//! Batch normalisation by the batch's own statistics, with what stands around it: the convolution before, or the residual and the
//! ReLU behind.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use docent_tensor::{F32View, apply_op3, f32_operand, f32_tensor, f32_values, free_saved};

use crate::conv::{Conv, Conv2dParams};
use crate::elementwise::masked;
use crate::{Error, Result};

use super::batch_kernel::{BatchNormKernel, BatchStats, Gradients, Planes};

const OP: &str = "batch_norm_train";

/// `act(gamma * (x - mean) / sqrt(var + eps) + beta + residual)` by channel, with the mean and the (biased) variance of this batch:
/// S. Ioffe, C. Szegedy, *Batch Normalization*, arXiv 1502.03167. Gradients flow through the statistics.
///
/// The variance is taken in a second pass around the mean, so that a large mean costs no accuracy.
///
/// # Shapes
/// `x` [B, C, ..] (usually [B, C, H, W]), `gamma` and `beta` `[C]`, residual and result as `x`.
///
/// # Errors
/// When there are fewer than two values a channel (the variance would mean nothing), shapes do not fit, or an operand is
/// not f32 on the CPU.
pub fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<(Tensor, BatchStats)> {
    let planes = planes(x.dims(), gamma, beta)?;
    let (x, gamma, beta) = (f32_operand(OP, "x", x)?, f32_operand(OP, "gamma", gamma)?, f32_operand(OP, "beta", beta)?);
    let (norm, stats) = BatchNormKernel::new(F32View::new(OP, &x).values()?, planes, eps, relu);
    let y = match residual {
        None => apply_op3(&x, &gamma, &beta, Alone(norm))?,
        Some(r) if r.dims() != x.dims() => {
            return Err(Error::operand(OP, format!("residual {:?} must be as x {:?}", r.dims(), x.dims())));
        }
        Some(r) => apply_op3(&x, &f32_operand(OP, "residual", r)?, &both(&gamma, &beta)?, WithResidual(norm))?,
    };
    Ok((y, stats))
}

/// [`batch_norm_train`] of a convolution without bias, as one op: in the backward pass the convolution's result has a gradient that
/// nobody but this op sees, and that candle's walk would set to zero, add to and keep.
///
/// Values and gradients have the bits of [`conv2d`](crate::conv2d) followed by [`batch_norm_train`].
///
/// # Shapes
/// As [`conv2d`](crate::conv2d)'s; `gamma` and `beta` `[C_out]`.
///
/// # Errors
/// As both functions'.
pub fn conv_batch_norm_train(
    x: &Tensor,
    w: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    relu: bool,
    p: &Conv2dParams,
) -> Result<(Tensor, BatchStats)> {
    let (conv, x, w) = Conv::plain(x, w, p)?;
    let planes = planes(&conv.shape(), gamma, beta)?;
    let (gamma, beta) = (f32_operand(OP, "gamma", gamma)?, f32_operand(OP, "beta", beta)?);
    let sums = conv.values(F32View::new(OP, &x).values()?, F32View::new(OP, &w).values()?, None);
    let (norm, stats) = BatchNormKernel::new(&sums, planes, eps, relu);
    let sums = f32_tensor(sums, &conv.shape()[..])?;
    Ok((apply_op3(&x, &w, &both(&gamma, &beta)?, AfterConv { conv, sums, norm })?, stats))
}

fn planes(x: &[usize], gamma: &Tensor, beta: &Tensor) -> Result<Planes> {
    let &[batch, channels, ref rest @ ..] = x else {
        return Err(Error::operand(OP, format!("x has shape {x:?}; [B, C, ..] is needed")));
    };
    if gamma.dims() != [channels] || beta.dims() != [channels] {
        let message = format!("gamma {:?} and beta {:?} must be [{channels}] for x {x:?}", gamma.dims(), beta.dims());
        return Err(Error::operand(OP, message));
    }
    let plane = rest.iter().product::<usize>();
    if batch * plane < 2 {
        let message = format!(
            "x {x:?} has {} value(s) a channel; at least 2 are needed: use a larger batch or image",
            batch * plane
        );
        return Err(Error::operand(OP, message));
    }
    Ok(Planes { batch, channels, plane })
}

/// Gamma and beta as one operand [2, C]: an op of candle takes three.
fn both(gamma: &Tensor, beta: &Tensor) -> Result<Tensor> {
    Ok(Tensor::stack(&[gamma, beta], 0)?)
}

/// The gradient of [`both`].
fn of_both(both: &Tensor, Gradients { mut gamma, beta, .. }: Gradients) -> Result<Option<Tensor>> {
    gamma.extend(beta);
    Ok(both.track_op().then(|| f32_tensor(gamma, both.shape())).transpose()?)
}

/// Operands x, gamma, beta.
struct Alone(BatchNormKernel);

impl CustomOp3 for Alone {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        gamma: &CpuStorage,
        lg: &Layout,
        beta: &CpuStorage,
        lb: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = self.0.forward(f32_values(OP, x, lx)?, f32_values(OP, gamma, lg)?, f32_values(OP, beta, lb)?, None);
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, gamma: &Tensor, beta: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Three> {
        let gradients = backward(&self.0, x, gamma, y, dy, x.track_op())?;
        let of = |t: &Tensor, values: Vec<f32>| t.track_op().then(|| f32_tensor(values, t.shape())).transpose();
        let dx = gradients.x.map(|dx| f32_tensor(dx, x.shape())).transpose()?;
        Ok((dx, of(gamma, gradients.gamma)?, of(beta, gradients.beta)?))
    }
}

/// Operands x, the residual, gamma and beta.
struct WithResidual(BatchNormKernel);

impl CustomOp3 for WithResidual {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        residual: &CpuStorage,
        lr: &Layout,
        both: &CpuStorage,
        lb: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let both = f32_values(OP, both, lb)?;
        let (gamma, beta) = both.split_at(both.len() / 2);
        let y = self.0.forward(f32_values(OP, x, lx)?, gamma, beta, Some(f32_values(OP, residual, lr)?));
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, residual: &Tensor, both: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Three> {
        let mut gradients = backward(&self.0, x, both, y, dy, x.track_op())?;
        let dx = gradients.x.take().map(|dx| f32_tensor(dx, x.shape())).transpose()?;
        // Without a ReLU the residual's gradient is the output's.
        let through = || if self.0.relu() { masked(OP, y, dy) } else { Ok(dy.clone()) };
        let d_residual = residual.track_op().then(through).transpose()?;
        Ok((dx, d_residual, of_both(both, gradients)?))
    }
}

/// Operands x, w, gamma and beta.
struct AfterConv {
    conv: Conv,
    /// The convolution's result, outside any graph.
    sums: Tensor,
    norm: BatchNormKernel,
}

impl CustomOp3 for AfterConv {
    fn name(&self) -> &'static str {
        "conv_batch_norm_train"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        both: &CpuStorage,
        lb: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let both = f32_values(OP, both, lb)?;
        let (gamma, beta) = both.split_at(both.len() / 2);
        let y = self.norm.forward(F32View::new(OP, &self.sums).values()?, gamma, beta, None);
        Ok((CpuStorage::F32(y), self.sums.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, both: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Three> {
        let mut gradients = backward(&self.norm, &self.sums, both, y, dy, x.track_op() || w.track_op())?;
        let (dx, dw) = match gradients.x.take() {
            Some(d_sums) => {
                let d_sums = f32_tensor(d_sums, self.sums.shape())?;
                let (dx, dw, _) = self.conv.backward(x, w, None, &self.sums, &d_sums)?;
                (dx, dw)
            }
            None => (None, None),
        };
        free_saved(y, &self.sums)?;
        Ok((dx, dw, of_both(both, gradients)?))
    }
}

/// Gradients of the three operands.
type Three = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

/// The norm's backward pass; `gamma` may have more behind its values.
fn backward(
    norm: &BatchNormKernel,
    x: &Tensor,
    gamma: &Tensor,
    y: &Tensor,
    dy: &Tensor,
    wanted: bool,
) -> Result<Gradients> {
    let dy = f32_operand(OP, "the gradient", dy)?;
    let views = [x, gamma, y, &dy].map(|t| F32View::new(OP, t));
    let [x, gamma, y, dy] = &views;
    let y = if norm.relu() { y.values()? } else { &[] };
    Ok(norm.backward(x.values()?, gamma.values()?, y, dy.values()?, wanted))
}
