//! Nearest-neighbour upsampling, alone and fused with the sum of a pyramid's merge. Its gradient is the sum over each
//! pixel's copies, for any pair of sizes.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor};
use docent_tensor::{F32View, apply_op1, apply_op2, f32_operand, f32_operand_4d, f32_tensor, f32_values};

use crate::parallel::{self, Shared};
use crate::simd::wide;
use crate::{Error, Result};

/// Resizes to `size` (height, width) by copying pixels: output i takes input `floor(i * in / out)`, computed in f32 as
/// PyTorch's `interpolate(mode="nearest", size=..)` does (with its exact cases for equal and doubled sizes).
///
/// # Shapes
/// `x` [B, C, h, w], result [B, C, H, W].
///
/// # Errors
/// When the input or the size asked for is empty, or `x` is not f32 on the CPU.
pub fn upsample_nearest(x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    let (x, [_, _, h, w]) = f32_operand_4d("upsample_nearest", "x", x)?;
    Ok(apply_op1(&x, Upsample(Maps::new("upsample_nearest", (h, w), size)?))?)
}

/// `lateral + upsample_nearest(top, size of lateral)`: the merge of a feature pyramid in one pass.
///
/// # Shapes
/// `top` [B, C, h, w], `lateral` and result [B, C, H, W].
///
/// # Errors
/// When batch or channels differ, a map is empty, or an operand is not f32 on the CPU.
pub fn upsample_nearest_add(top: &Tensor, lateral: &Tensor) -> Result<Tensor> {
    const OP: &str = "upsample_nearest_add";
    let (top, [b, c, h, w]) = f32_operand_4d(OP, "top", top)?;
    let (lateral, [lb, lc, lh, lw]) = f32_operand_4d(OP, "lateral", lateral)?;
    if (b, c) != (lb, lc) {
        return Err(Error::operand(
            OP,
            format!("top {:?} and lateral {:?} differ in batch or channels", top.dims(), lateral.dims()),
        ));
    }
    Ok(apply_op2(&top, &lateral, Merge(Maps::new(OP, (h, w), (lh, lw))?))?)
}

/// For each output row and column the input's.
struct Maps {
    rows: Vec<usize>,
    cols: Vec<usize>,
    input: (usize, usize),
}

impl Maps {
    fn new(op: &'static str, input: (usize, usize), output: (usize, usize)) -> Result<Self> {
        if input.0 * input.1 == 0 || output.0 * output.1 == 0 {
            return Err(Error::operand(op, format!("cannot resize {input:?} to {output:?}: a side is 0")));
        }
        Ok(Self { rows: sources(input.0, output.0), cols: sources(input.1, output.1), input })
    }

    fn plane_in(&self) -> usize {
        self.input.0 * self.input.1
    }

    fn plane_out(&self) -> usize {
        self.rows.len() * self.cols.len()
    }

    /// The enlarged planes, plus `lateral` where there is one.
    fn enlarge(&self, x: &[f32], lateral: Option<&[f32]>) -> Vec<f32> {
        let (width, wide) = (self.input.1, self.cols.len());
        // SAFETY: each piece is a plane of rows as long as `cols`, as many as `rows`; each branch writes every value of a row.
        unsafe {
            parallel::fill(x.len() / self.plane_in() * self.plane_out(), self.plane_out(), |at, out| {
                let source = &x[at / self.plane_out() * self.plane_in()..][..self.plane_in()];
                for (i, (out, &row)) in out.chunks_mut(wide).zip(&self.rows).enumerate() {
                    let source = &source[row * width..(row + 1) * width];
                    let lateral = lateral.map(|l| &l[at + i * wide..][..wide]);
                    if wide == 2 * width {
                        double(out, source, lateral);
                        continue;
                    }
                    match lateral {
                        None => out.iter_mut().zip(&self.cols).for_each(|(o, &c)| _ = o.write(source[c])),
                        Some(l) => {
                            out.iter_mut().zip(&self.cols).zip(l).for_each(|((o, &c), l)| _ = o.write(l + source[c]));
                        }
                    }
                }
            })
        }
    }

    /// For each input pixel the sum over its copies.
    fn gather(&self, g: &[f32]) -> Vec<f32> {
        let (width, wide) = (self.input.1, self.cols.len());
        let planes = g.len() / self.plane_out();
        let mut dx = parallel::zeros(planes * self.plane_in());
        let shared = Shared::new(&mut dx);
        parallel::for_each(planes, g.len(), |p| {
            // SAFETY: dx is initialised, and this task alone has this plane.
            let target = unsafe { shared.slice(p * self.plane_in(), self.plane_in()) };
            for (g, &row) in g[p * self.plane_out()..].chunks(wide).zip(&self.rows) {
                let target = &mut target[row * width..(row + 1) * width];
                if wide == 2 * width {
                    halve(target, g);
                } else {
                    g.iter().zip(&self.cols).for_each(|(v, &c)| target[c] += v);
                }
            }
        });
        dx
    }

    fn shape(&self, dims: &[usize]) -> Shape {
        Shape::from((dims[0], dims[1], self.rows.len(), self.cols.len()))
    }
}

