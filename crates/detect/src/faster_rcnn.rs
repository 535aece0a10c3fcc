//! The whole detector: its stages one by one, and the two ways through them.

use crate::anchors::pyramid_anchors;
use crate::backbone::Backbone;
use crate::flops::{self, Flops};
use crate::fpn::Fpn;
use crate::roi_heads::{self, RoiHeads};
use crate::rpn::{self, RpnHead};
use crate::stages::check_targets;
use crate::{
    BackboneFeatures, BoxHeadOutput, Detection, DetectionLosses, FasterRcnnConfig, Features, ImageBatch, Mode,
    Proposals, Result, RpnOutput, SampledRois, Sampler, Targets,
};
use candle_nn::VarBuilder;
use docent_ops::{BoxCoder, BoxXyxy};

/// A Faster R-CNN with a feature pyramid, as torchvision's `FasterRCNN`.
///
/// Whether a parameter trains is the builder's choice: a variable has a gradient, a plain tensor is frozen, and a layer
/// whose BatchNorm's scale is frozen keeps to its running statistics.
#[derive(Debug, Clone)]
pub struct FasterRcnn {
    cfg: FasterRcnnConfig,
    body: Backbone,
    fpn: Fpn,
    rpn: RpnHead,
    heads: RoiHeads,
}

/// Everything that a training step computes; distillation reads the parts.
#[derive(Debug, Clone)]
pub struct TrainOutput {
    /// The backbone's stages.
    pub stages: BackboneFeatures,
    /// The pyramid of the batch.
    pub features: Features,
    /// The RPN's maps and anchors.
    pub rpn: RpnOutput,
    /// The sampled regions.
    pub rois: SampledRois,
    /// What the heads say of them.
    pub head: BoxHeadOutput,
    /// The four losses.
    pub losses: DetectionLosses,
}

