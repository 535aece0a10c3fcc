//! The fully connected layer, with bias and ReLU, as one op.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Shape, Tensor};

use crate::conv::{relu, relu_gradient};
use crate::matmul::{Mat, product};
use crate::parallel;
use crate::storage::{View, operand, tensor, values};
use crate::{Error, Result};

/// `act(x w^T + b)`.
///
/// # Shapes
/// `x` [N, I] (N may be 0), `w` [O, I] as PyTorch stores it, `b` `[O]`, result [N, O].
///
/// # Errors
/// When shapes do not fit each other or an operand is not f32 on the CPU.
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    let fail = |message: String| Error::operand("linear", message);
    let (&[n, inputs], &[outputs, w_inputs]) = (x.dims(), w.dims()) else {
        return Err(fail(format!("x {:?} and w {:?} must be [N, I] and [O, I]", x.dims(), w.dims())));
    };
    if inputs != w_inputs {
        return Err(fail(format!("x {:?} has {inputs} inputs, w {:?} takes {w_inputs}", x.dims(), w.dims())));
    }
    let (x, w) = (operand("linear", "x", x)?, operand("linear", "w", w)?);
    let op = Linear { n, inputs, outputs, relu };
    match b {
        None => Ok(x.apply_op2(&w, op)?),
        Some(b) if b.dims() == [outputs] => Ok(x.apply_op3(&w, &operand("linear", "b", b)?, op)?),
        Some(b) => Err(fail(format!("b has shape {:?}; [{outputs}] is needed", b.dims()))),
    }
}

struct Linear {
    n: usize,
    inputs: usize,
    outputs: usize,
    relu: bool,
}

/// Gradients of x, w and b.
type Three = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl Linear {
    fn forward(&self, x: &[f32], w: &[f32], b: Option<&[f32]>) -> (CpuStorage, Shape) {
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

    fn backward(&self, x: &Tensor, w: &Tensor, b: Option<&Tensor>, y: &Tensor, dy: &Tensor) -> Result<Three> {
        const OP: &str = "linear's backward pass";
        let (n, inputs, outputs) = (self.n, self.inputs, self.outputs);
        let dy = operand(OP, "the gradient", dy)?;
        let (x_view, w_view, y_view, dy_view) =
            (View::new(OP, x), View::new(OP, w), View::new(OP, y), View::new(OP, &dy));
        let masked =
            if self.relu { Some(parallel::map2(y_view.values()?, dy_view.values()?, relu_gradient)) } else { None };
        let dy = match &masked {
            Some(m) => m,
            None => dy_view.values()?,
        };
        let dx = if x.track_op() {
            let w = Mat::row_major(w_view.values()?, inputs);
            Some(tensor(product([n, inputs, outputs], Mat::row_major(dy, outputs), w), x.shape())?)
        } else {
            None
        };
        let dw = if w.track_op() {
            let x = Mat::row_major(x_view.values()?, inputs);
            Some(tensor(product([outputs, inputs, n], Mat::transposed(dy, outputs), x), w.shape())?)
        } else {
            None
        };
        let db = if b.is_some_and(Tensor::track_op) {
            let mut sums = vec![0.0f64; outputs];
            for row in dy.chunks(outputs.max(1)) {
                sums.iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v));
            }
            Some(tensor(sums.into_iter().map(|v| v as f32).collect(), outputs)?)
        } else {
            None
        };
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
        Ok(self.forward(values("linear", x, lx)?, values("linear", w, lw)?, None))
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
        let b = values("linear", b, lb)?;
        Ok(self.forward(values("linear", x, lx)?, values("linear", w, lw)?, Some(b)))
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
