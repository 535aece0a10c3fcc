//! Rows of a tensor by index; the gradient adds them up in order.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use docent_tensor::{F32View, apply_op1, f32_operand, f32_tensor, f32_values};

use crate::parallel::{self, Shared};
use crate::{Error, Result};

/// Columns of one task of the backward pass.
const COLUMNS: usize = 1024;

/// Rows `index[0], index[1], ..` of `x`; a row may come often or never. The gradient of a row is the sum over its
/// copies in the order of `index`.
///
/// # Shapes
/// `x` [N, ..], result [index.len(), ..]; both may have no rows.
///
/// # Errors
/// When an index is not below N, or `x` has no first dimension or is not f32 on the CPU.
pub fn index_rows(x: &Tensor, index: &[usize]) -> Result<Tensor> {
    let Some((&n, rest)) = x.dims().split_first() else {
        return Err(Error::operand("index_rows", "x is a scalar; rows are needed"));
    };
    if let Some(bad) = index.iter().find(|&&i| i >= n) {
        return Err(Error::operand("index_rows", format!("index {bad} is outside the {n} rows of x {:?}", x.dims())));
    }
    let op = IndexRows { index: index.to_vec(), width: rest.iter().product() };
    Ok(apply_op1(&f32_operand("index_rows", "x", x)?, op)?)
}

struct IndexRows {
    index: Vec<usize>,
    width: usize,
}

impl CustomOp1 for IndexRows {
    fn name(&self) -> &'static str {
        "index_rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = f32_values("index_rows", x, lx)?;
        let mut y = Vec::with_capacity(self.index.len() * self.width);
        for &i in &self.index {
            y.extend_from_slice(&x[i * self.width..(i + 1) * self.width]);
        }
        let mut dims = lx.dims().to_vec();
        dims[0] = self.index.len();
        Ok((CpuStorage::F32(y), Shape::from(dims)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        const OP: &str = "index_rows' backward pass";
        if !x.track_op() {
            return Ok(None);
        }
        let dy = f32_operand(OP, "the gradient", dy)?;
        let view = F32View::new(OP, &dy);
        let (g, width) = (view.values()?, self.width);
        let mut dx = parallel::zeros(x.elem_count());
        let shared = Shared::new(&mut dx);
        parallel::for_each(width.div_ceil(COLUMNS), g.len(), |task| {
            let from = task * COLUMNS;
            let n = COLUMNS.min(width - from);
            for (row, &i) in self.index.iter().enumerate() {
                // SAFETY: dx is initialised, and this task alone has these columns, one row at a time.
                let target = unsafe { shared.slice(i * width + from, n) };
                target.iter_mut().zip(&g[row * width + from..]).for_each(|(t, v)| *t += v);
            }
        });
        Ok(Some(f32_tensor(dx, x.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::testing::{check_gradient, random};

    #[test]
    fn rows_come_in_order_and_their_gradients_add_up() {
        let x = random(1, (4, 3, 5)).unwrap();
        let index = [2, 0, 2, 3, 2];
        let y = index_rows(&x, &index).unwrap().to_vec3::<f32>().unwrap();
        let rows = x.to_vec3::<f32>().unwrap();
        assert!(index.iter().zip(&y).all(|(&i, y)| *y == rows[i]));
        check_gradient(|t| index_rows(&t[0], &index), &[x], 1e-2, 1e-3).unwrap();
    }

    #[test]
    fn no_indices_give_a_zero_gradient() {
        let x = Var::from_tensor(&random(1, (4, 3)).unwrap()).unwrap();
        let y = index_rows(&x, &[]).unwrap();
        assert_eq!(y.dims(), [0, 3]);
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.0; 12]);
        assert!(index_rows(&x, &[4]).unwrap_err().to_string().contains("index 4"));
    }
}
