//! Freed tensors under every public operation of candle: an error or a panic, never a value, and no memory that is not theirs.
//!
//! A case is run with live operands, where it must give a result, and then with each choice of its operands freed, where it must not.
//! candle's `matmul` and its conversion of strided tensors do not check sizes: at these sizes an emptied `f32` storage ended the process.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod cases;

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{DType, Device, Result, Tensor, Var};
use docent_tensor::release;

use cases::{Case, N, Operand, OperandKind, all};

/// A tensor with a graph behind it, as [`release`] takes.
fn operand(operand: &Operand) -> Result<Tensor> {
    if cfg!(miri) {
        // A view, since Miri takes half a millisecond a value; nobody reads it.
        let dtype = match operand.kind {
            OperandKind::F32 => DType::F32,
            OperandKind::U32 => DType::U32,
            OperandKind::U8 => DType::U8,
        };
        return Var::zeros(operand.shape.clone(), dtype, &Device::Cpu)?.reshape(operand.shape.clone());
    }
    let n: usize = operand.shape.iter().product();
    // Between 0.25 and 0.75: fit for logarithms, roots and interpolation.
    let values: Vec<f32> = (0..n).map(|i| 0.25 + (i * 37 % 101) as f32 / 202.0).collect();
    let x = Var::from_vec(values, operand.shape.clone(), &Device::Cpu)?;
    match operand.kind {
        OperandKind::F32 => x.affine(1.0, 0.0),
        OperandKind::U32 => x.to_dtype(DType::U32),
        OperandKind::U8 => x.to_dtype(DType::U8),
    }
}

/// The same with the strides of a matrix that was turned; `None` where there is no matrix.
fn turned(given: &Operand) -> Option<Result<(Tensor, Tensor)>> {
    let mut shape = given.shape.clone();
    let n = shape.len();
    if n < 2 {
        return None;
    }
    shape.swap(n - 1, n - 2);
    let owner = operand(&Operand { shape, kind: given.kind });
    Some(owner.and_then(|owner| Ok((owner.transpose(n - 1, n - 2)?, owner))))
}

/// Operands and who owns their values.
fn operands(case: &Case, strided: bool) -> Vec<(Tensor, Tensor)> {
    let make = |given: &Operand| {
        if strided && let Some(made) = turned(given) {
            return made.unwrap();
        }
        let t = operand(given).unwrap();
        (t.clone(), t)
    };
    case.operands.iter().map(make).collect()
}

/// What came of a case: the result, the error, or the panic.
fn run(case: &Case, operands: &[(Tensor, Tensor)]) -> std::result::Result<Option<Tensor>, String> {
    let given: Vec<Tensor> = operands.iter().map(|(t, _)| t.clone()).collect();
    match catch_unwind(AssertUnwindSafe(|| (case.run)(&given))) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("a panic".to_owned()),
    }
}

#[test]
fn no_operation_of_candle_reads_or_writes_a_freed_tensor() {
    let mut wrong = Vec::new();
    let mut panics = Vec::new();
    for case in all() {
        for strided in [false, true] {
            // Miri cannot run candle's kernels for live operands: they ask the CPU for its name.
            if cfg!(miri) && strided {
                continue;
            }
            if !cfg!(miri)
                && let Err(e) = run(&case, &operands(&case, strided))
            {
                // Some operations want contiguous operands.
                assert!(strided, "{} does not run with live operands: {e}", case.name);
                continue;
            }
            for freed in 1..1usize << case.operands.len() {
                let given = operands(&case, strided);
                for (_, (_, owner)) in given.iter().enumerate().filter(|(i, _)| freed >> i & 1 == 1) {
                    release(owner.clone()).unwrap();
                }
                match run(&case, &given) {
                    Ok(_) => wrong.push(format!("{} (freed {freed:b}, strided {strided})", case.name)),
                    Err(e) if e == "a panic" => panics.push(case.name),
                    Err(_) => {}
                }
            }
        }
    }
    assert!(wrong.is_empty(), "gave a value of a freed tensor: {wrong:#?}");
    panics.dedup();
    let named: &[_] = if cfg!(miri) { &["slice_set"] } else { &["slice_set", "save_safetensors", "safetensors::save"] };
    assert_eq!(panics, named, "the docs of `freed` name those that panic");
}