wide! {
    /// Each of a row twice, plus the lateral's row: the usual size, without an index a value.
    fn double(out: &mut [MaybeUninit<f32>], row: &[f32], lateral: Option<&[f32]>) {
        match lateral {
            None => out.chunks_exact_mut(2).zip(row).for_each(|(o, &v)| {
                o[0].write(v);
                o[1].write(v);
            }),
            Some(l) => out.chunks_exact_mut(2).zip(row).zip(l.chunks_exact(2)).for_each(|((o, &v), l)| {
                o[0].write(l[0] + v);
                o[1].write(l[1] + v);
            }),
        }
    }

    /// Adds each two of a row to one of the target.
    fn halve(target: &mut [f32], row: &[f32]) {
        for (t, g) in target.iter_mut().zip(row.chunks_exact(2)) {
            *t = *t + g[0] + g[1];
        }
    }
}

/// PyTorch's source index: exact for equal and doubled sizes, else floor(i * (in / out)) in f32.
fn sources(input: usize, output: usize) -> Vec<usize> {
    let scale = input as f32 / output as f32;
    let source = |i: usize| {
        if output == input {
            i
        } else if output == 2 * input {
            i / 2
        } else {
            ((i as f32 * scale).floor() as usize).min(input - 1)
        }
    };
    (0..output).map(source).collect()
}

struct Upsample(Maps);

impl CustomOp1 for Upsample {
    fn name(&self) -> &'static str {
        "upsample_nearest"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.0.enlarge(f32_values("upsample_nearest", x, lx)?, None)), self.0.shape(lx.dims())))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        const OP: &str = "upsample_nearest's backward pass";
        if !x.track_op() {
            return Ok(None);
        }
        let dy = f32_operand(OP, "the gradient", dy)?;
        let view = F32View::new(OP, &dy);
        Ok(Some(f32_tensor(self.0.gather(view.values()?), x.shape())?))
    }
}

struct Merge(Maps);

impl CustomOp2 for Merge {
    fn name(&self) -> &'static str {
        "upsample_nearest_add"
    }

    fn cpu_fwd(
        &self,
        top: &CpuStorage,
        lt: &Layout,
        lateral: &CpuStorage,
        ll: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        const OP: &str = "upsample_nearest_add";
        let y = self.0.enlarge(f32_values(OP, top, lt)?, Some(f32_values(OP, lateral, ll)?));
        Ok((CpuStorage::F32(y), ll.shape().clone()))
    }

    fn bwd(
        &self,
        top: &Tensor,
        lateral: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        const OP: &str = "upsample_nearest_add's backward pass";
        let dy = f32_operand(OP, "the gradient", dy)?;
        let d_top = if top.track_op() {
            let view = F32View::new(OP, &dy);
            Some(f32_tensor(self.0.gather(view.values()?), top.shape())?)
        } else {
            None
        };
        Ok((d_top, lateral.track_op().then_some(dy)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::testing::{check_gradient, random};

    #[test]
    fn indices_are_pytorchs() {
        assert_eq!(sources(3, 6), [0, 0, 1, 1, 2, 2]);
        assert_eq!(sources(3, 5), [0, 0, 1, 1, 2]);
        assert_eq!(sources(4, 7), [0, 0, 1, 1, 2, 2, 3]);
        assert_eq!(sources(5, 2), [0, 2]);
        assert_eq!(sources(1, 3), [0, 0, 0]);
    }

    #[test]
    fn gradients_for_any_size() {
        let x = random(1, (2, 3, 3, 5)).unwrap();
        for size in [(6, 10), (5, 9), (3, 5), (7, 6), (2, 3)] {
            check_gradient(|t| upsample_nearest(&t[0], size), std::slice::from_ref(&x), 1e-2, 1e-3).unwrap();
            let lateral = random(2, (2, 3, size.0, size.1)).unwrap();
            let two = [x.clone(), lateral.clone()];
            check_gradient(|t| upsample_nearest_add(&t[0], &t[1]), &two, 1e-2, 1e-3).unwrap();
            let apart = (upsample_nearest(&x, size).unwrap() + &lateral).unwrap();
            let off = (upsample_nearest_add(&x, &lateral).unwrap() - apart).unwrap();
            assert_eq!(off.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
        }
    }

    #[test]
    fn a_second_consumer_keeps_its_gradient() {
        // Candle's own overwrites what the other consumer has left: 4 instead of 14.
        let x = Var::from_slice(&[1.0f32], (1, 1, 1, 1), &Device::Cpu).unwrap();
        for first in [true, false] {
            let (up, ten) =
                (upsample_nearest(&x, (2, 2)).unwrap().sum_all().unwrap(), (x.sum_all().unwrap() * 10.0).unwrap());
            let loss = if first { up + ten } else { ten + up };
            let grads = loss.unwrap().backward().unwrap();
            assert_eq!(grads.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), [14.0]);
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let x = random(1, (1, 2, 3, 3)).unwrap();
        assert!(upsample_nearest(&x, (0, 3)).unwrap_err().to_string().contains("side is 0"));
        assert!(upsample_nearest_add(&x, &random(1, (1, 3, 6, 6)).unwrap()).is_err());
    }
}
