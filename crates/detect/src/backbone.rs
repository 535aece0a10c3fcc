//! Any of the backbones.

use crate::mobilenet::MobileNetV2;
use crate::resnet::ResNet;
use crate::{BackboneConfig, BackboneFeatures, Mode, Result};
use candle_core::Tensor;
use candle_nn::VarBuilder;

/// A backbone: pixels in, C2 to C5 at strides 4, 8, 16 and 32 out.
#[derive(Debug, Clone)]
pub enum Backbone {
    /// A ResNet.
    ResNet(ResNet),
    /// A MobileNetV2.
    MobileNetV2(MobileNetV2),
}

impl Backbone {
    /// Takes its parameters from `vb`, which stands at torchvision's `backbone.body`.
    ///
    /// # Errors
    /// A configuration that is not valid; a parameter that is missing or has another shape.
    pub fn new(cfg: &BackboneConfig, vb: VarBuilder) -> Result<Self> {
        Ok(match cfg {
            BackboneConfig::ResNet(cfg) => Self::ResNet(ResNet::new(cfg, vb)?),
            BackboneConfig::MobileNetV2(cfg) => Self::MobileNetV2(MobileNetV2::new(cfg, vb)?),
        })
    }

    /// Normalised pixels `[B, 3, H, W]` to C2 .. C5, whose sides are those of the input over 4, 8, 16 and 32, rounded up.
    ///
    /// # Errors
    /// Pixels of another shape.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<BackboneFeatures> {
        match self {
            Self::ResNet(body) => body.forward(x, mode),
            Self::MobileNetV2(body) => body.forward(x, mode),
        }
    }

    pub(crate) fn detached(&self) -> Self {
        match self {
            Self::ResNet(body) => Self::ResNet(body.detached()),
            Self::MobileNetV2(body) => Self::MobileNetV2(body.detached()),
        }
    }
}
