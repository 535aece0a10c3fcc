//! Convolution with what follows it (scale and shift, bias or residual, ReLU) as one op with one backward pass.
//!
//! The kernels are plain functions over slices: `gemm` for the general case, `winograd` for 3x3 with stride 1, `depthwise`
//! for one input channel a group.
//! Which one runs is decided here and nowhere else.

mod depthwise;
mod epilogue;
mod gemm;
mod geometry;
mod im2col;
#[cfg(test)]
mod tests;
mod winograd;

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Shape, Tensor};
use docent_tensor::{F32View, apply_op2, apply_op3, f32_operand, f32_operand_4d, f32_tensor, f32_values};

use crate::subsample::Subsampling;
use crate::{Error, Result};

use epilogue::{Epilogue, Wanted};
pub(crate) use epilogue::{relu, relu_gradient};
pub use geometry::Conv2dParams;
use geometry::Geometry;
pub use winograd::set_winograd;

/// A frozen `y = scale * x + shift` by channel: constants of the op, which never get a gradient.
#[derive(Clone, Debug)]
pub struct Affine {
    /// A factor a channel.
    pub scale: Arc<[f32]>,
    /// An offset a channel.
    pub shift: Arc<[f32]>,
}

impl Affine {
    /// Batch normalisation with fixed statistics, folded: `scale = gamma / sqrt(var + eps)`, `shift = beta - mean * scale`.
    ///
    /// The slices hold one value a channel; a shorter one decides the length, which [`conv2d`] checks.
    pub fn from_batch_norm(gamma: &[f32], beta: &[f32], mean: &[f32], var: &[f32], eps: f64) -> Self {
        let scale = |(&g, &v): (&f32, &f32)| f64::from(g) / (f64::from(v) + eps).sqrt();
        let scales: Vec<f64> = gamma.iter().zip(var).map(scale).collect();
        let shift = |((&b, &m), s): ((&f32, &f32), &f64)| (f64::from(b) - f64::from(m) * s) as f32;
        Self {
            shift: beta.iter().zip(mean).zip(&scales).map(shift).collect(),
            scale: scales.iter().map(|&s| s as f32).collect(),
        }
    }
}

/// What is added to a convolution's result before the activation.
#[derive(Clone, Copy, Debug)]
pub enum BiasOrResidual<'a> {
    /// Nothing.
    None,
    /// One trainable value a channel, `[C_out]`.
    Bias(&'a Tensor),
    /// A tensor of the output's shape, such as a block's shortcut.
    Residual(&'a Tensor),
}

/// `act(scale * conv(x, w) + shift + addend)`, with `scale` and `shift` from `affine`.
///
/// As in PyTorch, this is a cross-correlation (the kernel is not turned); ReLU's gradient at 0 is 0. Gradients are
/// computed for those of `x`, `w` and the addend that are tracked, and for nothing else.
///
/// # Shapes
/// `x` [B, C_in, H, W], `w` [C_out, C_in / groups, kh, kw], bias `[C_out]`, residual and result
/// [B, C_out, H_out, W_out] with `H_out = (H + 2 padding - dilation (kh - 1) - 1) / stride + 1`.
///
/// # Errors
/// When shapes do not fit each other or an operand is not f32 on the CPU.
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    addend: BiasOrResidual<'_>,
    affine: Option<&Affine>,
    relu: bool,
    p: &Conv2dParams,
) -> Result<Tensor> {
    let (Conv { geometry, .. }, x, w) = Conv::plain(x, w, p)?;
    let c_out = geometry.c_out;
    if let Some(a) = affine
        && (a.scale.len() != c_out || a.shift.len() != c_out)
    {
        let message =
            format!("affine has {} scales and {} shifts for {c_out} output channels", a.scale.len(), a.shift.len());
        return Err(Error::operand("conv2d", message));
    }
    let conv = |third| Conv { geometry, affine: affine.cloned(), relu, third };
    match addend {
        BiasOrResidual::None => Ok(apply_op2(&x, &w, conv(ThirdOperand::None))?),
        BiasOrResidual::Bias(b) => {
            if b.dims() != [c_out] {
                return Err(Error::operand("conv2d", format!("bias has shape {:?}; [{c_out}] is needed", b.dims())));
            }
            Ok(apply_op3(&x, &w, &f32_operand("conv2d", "bias", b)?, conv(ThirdOperand::Bias))?)
        }
        BiasOrResidual::Residual(r) => {
            if r.dims() != conv(ThirdOperand::None).shape() {
                let want = conv(ThirdOperand::None).shape();
                return Err(Error::operand(
                    "conv2d",
                    format!("residual has shape {:?}; the output has {want:?}", r.dims()),
                ));
            }
            Ok(apply_op3(&x, &w, &f32_operand("conv2d", "residual", r)?, conv(ThirdOperand::Residual))?)
        }
    }
}

/// What the third operand is.
#[derive(Clone, Copy, PartialEq)]
enum ThirdOperand {
    None,
    Bias,
    Residual,
}

/// The kernels that compute a convolution.
enum ConvAlgorithm {
    Depthwise,
    Winograd,
    Gemm,
    /// One tap with a stride: the pixels that it reads first, then a convolution of them without a stride.
    Subsampled(Subsampling, Geometry),
}

impl ConvAlgorithm {
    fn of(g: &Geometry) -> Self {
        if g.depthwise() {
            Self::Depthwise
        } else if winograd::applies(g) {
            Self::Winograd
        } else if let Some(subsampled) = g.subsampled() {
            Self::Subsampled(Subsampling { h: g.h, w: g.w, stride: g.stride }, subsampled)
        } else {
            Self::Gemm
        }
    }
}

