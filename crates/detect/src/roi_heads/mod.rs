//! The heads over regions of interest: pooling over levels, two hidden layers, classes and deltas; sampling, losses and
//! detections in the files beside.

mod detections;
mod levels;
mod losses;
mod sample;

use crate::config::RoiConfig;
use crate::layers::{Linear, ModelBuilder};
use crate::{BoxHeadOutput, Error, FeaturePyramid, FeatureSpec, Mode, Result};
use candle_core::Tensor;
use docent_ops::{BoxXyxy, RoiAlignParams, RoiLevel, index_rows};

pub use detections::postprocess;
pub use levels::LevelMapper;
pub use losses::head_losses;
pub use sample::label_and_sample_proposals;

/// RoIAlign from every level but the topmost (P2 to P5 of P2 to P6), `fc6`, `fc7`, and the two predictors.
#[derive(Debug, Clone)]
pub struct RoiHeads {
    cfg: RoiConfig,
    classes: usize,
    /// Levels that regions are pooled from.
    pooled: usize,
    fc6: Linear,
    fc7: Linear,
    class_score: Linear,
    box_pred: Linear,
}

impl RoiHeads {
    /// Takes `box_head.fc6`, `box_head.fc7`, `box_predictor.cls_score` and `box_predictor.bbox_pred` from `builder`.
    /// `inputs` are the pyramid's levels, whose topmost serves the RPN alone; `classes` count the background.
    ///
    /// # Errors
    /// A configuration that is not valid, fewer than two levels; a parameter that is missing or has another shape.
    pub fn new(cfg: &RoiConfig, inputs: &[FeatureSpec], classes: usize, builder: &ModelBuilder<'_>) -> Result<Self> {
        cfg.validate()?;
        let [first, rest @ ..] = inputs else { return Err(Error::input("box_head", "the pyramid has no level")) };
        if rest.is_empty() {
            return Err(Error::input("box_head", "the pyramid has one level; regions need one below the topmost"));
        }
        let builder = builder.on_regions();
        let (head, predictor) = (builder.pp("box_head"), builder.pp("box_predictor"));
        let (cells, hidden) = (cfg.pooler_resolution * cfg.pooler_resolution, cfg.representation_size);
        Ok(Self {
            cfg: cfg.clone(),
            classes,
            pooled: rest.len(),
            fc6: Linear::new(first.channels * cells, hidden, &head.pp("fc6"))?,
            fc7: Linear::new(hidden, hidden, &head.pp("fc7"))?,
            class_score: Linear::new(hidden, classes, &predictor.pp("cls_score"))?,
            box_pred: Linear::new(hidden, 4 * classes, &predictor.pp("bbox_pred"))?,
        })
    }

    /// Class logits `[R, K]` and deltas `[R, 4K]` of (image, box) regions, in their order.
    ///
    /// Each region is pooled from one level, by [`LevelMapper`], at the level's nominal stride. (torchvision guesses the
    /// strides from the first batch that it sees; on ordinary sizes its guess is the nominal stride.)
    ///
    /// # Errors
    /// Fewer levels than at construction, strides that do not double from one level to the next, an image outside the batch.
    pub fn forward(&self, features: &FeaturePyramid, rois: &[(usize, BoxXyxy)], mode: Mode) -> Result<BoxHeadOutput> {
        if features.levels.len() < self.pooled || features.strides.len() < self.pooled {
            let message = format!("{} levels; {} are needed", features.levels.len(), self.pooled);
            return Err(Error::input("box_head", message));
        }
        let strides = &features.strides[..self.pooled];
        if !strides[0].is_power_of_two() || strides.windows(2).any(|two| two[1] != 2 * two[0]) {
            return Err(Error::input(
                "box_head",
                format!("strides {strides:?}; powers of two are needed, each twice the one before"),
            ));
        }
        if rois.is_empty() {
            let empty =
                |columns: usize| Tensor::zeros((0, columns), features.levels[0].dtype(), features.levels[0].device());
            return Ok(BoxHeadOutput { class_logits: empty(self.classes)?, box_deltas: empty(4 * self.classes)? });
        }
        let mapper = LevelMapper::new(&self.cfg, strides);
        let level_of: Vec<usize> = rois.iter().map(|(_, b)| mapper.level(b)).collect();
        // Rows stay grouped by level through the linear layers; only the narrow outputs are put back in order.
        let mut levels = Vec::with_capacity(self.pooled);
        let mut row_of = vec![0; rois.len()];
        let mut rows = 0;
        for (l, stride) in strides.iter().enumerate() {
            let mut here = Vec::new();
            for (i, roi) in rois.iter().enumerate().filter(|(i, _)| level_of[*i] == l) {
                row_of[i] = rows;
                rows += 1;
                here.push(*roi);
            }
            let params = RoiAlignParams {
                output: self.cfg.pooler_resolution,
                spatial_scale: 1.0 / *stride as f32,
                sampling_ratio: self.cfg.sampling_ratio,
                aligned: self.cfg.aligned,
            };
            levels.push(RoiLevel { map: &features.levels[l], rois: here, params });
        }
        let x = self.fc7.forward(&self.fc6.forward_rois(&levels, true, mode)?, true, mode)?;
        let in_order = |y: Tensor| -> Result<Tensor> {
            if row_of.iter().enumerate().all(|(i, &r)| i == r) { Ok(y) } else { Ok(index_rows(&y, &row_of)?) }
        };
        Ok(BoxHeadOutput {
            class_logits: in_order(self.class_score.forward(&x, false, mode)?)?,
            box_deltas: in_order(self.box_pred.forward(&x, false, mode)?)?,
        })
    }
}
