//! What candle's tensors lack for training: a backward pass that frees activations on its way, and checked access to a tensor's values.
//!
//! - [`backward_freeing`] computes gradients as [`candle_core::Tensor::backward`] does, and frees the values of the graph as soon as no
//!   later step reads them. [`release`] frees a tensor that no backward pass reads.
//! - [`apply_op1`], [`apply_op2`] and [`apply_op3`] run a custom operation whose result takes part in that; [`free_saved`] frees what such
//!   an operation has saved for its backward pass.
//! - [`f32_operand`], [`f32_operand_4d`], [`f32_values`], [`F32View`] and [`f32_tensor`] check operands, read their values and make tensors.
//!
//! [`process::prepare`] sets what makes training fast in a program of one's own.
//!
//! A tensor whose values are freed keeps its shape and its place in the graph. Reading it gives an error, in this project's operations and
//! in candle's own; no safe code can read freed memory. `src/freed.rs` says how, and which of candle's operations were checked.
//!
//! The crate knows tensors alone: no detector, no file. It runs on the CPU.
//!
//! # Example
//!
//! An operation of one's own, whose result is freed by the backward pass:
//!
//! ```
//! use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor, Var};
//! use docent_tensor::{F32View, apply_op1, backward_freeing, f32_operand, f32_tensor, f32_values};
//!
//! struct Square;
//!
//! impl CustomOp1 for Square {
//!     fn name(&self) -> &'static str {
//!         "square"
//!     }
//!
//!     fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
//!         let y = f32_values("square", x, layout)?.iter().map(|v| v * v).collect();
//!         Ok((CpuStorage::F32(y), layout.shape().clone()))
//!     }
//!
//!     fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
//!         let dy = f32_operand("square", "the gradient", dy)?;
//!         let (x_view, dy_view) = (F32View::new("square", x), F32View::new("square", &dy));
//!         let dx = x_view.values()?.iter().zip(dy_view.values()?).map(|(x, dy)| 2.0 * x * dy).collect();
//!         Ok(Some(f32_tensor(dx, x.shape())?))
//!     }
//! }
//!
//! let x = Var::new(&[3f32, -1.0], &Device::Cpu)?;
//! let y = apply_op1(&f32_operand("square", "x", &x)?, Square)?;
//! let gradients = backward_freeing(&y.sum_all()?)?;
//! assert_eq!(gradients.get(&x).unwrap().to_vec1::<f32>()?, [6.0, -2.0]);
//! assert!(y.to_vec1::<f32>().is_err(), "its values are freed");
//! # Ok::<_, docent_tensor::Error>(())
//! ```

mod backward;
mod custom_op;
mod error;
mod freed;
mod host;
mod view;

pub mod process;

pub use candle_core as candle;

pub use backward::backward_freeing;
pub use custom_op::{apply_op1, apply_op2, apply_op3, free_saved};
pub use error::{Error, Result};
pub use freed::release;
pub use host::{cpu_slice, cpu_slice_mut, deep_copy, overwrite, with_f32};
pub use view::{F32View, f32_operand, f32_operand_4d, f32_tensor, f32_values};
