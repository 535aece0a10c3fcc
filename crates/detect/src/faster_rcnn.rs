//! Faster R-CNN with a feature pyramid: its parts put together.

use std::sync::Arc;

use candle_nn::VarBuilder;
use docent_ops::{BoxCoder, BoxXyxy};

use crate::anchors::pyramid_anchors;
use crate::backbone::{self, Backbone};
use crate::config::FasterRcnnConfig;
use crate::detector::{Detector, RegionHeads, RegionStage, TrainOutput};
use crate::detector_config::DetectorConfig;
use crate::fpn::Fpn;
use crate::layers::{LayerList, ModelBuilder};
use crate::roi_heads::{self, RoiHeads};
use crate::rpn::{self, RpnHead};
use crate::stages::check_targets;
use crate::{
    BoxHeadOutput, DenseHeadOutput, Detection, Error, FeaturePyramid, FeatureSpec, ImageBatch, Losses, Mode, Proposals,
    Result, SampledRois, Sampler, Size, Target,
};

/// A Faster R-CNN with a feature pyramid, as torchvision's `FasterRCNN`.
#[derive(Debug, Clone)]
pub struct FasterRcnn {
    cfg: FasterRcnnConfig,
    body: Arc<dyn Backbone>,
    fpn: Fpn,
    rpn: RpnHead,
    heads: RoiHeads,
    layers: LayerList,
}

impl FasterRcnn {
    /// A detector over one of this crate's backbones. Takes its parameters from `vb`, by torchvision's names
    /// (`backbone.body.conv1.weight`, ..), and gives torchvision's initialisations as hints.
    ///
    /// # Errors
    /// An invalid configuration, a backbone that this crate does not have; a parameter that is missing or has another shape.
    pub fn new(cfg: &FasterRcnnConfig, vb: VarBuilder<'_>) -> Result<Self> {
        cfg.validate()?;
        let builder = ModelBuilder::new(vb);
        let body = backbone::builtin(&cfg.backbone, &builder.pp("backbone").pp("body"))?;
        Self::from_parts(cfg, body, &builder)
    }

    /// A detector over any backbone. Make the backbone from the same `builder`, so that its layers are in the list.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use candle_core::{DType, Device};
    /// use candle_nn::VarBuilder;
    /// use docent_detect::backbone::{ResNet, ResNetConfig};
    /// use docent_detect::layers::ModelBuilder;
    /// use docent_detect::{Detector, FasterRcnn, FasterRcnnConfig};
    ///
    /// # fn main() -> docent_detect::Result<()> {
    /// let builder = ModelBuilder::new(VarBuilder::zeros(DType::F32, &Device::Cpu));
    /// let config = ResNetConfig::default().depth(18).width_multiplier(0.125);
    /// let body = Arc::new(ResNet::new(&config, &builder.pp("backbone").pp("body"))?);
    /// let model = FasterRcnn::from_parts(&FasterRcnnConfig::default().classes(3), body, &builder)?;
    /// assert_eq!(model.levels().len(), 5);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// An invalid configuration, another number of anchor sizes than of levels; a parameter that is missing or has another
    /// shape.
    pub fn from_parts(cfg: &FasterRcnnConfig, body: Arc<dyn Backbone>, builder: &ModelBuilder<'_>) -> Result<Self> {
        cfg.validate()?;
        let fpn = Fpn::new(body.outputs(), cfg.fpn_channels, &builder.pp("backbone").pp("fpn"))?;
        let (levels, sizes) = (fpn.outputs().len(), cfg.anchors.sizes.len());
        if sizes != levels {
            let message =
                format!("{sizes} sizes given; the pyramid has {levels} levels (P2 to P{}), each takes one", levels + 1);
            return Err(Error::config("anchors.sizes", message));
        }
        let rpn = RpnHead::new(fpn.outputs(), cfg.anchors_per_cell(), &builder.pp("rpn").pp("head"))?;
        let heads = RoiHeads::new(&cfg.roi, fpn.outputs(), cfg.classes, &builder.pp("roi_heads"))?;
        Ok(Self { cfg: cfg.clone(), body, fpn, rpn, heads, layers: builder.layers() })
    }

    /// The settings.
    pub fn settings(&self) -> &FasterRcnnConfig {
        &self.cfg
    }

    /// The RPN's maps and their anchors.
    ///
    /// # Errors
    /// Features of another pyramid or of another batch.
    pub fn rpn(&self, pyramid: &FeaturePyramid, batch: &ImageBatch, mode: Mode) -> Result<DenseHeadOutput> {
        let (logits, deltas) = self.rpn.forward(pyramid, mode)?;
        let grid = |t: &candle_core::Tensor| Ok(Size { height: t.dim(2)?, width: t.dim(3)? });
        let grids = pyramid.levels.iter().map(grid).collect::<Result<Vec<_>>>()?;
        let anchors = pyramid_anchors(&self.cfg.anchors, batch.padded()?, &grids)?;
        Ok(DenseHeadOutput { logits, deltas, anchors })
    }
}

