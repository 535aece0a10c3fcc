//! Weights of other programs: what a file is of, and the same weights as a checkpoint or backbone file of ours.
//!
//! ```no_run
//! use std::path::Path;
//! use docent_model::import::{ConvertOptions, convert};
//! use docent_model::read_weights;
//!
//! let path = Path::new("fasterrcnn_resnet50_fpn_coco.pth");
//! let converted = convert(path, read_weights(path)?, &ConvertOptions::default())?;
//! converted.save(Path::new("coco.safetensors"))?;
//! # Ok::<(), docent_model::Error>(())
//! ```

pub(crate) mod backbone;
pub(crate) mod foreign;
pub(crate) mod names;

mod coco;
mod content;
mod convert;
mod deduce;

pub use backbone::{BackboneInfo, backbone_tensors, check_backbone};
pub use content::{Content, DetectorFile};
pub use convert::{ConvertOptions, Converted, Target, convert};
