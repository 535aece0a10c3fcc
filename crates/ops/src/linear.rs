//! The fully connected layer, with bias and ReLU, as one op.

use std::borrow::Cow;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Shape, Tensor};
use docent_tensor::{F32View, apply_op2, apply_op3, f32_operand, f32_tensor, f32_values};

use crate::conv::{relu, relu_gradient};
use crate::matmul::{Mat, product};
use crate::parallel;
use crate::{Error, Result};

/// `act(x w^T + b)`.
///
/// # Shapes
/// `x` [N, I] (N may be 0), `w` [O, I] as PyTorch stores it, `b` `[O]`, result [N, O].
///
/// # Errors
/// When shapes do not fit each other or an operand is not f32 on the CPU.
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    let op = Linear::new("linear", x.dims(), w, b, relu)?;
    let (x, w) = (f32_operand("linear", "x", x)?, f32_operand("linear", "w", w)?);
    match b {
        None => Ok(apply_op2(&x, &w, op)?),
        Some(b) => Ok(apply_op3(&x, &w, &f32_operand("linear", "b", b)?, op)?),
    }
}

pub(crate) struct Linear {
    n: usize,
    inputs: usize,
    outputs: usize,
    relu: bool,
}

/// Gradients of x, w and b.
type Three = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl Linear {
    /// A layer of `w`, `b` for an `x` of this shape, checked, in the name of `op`.
    pub fn new(op: &'static str, x: &[usize], w: &Tensor, b: Option<&Tensor>, relu: bool) -> Result<Self> {
        let fail = |message: String| Error::operand(op, message);
        let (&[n, inputs], &[outputs, w_inputs]) = (x, w.dims()) else {
            return Err(fail(format!("x {x:?} and w {:?} must be [N, I] and [O, I]", w.dims())));
        };
        if inputs != w_inputs {
            return Err(fail(format!("x {x:?} has {inputs} inputs, w {:?} takes {w_inputs}", w.dims())));
        }
        if let Some(b) = b
            && b.dims() != [outputs]
        {
            return Err(fail(format!("b has shape {:?}; [{outputs}] is needed", b.dims())));
        }
        Ok(Self { n, inputs, outputs, relu })
    }

    pub fn forward(&self, x: &[f32], w: &[f32], b: Option<&[f32]>) -> (CpuStorage, Shape) {
        let (n, outputs) = (self.n, self.outputs);
        let mut y = product([n, outputs, self.inputs], Mat::row_major(x, self.inputs), Mat::transposed(w, self.inputs));
        for row in y.chunks_mut(outputs.max(1)) {
            match b {
                Some(b) if self.relu => row.iter_mut().zip(b).for_each(|(v, b)| *v = relu(*v + b)),
                Some(b) => row.iter_mut().zip(b).for_each(|(v, b)| *v += b),
                None if self.relu => row.iter_mut().for_each(|v| *v = relu(*v)),
                None => break,
            }
        }
        (CpuStorage::F32(y), Shape::from((n, outputs)))
    }

    /// The gradient through the ReLU, by the output `y` and its gradient.
    pub fn through<'a>(&self, y: &F32View<'_>, dy: &'a [f32]) -> Result<Cow<'a, [f32]>> {
        Ok(if self.relu { parallel::map2(y.values()?, dy, relu_gradient).into() } else { dy.into() })
    }

    /// The gradient of x, by that of the sums.
    pub fn input_gradient(&self, d_sums: &[f32], w: &[f32]) -> Vec<f32> {
        let (d_sums, w) = (Mat::row_major(d_sums, self.outputs), Mat::row_major(w, self.inputs));
        product([self.n, self.inputs, self.outputs], d_sums, w)
    }

    /// The gradient of w.
    pub fn weight_gradient(&self, x: &[f32], d_sums: &[f32]) -> Vec<f32> {
        let (d_sums, x) = (Mat::transposed(d_sums, self.outputs), Mat::row_major(x, self.inputs));
        product([self.outputs, self.inputs, self.n], d_sums, x)
    }

    /// The gradient of b.
    pub fn bias_gradient(&self, d_sums: &[f32]) -> Vec<f32> {
        let mut sums = vec![0.0f64; self.outputs];
        for row in d_sums.chunks(self.outputs.max(1)) {
            sums.iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v));
        }
        sums.into_iter().map(|v| v as f32).collect()
    }

    fn backward(&self, x: &Tensor, w: &Tensor, b: Option<&Tensor>, y: &Tensor, dy: &Tensor) -> Result<Three> {
        const OP: &str = "linear's backward pass";
        let dy = f32_operand(OP, "the gradient", dy)?;
        let (x_view, w_view, y_view, dy_view) =
            (F32View::new(OP, x), F32View::new(OP, w), F32View::new(OP, y), F32View::new(OP, &dy));
        let (x_values, w_values) = (x_view.values()?, w_view.values()?);
        let d_sums = self.through(&y_view, dy_view.values()?)?;
        let dx = x.track_op().then(|| f32_tensor(self.input_gradient(&d_sums, w_values), x.shape())).transpose()?;
        let dw = w.track_op().then(|| f32_tensor(self.weight_gradient(x_values, &d_sums), w.shape())).transpose()?;
        let b = b.filter(|b| b.track_op());
        let db = b.map(|b| f32_tensor(self.bias_gradient(&d_sums), b.shape())).transpose()?;
        Ok((dx, dw, db))
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(self.forward(f32_values("linear", x, lx)?, f32_values("linear", w, lw)?, None))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw, _) = self.backward(x, w, None, y, dy)?;
        Ok((dx, dw))
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let b = f32_values("linear", b, lb)?;
        Ok(self.forward(f32_values("linear", x, lx)?, f32_values("linear", w, lw)?, Some(b)))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, b: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Three> {
        Ok(self.backward(x, w, Some(b), y, dy)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::testing::{check_gradient, random};

    fn flat(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn it_is_the_definition() {
        for (n, i, o) in [(5, 7, 3), (200, 130, 300), (1, 600, 9)] {
            let (x, w, b) = (random(1, (n, i)).unwrap(), random(2, (o, i)).unwrap(), random(3, o).unwrap());
            let (xs, ws, bs) = (flat(&x), flat(&w), flat(&b));
            for relu in [false, true] {
                let got = flat(&linear(&x, &w, Some(&b), relu).unwrap());
                for (at, got) in got.iter().enumerate() {
                    let (r, c) = (at / o, at % o);
                    let sum: f64 = (0..i).map(|k| f64::from(xs[r * i + k]) * f64::from(ws[c * i + k])).sum();
                    let want = sum + f64::from(bs[c]);
                    let want = if relu { want.max(0.0) } else { want };
                    assert!((f64::from(*got) - want).abs() < 3e-5, "{n} {i} {o} {at}: {got} against {want}");
                }
            }
        }
    }

    #[test]
    fn gradients_with_two_consumers() {
        let inputs = [random(1, (5, 7)).unwrap(), random(2, (3, 7)).unwrap(), random(3, 3).unwrap()];
        check_gradient(|t| linear(&t[0], &t[1], Some(&t[2]), false), &inputs, 0.25, 1e-3).unwrap();
        check_gradient(|t| linear(&t[0], &t[1], Some(&t[2]), true), &inputs, 1e-3, 1e-2).unwrap();
        check_gradient(|t| linear(&t[0], &t[1], None, true), &inputs[..2], 1e-3, 1e-2).unwrap();
    }

    #[test]
    fn no_rows_and_frozen_operands() {
        let (x, w) = (random(1, (0, 7)).unwrap(), Var::from_tensor(&random(2, (3, 7)).unwrap()).unwrap());
        let b = random(3, 3).unwrap();
        let y = linear(&x, &w, Some(&b), true).unwrap();
        assert_eq!(y.dims(), [0, 3]);
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(flat(grads.get(&w).unwrap()), [0.0; 21]);
        assert!(grads.get(&x).is_none() && grads.get(&b).is_none());
        assert!(linear(&x, &random(4, (3, 6)).unwrap(), None, false).unwrap_err().to_string().contains("inputs"));
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let run = || {
            let (x, w) = (
                Var::from_tensor(&random(1, (300, 400)).unwrap()).unwrap(),
                Var::from_tensor(&random(2, (260, 400)).unwrap()).unwrap(),
            );
            let y = linear(&x, &w, None, true).unwrap();
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            [flat(&y), flat(grads.get(&x).unwrap()), flat(grads.get(&w).unwrap())]
        };
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run);
        assert_eq!(on(1), on(2));
    }
}
