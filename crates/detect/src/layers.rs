//! Convolution and linear layers with their parameters, by torchvision's names.

use crate::Result;
use candle_core::Tensor;
use candle_nn::init::{FanInOut, NonLinearity, NormalOrUniform};
use candle_nn::{Init, VarBuilder};
use docent_ops::{Affine, BatchStats, BiasOrResidual, Conv2dParams, RoiLevel};

/// torchvision's initialisation of its backbones: Kaiming, normal, by fan-out, for ReLU.
pub(crate) const KAIMING_FAN_OUT: Init =
    Init::Kaiming { dist: NormalOrUniform::Normal, fan: FanInOut::FanOut, non_linearity: NonLinearity::ReLU };
/// torchvision's initialisation of the pyramid: Kaiming, uniform, by fan-in, `a = 1` (gain 1).
pub(crate) const KAIMING_LINEAR: Init =
    Init::Kaiming { dist: NormalOrUniform::Uniform, fan: FanInOut::FanIn, non_linearity: NonLinearity::Linear };
/// torchvision's initialisation of the RPN.
pub(crate) const NORMAL_001: Init = Init::Randn { mean: 0.0, stdev: 0.01 };

/// A convolution with `weight` `[C_out, C_in, k, k]` and, perhaps, `bias` `[C_out]`.
#[derive(Debug, Clone)]
pub(crate) struct Conv {
    weight: Tensor,
    bias: Option<Tensor>,
    params: Conv2dParams,
}

impl Conv {
    /// A convolution that keeps the size at stride 1: padding is half the kernel.
    pub(crate) fn new(
        (c_in, c_out, kernel, stride): (usize, usize, usize, usize),
        bias: bool,
        init: Init,
        vb: &VarBuilder,
    ) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints((c_out, c_in, kernel, kernel), "weight", init)?,
            bias: if bias { Some(vb.get_with_hints(c_out, "bias", Init::Const(0.0))?) } else { None },
            params: Conv2dParams { stride, padding: kernel / 2, ..Conv2dParams::default() },
        })
    }

    /// One filter a channel, without a bias: `weight` is `[C, 1, k, k]`.
    pub(crate) fn depthwise(
        (channels, kernel, stride): (usize, usize, usize),
        init: Init,
        vb: &VarBuilder,
    ) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints((channels, 1, kernel, kernel), "weight", init)?,
            bias: None,
            params: Conv2dParams { stride, padding: kernel / 2, groups: channels, ..Conv2dParams::default() },
        })
    }

    /// `act(conv(x) + bias)`.
    pub(crate) fn forward(&self, x: &Tensor, relu: bool) -> Result<Tensor> {
        let addend = self.bias.as_ref().map_or(BiasOrResidual::None, BiasOrResidual::Bias);
        Ok(docent_ops::conv2d(x, &self.weight, addend, None, relu, &self.params)?)
    }

    /// `act(scale * conv(x) + shift + residual)`, in one operation. For layers without a bias.
    pub(crate) fn forward_affine(
        &self,
        x: &Tensor,
        affine: &Affine,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<Tensor> {
        let addend = residual.map_or(BiasOrResidual::None, BiasOrResidual::Residual);
        Ok(docent_ops::conv2d(x, &self.weight, addend, Some(affine), relu, &self.params)?)
    }

    /// `act(norm(conv(x)))` by the batch's own statistics, in one operation. For layers without a bias.
    pub(crate) fn forward_batch_norm(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        eps: f64,
        relu: bool,
    ) -> Result<(Tensor, BatchStats)> {
        Ok(docent_ops::conv_batch_norm_train(x, &self.weight, gamma, beta, eps, relu, &self.params)?)
    }

    /// The same layer over the same storage, outside any graph.
    pub(crate) fn detached(&self) -> Self {
        Self { weight: self.weight.detach(), bias: self.bias.as_ref().map(Tensor::detach), params: self.params }
    }
}

/// A linear layer with `weight` `[O, I]` and `bias` `[O]`, initialised as PyTorch's.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    pub(crate) fn new(inputs: usize, outputs: usize, vb: &VarBuilder) -> Result<Self> {
        let bound = 1.0 / (inputs as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        Ok(Self {
            weight: vb.get_with_hints((outputs, inputs), "weight", init)?,
            bias: vb.get_with_hints(outputs, "bias", init)?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor, relu: bool) -> Result<Tensor> {
        Ok(docent_ops::linear(x, &self.weight, Some(&self.bias), relu)?)
    }

    /// The same of RoIs that are cut out of maps in one operation with it.
    pub(crate) fn forward_rois(&self, levels: &[RoiLevel<'_>], relu: bool) -> Result<Tensor> {
        Ok(docent_ops::roi_linear(levels, &self.weight, &self.bias, relu)?)
    }

    pub(crate) fn detached(&self) -> Self {
        Self { weight: self.weight.detach(), bias: self.bias.detach() }
    }
}
