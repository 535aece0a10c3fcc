//! The MobileNetV2 backbone: inverted residuals with ReLU6 (Sandler et al., CVPR 2018), with torchvision's names and
//! channel counts, without the last 1x1 layer and the classifier.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::interface::Backbone;
use crate::layers::{Conv2dConfig, ConvNorm, ModelBuilder, NormKind};
use crate::ranges::{MAX_WIDTH, norm_eps};
use crate::{Error, FeaturePyramid, FeatureSpec, Mode, Result, setters};

/// The MobileNetV2 backbone (Sandler et al., CVPR 2018) in torchvision's form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MobileNetV2Config {
    /// Multiplies every layer's channels, which are then rounded to a multiple of 8 ([`make_divisible`]). Default 1.
    pub width_multiplier: f64,
    /// The norm. Default frozen BatchNorm.
    pub norm: NormKind,
    /// Added to the variance. Default 1e-5.
    pub norm_eps: f64,
}

setters!(MobileNetV2Config { width_multiplier: f64, norm: NormKind, norm_eps: f64 });

impl Default for MobileNetV2Config {
    fn default() -> Self {
        Self { width_multiplier: 1.0, norm: NormKind::FrozenBatchNorm, norm_eps: 1e-5 }
    }
}

/// `v` rounded to a multiple of 8, at least 8, and never less than nine tenths of `v`: torchvision's `_make_divisible`.
pub fn make_divisible(v: f64) -> usize {
    const DIVISOR: usize = 8;
    let rounded = ((v + DIVISOR as f64 / 2.0).max(0.0) as usize / DIVISOR * DIVISOR).max(DIVISOR);
    if (rounded as f64) < 0.9 * v { rounded + DIVISOR } else { rounded }
}

impl MobileNetV2Config {
    /// Channels of C2, C3, C4 and C5: the outputs of features 3, 6, 13 and 17.
    pub fn channels(&self) -> [usize; 4] {
        [24.0, 32.0, 96.0, 320.0].map(|c| make_divisible(c * self.width_multiplier))
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field with a value that it cannot have.
    pub fn validate(&self) -> Result<()> {
        if !(self.width_multiplier > 0.0 && self.width_multiplier <= MAX_WIDTH) {
            return Err(Error::config(
                "backbone.width_multiplier",
                format!("{} does not lie above 0 and up to {MAX_WIDTH}", self.width_multiplier),
            ));
        }
        norm_eps(self.norm_eps)?;
        if let NormKind::GroupNorm { groups } = self.norm
            && !matches!(groups, 1 | 2 | 4 | 8)
        {
            return Err(Error::config(
                "backbone.norm.group_norm.groups",
                format!("{groups}: every layer has a multiple of 8 channels, so 1, 2, 4 and 8 divide them all"),
            ));
        }
        Ok(())
    }
}

/// The features that are C2, C3, C4 and C5, at strides 4, 8, 16 and 32.
const TAPS: [usize; 4] = [3, 6, 13, 17];

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
struct Plan {
    c_in: usize,
    /// Channels of the depthwise convolution; `c_in` when nothing is expanded.
    hidden: usize,
    c_out: usize,
    stride: usize,
}

impl Plan {
    fn expands(&self) -> bool {
        self.hidden != self.c_in
    }
}

/// Channels of the stem, and the blocks: features 1 to 17.
fn plan(cfg: &MobileNetV2Config) -> (usize, Vec<Plan>) {
    let stem = make_divisible(STEM * cfg.width_multiplier);
    let mut c_in = stem;
    let mut blocks = Vec::with_capacity(17);
    for (expansion, channels, n, first) in TABLE {
        let c_out = make_divisible(channels * cfg.width_multiplier);
        for i in 0..n {
            blocks.push(Plan { c_in, hidden: c_in * expansion, c_out, stride: if i == 0 { first } else { 1 } });
            c_in = c_out;
        }
    }
    (stem, blocks)
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
    /// `side` is the stride of the block's inputs.
    fn new(cfg: &MobileNetV2Config, plan: &Plan, side: usize, builder: &ModelBuilder<'_>) -> Result<Self> {
        let builder = builder.pp("conv").on_maps(&[side]);
        let Plan { c_in, hidden, c_out, stride } = *plan;
        let layer = |conv: &Conv2dConfig, conv_builder: &ModelBuilder<'_>, norm: &ModelBuilder<'_>| {
            ConvNorm::new(conv, cfg.norm, cfg.norm_eps, conv_builder, norm)
        };
        let (expand, at) = if plan.expands() {
            let first = builder.pp(0);
            (Some(layer(&Conv2dConfig::new(c_in, hidden, 1), &first.pp(0), &first.pp(1))?), 1)
        } else {
            (None, 0)
        };
        let second = builder.pp(at);
        let depthwise = Conv2dConfig::depthwise(hidden, 3).stride(stride);
        let depthwise = layer(&depthwise, &second.pp(0), &second.pp(1))?;
        let last = builder.on_maps(&[side * stride]);
        let project = layer(&Conv2dConfig::new(hidden, c_out, 1), &last.pp(at + 1), &last.pp(at + 2))?;
        Ok(Self { expand, depthwise, project, residual: stride == 1 && c_in == c_out })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut y = x.clone();
        for layer in self.expand.iter().chain([&self.depthwise]) {
            y = docent_ops::relu6(&layer.forward(&y, None, false, mode)?)?;
        }
        self.project.forward(&y, self.residual.then_some(x), false, mode)
    }
}

/// A MobileNetV2 that gives C2, C3, C4 and C5: its features 3, 6, 13 and 17.
///
/// A stage is frozen as a [`super::ResNet`]'s: by plain tensors from the builder.
#[derive(Debug, Clone)]
pub struct MobileNetV2 {
    stem: ConvNorm,
    /// Blocks 1 to 17 of torchvision's `features`.
    blocks: Vec<InvertedResidual>,
    outputs: Vec<FeatureSpec>,
}

impl MobileNetV2 {
    /// Numbers of the blocks that give C2, C3, C4 and C5, in torchvision's `features`.
    pub const TAPS: [usize; 4] = TAPS;

