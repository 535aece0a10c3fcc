//! The ResNet backbone: 18, 34 (basic blocks), 50 and 101 (bottlenecks), without the classifier.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::interface::Backbone;
use crate::layers::{Conv2dConfig, ConvNorm, ModelBuilder, NormKind};
use crate::ranges::{MAX_WIDTH, norm_eps, positive, within};
use crate::{Error, FeaturePyramid, FeatureSpec, Mode, Result, setters};

/// Depths of ResNet that there are.
pub const DEPTHS: [usize; 4] = [18, 34, 50, 101];

/// The ResNet backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ResNetConfig {
    /// 18, 34, 50 or 101. Default 50.
    pub depth: usize,
    /// Multiplies every layer's channels; the stem gets `round(64 * width_multiplier)`. Default 1.
    pub width_multiplier: f64,
    /// The norm. Default frozen BatchNorm.
    pub norm: NormKind,
    /// Added to the variance. Default 1e-5. torchvision's COCO checkpoints of frozen BatchNorm want 0.
    pub norm_eps: f64,
    /// Whether a bottleneck strides in its first 1x1 convolution, as MSRA's original weights, or in the 3x3, as torchvision's
    /// ("v1.5"). Default false. ResNet-18 and 34 have no bottleneck.
    pub stride_in_1x1: bool,
}

setters!(ResNetConfig { depth: usize, width_multiplier: f64, norm: NormKind, norm_eps: f64, stride_in_1x1: bool });

impl Default for ResNetConfig {
    fn default() -> Self {
        Self { depth: 50, width_multiplier: 1.0, norm: NormKind::FrozenBatchNorm, norm_eps: 1e-5, stride_in_1x1: false }
    }
}

impl ResNetConfig {
    /// Channels of the stem, and the width of the first stage's blocks.
    pub fn base(&self) -> usize {
        (64.0 * self.width_multiplier).round().max(0.0) as usize
    }

    /// Whether the blocks are bottlenecks (50 and 101).
    pub fn bottleneck(&self) -> bool {
        self.depth >= 50
    }

    /// A block's output channels over its width: 4 for bottlenecks, 1 for basic blocks.
    pub fn expansion(&self) -> usize {
        if self.bottleneck() { 4 } else { 1 }
    }

    /// Blocks of each stage.
    ///
    /// # Errors
    /// A depth that is not in [`DEPTHS`].
    pub fn blocks(&self) -> Result<[usize; 4]> {
        match self.depth {
            18 => Ok([2, 2, 2, 2]),
            34 | 50 => Ok([3, 4, 6, 3]),
            101 => Ok([3, 4, 23, 3]),
            d => {
                let nearest = DEPTHS.into_iter().min_by_key(|n| n.abs_diff(d)).unwrap_or(50);
                Err(Error::config(
                    "backbone.depth",
                    format!("unsupported ResNet depth {d}; the nearest is {nearest}, all are {DEPTHS:?}"),
                ))
            }
        }
    }

    /// Channels of C2, C3, C4 and C5.
    pub fn channels(&self) -> [usize; 4] {
        let c = self.base() * self.expansion();
        [c, 2 * c, 4 * c, 8 * c]
    }
}

