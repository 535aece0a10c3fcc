//! Tensor operations for object detectors on candle, with correct and fast CPU gradients.
//!
//! Candle's own convolution, pooling, upsampling and softmax lose gradients, falsify them or crawl on a CPU. These are
//! replacements that fit into any candle model: plain functions from tensors to tensors, each one node of the graph with
//! its own backward pass, plus the box arithmetic of a detector (IoU, box coder, NMS, RoIAlign, losses).
//!
//! - [`conv2d`] fuses frozen batch normalisation ([`Affine`]), a bias or residual ([`BiasOrResidual`]) and ReLU; [`set_winograd`].
//! - [`linear`], [`batch_norm_train`], [`conv_batch_norm_train`], [`group_norm`], [`relu`], [`relu6`], [`add_relu`], [`softmax`], [`index_rows`].
//! - [`max_pool2d`], [`subsample`], [`upsample_nearest`], [`upsample_nearest_add`].
//! - [`boxes`], [`BoxCoder`], [`nms`], [`batched_nms`], [`top_k`], [`roi_align`], [`roi_linear`], [`loss`].
//!
//! What holds for all of them:
//!
//! - f32 on the CPU; anything else is an [`Error`] that names the operation and the operand. Views are made contiguous.
//! - A gradient is computed for an operand that is tracked (a `Var`, or what depends on one) and for no other.
//! - `docent_tensor::backward_freeing` in the place of candle's `backward` frees their results during the backward pass.
//! - Results and gradients have the same bits for any number of threads: sums are cut into pieces by shape alone, and
//!   run over the pieces in order. They may differ between kinds of CPU, whose matrix kernels differ.
//!
//! Shorthand of this crate's documentation: B images, C channels, H and W rows and columns, N boxes, R RoIs, K classes
//! including background as class 0. A box is `[x0, y0, x1, y1]` in pixels.
//!
//! # Example
//!
//! A residual block's second half, its gradient, and what is frozen:
//!
//! ```
//! use candle_core::{DType, Device, Tensor, Var};
//! use docent_ops::{BiasOrResidual, Affine, Conv2dParams, conv2d};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::Cpu;
//! let x = Tensor::ones((2, 8, 10, 9), DType::F32, &device)?;
//! let shortcut = Tensor::zeros((2, 16, 5, 5), DType::F32, &device)?;
//! let weights = Var::from_tensor(&Tensor::full(0.01f32, (16, 8, 3, 3), &device)?)?;
//! let norm = Affine::from_batch_norm(&[1.0; 16], &[0.0; 16], &[0.5; 16], &[1.0; 16], 1e-5);
//!
//! let p = Conv2dParams { stride: 2, padding: 1, ..Default::default() };
//! let y = conv2d(&x, &weights, BiasOrResidual::Residual(&shortcut), Some(&norm), true, &p)?;
//! assert_eq!(y.dims(), [2, 16, 5, 5]);
//!
//! let grads = y.sum_all()?.backward()?;
//! assert_eq!(grads.get(&weights).map(|g| g.dims().to_vec()), Some(vec![16, 8, 3, 3]));
//! assert!(grads.get(&x).is_none());
//! # Ok(())
//! # }
//! ```

pub mod boxes;
mod coder;
mod conv;
mod elementwise;
mod error;
mod index_rows;
mod linear;
pub mod loss;
mod matmul;
mod nms;
mod norm;
mod parallel;
mod pool;
mod relu6;
mod resize;
mod roi_align;
mod roi_linear;
mod simd;
mod softmax;
mod subsample;
#[doc(hidden)]
pub mod testing;
mod topk;

pub use candle_core as candle;

pub use coder::BoxCoder;
pub use conv::{Affine, BiasOrResidual, Conv2dParams, conv2d, set_winograd};
pub use elementwise::{add_relu, relu};
pub use error::{Error, Result};
pub use index_rows::index_rows;
pub use linear::linear;
pub use nms::{batched_nms, nms};
pub use norm::{BatchStats, batch_norm_train, conv_batch_norm_train, group_norm};
pub use pool::{max_pool2d, subsample};
pub use relu6::relu6;
pub use resize::{upsample_nearest, upsample_nearest_add};
pub use roi_align::{RoiAlignParams, roi_align};
pub use roi_linear::{RoiLevel, roi_linear};
pub use softmax::softmax;
pub use topk::top_k;

/// `[x1, y1, x2, y2]`: left, top, right, bottom edge, in pixels.
pub type BoxXyxy = [f32; 4];
