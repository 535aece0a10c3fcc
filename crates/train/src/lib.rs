//! The training of docent's detectors: optimizers, schedules, the step, evaluation and events.
//!
//! [`Trainer`] makes steps: it knows a student, perhaps a teacher, and no file. [`update`](update::update) is its forward and backward
//! pass, [`evaluate`](evaluate::evaluate) scores a model on a data set. The parts serve other loops as well: [`Sgd`], [`AdamW`], [`Ema`],
//! [`clip_grad_norm`], [`Schedule`], [`TeacherCache`], and [`events`], which a loop emits and writers take. Recipes and run folders are
//! the crate `docent-study`'s.
//!
//! # Example
//! Two steps on one image.
//!
//! ```
//! use candle_core::Device;
//! use docent_coco::shapes::{ShapesConfig, generate};
//! use docent_coco::{Loader, LoaderConfig, Resize};
//! use docent_detect::backbone::ResNetConfig;
//! use docent_detect::layers::NormKind;
//! use docent_detect::{Detector, FasterRcnn, FasterRcnnConfig};
//! use docent_model::ParamStore;
//! use docent_train::{Batch, StudentModel, Trainer, TrainerConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let data = generate(folder, &ShapesConfig::default().train(1).val(1))?.train;
//! let resize = Resize::default().shortest(64).longest(64);
//! let classes = data.categories().len() + 1; // and the background
//! let loader = Loader::new(data.into(), LoaderConfig::default().resize(resize).batch(1))?;
//!
//! let backbone = ResNetConfig::default().depth(18).width_multiplier(0.125).norm(NormKind::BatchNorm);
//! let config = FasterRcnnConfig::default().classes(classes).fpn_channels(16).backbone(backbone);
//! // A first build tells the store which tensors are running statistics.
//! let probe = FasterRcnn::new(&config, ParamStore::probe(&Device::Cpu).var_builder())?;
//! let store = ParamStore::new(0, &Device::Cpu).with_layers(probe.layers(), 0);
//! let model = FasterRcnn::new(&config, store.var_builder())?;
//!
//! let student = StudentModel { model: &model, store: &store };
//! let mut trainer = Trainer::new(TrainerConfig::new(2, 1, 0.01), student, None)?;
//! for epoch in 0..2 {
//!     for items in loader.epoch(epoch) {
//!         let record = trainer.step(&[Batch::new(&items?, &Device::Cpu)?], false)?;
//!         assert!(record.total.is_finite());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

pub mod evaluate;
pub mod events;
pub mod update;

mod batch;
mod cancel;
mod clip;
mod early_stop;
mod ema;
mod error;
mod gradients;
mod optim;
mod pairs;
mod schedule;
mod step;
mod teacher_cache;
mod trainer;

pub use candle_core as candle;

pub use batch::Batch;
pub use cancel::CancelToken;
pub use clip::{Clip, clip_grad_norm};
pub use early_stop::{EarlyStop, Patience};
pub use ema::{Ema, EmaConfig};
pub use error::{Error, Result};
pub use gradients::{GradientReducer, Params, SingleProcess};
pub use optim::{
    AdamW, AdamWConfig, Optimizer, OptimizerConfig, OptimizerKind, ParamGroup, Sgd, SgdConfig, matches as name_matches,
};
pub use schedule::{LrDecay, MilestoneUnit, Schedule, ScheduleConfig, scale_lr};
pub use step::{Forward, ForwardDistill, StudentModel, TeacherContext, forward};
pub use teacher_cache::{BatchPyramids, CacheSize, TeacherCache, TeacherPyramids};
pub use trainer::{Trainer, TrainerConfig, TrainerState};
