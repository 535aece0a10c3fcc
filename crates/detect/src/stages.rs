//! The plain structs that pass between the stages of a detector.

use crate::{Error, Result};
use candle_core::Tensor;
use docent_ops::BoxXyxy;

/// Whether a stage trains or evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// BatchNorm takes the batch's statistics and updates the running ones; the RPN keeps its training counts.
    Train,
    /// BatchNorm takes the running statistics; the RPN keeps its test counts. Parameters are read without their graph, so they get
    /// no gradient.
    Eval,
}

impl Mode {
    /// A layer's parameter in this mode: as it is in training, without its graph in evaluation.
    pub fn parameter(self, tensor: &Tensor) -> Tensor {
        match self {
            Self::Train => tensor.clone(),
            Self::Eval => tensor.detach(),
        }
    }
}

/// Height and width in pixels or cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Size {
    /// A size by height and width.
    pub const fn new(height: usize, width: usize) -> Self {
        Self { height, width }
    }

    /// Both sides over `stride`, rounded up: the map of an image.
    #[must_use]
    pub fn div_ceil(self, stride: usize) -> Self {
        Self { height: self.height.div_ceil(stride), width: self.width.div_ceil(stride) }
    }
}

impl std::fmt::Display for Size {
    /// `480x640`: height, then width.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}

/// The ground truth of one image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Target {
    /// Boxes in pixels of the (resized, unpadded) image.
    pub boxes: Vec<BoxXyxy>,
    /// The class of each box, from 1 to K - 1.
    pub labels: Vec<u32>,
}

/// One of a backbone's or a pyramid's feature maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureSpec {
    /// Its name: `c2`, `p3`.
    pub name: String,
    /// Side of a cell in pixels of the padded image.
    pub stride: usize,
    /// Channels.
    pub channels: usize,
}

/// Feature maps of one batch at several strides: a backbone's C2 to C5, or the pyramid's P2 to P6.
#[derive(Debug, Clone)]
pub struct FeaturePyramid {
    /// `[B, C_l, H_l, W_l]`, finest first.
    pub levels: Vec<Tensor>,
    /// Nominal stride of each level in pixels of the padded image: 4, 8, 16, 32, 64.
    pub strides: Vec<usize>,
}

impl FeaturePyramid {
    /// Maps with the strides of their descriptions.
    pub fn new(levels: Vec<Tensor>, specs: &[FeatureSpec]) -> Self {
        Self { levels, strides: specs.iter().map(|spec| spec.stride).collect() }
    }
}

/// A dense head's output for every anchor. The RPN is a dense head with one class, objectness.
#[derive(Debug, Clone)]
pub struct DenseHeadOutput {
    /// A level's class logits, `[B, A * classes, H, W]`; the background is no class here.
    pub logits: Vec<Tensor>,
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
    pub matched_gt_boxes: Vec<BoxXyxy>,
    /// Indices of the positives in `rois`, ascending.
    pub positives: Vec<usize>,
}

/// The box head's output for R regions.
#[derive(Debug, Clone)]
pub struct BoxHeadOutput {
    /// `[R, K]`; class 0 is the background.
    pub class_logits: Tensor,
    /// `[R, 4K]`; column `4k + j` is delta j of class k.
    pub box_deltas: Tensor,
}

/// The losses of a training step by name, scalars, in the order in which they are summed.
#[derive(Debug, Clone)]
pub struct Losses(Vec<(String, Tensor)>);

impl Losses {
    /// Losses by name; a log shows them under these names.
    pub fn new<const N: usize>(losses: [(&str, Tensor); N]) -> Self {
        Self(losses.into_iter().map(|(name, loss)| (name.to_owned(), loss)).collect())
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, loss)| (name.as_str(), loss))
    }

    /// The loss of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.iter().find(|(n, _)| *n == name).map(|(_, loss)| loss)
    }

    /// Their sum, added in pairs from the left: `(a + b) + (c + d)`.
    ///
    /// # Errors
    /// No loss; candle's, when one is no scalar.
    pub fn total(&self) -> Result<Tensor> {
        let mut sums: Vec<Tensor> = self.0.iter().map(|(_, loss)| loss.clone()).collect();
        while sums.len() > 1 {
            sums = sums
                .chunks(2)
                .map(|pair| if let [a, b] = pair { a + b } else { Ok(pair[0].clone()) })
                .collect::<candle_core::Result<_>>()?;
        }
        sums.pop().ok_or_else(|| Error::input("losses", "a detector gave none"))
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
pub(crate) fn check_targets(stage: &'static str, targets: &[Target], images: usize, classes: usize) -> Result<()> {
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
        let good = Target { boxes: vec![[0.0, 0.0, 2.0, 3.0]], labels: vec![2] };
        check_targets("t", &[good.clone(), Target::default()], 2, 3).unwrap();
        let bad = |t: Target| check_targets("t", &[t], 1, 3).unwrap_err().to_string();
        assert!(bad(Target { labels: vec![3], ..good.clone() }).contains("1 to 2"));
        assert!(bad(Target { labels: vec![0], ..good.clone() }).contains("label 0"));
        assert!(bad(Target { labels: vec![], ..good.clone() }).contains("0 labels"));
        assert!(bad(Target { boxes: vec![[1.0, 0.0, 1.0, 3.0]], ..good.clone() }).contains("no area"));
        assert!(bad(Target { boxes: vec![[f32::NAN, 0.0, 1.0, 3.0]], ..good }).contains("no area"));
        assert!(check_targets("t", &[], 1, 3).is_err());
    }
}
