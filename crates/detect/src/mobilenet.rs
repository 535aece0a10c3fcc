//! The MobileNetV2 backbone: inverted residuals with ReLU6 (Sandler et al., CVPR 2018), with torchvision's names and
//! channel counts, without the last 1x1 layer and the classifier.

use crate::config::{MobileNetV2Config, make_divisible};
use crate::conv_norm::ConvNorm;
use crate::layers::{Conv, KAIMING_FAN_OUT};
use crate::{BackboneFeatures, Mode, Result};
use candle_core::Tensor;
use candle_nn::VarBuilder;

/// The features that are C2, C3, C4 and C5, at strides 4, 8, 16 and 32.
pub const TAPS: [usize; 4] = [3, 6, 13, 17];

/// Channels of the stem before the width's rounding.
const STEM: f64 = 32.0;

/// Rows of torchvision's table (table 2 of the paper): expansion, channels, blocks, stride of the first.
const TABLE: [(usize, f64, usize, usize); 7] = [
    (1, 16.0, 1, 1),
    (6, 24.0, 2, 2),
    (6, 32.0, 3, 2),
    (6, 64.0, 4, 2),
    (6, 96.0, 3, 1),
    (6, 160.0, 3, 2),
    (6, 320.0, 1, 1),
];

/// One inverted residual's figures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub c_in: usize,
    /// Channels of the depthwise convolution; `c_in` when nothing is expanded.
    pub hidden: usize,
    pub c_out: usize,
    pub stride: usize,
}

impl Plan {
    pub fn expands(&self) -> bool {
        self.hidden != self.c_in
    }
}

/// Channels of the stem, and the blocks: features 1 to 17.
pub(crate) fn plan(cfg: &MobileNetV2Config) -> (usize, Vec<Plan>) {
    let stem = make_divisible(STEM * cfg.width);
    let mut c_in = stem;
    let mut blocks = Vec::with_capacity(17);
    for (expansion, channels, n, first) in TABLE {
        let c_out = make_divisible(channels * cfg.width);
        for i in 0..n {
            blocks.push(Plan { c_in, hidden: c_in * expansion, c_out, stride: if i == 0 { first } else { 1 } });
            c_in = c_out;
        }
    }
    (stem, blocks)
}

/// Whether a tensor of this name below the backbone (`4.conv.3.weight`) lies in a norm layer.
pub(crate) fn belongs_to_norm(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        // Convolution, norm and ReLU6 in a row.
        [_, "1", _] | [_, "conv", _, "1", _] => true,
        // Behind the last 1x1 convolution, which is the second layer of a block without expansion, else the third.
        ["1", "conv", at, _] => *at == "2",
        [_, "conv", at, _] => *at == "3",
        _ => false,
    }
}

/// 1x1 to more channels, 3x3 on each channel alone, 1x1 to few: ReLU6 after the first two, the input added at the end
/// where it fits.
#[derive(Debug, Clone)]
struct InvertedResidual {
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    project: ConvNorm,
    residual: bool,
}

impl InvertedResidual {
    fn new(cfg: &MobileNetV2Config, plan: &Plan, vb: &VarBuilder) -> Result<Self> {
        let vb = vb.pp("conv");
        let Plan { c_in, hidden, c_out, stride } = *plan;
        let layer =
            |conv: Conv, channels, norm: &VarBuilder| ConvNorm::new(conv, cfg.norm, cfg.norm_eps, channels, norm);
        let (expand, at) = if plan.expands() {
            let vb = vb.pp(0);
            let conv = Conv::new((c_in, hidden, 1, 1), false, KAIMING_FAN_OUT, &vb.pp(0))?;
            (Some(layer(conv, hidden, &vb.pp(1))?), 1)
        } else {
            (None, 0)
        };
        let depthwise = Conv::depthwise((hidden, 3, stride), KAIMING_FAN_OUT, &vb.pp(at).pp(0))?;
        let project = Conv::new((hidden, c_out, 1, 1), false, KAIMING_FAN_OUT, &vb.pp(at + 1))?;
        Ok(Self {
            expand,
            depthwise: layer(depthwise, hidden, &vb.pp(at).pp(1))?,
            project: layer(project, c_out, &vb.pp(at + 2))?,
            residual: stride == 1 && c_in == c_out,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut y = x.clone();
        for layer in self.expand.iter().chain([&self.depthwise]) {
            y = docent_ops::relu6(&layer.forward(&y, None, false, mode)?)?;
        }
        self.project.forward(&y, self.residual.then_some(x), false, mode)
    }

    fn detached(&self) -> Self {
        Self {
            expand: self.expand.as_ref().map(ConvNorm::detached),
            depthwise: self.depthwise.detached(),
            project: self.project.detached(),
            residual: self.residual,
        }
    }
}

/// A MobileNetV2 that gives C2, C3, C4 and C5: its features 3, 6, 13 and 17.
///
/// A stage is frozen as a [`crate::resnet::ResNet`]'s: by plain tensors from the builder.
#[derive(Debug, Clone)]
pub struct MobileNetV2 {
    stem: ConvNorm,
    /// Features 1 to 17.
    blocks: Vec<InvertedResidual>,
}

impl MobileNetV2 {
    /// Takes the parameters `0.0`, `0.1`, `1.conv.0.0`, .. from `vb`: torchvision's names below `features`.
    ///
    /// # Errors
    /// A configuration that is not valid; a parameter that is missing or has another shape.
    pub fn new(cfg: &MobileNetV2Config, vb: VarBuilder) -> Result<Self> {
        cfg.validate()?;
        let (channels, plans) = plan(cfg);
        let conv = Conv::new((3, channels, 3, 2), false, KAIMING_FAN_OUT, &vb.pp(0).pp(0))?;
        let stem = ConvNorm::new(conv, cfg.norm, cfg.norm_eps, channels, &vb.pp(0).pp(1))?;
        let blocks = plans.iter().enumerate().map(|(i, plan)| InvertedResidual::new(cfg, plan, &vb.pp(i + 1)));
        Ok(Self { stem, blocks: blocks.collect::<Result<_>>()? })
    }

    /// Normalised pixels `[B, 3, H, W]` to C2 .. C5, whose sides are those of the input over 4, 8, 16 and 32, rounded up.
    ///
    /// # Errors
    /// Pixels of another shape.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<BackboneFeatures> {
        let mut x = docent_ops::relu6(&self.stem.forward(x, None, false, mode)?)?;
        let mut levels = Vec::with_capacity(TAPS.len());
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, mode)?;
            if TAPS.contains(&(i + 1)) {
                levels.push(x.clone());
            }
        }
        Ok(BackboneFeatures { levels })
    }

    pub(crate) fn detached(&self) -> Self {
        Self { stem: self.stem.detached(), blocks: self.blocks.iter().map(InvertedResidual::detached).collect() }
    }
}
