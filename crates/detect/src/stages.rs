//! The plain structs that pass between the stages; anyone who wants to look between two stages reads these.

use crate::{Error, Result};
use candle_core::Tensor;
use docent_ops::BoxXyxy;

/// Whether a stage trains or evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// BatchNorm takes the batch's statistics and updates the running ones; the RPN keeps its training counts.
    Train,
    /// BatchNorm takes the running statistics; the RPN keeps its test counts.
    Eval,
}

/// The ground truth of one image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Targets {
    /// Boxes in pixels of the (resized, unpadded) image.
    pub boxes: Vec<BoxXyxy>,
    /// The class of each box, from 1 to K - 1.
    pub labels: Vec<u32>,
}

/// The backbone's output: C2, C3, C4 and C5.
#[derive(Debug, Clone)]
pub struct BackboneFeatures {
    /// `[B, C_l, H_l, W_l]`, finest first.
    pub levels: Vec<Tensor>,
}

/// The pyramid: P2 to P6.
#[derive(Debug, Clone)]
pub struct Features {
    /// `[B, C, H_l, W_l]`, finest first.
    pub levels: Vec<Tensor>,
    /// Nominal stride of each level in pixels of the padded image: 4, 8, 16, 32, 64.
    pub strides: Vec<usize>,
}

/// What the RPN says of every anchor.
#[derive(Debug, Clone)]
pub struct RpnOutput {
    /// A level's objectness logits, `[B, A, H, W]`.
    pub objectness: Vec<Tensor>,
    /// A level's box deltas, `[B, 4A, H, W]`; channel `4a + k` is delta k of anchor a.
    pub deltas: Vec<Tensor>,
    /// A level's anchors, in the order (row, column, anchor); they are the same for every image of the batch.
    pub anchors: Vec<Vec<BoxXyxy>>,
}

/// Proposals, best first. Plain data: no gradient passes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proposals {
    /// Boxes of each image in its pixels, clipped to its true size.
    pub boxes: Vec<Vec<BoxXyxy>>,
    /// Their objectness as probabilities.
    pub scores: Vec<Vec<f32>>,
}

/// The regions of interest that a training step looks at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SampledRois {
    /// (image, box), images in order, within an image in the order of its proposals and then its ground truths.
    pub rois: Vec<(usize, BoxXyxy)>,
    /// The class of each, 0 for background.
    pub labels: Vec<u32>,
    /// The ground truth of each positive; a background RoI's own box.
    pub matched: Vec<BoxXyxy>,
    /// Indices of the positives in `rois`, ascending.
    pub positives: Vec<usize>,
}

/// What the box head says of R regions.
#[derive(Debug, Clone)]
pub struct BoxHeadOutput {
    /// `[R, K]`; class 0 is the background.
    pub class_logits: Tensor,
    /// `[R, 4K]`; column `4k + j` is delta j of class k.
    pub box_deltas: Tensor,
}

/// The four losses of a training step, scalars.
#[derive(Debug, Clone)]
pub struct DetectionLosses {
    /// Binary cross-entropy of the sampled anchors.
    pub rpn_objectness: Tensor,
    /// Smooth L1 of the positive anchors.
    pub rpn_box: Tensor,
    /// Cross-entropy of the sampled RoIs.
    pub head_class: Tensor,
    /// Smooth L1 of the positive RoIs.
    pub head_box: Tensor,
}

impl DetectionLosses {
    /// Their sum.
    ///
    /// # Errors
    /// candle's, when one is no scalar.
    pub fn total(&self) -> Result<Tensor> {
        Ok(((&self.rpn_objectness + &self.rpn_box)? + (&self.head_class + &self.head_box)?)?)
    }
}

/// A found object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// In pixels of the image that was given to the model; the caller scales it back to the original.
    pub bbox: BoxXyxy,
    /// The probability of its class.
    pub score: f32,
    /// The class, from 1 to K - 1.
    pub label: u32,
}

/// One set of targets an image; boxes finite and with area, labels of the model's classes.
pub(crate) fn check_targets(stage: &'static str, targets: &[Targets], images: usize, classes: usize) -> Result<()> {
    if targets.len() != images {
        return Err(Error::input(stage, format!("{} targets for {images} images", targets.len())));
    }
    for (image, t) in targets.iter().enumerate() {
        if t.boxes.len() != t.labels.len() {
            return Err(Error::input(
                stage,
                format!("image {image} of the batch has {} boxes and {} labels", t.boxes.len(), t.labels.len()),
            ));
        }
        for (i, b) in t.boxes.iter().enumerate() {
            let good = b.iter().all(|v| v.is_finite()) && b[2] > b[0] && b[3] > b[1];
            if !good {
                return Err(Error::input(
                    stage,
                    format!(
                        "box {i} {b:?} of image {image} of the batch has no area; leave such boxes out of the targets"
                    ),
                ));
            }
        }
        if let Some(&label) = t.labels.iter().find(|&&l| l == 0 || l as usize >= classes) {
            return Err(Error::input(
                stage,
                format!("image {image} of the batch has label {label}; this model's are 1 to {}", classes - 1),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_checked() {
        let good = Targets { boxes: vec![[0.0, 0.0, 2.0, 3.0]], labels: vec![2] };
        check_targets("t", &[good.clone(), Targets::default()], 2, 3).unwrap();
        let bad = |t: Targets| check_targets("t", &[t], 1, 3).unwrap_err().to_string();
        assert!(bad(Targets { labels: vec![3], ..good.clone() }).contains("1 to 2"));
        assert!(bad(Targets { labels: vec![0], ..good.clone() }).contains("label 0"));
        assert!(bad(Targets { labels: vec![], ..good.clone() }).contains("0 labels"));
        assert!(bad(Targets { boxes: vec![[1.0, 0.0, 1.0, 3.0]], ..good.clone() }).contains("no area"));
        assert!(bad(Targets { boxes: vec![[f32::NAN, 0.0, 1.0, 3.0]], ..good }).contains("no area"));
        assert!(check_targets("t", &[], 1, 3).is_err());
    }
}
