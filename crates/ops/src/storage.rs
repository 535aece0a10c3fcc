//! Reading tensors as `f32` slices and making tensors from them.

use candle_core::{CpuStorage, DType, Device, Layout, Shape, Storage, StorageRef, Tensor};

use crate::{Error, Result};

/// Checks that `t` is an `f32` tensor on the CPU and makes it contiguous.
pub(crate) fn operand(op: &'static str, name: &str, t: &Tensor) -> Result<Tensor> {
    if !t.device().is_cpu() {
        return Err(Error::operand(
            op,
            format!("{name} lies on another device; this operation runs on the CPU: move it with to_device"),
        ));
    }
    if t.dtype() != DType::F32 {
        return Err(Error::operand(
            op,
            format!("{name} is {:?}; this operation takes f32: convert it with to_dtype", t.dtype()),
        ));
    }
    Ok(t.contiguous()?)
}

/// The same check, for an operand of shape [B, C, H, W].
pub(crate) fn operand4(op: &'static str, name: &str, t: &Tensor) -> Result<(Tensor, [usize; 4])> {
    match *t.dims() {
        [b, c, h, w] => Ok((operand(op, name, t)?, [b, c, h, w])),
        _ => Err(Error::operand(op, format!("{name} has shape {:?}; [B, C, H, W] is needed", t.dims()))),
    }
}

/// The values of a storage inside a custom op's forward pass.
pub(crate) fn values<'a>(op: &'static str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(v) = storage else {
        return Err(Error::operand(op, "an operand is not f32"));
    };
    layout.contiguous_offsets().and_then(|(from, to)| v.get(from..to)).ok_or_else(|| {
        let freed = v.is_empty() && layout.shape().elem_count() > 0;
        let freed = freed.then_some("an operand's values are freed: read them before backward_freeing or release");
        Error::operand(op, freed.unwrap_or("an operand is not contiguous"))
    })
}

/// A contiguous CPU tensor held open for reading.
pub(crate) struct View<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
    op: &'static str,
}

impl<'a> View<'a> {
    /// Opens `t`, which [`operand`] has passed.
    pub fn new(op: &'static str, t: &'a Tensor) -> Self {
        let (storage, layout) = t.storage_and_layout();
        Self { storage, layout, op }
    }

    /// Its values in row-major order.
    pub fn values(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(s) => values(self.op, s, self.layout),
            _ => Err(Error::operand(self.op, "an operand lies on another device")),
        }
    }
}

/// A tensor of its own from values in row-major order.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}
