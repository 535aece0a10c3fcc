//! A convolution without bias and its norm: what every backbone is made of.

use candle_core::Tensor;

use super::builder::ModelBuilder;
use super::conv::{Conv2d, Conv2dConfig};
use super::norm::{Norm, NormKind};
use crate::{Mode, Result};

/// A convolution without bias and its norm.
#[derive(Debug, Clone)]
pub struct ConvNorm {
    conv: Conv2d,
    norm: Norm,
}

impl ConvNorm {
    /// Takes the convolution's weight from `conv_builder` and the norm's tensors from `norm_builder`.
    ///
    /// # Errors
    /// A parameter that is missing or has another shape.
    pub fn new(
        config: &Conv2dConfig,
        norm: NormKind,
        eps: f64,
        conv_builder: &ModelBuilder<'_>,
        norm_builder: &ModelBuilder<'_>,
    ) -> Result<Self> {
        Ok(Self { conv: Conv2d::new(config, conv_builder)?, norm: Norm::new(norm, eps, config.c_out, norm_builder)? })
    }

    /// `act(norm(conv(x)) + residual)`.
    ///
    /// # Errors
    /// An input of other channels, a residual of another shape.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>, relu: bool, mode: Mode) -> Result<Tensor> {
        self.norm.after(&self.conv, x, residual, relu, mode)
    }
}
