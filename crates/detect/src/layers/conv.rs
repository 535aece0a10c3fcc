//! The convolution with its parameters.

use candle_core::Tensor;
use candle_nn::Init;
use candle_nn::init::{FanInOut, NonLinearity, NormalOrUniform};
use docent_ops::{Affine, BatchStats, BiasOrResidual, Conv2dParams};

use super::builder::ModelBuilder;
use super::list::LayerKind;
use crate::{Mode, Result};

/// torchvision's initialisation of its backbones: Kaiming, normal, by fan-out, for ReLU.
const KAIMING_FAN_OUT: Init =
    Init::Kaiming { dist: NormalOrUniform::Normal, fan: FanInOut::FanOut, non_linearity: NonLinearity::ReLU };

/// Settings of a [`Conv2d`] with a square kernel. The input is padded by half of it, so stride 1 keeps the size.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Conv2dConfig {
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Cells from one output to the next. Default 1.
    pub stride: usize,
    /// Groups of channels. Default 1.
    pub groups: usize,
    /// Whether a bias is added. Default false: a norm follows.
    pub bias: bool,
    /// Initialisation of the weight. Default torchvision's for backbones: Kaiming, normal, by fan-out, for ReLU.
    pub init: Init,
}

impl Conv2dConfig {
    /// A convolution of stride 1 without a bias.
    pub fn new(c_in: usize, c_out: usize, kernel: usize) -> Self {
        Self { c_in, c_out, kernel, stride: 1, groups: 1, bias: false, init: KAIMING_FAN_OUT }
    }

    /// One filter a channel.
    pub fn depthwise(channels: usize, kernel: usize) -> Self {
        Self { groups: channels, ..Self::new(channels, channels, kernel) }
    }

    /// Sets the stride.
    #[must_use]
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Adds a bias, and sets the initialisation of the weight.
    #[must_use]
    pub fn bias(self, init: Init) -> Self {
        Self { bias: true, init, ..self }
    }
}

/// A convolution with `weight` `[C_out, C_in / groups, k, k]` and, perhaps, `bias` `[C_out]`.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    params: Conv2dParams,
}

impl Conv2d {
    /// Takes `weight` and, perhaps, `bias` from `builder`.
    ///
    /// # Errors
    /// A parameter that is missing or has another shape.
    pub fn new(config: &Conv2dConfig, builder: &ModelBuilder<'_>) -> Result<Self> {
        let Conv2dConfig { c_in, c_out, kernel, stride, groups, bias, init } = *config;
        builder.register(LayerKind::Conv2d { c_in, c_out, kernel, stride, groups, bias });
        Ok(Self {
            weight: builder.get((c_out, c_in / groups, kernel, kernel), "weight", init)?,
            bias: if bias { Some(builder.get(c_out, "bias", Init::Const(0.0))?) } else { None },
            params: Conv2dParams { stride, padding: kernel / 2, groups, ..Conv2dParams::default() },
        })
    }

    /// `act(conv(x) + bias)`.
    ///
    /// # Errors
    /// An input of other channels.
    pub fn forward(&self, x: &Tensor, relu: bool, mode: Mode) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| mode.parameter(bias));
        let addend = bias.as_ref().map_or(BiasOrResidual::None, BiasOrResidual::Bias);
        Ok(docent_ops::conv2d(x, &mode.parameter(&self.weight), addend, None, relu, &self.params)?)
    }

    /// `act(scale * conv(x) + shift + residual)`, in one operation. For layers without a bias.
    pub(super) fn forward_affine(
        &self,
        x: &Tensor,
        affine: &Affine,
        residual: Option<&Tensor>,
        relu: bool,
        mode: Mode,
    ) -> Result<Tensor> {
        let addend = residual.map_or(BiasOrResidual::None, BiasOrResidual::Residual);
        Ok(docent_ops::conv2d(x, &mode.parameter(&self.weight), addend, Some(affine), relu, &self.params)?)
    }

    /// `act(norm(conv(x)))` by the batch's own statistics, in one operation. For layers without a bias.
    pub(super) fn forward_batch_norm(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        eps: f64,
        relu: bool,
    ) -> Result<(Tensor, BatchStats)> {
        Ok(docent_ops::conv_batch_norm_train(x, &self.weight, gamma, beta, eps, relu, &self.params)?)
    }
}
