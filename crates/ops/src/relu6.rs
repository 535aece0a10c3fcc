//! ReLU6, the activation of MobileNets.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use docent_tensor::{F32View, apply_op1, f32_operand, f32_tensor, f32_values};

use crate::Result;
use crate::parallel::{map1, map2};

/// Where the activation stops to rise.
const TOP: f32 = 6.0;

/// `min(max(x, 0), 6)`, with gradient 0 at 0 and at 6 as in PyTorch. NaN stays NaN.
///
/// # Shapes
/// Any; the result has that of `x`.
///
/// # Errors
/// When `x` is not f32 on the CPU.
pub fn relu6(x: &Tensor) -> Result<Tensor> {
    Ok(apply_op1(&f32_operand("relu6", "x", x)?, Relu6)?)
}

/// The gradient by the output: it passes strictly between the two bounds. A NaN passes it on.
#[inline(always)]
fn gradient(output: f32, gradient: f32) -> f32 {
    if output <= 0.0 || output >= TOP { 0.0 } else { gradient }
}

struct Relu6;

impl CustomOp1 for Relu6 {
    fn name(&self) -> &'static str {
        "relu6"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        // `clamp` keeps NaN.
        let y = map1(f32_values("relu6", x, lx)?, |v| v.clamp(0.0, TOP));
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        const OP: &str = "relu6's backward pass";
        if !x.track_op() {
            return Ok(None);
        }
        let dy = f32_operand(OP, "the gradient", dy)?;
        let (y_view, dy_view) = (F32View::new(OP, y), F32View::new(OP, &dy));
        Ok(Some(f32_tensor(map2(y_view.values()?, dy_view.values()?, gradient), y.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::testing::{check_gradient, random};

    // PyTorch 2: relu6 and its gradient at these places.
    #[test]
    fn both_corners_have_no_gradient_and_nan_shows() {
        let x = [-1.0f32, 0.0, 0.5, 5.75, 6.0, 7.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let x = Var::from_slice(&x, x.len(), &Device::Cpu).unwrap();
        let y = relu6(&x).unwrap();
        let v = y.to_vec1::<f32>().unwrap();
        assert_eq!(v[..8], [0.0, 0.0, 0.5, 5.75, 6.0, 6.0, 6.0, 0.0]);
        assert!(v[8].is_nan(), "NaN must not be hidden");
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>().unwrap()[..8], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn values_and_gradients_against_a_plain_loop_and_differences() {
        // Three quarters above 0, some above 6; none within the step of a corner.
        let place = |v: f32| {
            let v = 5.0 * v + 3.0;
            if v.abs() < 0.01 || (v - TOP).abs() < 0.01 { v + 0.05 } else { v }
        };
        let x: Vec<f32> = random(5, 2 * 3 * 5 * 7).unwrap().to_vec1::<f32>().unwrap().into_iter().map(place).collect();
        assert!(x.iter().any(|&v| v < 0.0) && x.iter().any(|&v| v > TOP));
        // By comparison, not by the clamp that is tested.
        let naive = |&v: &f32| if v > TOP { TOP } else { [0.0, v][usize::from(v > 0.0)] };
        let naive: Vec<f32> = x.iter().map(naive).collect();
        let x = Tensor::from_vec(x, (2, 3, 5, 7), &Device::Cpu).unwrap();
        assert_eq!(relu6(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), naive);
        check_gradient(|t| relu6(&t[0]), std::slice::from_ref(&x), 1e-3, 2e-3).unwrap();
        // A view, twice in the graph.
        let view = x.transpose(1, 3).unwrap();
        check_gradient(|t| relu6(&t[0])? * relu6(&t[0])?, &[view], 1e-3, 2e-2).unwrap();
        let frozen = relu6(&x).unwrap();
        assert!(!frozen.track_op());
    }
}
