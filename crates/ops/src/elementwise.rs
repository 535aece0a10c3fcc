//! ReLU and the fused sum of two tensors with ReLU.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor};
use docent_tensor::{F32View, apply_op1, apply_op2, f32_operand, f32_tensor, f32_values};

use crate::conv;
use crate::parallel::{map1, map2};
use crate::{Error, Result};

/// `max(x, 0)`, with gradient 0 at 0 as in PyTorch (candle's own has 1). NaN stays NaN.
///
/// # Shapes
/// Any; the result has that of `x`.
///
/// # Errors
/// When `x` is not f32 on the CPU.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    Ok(apply_op1(&f32_operand("relu", "x", x)?, Relu)?)
}

/// `max(a + b, 0)`: the end of a residual block in one pass.
///
/// # Shapes
/// `a`, `b` and the result have one shape.
///
/// # Errors
/// When the shapes differ or an operand is not f32 on the CPU.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dims() != b.dims() {
        return Err(Error::operand("add_relu", format!("a has shape {:?}, b {:?}", a.dims(), b.dims())));
    }
    Ok(apply_op2(&f32_operand("add_relu", "a", a)?, &f32_operand("add_relu", "b", b)?, AddRelu)?)
}

/// The gradient through a ReLU by its output `y`.
pub(crate) fn masked(op: &'static str, y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let dy = f32_operand(op, "the gradient", dy)?;
    let (y_view, dy_view) = (F32View::new(op, y), F32View::new(op, &dy));
    Ok(f32_tensor(map2(y_view.values()?, dy_view.values()?, conv::relu_gradient), y.shape())?)
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = map1(f32_values("relu", x, lx)?, conv::relu);
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(x.track_op().then(|| masked("relu's backward pass", y, dy)).transpose()?)
    }
}

struct AddRelu;

impl CustomOp2 for AddRelu {
    fn name(&self) -> &'static str {
        "add_relu"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = map2(f32_values("add_relu", a, la)?, f32_values("add_relu", b, lb)?, |a, b| conv::relu(a + b));
        Ok((CpuStorage::F32(y), la.shape().clone()))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        // One tensor for both: candle adds it to what each has already and writes into neither.
        let g = masked("add_relu's backward pass", y, dy)?;
        Ok((a.track_op().then(|| g.clone()), b.track_op().then_some(g)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::testing::{check_gradient, random};

    #[test]
    fn the_gradient_at_zero_is_zero() {
        let x = Var::from_slice(&[-1.0f32, 0.0, 2.0, f32::NAN], 4, &Device::Cpu).unwrap();
        let y = relu(&x).unwrap();
        let v = y.to_vec1::<f32>().unwrap();
        assert_eq!(v[..3], [0.0, 0.0, 2.0]);
        assert!(v[3].is_nan(), "NaN must not be hidden");
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>().unwrap()[..3], [0.0, 0.0, 1.0]);
    }

    #[test]
    fn gradients_with_two_consumers() {
        // Kept away from 0, where a difference means nothing.
        let away = |seed| {
            let x = random(seed, (2, 3, 5, 7)).unwrap();
            ((&x * 0.9).unwrap() + (x.sign().unwrap() * 0.1).unwrap()).unwrap()
        };
        check_gradient(|t| relu(&t[0]), &[away(1)], 1e-3, 2e-3).unwrap();
        let (a, b) = (away(1), (away(2) * 3.0).unwrap());
        check_gradient(|t| add_relu(&t[0], &t[1]), &[a.clone(), b], 1e-3, 2e-2).unwrap();
        check_gradient(|t| add_relu(&t[0], &t[0]), &[a], 1e-3, 2e-3).unwrap();
    }

    #[test]
    fn a_view_and_a_frozen_operand() {
        let base = random(3, (4, 6)).unwrap();
        let t = base.t().unwrap();
        let want = t.contiguous().unwrap().to_vec2::<f32>().unwrap();
        let got = relu(&t).unwrap().to_vec2::<f32>().unwrap();
        assert!(got.iter().flatten().zip(want.iter().flatten()).all(|(g, w)| *g == w.max(0.0)));

        let (a, frozen) = (Var::from_tensor(&base).unwrap(), base.clone());
        let grads = add_relu(&a, &frozen).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&a).is_some() && grads.get(&frozen).is_none());
        assert!(add_relu(&base, &t).unwrap_err().to_string().contains("shape"));
    }
}
