//! Faster R-CNN with a feature pyramid on candle, with torchvision's semantics and parameter names.
//!
//! Training, evaluation and distillation use the [`Detector`] trait. [`FasterRcnn`] implements it with a [`backbone::Backbone`], an
//! [`fpn::Fpn`], an [`rpn::RpnHead`] and [`roi_heads::RoiHeads`]. [`FasterRcnn::from_parts`] takes any backbone, and each part can be
//! used alone. Plain structs pass between the parts, and distillation reads them:
//!
//! | part | input | output |
//! |---|---|---|
//! | backbone | [`ImageBatch`] | [`FeaturePyramid`], C2 to C5 |
//! | FPN | C2 to C5 | [`FeaturePyramid`], P2 to P6 |
//! | RPN | P2 to P6 | [`DenseHeadOutput`], [`Proposals`] |
//! | sampling (training) | [`Proposals`], [`Target`] | [`SampledRois`] |
//! | RoI heads | P2 to P5, regions | [`BoxHeadOutput`] |
//!
//! A [`Registry`] holds detectors and backbones by name, for recipes and checkpoints. [`layers`] has the layers, and the list in
//! which each layer registers itself.
//!
//! Shorthand, here and in every comment: B images, C channels, H W rows and columns, L levels, A anchors a cell,
//! N boxes, R regions of interest (RoIs), K classes with the background, which is class 0. Boxes are f32
//! `[x1, y1, x2, y2]` in pixels of the resized image, without any "+ 1"; images are RGB from 0 to 1.
//!
//! Parameters come from a [`candle_nn::VarBuilder`] by torchvision's names. A variable trains; a plain tensor is frozen,
//! has no gradient, and no graph is built for it.
//!
//! ```
//! use candle_core::{DType, Device};
//! use candle_nn::VarBuilder;
//! use docent_detect::backbone::ResNetConfig;
//! use docent_detect::{Detector, FasterRcnn, FasterRcnnConfig, ImageBatch, Mode, RegionHeads, Size};
//!
//! # fn main() -> docent_detect::Result<()> {
//! let backbone = ResNetConfig::default().depth(18).width_multiplier(0.125);
//! let mut cfg = FasterRcnnConfig::default().classes(4).backbone(backbone).fpn_channels(16);
//! cfg.roi.representation_size = 32;
//! cfg.rpn.post_nms_top_n_test = 50;
//!
//! // Weights of zero find nothing; a real builder reads a file or a store.
//! let model = FasterRcnn::new(&cfg, VarBuilder::zeros(DType::F32, &Device::Cpu))?;
//! let grey = vec![0.5f32; 3 * 60 * 80];
//! let batch = ImageBatch::from_planes(&[(Size::new(60, 80), &grey)], 32, &Device::Cpu)?;
//!
//! // Stage by stage ..
//! let features = model.features(&batch, Mode::Eval)?;
//! assert_eq!(features.levels[0].dims(), [1, 16, 16, 24]); // P2 of 64x96 pixels
//! let proposals = model.propose(&features, &batch, Mode::Eval)?;
//! let head = model.box_head(&features, &proposals.rois(), Mode::Eval)?;
//! assert_eq!(head.class_logits.dims()[1], 4);
//!
//! // .. or in one go: one list of detections an image.
//! assert_eq!(model.detect(&batch)?.len(), 1);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod anchors;
pub mod backbone;
pub mod fpn;
pub mod layers;
pub mod matcher;
pub mod roi_heads;
pub mod rpn;
#[doc(hidden)]
pub mod testing;

mod batch;
mod config;
mod detector;
mod detector_config;
mod error;
mod faster_rcnn;
mod normalize;
mod ranges;
mod registry;
mod sampler;
mod setters;
mod stages;

pub use candle_core as candle;
pub use candle_nn;

pub use batch::ImageBatch;
pub use config::{AnchorConfig, FasterRcnnConfig, RoiConfig, RpnConfig};
pub use detector::{Detector, RegionHeads, RegionStage, TrainOutput};
pub use detector_config::{DetectorConfig, OtherDetector};
pub use error::{Error, Result};
pub use faster_rcnn::FasterRcnn;
pub use normalize::Normalize;
pub use registry::Registry;
pub use sampler::{BalancedPositiveNegativeSampler, SamplePurpose, Sampler};
pub use stages::{
    BoxHeadOutput, DenseHeadOutput, Detection, FeaturePyramid, FeatureSpec, Losses, Mode, Proposals, SampledRois, Size,
    Target,
};

pub use docent_ops::{BoxCoder, BoxXyxy};
