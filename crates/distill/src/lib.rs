//! Task-adaptive distillation of two-stage detectors on candle: a big detector teaches a small one.
//!
//! The method is that of R. Sun, F. Tang, X. Zhang, H. Xiong and Q. Tian, *Distilling Object Detectors with Task
//! Adaptive Regularization* (arXiv 2006.13108). Its authors published no code that we know of, so each statement in
//! these docs is marked: \[paper\] where its abstract or its readers say so, \[ours\] where it is our reading or an
//! engineering choice. docs/method.md in the repository has the whole mathematics.
//!
//! ```text
//! L = L_rpn + L_rcnn + r(t) * ( w_feat L_feat + w_cls L_cls + w_reg L_reg )
//! ```
//!
//! | part | what it is | where |
//! |---|---|---|
//! | mask | a Gaussian over each ground-truth box | [`mask::gaussian_mask`], [`mask::level_mask`] |
//! | L_feat | masked imitation of the teacher's pyramid, one adapter a level | [`feature::feature_loss`] |
//! | L_cls | soft targets on the positive proposals | [`class::class_loss`] |
//! | gate | only where the teacher's refined box beats the proposal | [`gate::box_gate`] |
//! | L_reg | the teacher's deltas on the gated proposals | [`boxes::box_loss`] |
//! | r(t) | the decay over all three | [`decay::Decay`] |
//!
//! [`methods`] has this method and others side by side, behind the [`Distiller`] trait; a [`DistillerRegistry`] builds them by name.
//! Each part in the table is also a plain function over plain data. The crate knows no file, optimizer or loop.
//!
//! Shorthand: B images, C channels, H W rows and columns, L levels, R RoIs, K classes with background 0.
//! Boxes are xyxy in pixels of the network's input.
//!
//! # In a loop of your own
//! [`SharedStep`] runs both models on one batch with shared proposals: the student proposes and samples RoIs, and both models' heads
//! run on them. (\[paper\] region proposal sharing; \[ours\] that the sampled RoIs are shared.) Its [`StepContext`] is what the method
//! reads. `examples/own_loop.rs` is a whole program.
//!
//! ```
//! use docent_distill::candle::{DType, Device};
//! use docent_distill::candle_nn::{VarBuilder, VarMap};
//! use docent_distill::detect::backbone::ResNetConfig;
//! use docent_distill::detect::{
//!     BalancedPositiveNegativeSampler, Detector, FasterRcnn, FasterRcnnConfig, ImageBatch, Size, Target,
//! };
//! use docent_distill::methods::DistillerConfig;
//! use docent_distill::{Channels, DistillerRegistry, Progress, SharedStep, SharingOptions, StepInput};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let detector = |width_multiplier: f64, parameters: &VarMap| {
//!     let mut config = FasterRcnnConfig::default().classes(3).fpn_channels(16);
//!     config.backbone = ResNetConfig::default().depth(18).width_multiplier(width_multiplier).into();
//!     config.roi.representation_size = 32;
//!     FasterRcnn::new(&config, VarBuilder::from_varmap(parameters, DType::F32, &Device::Cpu))
//! };
//! let (of_teacher, of_student) = (VarMap::new(), VarMap::new());
//! let (teacher, student) = (detector(0.25, &of_teacher)?, detector(0.125, &of_student)?);
//!
//! // The method's own parameters come from your builder, and go to your optimizer.
//! let of_method = VarMap::new();
//! let method = DistillerRegistry::builtin().distiller(
//!     &DistillerConfig::default(),
//!     &Channels::of(&student),
//!     &Channels::of(&teacher),
//!     VarBuilder::from_varmap(&of_method, DType::F32, &Device::Cpu),
//! )?;
//! assert_eq!(method.params()[0].0, "adapt.0.weight");
//!
//! // One step.
//! let planes = vec![0.5f32; 3 * 64 * 64];
//! let images = ImageBatch::from_planes(&[(Size::new(64, 64), &planes)], 32, &Device::Cpu)?;
//! let targets = [Target { boxes: vec![[8.0, 4.0, 50.0, 40.0]], labels: vec![2] }];
//! let mut sampler = BalancedPositiveNegativeSampler::seeded(1, images.len());
//! let output = student.forward_train(&images, &targets, &mut sampler)?;
//! let input = StepInput { student: &student, teacher: &teacher, output: &output, images: &images, targets: &targets };
//! let shared = SharedStep::new(input, method.needs(), SharingOptions::default())?;
//! let progress = Progress { epoch: 3, epochs: 12, iteration: 201, iterations: 1200, milestones: &[800, 1100] };
//! let distilled = method.loss(&shared.context(progress))?;
//! for (name, value) in distilled.report()? {
//!     println!("{name} {value:.4}");
//! }
//! assert!((distilled.decay - 10.0 / 12.0).abs() < 1e-12);
//!
//! let gradients = (output.total()? + distilled.total()?)?.backward()?;
//! assert!(gradients.get(&method.params()[0].1).is_some());
//! assert!(of_teacher.all_vars().iter().all(|parameter| gradients.get(parameter).is_none()));
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub use candle_core as candle;
pub use candle_nn;
pub use docent_detect as detect;

pub mod boxes;
pub mod class;
pub mod config;
pub mod decay;
pub mod feature;
pub mod gate;
pub mod mask;
pub mod methods;

mod context;
mod distiller;
mod error;
mod probability;
mod progress;
mod registry;
mod sharing;

pub use context::{Channels, ModelView, RegionView, RoiSet, StepContext};
pub use distiller::{DistillOutput, Distiller, Needs, Stat, Term};
pub use error::{Error, Result};
pub use progress::Progress;
pub use registry::DistillerRegistry;
pub use sharing::{PyramidSource, SharedStep, SharingOptions, StepInput};