impl FasterRcnn {
    /// Takes its parameters from `vb`, by torchvision's names (`backbone.body.conv1.weight`, ..), and gives torchvision's
    /// initialisations as hints.
    ///
    /// # Errors
    /// A configuration that is not valid; a parameter that is missing or has another shape.
    pub fn new(cfg: &FasterRcnnConfig, vb: VarBuilder) -> Result<Self> {
        cfg.validate()?;
        let backbone = vb.pp("backbone");
        Ok(Self {
            body: Backbone::new(&cfg.backbone, backbone.pp("body"))?,
            fpn: Fpn::new(&cfg.backbone.channels(), cfg.fpn_channels, backbone.pp("fpn"))?,
            rpn: RpnHead::new(cfg.fpn_channels, cfg.anchors_per_cell(), vb.pp("rpn").pp("head"))?,
            heads: RoiHeads::new(&cfg.roi, cfg.fpn_channels, cfg.classes, vb.pp("roi_heads"))?,
            cfg: cfg.clone(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &FasterRcnnConfig {
        &self.cfg
    }

    /// The coder of the heads' boxes.
    pub fn box_coder(&self) -> BoxCoder {
        BoxCoder::new(self.cfg.roi.box_weights)
    }

    /// The same model over the same storage, outside any graph: what it computes has no gradient, its BatchNorm keeps to
    /// the running statistics, and later changes of the weights show in it. A teacher is one.
    pub fn detached(&self) -> Self {
        Self {
            cfg: self.cfg.clone(),
            body: self.body.detached(),
            fpn: self.fpn.detached(),
            rpn: self.rpn.detached(),
            heads: self.heads.detached(),
        }
    }

    /// Normalises the batch by the model's own statistics, sets its padding to 0, and runs the backbone.
    ///
    /// # Errors
    /// A batch whose parts do not fit.
    pub fn backbone(&self, batch: &ImageBatch, mode: Mode) -> Result<BackboneFeatures> {
        self.body.forward(&self.cfg.normalize.apply(batch)?, mode)
    }

    /// The pyramid over the backbone's output.
    ///
    /// # Errors
    /// Features of another backbone.
    pub fn fpn(&self, features: &BackboneFeatures) -> Result<Features> {
        self.fpn.forward(features)
    }

    /// Backbone and pyramid.
    ///
    /// # Errors
    /// A batch whose parts do not fit.
    pub fn features(&self, batch: &ImageBatch, mode: Mode) -> Result<Features> {
        self.fpn(&self.backbone(batch, mode)?)
    }

    /// The RPN's maps and the anchors they speak of.
    ///
    /// # Errors
    /// Features of another pyramid or of another batch.
    pub fn rpn(&self, features: &Features, batch: &ImageBatch) -> Result<RpnOutput> {
        let (objectness, deltas) = self.rpn.forward(features)?;
        let grids = features.levels.iter().map(|t| Ok((t.dim(2)?, t.dim(3)?))).collect::<Result<Vec<_>>>()?;
        let anchors = pyramid_anchors(&self.cfg.anchors, batch.padded()?, &grids)?;
        Ok(RpnOutput { objectness, deltas, anchors })
    }

    /// Proposals of each image: see [`rpn::propose`]. `sizes` are the images' true (height, width).
    ///
    /// # Errors
    /// Parts that do not fit each other.
    pub fn propose(&self, output: &RpnOutput, sizes: &[(usize, usize)], mode: Mode) -> Result<Proposals> {
        rpn::propose(&self.cfg.rpn, output, sizes, mode)
    }

    /// The RPN's objectness and box loss: see [`rpn::rpn_losses`].
    ///
    /// # Errors
    /// Targets with boxes without area or unknown labels; parts that do not fit each other.
    pub fn rpn_losses(
        &self,
        output: &RpnOutput,
        targets: &[Targets],
        sampler: &mut dyn Sampler,
    ) -> Result<(candle_core::Tensor, candle_core::Tensor)> {
        check_targets("rpn_losses", targets, targets.len(), self.cfg.classes)?;
        rpn::rpn_losses(&self.cfg.rpn, output, targets, sampler)
    }

    /// The regions of a training step, ground truths among them: see [`roi_heads::sample`].
    ///
    /// # Errors
    /// Targets with boxes without area or unknown labels; parts that do not fit each other.
    pub fn sample(&self, proposals: &Proposals, targets: &[Targets], sampler: &mut dyn Sampler) -> Result<SampledRois> {
        check_targets("sample", targets, proposals.boxes.len(), self.cfg.classes)?;
        roi_heads::sample(&self.cfg.roi, proposals, targets, sampler)
    }

    /// What the heads say of any regions, in their order.
    ///
    /// # Errors
    /// A region of an image outside the batch; features of another pyramid.
    pub fn box_head(&self, features: &Features, rois: &[(usize, BoxXyxy)]) -> Result<BoxHeadOutput> {
        self.heads.forward(features, rois)
    }

    /// The heads' classification and box loss: see [`roi_heads::head_losses`].
    ///
    /// # Errors
    /// Parts that do not fit each other.
    pub fn head_losses(
        &self,
        output: &BoxHeadOutput,
        rois: &SampledRois,
    ) -> Result<(candle_core::Tensor, candle_core::Tensor)> {
        roi_heads::head_losses(&self.cfg.roi, output, rois)
    }

    /// A whole training step up to the losses, with what lies between.
    ///
    /// # Errors
    /// As its stages'.
    pub fn train(&self, batch: &ImageBatch, targets: &[Targets], sampler: &mut dyn Sampler) -> Result<TrainOutput> {
        check_targets("train", targets, batch.len(), self.cfg.classes)?;
        let stages = self.backbone(batch, Mode::Train)?;
        let features = self.fpn(&stages)?;
        let rpn = self.rpn(&features, batch)?;
        let (rpn_objectness, rpn_box) = self.rpn_losses(&rpn, targets, sampler)?;
        let proposals = self.propose(&rpn, &batch.sizes, Mode::Train)?;
        let rois = self.sample(&proposals, targets, sampler)?;
        let head = self.box_head(&features, &rois.rois)?;
        let (head_class, head_box) = self.head_losses(&head, &rois)?;
        let losses = DetectionLosses { rpn_objectness, rpn_box, head_class, head_box };
        Ok(TrainOutput { stages, features, rpn, rois, head, losses })
    }

    /// The objects of each image, best first, in pixels of the batch's images; see [`roi_heads::postprocess`]. Builds no
    /// graph, and reads BatchNorm's running statistics as they stand.
    ///
    /// # Errors
    /// A batch whose parts do not fit.
    pub fn detect(&self, batch: &ImageBatch) -> Result<Vec<Vec<Detection>>> {
        let model = self.detached();
        let features = model.features(batch, Mode::Eval)?;
        let output = model.rpn(&features, batch)?;
        let proposals = model.propose(&output, &batch.sizes, Mode::Eval)?;
        let rois = proposals.rois();
        let head = model.box_head(&features, &rois)?;
        roi_heads::postprocess(&self.cfg.roi, &head, &rois, &batch.sizes)
    }

    /// Floating point operations of a detection in an image padded to `(height, width)`, with the RPN's test count of
    /// proposals: see [`crate::flops`].
    pub fn flops(&self, size: (usize, usize)) -> u64 {
        // The configuration was valid when the model was made.
        flops::count(&self.cfg, size, self.cfg.rpn.post_nms_test).as_ref().map_or(0, Flops::total)
    }
}

impl Proposals {
    /// All proposals as regions, image after image.
    pub fn rois(&self) -> Vec<(usize, BoxXyxy)> {
        self.boxes.iter().enumerate().flat_map(|(image, boxes)| boxes.iter().map(move |b| (image, *b))).collect()
    }
}
