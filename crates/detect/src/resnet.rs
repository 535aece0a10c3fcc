//! The ResNet backbone: 18, 34 (basic blocks), 50 and 101 (bottlenecks), without the classifier.

use crate::conv_norm::ConvNorm;
use crate::layers::{Conv, KAIMING_FAN_OUT};
use crate::{BackboneFeatures, Mode, ResNetConfig, Result, StridePlace};
use candle_core::Tensor;
use candle_nn::VarBuilder;

/// `(inputs, outputs, kernel, stride)` and the names of a convolution and its norm.
fn layer(
    shape: (usize, usize, usize, usize),
    cfg: &ResNetConfig,
    (conv, norm): (&str, &str),
    vb: &VarBuilder,
) -> Result<ConvNorm> {
    let conv = Conv::new(shape, false, KAIMING_FAN_OUT, &vb.pp(conv))?;
    ConvNorm::new(conv, cfg.norm, cfg.norm_eps, shape.1, &vb.pp(norm))
}

/// `relu(layers(x) + shortcut(x))`: two 3x3 layers, or 1x1, 3x3, 1x1.
#[derive(Debug, Clone)]
struct Block {
    layers: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

impl Block {
    fn new(cfg: &ResNetConfig, c_in: usize, width: usize, stride: usize, vb: &VarBuilder) -> Result<Self> {
        let c_out = width * cfg.expansion();
        let numbered = |i: usize, shape| layer(shape, cfg, (&format!("conv{i}"), &format!("bn{i}")), vb);
        let layers = if cfg.bottleneck() {
            let (first, second) = match cfg.stride_place {
                StridePlace::In3x3 => (1, stride),
                StridePlace::In1x1 => (stride, 1),
            };
            vec![
                numbered(1, (c_in, width, 1, first))?,
                numbered(2, (width, width, 3, second))?,
                numbered(3, (width, c_out, 1, 1))?,
            ]
        } else {
            vec![numbered(1, (c_in, width, 3, stride))?, numbered(2, (width, c_out, 3, 1))?]
        };
        let downsample = if stride != 1 || c_in != c_out {
            Some(layer((c_in, c_out, 1, stride), cfg, ("0", "1"), &vb.pp("downsample"))?)
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

    fn detached(&self) -> Self {
        Self {
            layers: self.layers.iter().map(ConvNorm::detached).collect(),
            downsample: self.downsample.as_ref().map(ConvNorm::detached),
        }
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
}

impl ResNet {
    /// Takes the parameters `conv1`, `bn1`, `layer1.0.conv1`, .. from `vb`.
    ///
    /// # Errors
    /// A configuration that is not valid; a parameter that is missing or has another shape.
    pub fn new(cfg: &ResNetConfig, vb: VarBuilder) -> Result<Self> {
        cfg.validate()?;
        let base = cfg.base();
        let stem = layer((3, base, 7, 2), cfg, ("conv1", "bn1"), &vb)?;
        let mut c_in = base;
        let mut stages = Vec::with_capacity(4);
        for (i, blocks) in cfg.blocks()?.into_iter().enumerate() {
            let width = base << i;
            let vb = vb.pp(format!("layer{}", i + 1));
            let mut stage = Vec::with_capacity(blocks);
            for j in 0..blocks {
                let stride = if i > 0 && j == 0 { 2 } else { 1 };
                stage.push(Block::new(cfg, c_in, width, stride, &vb.pp(j))?);
                c_in = width * cfg.expansion();
            }
            stages.push(stage);
        }
        Ok(Self { stem, stages })
    }

    /// Normalised pixels `[B, 3, H, W]` to C2 .. C5, whose sides are those of the input over 4, 8, 16 and 32, rounded up.
    ///
    /// # Errors
    /// Pixels of another shape.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<BackboneFeatures> {
        let x = self.stem.forward(x, None, true, mode)?;
        let mut x = docent_ops::max_pool2d(&x, 3, 2, 1)?;
        let mut levels = Vec::with_capacity(4);
        for stage in &self.stages {
            for block in stage {
                x = block.forward(&x, mode)?;
            }
            levels.push(x.clone());
        }
        Ok(BackboneFeatures { levels })
    }

    pub(crate) fn detached(&self) -> Self {
        Self {
            stem: self.stem.detached(),
            stages: self.stages.iter().map(|s| s.iter().map(Block::detached).collect()).collect(),
        }
    }
}
