//! Model files for docent's detectors: parameters by name, checkpoints, other programs' weights, and a predictor.
//!
//! [`Predictor`] loads a checkpoint and detects objects, and needs nothing else of the project:
//!
//! ```no_run
//! use docent_coco::Rgb8;
//! use docent_detect::Registry;
//! use docent_model::Predictor;
//!
//! let predictor = Predictor::load("student.safetensors".as_ref(), &Registry::builtin())?;
//! for found in predictor.detect(&Rgb8::open("street.jpg".as_ref())?)? {
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

pub use checkpoint::{
    Checkpoint, CheckpointMeta, FORMAT, differences, load_checkpoint, save_checkpoint, save_keeping,
};
pub use digest::sha256_hex;
pub use error::{Error, Result};
pub use old_keys::renamed as renamed_keys;
pub use params::{Kind, ParamStore};
pub use predictor::{Predictor, SIZE_DIVISOR, to_original};
pub use strict::StrictReport;
pub use weights::{
    BackboneInfo, FileFormat, WeightFile, backbone_tensors, is_classifier, parse_safetensors, parse_weights, read_safetensors,
    read_weights, with_prefix,
};
