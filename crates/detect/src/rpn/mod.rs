//! The region proposal network: its head here, its proposals and losses in the files beside.

mod losses;
mod proposals;

use candle_core::Tensor;
use candle_nn::Init;

use crate::layers::{Conv2d, Conv2dConfig, ModelBuilder};
use crate::{DenseHeadOutput, Error, FeaturePyramid, FeatureSpec, Mode, Result};

pub use losses::rpn_losses;
pub use proposals::propose;

/// torchvision's initialisation of the RPN.
const NORMAL_001: Init = Init::Randn { mean: 0.0, stdev: 0.01 };

/// A 3x3 convolution with ReLU and two 1x1 convolutions, shared by all levels.
#[derive(Debug, Clone)]
pub struct RpnHead {
    conv: Conv2d,
    logits: Conv2d,
    deltas: Conv2d,
}

impl RpnHead {
    /// Takes `conv.0.0`, `cls_logits` and `bbox_pred` from `builder`, for `anchors` anchors a cell of the levels `inputs`.
    ///
    /// # Errors
    /// No level; a parameter that is missing or has another shape.
    pub fn new(inputs: &[FeatureSpec], anchors: usize, builder: &ModelBuilder<'_>) -> Result<Self> {
        let Some(first) = inputs.first() else { return Err(Error::input("rpn", "the pyramid has no level")) };
        let (channels, strides): (usize, Vec<usize>) = (first.channels, inputs.iter().map(|i| i.stride).collect());
        let builder = builder.on_maps(&strides);
        let conv = |c_out, kernel| Conv2dConfig::new(channels, c_out, kernel).bias(NORMAL_001);
        Ok(Self {
            conv: Conv2d::new(&conv(channels, 3), &builder.pp("conv").pp(0).pp(0))?,
            logits: Conv2d::new(&conv(anchors, 1), &builder.pp("cls_logits"))?,
            deltas: Conv2d::new(&conv(4 * anchors, 1), &builder.pp("bbox_pred"))?,
        })
    }

    /// Objectness logits `[B, A, H, W]` and box deltas `[B, 4A, H, W]` of every level.
    ///
    /// # Errors
    /// Levels of other channels.
    pub fn forward(&self, features: &FeaturePyramid, mode: Mode) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let mut objectness = Vec::with_capacity(features.levels.len());
        let mut deltas = Vec::with_capacity(features.levels.len());
        for level in &features.levels {
            let hidden = self.conv.forward(level, true, mode)?;
            objectness.push(self.logits.forward(&hidden, false, mode)?);
            deltas.push(self.deltas.forward(&hidden, false, mode)?);
        }
        Ok((objectness, deltas))
    }
}

/// One level's layout: how an anchor's number in the order (row, column, anchor) becomes a flat index in the maps.
#[derive(Debug, Clone, Copy)]
struct LevelLayout {
    /// A: anchors a cell.
    anchors: usize,
    /// H * W.
    cells: usize,
}

impl LevelLayout {
    /// The layouts of all levels of an output and its number of images.
    fn of(output: &DenseHeadOutput, stage: &'static str) -> Result<(usize, Vec<Self>)> {
        let n = output.logits.len();
        if n == 0 || output.deltas.len() != n || output.anchors.len() != n {
            return Err(Error::input(
                stage,
                format!("{n} objectness, {} delta and {} anchor levels", output.deltas.len(), output.anchors.len()),
            ));
        }
        let images = output.logits[0].dims().first().copied().unwrap_or(0);
        let layouts = (0..n)
            .map(|l| match (output.logits[l].dims(), output.deltas[l].dims()) {
                (&[b, a, h, w], &[b4, a4, h4, w4])
                    if (b, b4, a4, h4, w4) == (images, images, 4 * a, h, w) && output.anchors[l].len() == a * h * w =>
                {
                    Ok(Self { anchors: a, cells: h * w })
                }
                (o, d) => Err(Error::input(
                    stage,
                    format!(
                        "level {l}: objectness {o:?}, deltas {d:?}, {} anchors do not fit",
                        output.anchors[l].len()
                    ),
                )),
            })
            .collect::<Result<Vec<_>>>()?;
        Ok((images, layouts))
    }

    /// Anchors of the level in one image.
    fn len(&self) -> usize {
        self.anchors * self.cells
    }

    /// Where anchor `i` of image `b` stands in `[B, A, H, W]`.
    fn logit(&self, b: usize, i: usize) -> usize {
        (b * self.anchors + i % self.anchors) * self.cells + i / self.anchors
    }

    /// Where its four deltas stand in `[B, 4A, H, W]`.
    fn deltas(&self, b: usize, i: usize) -> [usize; 4] {
        let first = (b * self.anchors + i % self.anchors) * 4;
        [0, 1, 2, 3].map(|k| (first + k) * self.cells + i / self.anchors)
    }
}

/// The box coder of the RPN: unit weights.
pub(crate) const CODER: docent_ops::BoxCoder = docent_ops::BoxCoder::new([1.0; 4]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_permuting_to_rows_columns_anchors() {
        // [B, A, H, W] = [2, 3, 2, 4]: walk it in the order (b, h, w, a) and compare.
        let level = LevelLayout { anchors: 3, cells: 8 };
        let mut i = 0;
        for h in 0..2 {
            for w in 0..4 {
                for a in 0..3 {
                    assert_eq!(level.logit(1, i), ((3 + a) * 2 + h) * 4 + w);
                    let d = level.deltas(1, i);
                    (0..4).for_each(|k| assert_eq!(d[k], ((12 + a * 4 + k) * 2 + h) * 4 + w));
                    i += 1;
                }
            }
        }
        assert_eq!(level.len(), i);
    }
}
