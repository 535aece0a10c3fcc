//! The detector's configuration: every figure of the architecture, with torchvision's values as defaults.

mod validate;

use serde::{Deserialize, Serialize};

use crate::backbone::BackboneConfig;
use crate::normalize::Normalize;
use crate::setters;

/// A whole Faster R-CNN with a feature pyramid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FasterRcnnConfig {
    /// K: classes with the background, which is class 0. Default 91, COCO's.
    pub classes: usize,
    /// The backbone. Default ResNet-50.
    pub backbone: BackboneConfig,
    /// Channels of every pyramid level. Default 256.
    pub fpn_channels: usize,
    /// The anchors.
    pub anchors: AnchorConfig,
    /// The region proposal network.
    pub rpn: RpnConfig,
    /// The heads over regions of interest.
    pub roi: RoiConfig,
    /// The mean and deviation that the pixels are normalised by. Default ImageNet's, as torchvision's.
    pub normalize: Normalize,
}

setters!(FasterRcnnConfig {
    classes: usize,
    backbone: impl Into<BackboneConfig>,
    fpn_channels: usize,
    anchors: AnchorConfig,
    rpn: RpnConfig,
    roi: RoiConfig,
    normalize: Normalize,
});

impl Default for FasterRcnnConfig {
    fn default() -> Self {
        Self {
            classes: 91,
            backbone: BackboneConfig::default(),
            fpn_channels: 256,
            anchors: AnchorConfig::default(),
            rpn: RpnConfig::default(),
            roi: RoiConfig::default(),
            normalize: Normalize::default(),
        }
    }
}

/// Anchors: one size a level of the pyramid, every ratio at each size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AnchorConfig {
    /// The square root of an anchor's area in pixels, one a level, P2 first. Default 32, 64, 128, 256, 512.
    pub sizes: Vec<f32>,
    /// Height over width. Default 0.5, 1, 2.
    pub ratios: Vec<f32>,
}

setters!(AnchorConfig { sizes: Vec<f32>, ratios: Vec<f32> });

impl Default for AnchorConfig {
    fn default() -> Self {
        Self { sizes: vec![32.0, 64.0, 128.0, 256.0, 512.0], ratios: vec![0.5, 1.0, 2.0] }
    }
}

/// The region proposal network: selection of proposals, and training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RpnConfig {
    /// Best anchors of each level that go on to NMS, in training. Default 2000.
    pub pre_nms_top_n_train: usize,
    /// The same in evaluation. Default 1000.
    pub pre_nms_top_n_test: usize,
    /// Proposals of an image that come out of NMS at most, in training. Default 2000.
    pub post_nms_top_n_train: usize,
    /// The same in evaluation. Default 1000.
    pub post_nms_top_n_test: usize,
    /// IoU above which NMS suppresses. Default 0.7.
    pub nms_threshold: f32,
    /// IoU from which an anchor is positive. Default 0.7.
    pub fg_iou_threshold: f32,
    /// IoU below which an anchor is negative. Default 0.3.
    pub bg_iou_threshold: f32,
    /// Anchors of an image that the losses look at. Default 256.
    pub batch_size_per_image: usize,
    /// Share of them that is positive at most. Default 0.5.
    pub positive_fraction: f64,
    /// Proposals below this objectness (a probability) are dropped. Default 0.
    pub score_threshold: f32,
    /// Proposals with a side below this (pixels, after clipping) are dropped. Default 1e-3.
    pub min_size: f32,
    /// Where smooth L1 turns from quadratic to linear. Default 1/9; 0 is plain L1.
    pub smooth_l1_beta: f32,
}

setters!(RpnConfig {
    pre_nms_top_n_train: usize,
    pre_nms_top_n_test: usize,
    post_nms_top_n_train: usize,
    post_nms_top_n_test: usize,
    nms_threshold: f32,
    fg_iou_threshold: f32,
    bg_iou_threshold: f32,
    batch_size_per_image: usize,
    positive_fraction: f64,
    score_threshold: f32,
    min_size: f32,
    smooth_l1_beta: f32,
});