#[test]
#[cfg_attr(miri, ignore = "candle's matrix products ask the CPU for its name")]
fn candles_backward_pass_over_freed_values_reads_none() {
    for case in all() {
        let given = operands(&case, false);
        let Ok(Some(result)) = run(&case, &given) else { continue };
        if !result.track_op() || result.dtype() != DType::F32 {
            continue;
        }
        let loss = result.sum_all().unwrap();
        for t in given.into_iter().map(|(_, owner)| owner).chain([result]) {
            // A result that repeats its values (`broadcast_as`) cannot be freed, nor written to by anybody; a `Var` is its owner's.
            let refused = t.layout().has_internal_overlap() || t.is_variable();
            assert!(release(t).is_ok() != refused, "{}", case.name);
        }
        // An error, or gradients that need none of the values.
        for _ in 0..2 {
            let gradients = catch_unwind(AssertUnwindSafe(|| loss.backward()));
            if let Ok(Ok(gradients)) = gradients {
                for gradient in gradients.get_ids().filter_map(|id| gradients.get_id(*id)) {
                    gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                }
            }
        }
    }
}

/// The lines that ended in SIGSEGV while a freed tensor kept an empty `f32` storage.
#[test]
fn an_alias_of_a_released_tensor_is_refused_by_matmul() -> Result<()> {
    let x = Var::zeros((N, N), DType::F32, &Device::Cpu)?;
    let b = Tensor::ones((N, N), DType::F32, &Device::Cpu)?;
    let y = x.relu()?;
    let alias = y.clone();
    release(y)?;
    assert!(alias.matmul(&b).unwrap_err().to_string().contains("dtype mismatch"));
    assert!(b.matmul(&alias).is_err() && alias.matmul(&alias).is_err() && alias.t()?.matmul(&b).is_err());
    Ok(())
}

/// A `Var` whose memory was freed through a view of it: its values are gone, and writing to it is an error.
#[test]
fn a_var_that_is_freed_through_a_view_is_refused_too() -> Result<()> {
    let x = Var::zeros((N, N), DType::F32, &Device::Cpu)?;
    release(x.reshape(N * N)?)?;
    assert!(x.matmul(&x).is_err() && x.to_vec2::<f32>().is_err());
    assert!(x.set(&Tensor::ones((N, N), DType::F32, &Device::Cpu)?).is_err());
    let other = Var::zeros((N, N), DType::F32, &Device::Cpu)?;
    release(other.reshape(N * N)?)?;
    assert!(catch_unwind(AssertUnwindSafe(|| x.set(&other))).map_or(true, |result| result.is_err()));
    assert!(x.sqr().is_err());
    Ok(())
}

/// Views and copies of a freed tensor exist, and are as freed as it is.
#[test]
fn views_and_copies_of_a_freed_tensor_have_no_values() -> Result<()> {
    let y = Var::zeros((4, 6), DType::F32, &Device::Cpu)?.exp()?;
    release(y.clone())?;
    let views = [
        y.clone(),
        y.copy()?,
        y.detach(),
        y.reshape(24)?,
        y.narrow(1, 1, 3)?,
        y.t()?,
        y.unsqueeze(0)?,
        y.broadcast_as((2, 4, 6))?,
        y.to_device(&Device::Cpu)?,
        y.to_dtype(DType::F32)?,
        y.contiguous()?,
    ];
    for (i, view) in views.into_iter().enumerate() {
        let values = view.flatten_all().and_then(|v| v.to_vec1::<f32>());
        assert!(values.is_err(), "view {i}");
        assert!(Var::from_tensor(&view).is_err(), "view {i}");
        assert!(format!("{view}").contains("Tensor["), "view {i}");
    }
    assert_eq!(y.zeros_like()?.to_vec2::<f32>()?, vec![vec![0.0; 6]; 4]);
    Ok(())
}
