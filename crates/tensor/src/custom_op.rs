//! Custom operations of candle that take part in [`backward_freeing`](crate::backward_freeing).

#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, MetalStorage, Shape, Tensor};

use crate::Result;
use crate::backward::{free_in_walk, pass_on};
use crate::freed::share_memory;

/// `op` of `x`, as [`Tensor::apply_op1`]; [`backward_freeing`](crate::backward_freeing) frees the result.
///
/// # Errors
/// Those of the operation.
pub fn apply_op1(x: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
    Ok(x.apply_op1(FreeingOp(op))?)
}

/// [`apply_op1`] for two operands.
///
/// # Errors
/// Those of the operation.
pub fn apply_op2(x: &Tensor, y: &Tensor, op: impl CustomOp2 + Send + Sync + 'static) -> Result<Tensor> {
    Ok(x.apply_op2(y, FreeingOp(op))?)
}

/// [`apply_op1`] for three operands.
///
/// # Errors
/// Those of the operation.
pub fn apply_op3(x: &Tensor, y: &Tensor, z: &Tensor, op: impl CustomOp3 + Send + Sync + 'static) -> Result<Tensor> {
    Ok(x.apply_op3(y, z, FreeingOp(op))?)
}

/// Frees `saved`, a tensor that the operation behind `result` has saved for its backward pass and reads no more. Called in that backward
/// pass. In a backward pass of candle it does nothing: there may be another one.
///
/// # Errors
/// When `saved` repeats its values (`broadcast_as`).
pub fn free_saved(result: &Tensor, saved: &Tensor) -> Result<()> {
    Ok(free_in_walk(result, saved)?)
}

/// The result of a forward pass on a device whose storage is `S`.
type Forward<S> = candle_core::Result<(S, Shape)>;

/// An operation whose result is freed after its backward pass, in a walk that frees.
struct FreeingOp<O>(O);

/// Ends the backward pass of the operation behind `node`: frees its result and the gradient of that, which the walk has made for this
/// operation alone. A gradient that the operation passes on as it is stays.
fn free_spent(node: &Tensor, gradient: &Tensor, passed_on: &[&Option<Tensor>]) -> candle_core::Result<()> {
    free_in_walk(node, node)?;
    let shared = passed_on.iter().any(|g| g.as_ref().is_some_and(|g| share_memory(g, gradient)));
    if shared { Ok(()) } else { free_in_walk(node, gradient) }
}

impl<O: CustomOp1> CustomOp1 for FreeingOp<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Forward<CpuStorage> {
        self.0.cpu_fwd(x, lx)
    }

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout) -> Forward<CudaStorage> {
        self.0.cuda_fwd(x, lx)
    }

    fn metal_fwd(&self, x: &MetalStorage, lx: &Layout) -> Forward<MetalStorage> {
        self.0.metal_fwd(x, lx)
    }

    fn bwd(&self, x: &Tensor, out: &Tensor, d_out: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dx = self.0.bwd(x, out, d_out)?;
        free_spent(out, d_out, &[&dx])?;
        pass_on(out, x, dx)
    }
}

impl<O: CustomOp2> CustomOp2 for FreeingOp<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, y: &CpuStorage, ly: &Layout) -> Forward<CpuStorage> {
        self.0.cpu_fwd(x, lx, y, ly)
    }

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout, y: &CudaStorage, ly: &Layout) -> Forward<CudaStorage> {
        self.0.cuda_fwd(x, lx, y, ly)
    }

    fn metal_fwd(&self, x: &MetalStorage, lx: &Layout, y: &MetalStorage, ly: &Layout) -> Forward<MetalStorage> {
        self.0.metal_fwd(x, lx, y, ly)
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        out: &Tensor,
        d_out: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dy) = self.0.bwd(x, y, out, d_out)?;
        free_spent(out, d_out, &[&dx, &dy])?;
        Ok((pass_on(out, x, dx)?, pass_on(out, y, dy)?))
    }
}

impl<O: CustomOp3> CustomOp3 for FreeingOp<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        y: &CpuStorage,
        ly: &Layout,
        z: &CpuStorage,
        lz: &Layout,
    ) -> Forward<CpuStorage> {
        self.0.cpu_fwd(x, lx, y, ly, z, lz)
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        y: &CudaStorage,
        ly: &Layout,
        z: &CudaStorage,
        lz: &Layout,
    ) -> Forward<CudaStorage> {
        self.0.cuda_fwd(x, lx, y, ly, z, lz)
    }

    fn metal_fwd(
        &self,
        x: &MetalStorage,
        lx: &Layout,
        y: &MetalStorage,
        ly: &Layout,
        z: &MetalStorage,
        lz: &Layout,
    ) -> Forward<MetalStorage> {
        self.0.metal_fwd(x, lx, y, ly, z, lz)
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        z: &Tensor,
        out: &Tensor,
        d_out: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dy, dz) = self.0.bwd(x, y, z, out, d_out)?;
        free_spent(out, d_out, &[&dx, &dy, &dz])?;
        Ok((pass_on(out, x, dx)?, pass_on(out, y, dy)?, pass_on(out, z, dz)?))
    }
}