impl Detector for FasterRcnn {
    fn config(&self) -> DetectorConfig {
        self.cfg.clone().into()
    }

    fn layers(&self) -> &LayerList {
        &self.layers
    }

    fn stages(&self) -> &[FeatureSpec] {
        self.body.outputs()
    }

    fn levels(&self) -> &[FeatureSpec] {
        self.fpn.outputs()
    }

    fn backbone(&self, batch: &ImageBatch, mode: Mode) -> Result<FeaturePyramid> {
        self.body.forward(&self.cfg.normalize.apply(batch)?, mode)
    }

    fn pyramid(&self, stages: &FeaturePyramid, mode: Mode) -> Result<FeaturePyramid> {
        self.fpn.forward(stages, mode)
    }

    fn forward_train(&self, batch: &ImageBatch, targets: &[Target], sampler: &mut dyn Sampler) -> Result<TrainOutput> {
        check_targets("forward_train", targets, batch.len(), self.cfg.classes)?;
        let stages = self.backbone(batch, Mode::Train)?;
        let pyramid = self.pyramid(&stages, Mode::Train)?;
        let rpn = self.rpn(&pyramid, batch, Mode::Train)?;
        let (rpn_objectness, rpn_box) = rpn::rpn_losses(&self.cfg.rpn, &rpn, targets, sampler)?;
        let proposals = rpn::propose(&self.cfg.rpn, &rpn, &batch.sizes, Mode::Train)?;
        let rois = self.label_and_sample_proposals(&proposals, targets, sampler)?;
        let head = self.box_head(&pyramid, &rois.rois, Mode::Train)?;
        let (head_class, head_box) = roi_heads::head_losses(&self.cfg.roi, &head, &rois)?;
        let losses = Losses::new([
            ("rpn_objectness", rpn_objectness),
            ("rpn_box", rpn_box),
            ("head_class", head_class),
            ("head_box", head_box),
        ]);
        Ok(TrainOutput { stages, pyramid, dense: Some(rpn), regions: vec![RegionStage { rois, head }], losses })
    }

    fn detect(&self, batch: &ImageBatch) -> Result<Vec<Vec<Detection>>> {
        let pyramid = self.features(batch, Mode::Eval)?;
        let rois = self.propose(&pyramid, batch, Mode::Eval)?.rois();
        let head = self.box_head(&pyramid, &rois, Mode::Eval)?;
        roi_heads::postprocess(&self.cfg.roi, &head, &rois, &batch.sizes)
    }

    fn dense_head(&self, pyramid: &FeaturePyramid, batch: &ImageBatch, mode: Mode) -> Result<Option<DenseHeadOutput>> {
        self.rpn(pyramid, batch, mode).map(Some)
    }

    fn region_heads(&self) -> Option<&dyn RegionHeads> {
        Some(self)
    }

    /// With the RPN's test count of proposals.
    fn flops(&self, size: Size) -> u64 {
        self.layers.flops(size, self.cfg.rpn.post_nms_top_n_test)
    }
}

impl RegionHeads for FasterRcnn {
    fn propose(&self, pyramid: &FeaturePyramid, batch: &ImageBatch, mode: Mode) -> Result<Proposals> {
        rpn::propose(&self.cfg.rpn, &self.rpn(pyramid, batch, mode)?, &batch.sizes, mode)
    }

    fn label_and_sample_proposals(
        &self,
        proposals: &Proposals,
        targets: &[Target],
        sampler: &mut dyn Sampler,
    ) -> Result<SampledRois> {
        check_targets("label_and_sample_proposals", targets, proposals.boxes.len(), self.cfg.classes)?;
        roi_heads::label_and_sample_proposals(&self.cfg.roi, proposals, targets, sampler)
    }

    fn box_head(&self, pyramid: &FeaturePyramid, rois: &[(usize, BoxXyxy)], mode: Mode) -> Result<BoxHeadOutput> {
        self.heads.forward(pyramid, rois, mode)
    }

    fn box_coder(&self) -> BoxCoder {
        BoxCoder::new(self.cfg.roi.box_weights)
    }
}

impl Proposals {
    /// All proposals as regions, image after image.
    pub fn rois(&self) -> Vec<(usize, BoxXyxy)> {
        self.boxes.iter().enumerate().flat_map(|(image, boxes)| boxes.iter().map(move |b| (image, *b))).collect()
    }
}
