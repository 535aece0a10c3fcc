//! The linear layer.

use candle_core::Tensor;
use candle_nn::Init;
use docent_ops::RoiLevel;

use super::builder::ModelBuilder;
use super::list::LayerKind;
use crate::{Mode, Result};

/// A linear layer with `weight` `[O, I]` and `bias` `[O]`, initialised as PyTorch's.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Takes `weight` and `bias` from `builder`.
    ///
    /// # Errors
    /// A parameter that is missing or has another shape.
    pub fn new(inputs: usize, outputs: usize, builder: &ModelBuilder<'_>) -> Result<Self> {
        let bound = 1.0 / (inputs as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        builder.register(LayerKind::Linear { inputs, outputs });
        Ok(Self { weight: builder.get((outputs, inputs), "weight", init)?, bias: builder.get(outputs, "bias", init)? })
    }

    /// `act(x W^T + b)`, `[R, I]` to `[R, O]`.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn forward(&self, x: &Tensor, relu: bool, mode: Mode) -> Result<Tensor> {
        Ok(docent_ops::linear(x, &mode.parameter(&self.weight), Some(&mode.parameter(&self.bias)), relu)?)
    }

    /// The same of regions that are cut out of maps in one operation with it: see [`docent_ops::roi_linear`].
    ///
    /// # Errors
    /// Maps of other channels than the weight expects.
    pub fn forward_rois(&self, levels: &[RoiLevel<'_>], relu: bool, mode: Mode) -> Result<Tensor> {
        Ok(docent_ops::roi_linear(levels, &mode.parameter(&self.weight), &mode.parameter(&self.bias), relu)?)
    }
}
