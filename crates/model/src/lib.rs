//! Model files for docent's detectors: parameters by name, checkpoints, other programs' weights, and a predictor.
//!
//! [`Predictor`] loads a checkpoint and detects objects. No other crate is needed for it: images are [`coco`]'s, detections and the
//! [`Registry`](detect::Registry) of architectures are [`detect`]'s, and both are re-exported here with [`candle`].
//!
//! ```no_run
//! use std::path::Path;
//!
//! use docent_model::Predictor;
//! use docent_model::coco::{DecodeOptions, decode_file};
//! use docent_model::detect::Registry;
//!
//! let predictor = Predictor::load(Path::new("student.safetensors"), &Registry::builtin())?;
//! let image = decode_file(Path::new("street.jpg"), DecodeOptions::default())?;
//! for found in predictor.detect(&image)? {
//!     println!("{} {:.2} {:?}", predictor.class_name(found.label), found.score, found.bbox);
//! }
//! # Ok::<(), docent_model::Error>(())
//! ```
//!
//! [`ParamStore`] holds every tensor of a model by name: trainable, frozen or a buffer. [`save_checkpoint`] and [`load_checkpoint`]
//! write and read models whole or not at all. [`import`] brings torchvision's weights into that form.
//!
//! # Features
//! `pth` (on by default): PyTorch's own files, `.pth` and `.pt`, are read.

pub mod files;
pub mod hint;
pub mod import;

mod checkpoint;
mod digest;
mod error;
mod init;
mod integrity;
mod old_keys;
mod params;
mod predictor;
#[cfg(feature = "pth")]
mod pth;
mod strict;
mod weights;

pub use candle_core as candle;
pub use docent_coco as coco;
pub use docent_detect as detect;

pub use checkpoint::{Checkpoint, CheckpointMeta, FORMAT, differences, load_checkpoint, save_checkpoint, save_keeping};
pub use digest::sha256_hex;
pub use error::{Error, Result};
pub use old_keys::renamed_keys;
pub use params::{Kind, ParamStore};
pub use predictor::{Predictor, SIZE_DIVISOR, to_original};
pub use strict::StrictReport;
pub use weights::{FileFormat, WeightFile, parse_safetensors, parse_weights, read_safetensors, read_weights};
