//! What a case of an operation is, and the macros that make one.

use candle_core::{DType, Result, Tensor};

/// What an operand holds.
#[derive(Clone, Copy, PartialEq)]
pub enum OperandKind {
    /// Values between 0 and 1.
    F32,
    /// Zeros, as indices.
    U32,
    /// Zeros, as a mask.
    U8,
}

/// An operand to be made.
#[derive(Clone)]
pub struct Operand {
    pub shape: Vec<usize>,
    pub kind: OperandKind,
}

/// One operation.
pub struct Case {
    pub name: &'static str,
    pub operands: Vec<Operand>,
    /// Runs it and reads its result, if that is a tensor.
    pub run: fn(&[Tensor]) -> Result<Option<Tensor>>,
}

pub fn f32(shape: &[usize]) -> Operand {
    Operand { shape: shape.to_vec(), kind: OperandKind::F32 }
}

pub fn u32(shape: &[usize]) -> Operand {
    Operand { shape: shape.to_vec(), kind: OperandKind::U32 }
}

pub fn u8(shape: &[usize]) -> Operand {
    Operand { shape: shape.to_vec(), kind: OperandKind::U8 }
}

/// The side of most operands.
#[cfg(not(miri))]
pub const N: usize = 512;
#[cfg(miri)]
pub const N: usize = 8;

/// A matrix of the usual size.
pub fn matrix() -> Operand {
    f32(&[N, N])
}

/// Reads all values.
pub fn read(t: &Tensor) -> Result<()> {
    let flat = t.flatten_all()?;
    match t.dtype() {
        DType::U8 => flat.to_vec1::<u8>().map(|_| ()),
        DType::U32 => flat.to_vec1::<u32>().map(|_| ()),
        DType::I64 => flat.to_vec1::<i64>().map(|_| ()),
        DType::F64 => flat.to_vec1::<f64>().map(|_| ()),
        DType::F32 => flat.to_vec1::<f32>().map(|_| ()),
        other => candle_core::bail!("the cases read no {other:?}"),
    }
}

/// A case whose expression is a tensor, which is read.
macro_rules! value {
    ($name:expr, [$($operand:expr),*], |$t:ident| $body:expr) => {
        $crate::cases::case::Case {
            name: $name,
            operands: vec![$($operand),*],
            run: |$t| {
                let result: candle_core::Result<candle_core::Tensor> = $body;
                let result = result?;
                $crate::cases::case::read(&result)?;
                Ok(Some(result))
            },
        }
    };
}
pub(crate) use value;

/// A case whose expression is something else.
macro_rules! effect {
    ($name:expr, [$($operand:expr),*], |$t:ident| $body:expr) => {
        $crate::cases::case::Case {
            name: $name,
            operands: vec![$($operand),*],
            run: |$t| {
                let result: candle_core::Result<_> = $body;
                result.map(|_| None)
            },
        }
    };
}
pub(crate) use effect;

/// Methods without arguments.
macro_rules! methods {
    ($operand:expr; $($name:ident),* $(,)?) => {
        vec![$($crate::cases::case::value!(stringify!($name), [$operand], |t| t[0].$name())),*]
    };
}
pub(crate) use methods;

/// Methods of two tensors of one shape.
macro_rules! pairs {
    ($operand:expr; $($name:ident),* $(,)?) => {
        vec![$($crate::cases::case::value!(stringify!($name), [$operand, $operand], |t| t[0].$name(&t[1]))),*]
    };
}
pub(crate) use pairs;
