//! The detector's configuration: every figure of the architecture, with torchvision's values as defaults.

mod backbone;
mod validate;

pub use backbone::{BackboneConfig, FREEZABLE, MobileNetV2Config, make_divisible};

use crate::normalize::Normalize;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Levels of the pyramid: P2 to P5 from the backbone's C2 to C5, and P6, a subsampled P5.
pub const LEVELS: usize = 5;
/// Levels that RoIs are pooled from: P2 to P5.
pub const POOLED_LEVELS: usize = 4;
/// Nominal strides of P2 to P6 in pixels of the padded image.
pub const STRIDES: [usize; LEVELS] = [4, 8, 16, 32, 64];
/// Depths of ResNet that there are.
pub const DEPTHS: [usize; 4] = [18, 34, 50, 101];

/// A whole Faster R-CNN with a feature pyramid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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

/// How activations are normalised in the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NormKind {
    /// Batch statistics in training, running ones in evaluation. A layer whose scale is not a variable is frozen, and
    /// uses its running statistics in training too.
    BatchNorm,
    /// Running statistics and a fixed affine always: a scale and a shift.
    FrozenBatchNorm,
    /// Statistics of each image over groups of channels.
    GroupNorm {
        /// Number of groups; must divide the channels of every layer.
        groups: usize,
    },
}

/// Where a bottleneck block strides. ResNet-18 and 34 have no bottleneck and take no notice of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StridePlace {
    /// In the 3x3 convolution, as torchvision's ("v1.5").
    #[default]
    In3x3,
    /// In the first 1x1 convolution, as the original weights of MSRA.
    In1x1,
}

/// The ResNet backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResNetConfig {
    /// 18, 34, 50 or 101. Default 50.
    pub depth: usize,
    /// Multiplies every layer's channels; the stem gets `round(64 * width)`. Default 1.
    pub width: f64,
    /// The norm. Default frozen BatchNorm.
    pub norm: NormKind,
    /// Added to the variance. Default 1e-5. torchvision's COCO checkpoints of frozen BatchNorm want 0.
    pub norm_eps: f64,
    /// Where a bottleneck block strides. Default in the 3x3.
    pub stride_place: StridePlace,
}

impl Default for ResNetConfig {
    fn default() -> Self {
        Self {
            depth: 50,
            width: 1.0,
            norm: NormKind::FrozenBatchNorm,
            norm_eps: 1e-5,
            stride_place: StridePlace::In3x3,
        }
    }
}

impl ResNetConfig {
    /// Channels of the stem, and the width of the first stage's blocks.
    pub fn base(&self) -> usize {
        (64.0 * self.width).round().max(0.0) as usize
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
                    format!("{d} is no depth of a ResNet here; the nearest is {nearest}, all are {DEPTHS:?}"),
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

/// Anchors: one size a level, every ratio at each size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnchorConfig {
    /// The square root of an anchor's area in pixels, one a level, P2 first. Default 32, 64, 128, 256, 512.
    pub sizes: Vec<f32>,
    /// Height over width. Default 0.5, 1, 2.
    pub ratios: Vec<f32>,
}

impl Default for AnchorConfig {
    fn default() -> Self {
        Self { sizes: vec![32.0, 64.0, 128.0, 256.0, 512.0], ratios: vec![0.5, 1.0, 2.0] }
    }
}

/// The region proposal network: selection of proposals, and training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpnConfig {
    /// Best anchors of each level that go on to NMS, in training. Default 2000.
    pub pre_nms_train: usize,
    /// The same in evaluation. Default 1000.
    pub pre_nms_test: usize,
    /// Proposals of an image that come out of NMS at most, in training. Default 2000.
    pub post_nms_train: usize,
    /// The same in evaluation. Default 1000.
    pub post_nms_test: usize,
    /// IoU above which NMS suppresses. Default 0.7.
    pub nms: f32,
    /// IoU from which an anchor is positive. Default 0.7.
    pub positive_iou: f32,
    /// IoU below which an anchor is negative. Default 0.3.
    pub negative_iou: f32,
    /// Anchors of an image that the losses look at. Default 256.
    pub samples: usize,
    /// Share of them that is positive at most. Default 0.5.
    pub positive_fraction: f64,
    /// Proposals below this objectness (a probability) are dropped. Default 0.
    pub score_threshold: f32,
    /// Proposals with a side below this (pixels, after clipping) are dropped. Default 1e-3.
    pub min_size: f32,
    /// Where smooth L1 turns from quadratic to linear. Default 1/9; 0 is plain L1.
    pub smooth_l1_beta: f32,
}

