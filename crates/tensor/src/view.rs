//! Checked access to values: operands as contiguous `f32` tensors, their values as slices, tensors from values.

use candle_core::{CpuStorage, DType, Device, Layout, Shape, Storage, StorageRef, Tensor};

use crate::freed::is_freed;
use crate::{Error, Result};

/// Checks that the operand `name` of the operation `op` is an `f32` tensor on the CPU, and makes it contiguous.
///
/// # Errors
/// When `t` lies on another device or has another type; when it is not contiguous and its values are freed.
pub fn f32_operand(op: &'static str, name: &str, t: &Tensor) -> Result<Tensor> {
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

/// [`f32_operand`] for an operand of shape [B, C, H, W], with its dimensions.
///
/// # Errors
/// As [`f32_operand`]'s; when `t` has not four dimensions.
pub fn f32_operand_4d(op: &'static str, name: &str, t: &Tensor) -> Result<(Tensor, [usize; 4])> {
    match *t.dims() {
        [b, c, h, w] => Ok((f32_operand(op, name, t)?, [b, c, h, w])),
        _ => Err(Error::operand(op, format!("{name} has shape {:?}; [B, C, H, W] is needed", t.dims()))),
    }
}

/// The values of a storage in row-major order, inside the forward pass of the custom operation `op`: as many as `layout` has elements.
///
/// # Errors
/// When the storage is not `f32`, its values are freed, `layout` is not contiguous, or the storage has fewer values than `layout` says.
pub fn f32_values<'a>(op: &'static str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(values) = storage else {
        let freed = "an operand's values are freed: read them before backward_freeing or release";
        return Err(Error::operand(op, if is_freed(storage) { freed } else { "an operand is not f32" }));
    };
    let Some((from, to)) = layout.contiguous_offsets() else {
        return Err(Error::operand(op, "an operand is not contiguous"));
    };
    values.get(from..to).ok_or_else(|| {
        let (shape, n) = (layout.shape(), values.len());
        Error::operand(op, format!("an operand of shape {shape:?} needs values {from} to {to}, its storage has {n}"))
    })
}

/// A contiguous `f32` tensor on the CPU, held open for reading: while a view lives, nobody can write to the tensor or free its values.
pub struct F32View<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
    op: &'static str,
}

impl<'a> F32View<'a> {
    /// Opens `t` for the operation `op`. Waits for a thread that writes to `t`.
    pub fn new(op: &'static str, t: &'a Tensor) -> Self {
        let (storage, layout) = t.storage_and_layout();
        Self { storage, layout, op }
    }

    /// Its values in row-major order: as many as the tensor has elements.
    ///
    /// # Errors
    /// As [`f32_values`]; when the tensor lies on another device.
    pub fn values(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(s) => f32_values(self.op, s, self.layout),
            _ => Err(Error::operand(self.op, "an operand lies on another device")),
        }
    }
}

/// A new tensor on the CPU from values in row-major order.
///
/// # Errors
/// When `shape` has another number of elements.
pub fn f32_tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{CustomOp1, InplaceOp1};

    use super::*;

    /// A third party's operation whose result has fewer values than its shape, which candle does not check.
    struct Short;

    impl CustomOp1 for Short {
        fn name(&self) -> &'static str {
            "short"
        }

        fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
            Ok((CpuStorage::F32(vec![1.0]), layout.shape().clone()))
        }
    }

    /// A third party's operation that changes a tensor's type behind its back.
    struct Bytes;

    impl InplaceOp1 for Bytes {
        fn name(&self) -> &'static str {
            "bytes"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
            *storage = CpuStorage::U8(vec![0; 64]);
            Ok(())
        }
    }

    fn message(t: &Tensor) -> String {
        F32View::new("view", t).values().unwrap_err().to_string()
    }

    #[test]
    fn a_view_gives_the_elements_of_its_layout_or_an_error() {
        let x = f32_tensor((0..12).map(|v| v as f32).collect(), (3, 4)).unwrap();
        assert_eq!(F32View::new("view", &x.narrow(0, 1, 1).unwrap()).values().unwrap(), [4.0, 5.0, 6.0, 7.0]);
        assert!(message(&x.t().unwrap()).contains("not contiguous"));
        assert!(message(&x.to_dtype(DType::F64).unwrap()).contains("not f32"));
        assert!(message(&x.apply_op1(Short).unwrap()).contains("values 0 to 12, its storage has 1"));
        x.inplace_op1(&Bytes).unwrap();
        assert_eq!(x.dtype(), DType::F32);
        assert!(message(&x).contains("not f32"));
    }

    #[test]
    fn operands_are_checked_and_made_contiguous() {
        let x = f32_tensor(vec![1.0; 6], (2, 3)).unwrap();
        assert!(f32_operand("op", "x", &x.t().unwrap()).unwrap().is_contiguous());
        assert!(f32_operand("op", "x", &x.to_dtype(DType::U8).unwrap()).unwrap_err().to_string().contains("x is U8"));
        let error = f32_operand_4d("op", "x", &x).unwrap_err().to_string();
        assert_eq!(error, "op: x has shape [2, 3]; [B, C, H, W] is needed");
        assert!(f32_tensor(vec![0.0; 5], (2, 3)).is_err());
    }
}
