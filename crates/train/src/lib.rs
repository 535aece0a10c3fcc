//! Training, evaluation and studies for docent's detectors.

pub mod build;
pub mod checkpoint;
pub mod clip;
pub mod data;
pub mod detector;
pub mod error;
pub mod evaluate;
pub mod events;
pub mod manifest;
pub mod optim;
pub mod params;
pub mod recipe;
pub mod run;
pub mod schedule;
pub mod state;
pub mod step;
pub mod study;
pub mod summary;
pub mod weights;

mod files;
mod init;
mod tensors;

pub use checkpoint::{Category, Checkpoint, CheckpointMeta, load_checkpoint, save_checkpoint};
pub use clip::{Clip, clip_grad_norm};
pub use error::{Error, Result};
pub use optim::{ParamGroup, Sgd, SgdConfig};
pub use params::{Kind, ParamStore};
pub use schedule::{Schedule, ScheduleConfig, scale_lr};
pub use state::{Best, TrainState};
pub use weights::{BackboneInfo, StrictReport, WeightFile, read_safetensors};
