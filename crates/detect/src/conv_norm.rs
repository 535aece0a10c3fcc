//! A convolution without bias and its norm: what every backbone is made of.

use crate::layers::Conv;
use crate::norm::Norm;
use crate::{Mode, NormKind, Result};
use candle_core::Tensor;
use candle_nn::VarBuilder;

/// A convolution without bias and its norm.
#[derive(Debug, Clone)]
pub(crate) struct ConvNorm {
    conv: Conv,
    norm: Norm,
}

impl ConvNorm {
    /// `norm_vb` is the builder at the norm's own path; `channels` are the convolution's outputs.
    pub(crate) fn new(conv: Conv, norm: NormKind, eps: f64, channels: usize, norm_vb: &VarBuilder) -> Result<Self> {
        Ok(Self { conv, norm: Norm::new(norm, eps, channels, norm_vb)? })
    }

    /// `act(norm(conv(x)) + residual)`.
    pub(crate) fn forward(&self, x: &Tensor, residual: Option<&Tensor>, relu: bool, mode: Mode) -> Result<Tensor> {
        self.norm.after(&self.conv, x, residual, relu, mode)
    }

    pub(crate) fn detached(&self) -> Self {
        Self { conv: self.conv.detached(), norm: self.norm.detached() }
    }
}