impl Default for RpnConfig {
    fn default() -> Self {
        Self {
            pre_nms_train: 2000,
            pre_nms_test: 1000,
            post_nms_train: 2000,
            post_nms_test: 1000,
            nms: 0.7,
            positive_iou: 0.7,
            negative_iou: 0.3,
            samples: 256,
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
pub struct RoiConfig {
    /// RoIs of an image in training. Default 512.
    pub samples: usize,
    /// Share of them that is positive at most. Default 0.25.
    pub positive_fraction: f64,
    /// IoU from which a RoI takes a ground truth's class. Default 0.5.
    pub positive_iou: f32,
    /// IoU below which a RoI is background. Default 0.5.
    pub negative_iou: f32,
    /// Side of the pooled square in cells. Default 7.
    pub output: usize,
    /// Sampling points a side of each pooled cell; 0 adapts to the RoI's size. Default 2.
    pub sampling_ratio: usize,
    /// Whether RoIAlign shifts by half a cell. Default false, as torchvision's detectors.
    pub aligned: bool,
    /// A RoI with this side in pixels belongs to `canonical_level`. Default 224. Scale it with the input.
    pub canonical_scale: f32,
    /// See `canonical_scale`. Default 4.
    pub canonical_level: usize,
    /// Where smooth L1 turns from quadratic to linear. Default 1/9; 0 is plain L1.
    pub smooth_l1_beta: f32,
    /// Weights of the box coder for x, y, w and h. Default 10, 10, 5, 5.
    pub box_weights: [f32; 4],
    /// Detections must score more than this. Default 0.05.
    pub score_threshold: f32,
    /// IoU above which NMS suppresses within a class. Default 0.5.
    pub nms: f32,
    /// Detections of an image at most. Default 100.
    pub detections: usize,
    /// Width of the two hidden layers. Default 1024.
    pub hidden: usize,
}

impl Default for RoiConfig {
    fn default() -> Self {
        Self {
            samples: 512,
            positive_fraction: 0.25,
            positive_iou: 0.5,
            negative_iou: 0.5,
            output: 7,
            sampling_ratio: 2,
            aligned: false,
            canonical_scale: 224.0,
            canonical_level: 4,
            smooth_l1_beta: 1.0 / 9.0,
            box_weights: [10.0, 10.0, 5.0, 5.0],
            score_threshold: 0.05,
            nms: 0.5,
            detections: 100,
            hidden: 1024,
        }
    }
}

impl FasterRcnnConfig {
    /// Anchors of a cell.
    pub fn anchors_per_cell(&self) -> usize {
        self.anchors.ratios.len()
    }

    /// Whether the tensor of this name is state and no trainable parameter: running statistics, and every tensor of a
    /// frozen BatchNorm. A store of parameters asks this before it makes a variable of an entry.
    pub fn is_buffer(&self, name: &str) -> bool {
        if crate::norm::is_running_statistic(name) {
            return true;
        }
        self.backbone.norm() == NormKind::FrozenBatchNorm && self.backbone.belongs_to_norm(name)
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

    #[test]
    fn norm_kinds_have_stable_spellings() {
        let norm = |s: &str| serde_json::from_str::<NormKind>(s).unwrap();
        assert_eq!(norm(r#""batch_norm""#), NormKind::BatchNorm);
        assert_eq!(norm(r#""frozen_batch_norm""#), NormKind::FrozenBatchNorm);
        assert_eq!(norm(r#"{"group_norm": {"groups": 4}}"#), NormKind::GroupNorm { groups: 4 });
        assert_eq!(serde_json::from_str::<StridePlace>(r#""in1x1""#).unwrap(), StridePlace::In1x1);
    }

    #[test]
    fn channels_follow_depth_and_width() {
        let mut c = ResNetConfig::default();
        assert_eq!(c.channels(), [256, 512, 1024, 2048]);
        c.depth = 18;
        assert_eq!(c.channels(), [64, 128, 256, 512]);
        c.width = 0.125;
        assert_eq!(c.channels(), [8, 16, 32, 64]);
    }

    #[test]
    fn buffers_are_told_by_name() {
        let mut c = FasterRcnnConfig::default();
        assert!(c.is_buffer("backbone.body.bn1.weight"));
        assert!(c.is_buffer("backbone.body.layer1.0.downsample.1.bias"));
        assert!(!c.is_buffer("backbone.body.layer1.0.downsample.0.weight"));
        assert!(!c.is_buffer("backbone.body.conv1.weight"));
        assert!(!c.is_buffer("backbone.fpn.inner_blocks.0.0.bias"));
        c.backbone = ResNetConfig { norm: NormKind::BatchNorm, ..Default::default() }.into();
        assert!(!c.is_buffer("backbone.body.bn1.weight"));
        assert!(c.is_buffer("backbone.body.bn1.running_mean"));
        assert!(c.is_buffer("backbone.body.layer4.1.bn2.num_batches_tracked"));
        c.backbone = MobileNetV2Config::default().into();
        for norm in ["0.1", "1.conv.0.1", "1.conv.2", "2.conv.0.1", "2.conv.1.1", "17.conv.3"] {
            assert!(c.is_buffer(&format!("backbone.body.{norm}.weight")), "{norm}");
        }
        for conv in ["0.0", "1.conv.0.0", "1.conv.1", "2.conv.0.0", "2.conv.1.0", "17.conv.2"] {
            assert!(!c.is_buffer(&format!("backbone.body.{conv}.weight")), "{conv}");
        }
        assert!(!c.is_buffer("backbone.fpn.inner_blocks.0.1.weight") && !c.is_buffer("rpn.head.conv.0.1.weight"));
    }
}
