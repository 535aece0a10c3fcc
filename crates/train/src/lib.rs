//! Training, evaluation and studies for docent's detectors.
//!
//! A [`recipe::Recipe`] is one experiment in one TOML file. [`study::run`] makes it: an ordered set of runs (the teacher, the
//! student alone, the distilled student) that share data, seed and first weights, each a folder that a stopped program goes on in
//! with the same bits. [`detector::Detector`] rebuilds a trained detector from its checkpoint alone.
//!
//! The parts serve other loops as well: [`ParamStore`] (every tensor by name: trainable, frozen or a buffer), [`Sgd`],
//! [`AdamW`], [`Ema`], [`clip_grad_norm`], [`Schedule`], [`save_checkpoint`] and [`read_safetensors`], and [`events`], which the loop emits and
//! writers take.
//!
//! # Example
//! A shipped recipe with one field changed. [`study::run`] needs no more than this, a folder and a writer of events.
//!
//! ```
//! use docent_train::recipe::{Recipe, text_of};
//!
//! let recipe = Recipe::parse(&text_of("shapes")?, &["schedule.epochs=2".to_owned()])?;
//! assert_eq!(recipe.schedule.epochs, 2);
//! // Defaults are written out (features that are off are not), and the text is the same experiment.
//! let text = recipe.to_toml()?;
//! assert!(text.contains("warmup_start = 0.001"));
//! assert_eq!(Recipe::parse(&text, &[])?, recipe);
//! # Ok::<(), docent_train::Error>(())
//! ```

pub mod ablate;
pub mod budget;
pub mod build;
pub mod checkpoint;
pub mod clip;
pub mod data;
pub mod detector;
pub mod dry_run;
pub mod early_stop;
pub mod ema;
pub mod error;
pub mod evaluate;
pub mod events;
pub mod import;
pub mod lock;
pub mod manifest;
pub mod optim;
pub mod params;
pub mod propose;
pub mod recipe;
pub mod report;
pub mod run;
pub mod schedule;
pub mod state;
pub mod step;
pub mod study;
pub mod summary;
pub mod teacher_cache;
pub mod tensorboard;
pub mod update;
pub mod weights;

mod experiment;
mod files;
mod init;
mod integrity;
mod probe;
mod pth;
mod stop;
mod tensors;

/// Stack in bytes that a thread should have to train on: the backward pass walks the network's graph by recursion, and that of a
/// deep backbone wants more than a main thread's. A thread of rayon's pool serves best: from any other, each operation wakes one of
/// the pool's and sleeps until it is done. The `docent` program starts the pool with such stacks and calls this crate on it.
pub const STACK_BYTES: usize = 256 << 20;

pub use checkpoint::{Category, Checkpoint, CheckpointMeta, load_checkpoint, save_checkpoint};
pub use clip::{Clip, clip_grad_norm};
pub use early_stop::{EarlyStop, Patience};
pub use ema::{Ema, EmaConfig};
pub use error::{Error, Result};
pub use optim::{AdamW, AdamWConfig, Optimizer, OptimizerConfig, OptimizerKind, ParamGroup, Sgd, SgdConfig};
pub use params::{Kind, ParamStore};
pub use schedule::{Schedule, ScheduleConfig, scale_lr};
pub use state::{Best, TrainState};
pub use stop::Stop;
pub use teacher_cache::{CacheSize, TeacherCache};
pub use weights::{
    BackboneInfo, StrictReport, WeightFile, parse_safetensors, parse_weights, read_safetensors, read_weights,
};
