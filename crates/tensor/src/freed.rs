//! Tensors whose values are freed while the graph still knows their shape.
//!
//! # Why reading a freed tensor gives an error
//!
//! A tensor of candle is a layout (shape, strides, offset) and a shared, locked storage. candle checks a layout against its storage in some
//! operations only: `matmul` and the conversion of strided tensors read through raw pointers. An `f32` storage that is emptied would
//! make them read out of bounds. So a freed tensor gets a storage of a type for which candle has a name and no arithmetic,
//! `CpuStorage::F4`. candle chooses what to compute by the storage's type, not by the tensor's (which stays `f32`), so that each operation
//! that reads or writes a freed tensor finds a type it has no kernel for, or two types that differ, and returns an error.
//!
//! The sources of candle-core and candle-nn 0.11.1 were read for this, operation by operation:
//!
//! - *Refused by type, before any access:* all that go through `Map1`, `Map1Any`, `Map2`, `Map2U8` and `Map2InPlace` (affine, reductions,
//!   comparisons, `where_cond`, pooling, upsampling, convolutions, `matmul`, `gather`, `index_select`, `index_add`, scatter), `to_dtype`,
//!   `powf`, `elu`, unary and binary operations, `const_set`, sorting.
//! - *Copies* (`copy_strided_src`, `copy2d`: `contiguous`, `cat`, `reshape` of a strided tensor, `Var::set`, `slice_set`, `slice_scatter`)
//!   are the only kernels that accept the type, when both sides have it. New storage has the tensor's type, so one side differs, which is
//!   an error. `slice_set` and `Var::set` between two freed tensors have both sides of it: they index slices, which panics.
//! - *Values to the host* (`to_vec*`, `to_scalar`, `Display`, `write_npy`, `write_bytes`, safetensors, quantisation) read through
//!   `as_slice::<f32>()`, which compares the type. candle's safetensors writer unwraps the error: it panics.
//! - *Custom operations* of candle-nn (sigmoid, softmax, norms, rotary embeddings, attention) match the type or use `as_slice`.
//! - *Views* (`reshape`, `narrow`, `transpose`, `broadcast_as`, `detach`), `copy` and conversions to the same type and device give another
//!   freed tensor. `zeros_like` and its siblings read the shape alone.
//!
//! `tests/freed.rs` applies every public method of `Tensor`, and candle-nn's functions, to freed tensors. **Read the list above again, and
//! add new methods there, when candle's version changes.** Only values on the CPU are freed.

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};

use crate::{Error, Result};

/// Frees the values of `t` and of what shares its memory, while the graph still knows its shape. It does nothing where there is no graph:
/// there the values go with their last owner. Values on another device than the CPU are kept.
///
/// For values that only the forward pass needs. A backward pass reads neither the residual of docent-ops' `conv2d` and
/// `batch_norm_train`, nor the operands of its `upsample_nearest_add` and of candle's `cat` and sums; and it reads the result of an
/// operation only if that ends with a ReLU, a ReLU6 or a softmax.
///
/// Reading `t` or an alias of it (a `clone`, a `reshape`) afterwards gives an error, or a panic in two of candle's functions (`slice_set`
/// and safetensors' `save`): no memory is read.
///
/// ```
/// use candle_core::{Device, Var};
/// use docent_tensor::release;
///
/// let x = Var::new(&[[3f32, -1.0], [0.5, 2.0]], &Device::Cpu)?;
/// let y = x.exp()?;
/// let alias = y.clone();
/// release(y)?;
/// assert_eq!(alias.dims(), [2, 2]);
/// assert!(alias.matmul(&x).is_err() && alias.to_vec2::<f32>().is_err());
/// # Ok::<_, docent_tensor::Error>(())
/// ```
///
/// # Errors
/// When `t` is a `Var`, whose values belong to its owner, or repeats its values (`broadcast_as`).
pub fn release(t: Tensor) -> Result<()> {
    if t.is_variable() {
        return Err(Error::operand("release", "this is a Var, whose values belong to its owner"));
    }
    if t.track_op() { Ok(free(&t)?) } else { Ok(()) }
}

/// Frees the values of `t`, whatever it is.
pub(crate) fn free(t: &Tensor) -> candle_core::Result<()> {
    if t.device().is_cpu() { t.inplace_op1(&Free) } else { Ok(()) }
}

/// Whether a storage is that of a freed tensor.
pub(crate) fn is_freed(storage: &CpuStorage) -> bool {
    matches!(storage, CpuStorage::F4(_))
}

/// Whether two tensors have one storage.
pub(crate) fn share_memory(a: &Tensor, b: &Tensor) -> bool {
    // One after the other: a thread that holds a lock twice can wait for itself.
    let address = |t: &Tensor| std::ptr::from_ref(&*t.storage_and_layout().0).addr();
    address(a) == address(b)
}

/// Puts the storage of a freed tensor in the place of a tensor's.
struct Free;

impl InplaceOp1 for Free {
    fn name(&self) -> &'static str {
        "free"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        *storage = CpuStorage::F4(Vec::new());
        Ok(())
    }
}
