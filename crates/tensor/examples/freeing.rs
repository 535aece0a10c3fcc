//! A chain of operations, differentiated by candle and by `backward_freeing`: the same gradient, and which values are left afterwards.
//!
//! `cargo run -p docent-tensor --example freeing`
#![allow(clippy::print_stdout, clippy::panic, reason = "a program that shows what it does")]

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor, Var};
use docent_tensor::{F32View, apply_op1, backward_freeing, f32_operand, f32_tensor, f32_values};

const OP: &str = "sine";

/// The sine of each value.
struct Sine;

impl CustomOp1 for Sine {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = f32_values(OP, x, layout)?.iter().map(|v| v.sin()).collect();
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dy = f32_operand(OP, "the gradient", dy)?;
        let (x_view, dy_view) = (F32View::new(OP, x), F32View::new(OP, &dy));
        let dx = x_view.values()?.iter().zip(dy_view.values()?).map(|(x, dy)| dy * x.cos()).collect();
        Ok(Some(f32_tensor(dx, x.shape())?))
    }
}

/// How many of the tensors can be read.
fn readable(values: &[Tensor]) -> usize {
    values.iter().filter(|t| t.to_vec1::<f32>().is_ok()).count()
}

fn main() -> docent_tensor::Result<()> {
    let x = Var::from_vec((0..1 << 20).map(|i| i as f32 * 1e-6).collect(), 1 << 20, &Device::Cpu)?;
    let mut values = Vec::new();
    let mut y = x.as_tensor().clone();
    for _ in 0..16 {
        y = apply_op1(&y, Sine)?;
        values.push(y.clone());
    }
    let loss = y.sum_all()?;
    let before = loss.backward()?;
    println!("after candle's backward pass {} of {} values are left", readable(&values), values.len());
    let after = backward_freeing(&loss)?;
    println!("after backward_freeing {} are left", readable(&values));
    let gradient = |store: &candle_core::backprop::GradStore| store.get(&x).map(Tensor::to_vec1::<f32>).transpose();
    assert_eq!(gradient(&before)?, gradient(&after)?);
    println!("the gradients are equal");
    Ok(())
}
