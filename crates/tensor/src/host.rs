//! Reading and overwriting the numbers inside a tensor, without a graph and without a needless copy.

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Storage, Tensor, WithDType};

use crate::Result;

/// A tensor of its own storage, contiguous and outside any graph.
///
/// # Errors
/// When the device has no memory for it.
pub fn deep_copy(tensor: &Tensor) -> candle_core::Result<Tensor> {
    // Not `copy`, which clones the whole storage behind a view: a row of a batch would hold the batch.
    tensor.detach().force_contiguous()
}

/// Calls `f` with the values of an f32 tensor in row-major order. Copies only where the tensor is not contiguous or not on the CPU.
///
/// # Errors
/// Another element type; values that cannot be read from their device.
pub fn with_f32<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    if let Storage::Cpu(storage) = &*storage {
        return Ok(f(cpu_slice(storage, layout)?));
    }
    drop(storage);
    Ok(f(&tensor.flatten_all()?.to_vec1::<f32>()?))
}

/// The values of a contiguous f32 storage.
///
/// # Errors
/// Another layout or element type.
pub fn cpu_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let (start, end) = bounds(layout)?;
    Ok(&f32::cpu_storage_as_slice(storage)?[start..end])
}

/// The values of a contiguous f32 storage, to be written.
///
/// # Errors
/// Another layout or element type.
pub fn cpu_slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> candle_core::Result<&'a mut [f32]> {
    let (start, end) = bounds(layout)?;
    match storage {
        CpuStorage::F32(values) => Ok(&mut values[start..end]),
        other => candle_core::bail!("an f32 tensor is needed, this one is {:?}", dtype_of(other)),
    }
}

fn bounds(layout: &Layout) -> candle_core::Result<(usize, usize)> {
    match layout.contiguous_offsets() {
        Some(bounds) => Ok(bounds),
        None => candle_core::bail!(
            "a contiguous tensor is needed, this one has shape {:?} and strides {:?}",
            layout.shape(),
            layout.stride()
        ),
    }
}

fn dtype_of(storage: &CpuStorage) -> DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}

/// Writes the values of `source` into the storage of `target`; everybody who shares that storage sees them.
///
/// # Errors
/// Another shape; a layout that is not contiguous.
pub fn overwrite(target: &Tensor, source: &Tensor) -> candle_core::Result<()> {
    struct Overwrite;
    impl InplaceOp2 for Overwrite {
        fn name(&self) -> &'static str {
            "overwrite"
        }
        fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> candle_core::Result<()> {
            cpu_slice_mut(s1, l1)?.copy_from_slice(cpu_slice(s2, l2)?);
            Ok(())
        }
    }
    if target.shape() != source.shape() {
        candle_core::bail!("overwrite: {:?} does not fit into {:?}", source.shape(), target.shape());
    }
    target.inplace_op2(&source.contiguous()?, &Overwrite)
}