pub(crate) struct Conv {
    geometry: Geometry,
    affine: Option<Affine>,
    relu: bool,
    third: ThirdOperand,
}

/// Gradients of x, w and the addend.
type ThreeGradients = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl Conv {
    /// A convolution with nothing behind it, and its operands, checked.
    pub(crate) fn plain(x: &Tensor, w: &Tensor, p: &Conv2dParams) -> Result<(Self, Tensor, Tensor)> {
        let (x, x_dims) = f32_operand_4d("conv2d", "x", x)?;
        let (w, w_dims) = f32_operand_4d("conv2d", "w", w)?;
        let geometry = Geometry::new(x_dims, w_dims, p)?;
        Ok((Self { geometry, affine: None, relu: false, third: ThirdOperand::None }, x, w))
    }

    /// The shape of its result.
    pub(crate) fn shape(&self) -> [usize; 4] {
        let g = &self.geometry;
        [g.batch, g.c_out, g.h_out, g.w_out]
    }

    fn forward(&self, x: &[f32], w: &[f32], third: Option<&[f32]>) -> (CpuStorage, Shape) {
        (CpuStorage::F32(self.values(x, w, third)), Shape::from(&self.shape()[..]))
    }

    /// The result's values.
    pub(crate) fn values(&self, x: &[f32], w: &[f32], third: Option<&[f32]>) -> Vec<f32> {
        let epilogue = Epilogue {
            affine: self.affine.as_ref().map(|a| (&*a.scale, &*a.shift)),
            bias: third.filter(|_| self.third == ThirdOperand::Bias),
            residual: third.filter(|_| self.third == ThirdOperand::Residual),
            relu: self.relu,
        };
        let g = &self.geometry;
        match ConvAlgorithm::of(g) {
            ConvAlgorithm::Depthwise => depthwise::forward(g, x, w, &epilogue),
            ConvAlgorithm::Winograd => winograd::forward(g, x, w, &epilogue),
            ConvAlgorithm::Gemm => gemm::forward(g, x, w, &epilogue),
            ConvAlgorithm::Subsampled(subsampling, g) => gemm::forward(&g, &subsampling.forward(x), w, &epilogue),
        }
    }

    /// Gradients of those operands that are tracked, by the output `y`'s.
    pub(crate) fn backward(
        &self,
        x: &Tensor,
        w: &Tensor,
        third: Option<&Tensor>,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<ThreeGradients> {
        const OP: &str = "conv2d's backward pass";
        let g = &self.geometry;
        let dy = f32_operand(OP, "the gradient", dy)?;
        let third_tracked = third.is_some_and(Tensor::track_op);
        let wanted = Wanted {
            sums: x.track_op() || w.track_op(),
            residual: third_tracked && self.third == ThirdOperand::Residual,
            bias: third_tracked && self.third == ThirdOperand::Bias,
        };
        let (x_view, w_view, y_view, dy_view) =
            (F32View::new(OP, x), F32View::new(OP, w), F32View::new(OP, y), F32View::new(OP, &dy));
        let (x_values, w_values, dy_values) = (x_view.values()?, w_view.values()?, dy_view.values()?);
        let scale = self.affine.as_ref().map(|a| &*a.scale);
        let output = if self.relu { Some(y_view.values()?) } else { None };
        let through = epilogue::backward(g, output, scale, dy_values, wanted);
        let sums = through.sums.as_deref().unwrap_or(dy_values);

        let dx = || match ConvAlgorithm::of(g) {
            ConvAlgorithm::Depthwise => depthwise::input_gradient(g, sums, w_values),
            ConvAlgorithm::Winograd => winograd::input_gradient(g, sums, w_values),
            ConvAlgorithm::Gemm => gemm::input_gradient(g, sums, w_values),
            ConvAlgorithm::Subsampled(subsampling, g) => {
                subsampling.gradient(&gemm::input_gradient(&g, sums, w_values))
            }
        };
        let dw = || match ConvAlgorithm::of(g) {
            ConvAlgorithm::Depthwise => depthwise::weight_gradient(g, x_values, sums),
            ConvAlgorithm::Winograd if winograd::applies_to_weights(g) => winograd::weight_gradient(g, x_values, sums),
            ConvAlgorithm::Winograd | ConvAlgorithm::Gemm => gemm::weight_gradient(g, x_values, sums),
            ConvAlgorithm::Subsampled(subsampling, g) => {
                gemm::weight_gradient(&g, &subsampling.forward(x_values), sums)
            }
        };
        let dx = x.track_op().then(|| f32_tensor(dx(), x.shape())).transpose()?;
        let dw = w.track_op().then(|| f32_tensor(dw(), w.shape())).transpose()?;
        let third = match (through.bias, through.residual) {
            (Some(bias), _) => Some(f32_tensor(bias, g.c_out)?),
            (None, Some(residual)) => Some(f32_tensor(residual, y.shape())?),
            // Without a ReLU the residual's gradient is the output's.
            (None, None) => wanted.residual.then(|| dy.clone()),
        };
        Ok((dx, dw, third))
    }
}

impl CustomOp2 for Conv {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(self.forward(f32_values("conv2d", x, lx)?, f32_values("conv2d", w, lw)?, None))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw, _) = self.backward(x, w, None, y, dy)?;
        Ok((dx, dw))
    }
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        third: &CpuStorage,
        lt: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let third = f32_values("conv2d", third, lt)?;
        Ok(self.forward(f32_values("conv2d", x, lx)?, f32_values("conv2d", w, lw)?, Some(third)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        third: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<ThreeGradients> {
        Ok(self.backward(x, w, Some(third), y, dy)?)
    }
}