impl ResNetConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field with a value that it cannot have.
    pub fn validate(&self) -> Result<()> {
        self.blocks()?;
        positive("backbone.width_multiplier", self.width_multiplier)?;
        within("backbone.width_multiplier", self.width_multiplier, 0.0, MAX_WIDTH)?;
        if self.base() == 0 {
            return Err(Error::config(
                "backbone.width_multiplier",
                format!("{} leaves no channel in the stem; the least is {}", self.width_multiplier, 1.0 / 64.0),
            ));
        }
        norm_eps(self.norm_eps)?;
        if let NormKind::GroupNorm { groups } = self.norm {
            // Every layer has the stem's channels times a power of two.
            let base = self.base();
            if groups == 0 || !base.is_multiple_of(groups) {
                let below = (1..=groups.clamp(1, base)).rev().find(|&g| base.is_multiple_of(g)).unwrap_or(1);
                let above = (groups.max(1)..=base).find(|&g| base.is_multiple_of(g)).unwrap_or(base);
                return Err(Error::config(
                    "backbone.norm.group_norm.groups",
                    format!(
                        "{groups} does not divide the stem's {base} channels; the nearest that do are {below} and {above}"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// A convolution and its norm, each under its own name below `builder`.
fn layer(
    conv: Conv2dConfig,
    cfg: &ResNetConfig,
    (conv_name, norm_name): (&str, &str),
    builder: &ModelBuilder<'_>,
) -> Result<ConvNorm> {
    ConvNorm::new(&conv, cfg.norm, cfg.norm_eps, &builder.pp(conv_name), &builder.pp(norm_name))
}

/// `relu(layers(x) + shortcut(x))`: two 3x3 layers, or 1x1, 3x3, 1x1.
#[derive(Debug, Clone)]
struct Block {
    layers: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

impl Block {
    /// `side` is the stride of the block's inputs.
    fn new(
        cfg: &ResNetConfig,
        (c_in, width): (usize, usize),
        (side, stride): (usize, usize),
        builder: &ModelBuilder<'_>,
    ) -> Result<Self> {
        let c_out = width * cfg.expansion();
        let numbered = |i: usize, conv: Conv2dConfig, side: usize| {
            layer(conv, cfg, (&format!("conv{i}"), &format!("bn{i}")), &builder.on_maps(&[side]))
        };
        let conv = Conv2dConfig::new;
        let layers = if cfg.bottleneck() {
            let (first, second) = if cfg.stride_in_1x1 { (stride, 1) } else { (1, stride) };
            vec![
                numbered(1, conv(c_in, width, 1).stride(first), side)?,
                numbered(2, conv(width, width, 3).stride(second), side * first)?,
                numbered(3, conv(width, c_out, 1), side * stride)?,
            ]
        } else {
            vec![
                numbered(1, conv(c_in, width, 3).stride(stride), side)?,
                numbered(2, conv(width, c_out, 3), side * stride)?,
            ]
        };
        let downsample = if stride != 1 || c_in != c_out {
            let builder = builder.pp("downsample").on_maps(&[side]);
            Some(layer(conv(c_in, c_out, 1).stride(stride), cfg, ("0", "1"), &builder)?)
        } else {
            None
        };
        Ok(Self { layers, downsample })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let shortcut = match &self.downsample {
            Some(d) => d.forward(x, None, false, mode)?,
            None => x.clone(),
        };
        let mut y = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            y = layer.forward(&y, last.then_some(&shortcut), true, mode)?;
        }
        if self.downsample.is_some() {
            // No backward pass reads it.
            docent_tensor::release(shortcut)?;
        }
        Ok(y)
    }
}

/// A ResNet that gives C2, C3, C4 and C5: the outputs of its four stages, at strides 4, 8, 16 and 32.
///
/// A stage is frozen by handing out plain tensors for it: then it has no gradient, and its BatchNorm keeps to its
/// running statistics.
#[derive(Debug, Clone)]
pub struct ResNet {
    stem: ConvNorm,
    stages: Vec<Vec<Block>>,
    outputs: Vec<FeatureSpec>,
}

impl ResNet {
    /// Takes the parameters `conv1`, `bn1`, `layer1.0.conv1`, .. from `builder`.
    ///
    /// # Errors
    /// A configuration that is not valid; a parameter that is missing or has another shape.
    pub fn new(cfg: &ResNetConfig, builder: &ModelBuilder<'_>) -> Result<Self> {
        cfg.validate()?;
        let base = cfg.base();
        let stem =
            layer(Conv2dConfig::new(3, base, 7).stride(2), cfg, ("conv1", "bn1"), &builder.stage(0).on_maps(&[1]))?;
        let (mut c_in, mut side) = (base, 4);
        let mut stages = Vec::with_capacity(4);
        let mut outputs = Vec::with_capacity(4);
        for (i, blocks) in cfg.blocks()?.into_iter().enumerate() {
            let width = base << i;
            let builder = builder.stage(i + 1).pp(format!("layer{}", i + 1));
            let mut stage = Vec::with_capacity(blocks);
            for j in 0..blocks {
                let stride = if i > 0 && j == 0 { 2 } else { 1 };
                stage.push(Block::new(cfg, (c_in, width), (side, stride), &builder.pp(j))?);
                c_in = width * cfg.expansion();
                side *= stride;
            }
            stages.push(stage);
            outputs.push(FeatureSpec { name: format!("c{}", i + 2), stride: side, channels: c_in });
        }
        Ok(Self { stem, stages, outputs })
    }
}

impl Backbone for ResNet {
    fn outputs(&self) -> &[FeatureSpec] {
        &self.outputs
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<FeaturePyramid> {
        let x = self.stem.forward(x, None, true, mode)?;
        let mut x = docent_ops::max_pool2d(&x, 3, 2, 1)?;
        let mut levels = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            for block in stage {
                x = block.forward(&x, mode)?;
            }
            levels.push(x.clone());
        }
        Ok(FeaturePyramid::new(levels, &self.outputs))
    }
}
