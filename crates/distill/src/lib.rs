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
//! The [`rivals`] module holds other methods behind the same trait.
//!
//! Two ways in. Each part is a plain function over plain data, to be called alone. [`TaskAdaptive`] puts them together
//! behind the [`Distiller`] trait; a loop fills one [`StepContext`] a step. Nothing here knows a file, an optimizer
//! or a loop.
//!
//! Shorthand: B images, C channels, H W rows and columns, L levels, R RoIs, K classes with background 0.
//! Boxes are xyxy in pixels of the network's input.
//!
//! # In a loop of your own
//! Run both models' backbone and FPN on one batch, let the *student's* RPN propose and its sampler choose the RoIs,
//! and run both box heads on these same RoIs (the paper's region proposal sharing; that it is the sampled RoIs which are shared is our reading). Then:
//!
//! ```
//! use candle_core::{DType, Device, Tensor, Var};
//! use candle_nn::{VarBuilder, VarMap};
//! use docent_detect::{BoxHeadOutput, FeaturePyramid, SampledRois, Target};
//! use docent_distill::{Channels, Distiller, StepContext, TaskAdaptive, TaskAdaptiveConfig};
//! use docent_ops::BoxCoder;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::Cpu;
//! // What your models give: one level of stride 8, student 4 channels, teacher 6; three classes with the background.
//! let map = Var::from_tensor(&Tensor::full(0.5f32, (1, 4, 4, 4), &device)?)?;
//! let student_features = FeaturePyramid { levels: vec![map.as_tensor().clone()], strides: vec![8] };
//! let theirs = Tensor::ones((1, 6, 4, 4), DType::F32, &device)?;
//! let teacher_features = FeaturePyramid { levels: vec![theirs], strides: vec![8] };
//!
//! let truth = [4.0, 4.0, 28.0, 20.0];
//! let rois = SampledRois {
//!     rois: vec![(0, [8.0, 4.0, 30.0, 24.0]), (0, [0.0, 20.0, 8.0, 32.0])],
//!     labels: vec![2, 0],
//!     matched_gt_boxes: vec![truth, [0.0, 20.0, 8.0, 32.0]],
//!     positives: vec![0],
//! };
//! let logits = Var::zeros((2, 3), DType::F32, &device)?;
//! let deltas = Var::zeros((2, 12), DType::F32, &device)?;
//! let student_head =
//!     BoxHeadOutput { class_logits: logits.as_tensor().clone(), box_deltas: deltas.as_tensor().clone() };
//! // A teacher that is fairly sure of class 2 and moves the proposal to the left and up.
//! let teacher_head = BoxHeadOutput {
//!     class_logits: Tensor::new(&[[0f32, 0., 4.], [3., 0., 0.]], &device)?,
//!     box_deltas: Tensor::new(&[[0f32, 0., 0., 0., 0., 0., 0., 0., -1.3, -1., 0.4, -1.], [0.; 12]], &device)?,
//! };
//!
//! // The method's own parameters come from your builder, and go to your optimizer.
//! let mine = VarMap::new();
//! let vb = VarBuilder::from_varmap(&mine, DType::F32, &device);
//! let channels = |fpn: usize| Channels { fpn: vec![fpn], stages: Vec::new() };
//! let method = TaskAdaptive::new(&TaskAdaptiveConfig::default(), &channels(4), &channels(6), vb)?;
//! assert_eq!(method.params()[0].0, "adapt.0.weight");
//!
//! let coder = BoxCoder::new([10., 10., 5., 5.]);
//! let out = method.loss(&StepContext {
//!     student_features: &student_features,
//!     teacher_features: Some(&teacher_features),
//!     stages: None,
//!     rois: &rois,
//!     student_head: &student_head,
//!     teacher_head: Some(&teacher_head),
//!     teacher_rois: None,
//!     anchors: &[],
//!     targets: &[Target { boxes: vec![truth], labels: vec![2] }],
//!     sizes: &[(32, 32)],
//!     image_size: (32, 32),
//!     epoch: 3,
//!     epochs: 12,
//!     iteration: 201,
//!     iterations: 1200,
//!     milestones: &[800, 1100],
//!     student_coder: &coder,
//!     teacher_coder: &coder,
//! })?;
//! for (name, value) in out.report()? {
//!     println!("{name} {value:.4}");
//! }
//! assert!((out.decay - 10.0 / 12.0).abs() < 1e-12);
//! assert_eq!(out.stat("gated_share"), Some(1.0));
//!
//! // Your detection loss plus this; here, this alone.
//! let gradients = out.total()?.backward()?;
//! assert!(gradients.get(logits.as_tensor()).is_some());
//! assert!(gradients.get(&method.params()[0].1).is_some());
//! # Ok(())
//! # }
//! ```

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