impl Default for RpnConfig {
    fn default() -> Self {
        Self {
            pre_nms_top_n_train: 2000,
            pre_nms_top_n_test: 1000,
            post_nms_top_n_train: 2000,
            post_nms_top_n_test: 1000,
            nms_threshold: 0.7,
            fg_iou_threshold: 0.7,
            bg_iou_threshold: 0.3,
            batch_size_per_image: 256,
            positive_fraction: 0.5,
            score_threshold: 0.0,
            min_size: 1e-3,
            smooth_l1_beta: 1.0 / 9.0,
        }
    }
}

/// The heads over regions of interest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RoiConfig {
    /// RoIs of an image in training. Default 512.
    pub batch_size_per_image: usize,
    /// Share of them that is positive at most. Default 0.25.
    pub positive_fraction: f64,
    /// IoU from which a RoI takes a ground truth's class. Default 0.5.
    pub fg_iou_threshold: f32,
    /// IoU below which a RoI is background. Default 0.5.
    pub bg_iou_threshold: f32,
    /// Side of the pooled square in cells. Default 7.
    pub pooler_resolution: usize,
    /// Sampling points a side of each pooled cell; 0 adapts to the RoI's size. Default 2.
    pub sampling_ratio: usize,
    /// Whether RoIAlign shifts by half a cell. Default false, as torchvision's detectors.
    pub aligned: bool,
    /// A RoI with this side in pixels belongs to `canonical_level`. Default 224. Scale it with the input.
    pub canonical_box_size: f32,
    /// See `canonical_box_size`. Default 4.
    pub canonical_level: usize,
    /// Where smooth L1 turns from quadratic to linear. Default 1/9; 0 is plain L1.
    pub smooth_l1_beta: f32,
    /// Weights of the box coder for x, y, w and h. Default 10, 10, 5, 5.
    pub box_weights: [f32; 4],
    /// Detections must score more than this. Default 0.05.
    pub score_threshold: f32,
    /// IoU above which NMS suppresses within a class. Default 0.5.
    pub nms_threshold: f32,
    /// Detections of an image at most. Default 100.
    pub detections_per_image: usize,
    /// Width of the two hidden layers. Default 1024.
    pub representation_size: usize,
}

setters!(RoiConfig {
    batch_size_per_image: usize,
    positive_fraction: f64,
    fg_iou_threshold: f32,
    bg_iou_threshold: f32,
    pooler_resolution: usize,
    sampling_ratio: usize,
    aligned: bool,
    canonical_box_size: f32,
    canonical_level: usize,
    smooth_l1_beta: f32,
    box_weights: [f32; 4],
    score_threshold: f32,
    nms_threshold: f32,
    detections_per_image: usize,
    representation_size: usize,
});

impl Default for RoiConfig {
    fn default() -> Self {
        Self {
            batch_size_per_image: 512,
            positive_fraction: 0.25,
            fg_iou_threshold: 0.5,
            bg_iou_threshold: 0.5,
            pooler_resolution: 7,
            sampling_ratio: 2,
            aligned: false,
            canonical_box_size: 224.0,
            canonical_level: 4,
            smooth_l1_beta: 1.0 / 9.0,
            box_weights: [10.0, 10.0, 5.0, 5.0],
            score_threshold: 0.05,
            nms_threshold: 0.5,
            detections_per_image: 100,
            representation_size: 1024,
        }
    }
}

impl FasterRcnnConfig {
    /// Anchors of a cell.
    pub fn anchors_per_cell(&self) -> usize {
        self.anchors.ratios.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_survives_serde() {
        let c = FasterRcnnConfig::default();
        c.validate().unwrap();
        let text = serde_json::to_string(&c).unwrap();
        assert_eq!(serde_json::from_str::<FasterRcnnConfig>(&text).unwrap(), c);
        assert_eq!(serde_json::from_str::<FasterRcnnConfig>("{}").unwrap(), c);
        assert!(serde_json::from_str::<FasterRcnnConfig>(r#"{"clases": 3}"#).is_err());
    }
}
