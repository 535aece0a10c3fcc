//! Faster R-CNN with a feature pyramid on candle, with torchvision's semantics and parameter names.
//!
//! A detector is made of stages, plain functions with plain structs between them: an [`ImageBatch`] gives
//! [`BackboneFeatures`] (C2 to C5), these [`Features`] (P2 to P6), these an [`RpnOutput`] and [`Proposals`]; a training
//! step draws [`SampledRois`] from them, and the heads give a [`BoxHeadOutput`] for any regions. Each stage can be called
//! alone, on [`FasterRcnn`] or on its own type ([`backbone::Backbone`], [`fpn::Fpn`], [`rpn::RpnHead`],
//! [`roi_heads::RoiHeads`]), and whoever wants to look between two stages, as distillation does, reads the struct.
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
//! use docent_detect::{FasterRcnn, FasterRcnnConfig, ImageBatch, Mode, ResNetConfig};
//!
//! # fn main() -> docent_detect::Result<()> {
//! let mut cfg = FasterRcnnConfig {
//!     classes: 4,
//!     fpn_channels: 16,
//!     backbone: ResNetConfig { depth: 18, width: 0.125, ..Default::default() }.into(),
//!     ..Default::default()
//! };
//! cfg.roi.hidden = 32;
//! cfg.rpn.post_nms_test = 50;
//!
//! // Weights of zero find nothing sure; a real builder reads a file or a store.
//! let model = FasterRcnn::new(&cfg, VarBuilder::zeros(DType::F32, &Device::Cpu))?;
//! let grey = vec![0.5f32; 3 * 60 * 80];
//! let batch = ImageBatch::from_planes(&[(60, 80, &grey)], 32, &Device::Cpu)?;
//!
//! // Stage by stage ..
//! let features = model.features(&batch, Mode::Eval)?;
//! assert_eq!(features.levels[0].dims(), [1, 16, 16, 24]); // P2 of 64x96 pixels
//! let output = model.rpn(&features, &batch)?;
//! let proposals = model.propose(&output, &batch.sizes, Mode::Eval)?;
//! let head = model.box_head(&features, &proposals.rois())?;
//! assert_eq!(head.class_logits.dims()[1], 4);
//!
//! // .. or in one go: one list of detections an image.
//! assert_eq!(model.detect(&batch)?.len(), 1);
//! # Ok(())
//! # }
//! ```

pub mod anchors;
pub mod backbone;
pub mod config;
pub mod flops;
pub mod fpn;
pub mod matcher;
pub mod mobilenet;
pub mod resnet;
pub mod roi_heads;
pub mod rpn;
pub mod sampler;
#[doc(hidden)]
pub mod testing;

mod batch;
mod conv_norm;
mod error;
mod faster_rcnn;
mod layers;
mod norm;
mod normalize;
mod stages;

pub use batch::ImageBatch;
pub use config::{
    AnchorConfig, BackboneConfig, FasterRcnnConfig, MobileNetV2Config, NormKind, ResNetConfig, RoiConfig, RpnConfig,
    StridePlace,
};
pub use error::{Error, Result};
pub use faster_rcnn::{FasterRcnn, TrainOutput};
pub use normalize::Normalize;
pub use sampler::{RandomSampler, SamplePurpose, Sampler};
pub use stages::{
    BackboneFeatures, BoxHeadOutput, Detection, DetectionLosses, Features, Mode, Proposals, RpnOutput, SampledRois,
    Targets,
};

pub use docent_ops::{BoxCoder, BoxXyxy};
