//! The detector trait, which training, evaluation and distillation use, and the output of a training forward pass.

use candle_core::Tensor;
use docent_ops::{BoxCoder, BoxXyxy};

use crate::detector_config::DetectorConfig;
use crate::layers::LayerList;
use crate::{
    BoxHeadOutput, DenseHeadOutput, Detection, FeaturePyramid, FeatureSpec, ImageBatch, Losses, Mode, Proposals,
    Result, SampledRois, Sampler, Size, Target,
};

/// A detector: a backbone, a pyramid, and heads that find objects.
///
/// Whether a parameter trains is the [`VarBuilder`](candle_nn::VarBuilder)'s choice: a variable has a gradient, a plain tensor is
/// frozen, and a layer whose BatchNorm's scale is frozen keeps to its running statistics.
pub trait Detector: std::fmt::Debug + Send + Sync {
    /// Architecture and settings: what a checkpoint keeps, and a [`Registry`](crate::Registry) builds the detector from.
    fn config(&self) -> DetectorConfig;

    /// Its layers. FLOPs, freezing and running statistics are read from this list.
    fn layers(&self) -> &LayerList;

    /// The backbone's maps, finest first.
    fn stages(&self) -> &[FeatureSpec];

    /// The pyramid's levels, finest first.
    fn levels(&self) -> &[FeatureSpec];

    /// Normalises the batch by the model's own statistics, sets its padding to 0, and runs the backbone.
    ///
    /// # Errors
    /// A batch whose parts do not fit.
    fn backbone(&self, batch: &ImageBatch, mode: Mode) -> Result<FeaturePyramid>;

    /// The pyramid over the backbone's output.
    ///
    /// # Errors
    /// Features of another backbone.
    fn pyramid(&self, stages: &FeaturePyramid, mode: Mode) -> Result<FeaturePyramid>;

    /// A training step up to the losses, with what distillation may read.
    ///
    /// # Errors
    /// A batch whose parts do not fit, targets with boxes without area or unknown labels.
    fn forward_train(&self, batch: &ImageBatch, targets: &[Target], sampler: &mut dyn Sampler) -> Result<TrainOutput>;

    /// The objects of each image, best first, in pixels of the batch's images. Builds no graph, and reads BatchNorm's running
    /// statistics as they stand.
    ///
    /// # Errors
    /// A batch whose parts do not fit.
    fn detect(&self, batch: &ImageBatch) -> Result<Vec<Vec<Detection>>>;

    /// The dense head's maps and anchors, where the detector has such a head: a one-stage detector's, or the RPN.
    ///
    /// # Errors
    /// A pyramid of another model or batch.
    fn dense_head(&self, _: &FeaturePyramid, _: &ImageBatch, _: Mode) -> Result<Option<DenseHeadOutput>> {
        Ok(None)
    }

    /// The heads over regions of interest, where the detector has any.
    fn region_heads(&self) -> Option<&dyn RegionHeads> {
        None
    }

    /// Floating point operations of a detection in an image of `size`, its padding included: see [`LayerList::flops`].
    fn flops(&self, size: Size) -> u64;

    /// Backbone and pyramid.
    ///
    /// # Errors
    /// A batch whose parts do not fit.
    fn features(&self, batch: &ImageBatch, mode: Mode) -> Result<FeaturePyramid> {
        self.pyramid(&self.backbone(batch, mode)?, mode)
    }
}

/// The region heads of a two-stage detector. Distillation runs them on regions that two models share.
pub trait RegionHeads {
    /// Proposals of each image of the batch.
    ///
    /// # Errors
    /// A pyramid of another model or batch.
    fn propose(&self, pyramid: &FeaturePyramid, batch: &ImageBatch, mode: Mode) -> Result<Proposals>;

    /// The regions of a training step, ground truths among them.
    ///
    /// # Errors
    /// Targets with boxes without area or unknown labels; another number of targets than of images.
    fn label_and_sample_proposals(
        &self,
        proposals: &Proposals,
        targets: &[Target],
        sampler: &mut dyn Sampler,
    ) -> Result<SampledRois>;

    /// The heads' output for any regions, in their order.
    ///
    /// # Errors
    /// A region of an image outside the batch; features of another pyramid.
    fn box_head(&self, pyramid: &FeaturePyramid, rois: &[(usize, BoxXyxy)], mode: Mode) -> Result<BoxHeadOutput>;

    /// The coder of the heads' boxes.
    fn box_coder(&self) -> BoxCoder;
}

/// Everything that a training forward pass computes. Distillation reads its parts.
#[derive(Debug, Clone)]
pub struct TrainOutput {
    /// The backbone's maps.
    pub stages: FeaturePyramid,
    /// The pyramid of the batch.
    pub pyramid: FeaturePyramid,
    /// The dense head's maps and anchors: a one-stage detector's, or the RPN's.
    pub dense: Option<DenseHeadOutput>,
    /// The sampled regions and the heads' output for them, one entry for each stage of region heads; empty without region heads.
    pub regions: Vec<RegionStage>,
    /// The losses by name.
    pub losses: Losses,
}

/// Regions of a training step and the heads' output for them.
#[derive(Debug, Clone)]
pub struct RegionStage {
    /// The sampled regions.
    pub rois: SampledRois,
    /// The heads' output, in the order of the regions.
    pub head: BoxHeadOutput,
}

impl TrainOutput {
    /// Positive regions of interest of the first stage; 0 without region heads.
    pub fn positives(&self) -> usize {
        self.regions.first().map_or(0, |stage| stage.rois.positives.len())
    }

    /// The sum of the losses.
    ///
    /// # Errors
    /// As [`Losses::total`].
    pub fn total(&self) -> Result<Tensor> {
        self.losses.total()
    }
}
