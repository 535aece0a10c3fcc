//! Softmax over the last dimension, with its gradient (candle-nn's own drops the graph without a word).

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use docent_tensor::{F32View, apply_op1, f32_operand, f32_tensor, f32_values};

use crate::parallel;
use crate::{Error, Result};

/// Rows are handed out in pieces of about this many elements.
const PIECE: usize = 1 << 13;

/// `exp(x_i - max) / sum_j exp(x_j - max)` over the last dimension.
///
/// # Shapes
/// [.., K] with K > 0; the result has the same. The other dimensions may be 0.
///
/// # Errors
/// When `x` has no last dimension or an empty one, or is not f32 on the CPU.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    match x.dims().last() {
        Some(&k) if k > 0 => Ok(apply_op1(&f32_operand("softmax", "x", x)?, Softmax { k })?),
        _ => Err(Error::operand(
            "softmax",
            format!("x has shape {:?}; a last dimension of at least 1 is needed", x.dims()),
        )),
    }
}

struct Softmax {
    k: usize,
}

impl Softmax {
    /// Elements of a piece: whole rows.
    fn piece(&self) -> usize {
        PIECE.div_ceil(self.k) * self.k
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = f32_values("softmax", x, lx)?;
        // SAFETY: each piece is whole rows of k values, and every value of a row is written.
        let y = unsafe {
            parallel::fill(x.len(), self.piece(), |at, out| {
                for (row, out) in x[at..].chunks(self.k).zip(out.chunks_mut(self.k)) {
                    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let sum: f32 = row.iter().map(|v| (v - max).exp()).sum();
                    out.iter_mut().zip(row).for_each(|(o, v)| _ = o.write((v - max).exp() / sum));
                }
            })
        };
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        const OP: &str = "softmax's backward pass";
        if !x.track_op() {
            return Ok(None);
        }
        let dy = f32_operand(OP, "the gradient", dy)?;
        let (y_view, dy_view) = (F32View::new(OP, y), F32View::new(OP, &dy));
        let (p, g) = (y_view.values()?, dy_view.values()?);
        if p.len() != g.len() {
            return Err(Error::operand(OP, format!("a gradient of {} values for {} results", g.len(), p.len())).into());
        }
        // SAFETY: each piece is whole rows of k values in all three, and every value of a row is written.
        let dx = unsafe {
            parallel::fill(p.len(), self.piece(), |at, out| {
                let rows = p[at..].chunks(self.k).zip(g[at..].chunks(self.k));
                for ((p, g), out) in rows.zip(out.chunks_mut(self.k)) {
                    let mean: f32 = p.iter().zip(g).map(|(p, g)| p * g).sum();
                    out.iter_mut().zip(p.iter().zip(g)).for_each(|(o, (p, g))| _ = o.write(p * (g - mean)));
                }
            })
        };
        Ok(Some(f32_tensor(dx, y.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::testing::{check_gradient, random};

    #[test]
    fn rows_sum_to_one_and_large_logits_stay_finite() {
        let x = Tensor::new(&[[1.0f32, 2.0, 3.0], [1000.0, 0.0, -1000.0]], &Device::Cpu).unwrap();
        let y = softmax(&x).unwrap().to_vec2::<f32>().unwrap();
        let e: Vec<f64> = [1.0f64, 2.0, 3.0].iter().map(|v| v.exp()).collect();
        for (got, want) in y[0].iter().zip(&e) {
            assert!((f64::from(*got) - want / e.iter().sum::<f64>()).abs() < 1e-6);
        }
        assert_eq!(y[1], [1.0, 0.0, 0.0]);
    }

    #[test]
    fn it_keeps_the_graph() {
        let x = Var::from_tensor(&random(1, (5, 3)).unwrap()).unwrap();
        let grads = softmax(&x).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&x).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 1e-3);
        check_gradient(|t| softmax(&t[0]), &[random(2, (2, 5, 7)).unwrap()], 1e-2, 1e-3).unwrap();
    }

    #[test]
    fn no_rows_is_no_rows() {
        let x = Var::from_tensor(&random(1, (0, 4)).unwrap()).unwrap();
        let y = softmax(&x).unwrap();
        assert_eq!(y.dims(), [0, 4]);
        y.sum_all().unwrap().backward().unwrap();
        assert!(softmax(&random(1, (3, 0)).unwrap()).is_err());
    }
}