    /// Takes the parameters `0.0`, `0.1`, `1.conv.0.0`, .. from `builder`: torchvision's names below `features`.
    ///
    /// # Errors
    /// A configuration that is not valid; a parameter that is missing or has another shape.
    pub fn new(cfg: &MobileNetV2Config, builder: &ModelBuilder<'_>) -> Result<Self> {
        cfg.validate()?;
        let (channels, plans) = plan(cfg);
        let first = builder.stage(0).pp(0).on_maps(&[1]);
        let conv = Conv2dConfig::new(3, channels, 3).stride(2);
        let stem = ConvNorm::new(&conv, cfg.norm, cfg.norm_eps, &first.pp(0), &first.pp(1))?;
        let mut side = 2;
        let mut blocks = Vec::with_capacity(plans.len());
        let mut outputs = Vec::with_capacity(TAPS.len());
        for (plan, number) in plans.iter().zip(1..) {
            // The stage ends with the block that is tapped.
            let stage = outputs.len() + 1;
            blocks.push(InvertedResidual::new(cfg, plan, side, &builder.stage(stage).pp(number))?);
            side *= plan.stride;
            if TAPS.contains(&number) {
                let name = format!("c{}", stage + 1);
                outputs.push(FeatureSpec { name, stride: side, channels: plan.c_out });
            }
        }
        Ok(Self { stem, blocks, outputs })
    }
}

impl Backbone for MobileNetV2 {
    fn outputs(&self) -> &[FeatureSpec] {
        &self.outputs
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<FeaturePyramid> {
        let mut x = docent_ops::relu6(&self.stem.forward(x, None, false, mode)?)?;
        let mut levels = Vec::with_capacity(TAPS.len());
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, mode)?;
            if TAPS.contains(&(i + 1)) {
                levels.push(x.clone());
            }
        }
        Ok(FeaturePyramid::new(levels, &self.outputs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // torchvision 0.29's `_make_divisible(v, 8)`.
    #[test]
    fn channels_are_rounded_as_torchvision_rounds_them() {
        let given = [1.0, 8.0, 11.9, 12.0, 16.8, 18.0, 20.0, 33.6, 44.8, 72.0, 1792.0];
        assert_eq!(given.map(make_divisible), [8, 8, 16, 16, 16, 24, 24, 32, 48, 72, 1792]);
        let channels = |width_multiplier| MobileNetV2Config { width_multiplier, ..Default::default() }.channels();
        assert_eq!(channels(1.0), [24, 32, 96, 320]);
        assert_eq!(channels(1.4), [32, 48, 136, 448]);
        assert_eq!(channels(0.25), [8, 8, 24, 80]);
    }

    #[test]
    fn values_that_cannot_be_are_named() {
        let message = |c: MobileNetV2Config| c.validate().unwrap_err().to_string();
        assert!(
            message(MobileNetV2Config { width_multiplier: 0.0, ..Default::default() })
                .contains("backbone.width_multiplier")
        );
        assert!(message(MobileNetV2Config { norm_eps: -1.0, ..Default::default() }).contains("norm_eps"));
        let groups = NormKind::GroupNorm { groups: 3 };
        assert!(message(MobileNetV2Config { norm: groups, ..Default::default() }).contains("8 divide"));
    }
}
