//! Max-pooling with padding, and the strided subsample that makes a pyramid's P6.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use docent_tensor::{F32View, apply_op1, f32_operand, f32_operand_4d, f32_tensor, f32_values};

use crate::parallel::{self, Shared};
use crate::simd::wide;
use crate::subsample::Subsampling;
use crate::{Error, Result};

/// The maximum of each window of `kernel` x `kernel` pixels; padding never wins. Of equal values the first in row-major
/// order gets the whole gradient, and NaN wins over any number, both as in PyTorch.
///
/// # Shapes
/// `x` [B, C, H, W], result [B, C, H_out, W_out] with `H_out = (H + 2 padding - kernel) / stride + 1`.
///
/// # Errors
/// When kernel or stride is 0, padding is more than half the kernel, the kernel is larger than the padded image, or `x`
/// is not f32 on the CPU.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    let (x, [_, _, h, w]) = f32_operand_4d("max_pool2d", "x", x)?;
    let fail = |message: String| Error::operand("max_pool2d", message);
    if kernel == 0 || stride == 0 || padding > kernel / 2 {
        return Err(fail(format!(
            "kernel {kernel}, stride {stride}, padding {padding}: kernel and stride must be at least 1, padding at most half the kernel"
        )));
    }
    if h + 2 * padding < kernel || w + 2 * padding < kernel || h == 0 || w == 0 {
        return Err(fail(format!("x {:?} with padding {padding} is smaller than the kernel of {kernel}", x.dims())));
    }
    let size = |n: usize| (n + 2 * padding - kernel) / stride + 1;
    let op = MaxPool {
        kernel,
        stride,
        padding,
        input: (h, w),
        output: (size(h), size(w)),
        keep: x.track_op(),
        winners: OnceLock::new(),
    };
    Ok(apply_op1(&x, op)?)
}

/// Every `stride`-th row and column, from the first on: a 1x1 max-pool with a stride, which is torchvision's P6.
///
/// # Shapes
/// `x` [B, C, H, W], result [B, C, ceil(H / stride), ceil(W / stride)].
///
/// # Errors
/// When stride is 0 or `x` is not f32 on the CPU.
pub fn subsample(x: &Tensor, stride: usize) -> Result<Tensor> {
    let (x, [_, _, h, w]) = f32_operand_4d("subsample", "x", x)?;
    if stride == 0 {
        return Err(Error::operand("subsample", "stride must be at least 1"));
    }
    Ok(apply_op1(&x, Subsample(Subsampling { h, w, stride }))?)
}

struct MaxPool {
    kernel: usize,
    stride: usize,
    padding: usize,
    input: (usize, usize),
    output: (usize, usize),
    /// Whether a backward pass may come.
    keep: bool,
    /// For each output the index of its winner in the input plane.
    winners: OnceLock<Vec<u32>>,
}

impl MaxPool {
    /// The input rows (or columns) of window `o`.
    fn window(&self, o: usize, size: usize) -> std::ops::Range<usize> {
        let from = o * self.stride;
        from.saturating_sub(self.padding)..size.min(from + self.kernel - self.padding)
    }

    /// The windows whose column `tap` lies inside a row of `width`.
    fn reach(&self, tap: usize, width: usize, windows: usize) -> std::ops::Range<usize> {
        let first = self.padding.saturating_sub(tap).div_ceil(self.stride);
        let end = (width + self.padding).saturating_sub(tap).div_ceil(self.stride).min(windows);
        first..end.max(first)
    }

    /// Writes the maxima of one plane and where they stand.
    fn plane(&self, x: &[f32], maxima: &mut [f32], winners: &mut [u32]) {
        let ((h, w), wo) = (self.input, self.output.1);
        for (oy, (maxima, winners)) in maxima.chunks_mut(wo).zip(winners.chunks_mut(wo)).enumerate() {
            let rows = self.window(oy, h);
            // Where nothing is above minus infinity, the window's first pixel is the winner.
            maxima.fill(f32::NEG_INFINITY);
            for (ox, winner) in winners.iter_mut().enumerate() {
                *winner = (rows.start * w + self.window(ox, w).start) as u32;
            }
            // Tap by tap over the whole row of windows, and each window's taps in row-major order.
            for (y, tap) in rows.flat_map(|y| (0..self.kernel).map(move |tap| (y, tap))) {
                let run = self.reach(tap, w, wo);
                if run.is_empty() {
                    continue;
                }
                let from = y * w + run.start * self.stride + tap - self.padding;
                take_winners(&mut maxima[run.clone()], &mut winners[run], &x[from..(y + 1) * w], from, self.stride);
            }
        }
    }
}

wide! {
    /// Lets `row[0], row[stride], ..`, whose first stands at index `from`, compete with the maxima of their windows.
    fn take_winners(maxima: &mut [f32], winners: &mut [u32], row: &[f32], from: usize, stride: usize) {
        if stride != 2 {
            return compete(maxima, winners, row.iter().step_by(stride), from, stride);
        }
        // Whole pairs become vector loads; a last value may stand alone.
        let whole = maxima.len().min(row.len() / 2);
        let ((maxima, last), (winners, last_winner)) = (maxima.split_at_mut(whole), winners.split_at_mut(whole));
        compete(maxima, winners, row.chunks_exact(2).map(|pair| &pair[0]), from, 2);
        compete(last, last_winner, row[2 * whole..].iter(), from + 2 * whole, 2);
    }
}

#[inline(always)]
fn compete<'a>(
    maxima: &mut [f32],
    winners: &mut [u32],
    values: impl Iterator<Item = &'a f32>,
    from: usize,
    stride: usize,
) {
    let mut here = from as u32;
    for ((maximum, winner), &v) in maxima.iter_mut().zip(winners).zip(values) {
        // Selected, not jumped over: which tap wins cannot be foreseen.
        let wins = (v > *maximum) | v.is_nan();
        *maximum = if wins { v } else { *maximum };
        *winner = if wins { here } else { *winner };
        here += stride as u32;
    }
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = f32_values("max_pool2d", x, lx)?;
        let (plane_in, plane) = (self.input.0 * self.input.1, self.output.0 * self.output.1);
        let planes = x.len() / plane_in;
        let mut y = parallel::zeros(planes * plane);
        let shared = Shared::new(&mut y);
        let winners = parallel::map(planes, planes * plane * self.kernel * self.kernel, |p| {
            // SAFETY: y is initialised, and this task alone has this plane.
            let maxima = unsafe { shared.slice(p * plane, plane) };
            let mut winners = vec![0; plane];
            self.plane(&x[p * plane_in..(p + 1) * plane_in], maxima, &mut winners);
            if self.keep { winners } else { Vec::new() }
        });
        if self.keep {
            // A value of this op is applied once, so that there is nothing to overwrite.
            self.winners.get_or_init(|| winners.concat());
        }
        let d = lx.dims();
        Ok((CpuStorage::F32(y), Shape::from((d[0], d[1], self.output.0, self.output.1))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        const OP: &str = "max_pool2d's backward pass";
        if !x.track_op() {
            return Ok(None);
        }
        let winners = self.winners.get().ok_or_else(|| Error::operand(OP, "the forward pass has kept no winners"))?;
        let dy = f32_operand(OP, "the gradient", dy)?;
        let view = F32View::new(OP, &dy);
        let g = view.values()?;
        let (plane_in, plane) = (self.input.0 * self.input.1, self.output.0 * self.output.1);
        let mut dx = parallel::zeros(x.elem_count());
        let shared = Shared::new(&mut dx);
        parallel::for_each(g.len() / plane, g.len(), |p| {
            // SAFETY: dx is initialised, and this task alone has this plane.
            let target = unsafe { shared.slice(p * plane_in, plane_in) };
            let part = p * plane..(p + 1) * plane;
            winners[part.clone()].iter().zip(&g[part]).for_each(|(&i, v)| target[i as usize] += v);
        });
        Ok(Some(f32_tensor(dx, x.shape())?))
    }
}

struct Subsample(Subsampling);

impl CustomOp1 for Subsample {
    fn name(&self) -> &'static str {
        "subsample"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (d, [rows, columns]) = (lx.dims(), self.0.kept());
        let kept = self.0.forward(f32_values("subsample", x, lx)?);
        Ok((CpuStorage::F32(kept), Shape::from((d[0], d[1], rows, columns))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        const OP: &str = "subsample's backward pass";
        if !x.track_op() {
            return Ok(None);
        }
        let dy = f32_operand(OP, "the gradient", dy)?;
        let view = F32View::new(OP, &dy);
        Ok(Some(f32_tensor(self.0.gradient(view.values()?), x.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::testing::{check_gradient, random};

    fn naive(x: &Tensor, k: usize, s: usize, p: usize) -> Vec<f32> {
        let (b, c, h, w) = x.dims4().unwrap();
        let v = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut out = Vec::new();
        for plane in 0..b * c {
            for oy in 0..(h + 2 * p - k) / s + 1 {
                for ox in 0..(w + 2 * p - k) / s + 1 {
                    let mut best = f32::NEG_INFINITY;
                    for (y, x) in (0..k).flat_map(|i| (0..k).map(move |j| (oy * s + i, ox * s + j))) {
                        if y >= p && x >= p && y - p < h && x - p < w {
                            best = best.max(v[(plane * h + y - p) * w + x - p]);
                        }
                    }
                    out.push(best);
                }
            }
        }
        out
    }

    #[test]
    fn windows_and_gradients_with_padding_and_overlap() {
        // Distinct values, further apart than the step of the differences.
        let n = 2 * 3 * 10 * 9;
        let v: Vec<f32> = (0..n).map(|i| ((i * 211) % n) as f32 / 50.0 - 5.0).collect();
        let x = Tensor::from_vec(v, (2, 3, 10, 9), &Device::Cpu).unwrap();
        for (k, s, p) in [(3, 2, 1), (2, 2, 0), (3, 1, 1), (1, 2, 0), (5, 3, 2)] {
            let y = max_pool2d(&x, k, s, p).unwrap();
            assert_eq!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), naive(&x, k, s, p), "{k} {s} {p}");
            check_gradient(|t| max_pool2d(&t[0], k, s, p), std::slice::from_ref(&x), 4e-3, 2e-2).unwrap();
        }
    }

    #[test]
    fn one_maximum_gets_the_whole_gradient_and_the_first_of_equals_wins() {
        let x = Var::from_slice(&[1.0f32, 4.0, 2.0, 3.0], (1, 1, 2, 2), &Device::Cpu).unwrap();
        let gradient = |x: &Var| {
            let grads = max_pool2d(x, 2, 2, 0).unwrap().sum_all().unwrap().backward().unwrap();
            grads.get(x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(gradient(&x), [0.0, 1.0, 0.0, 0.0]);
        // NaN must show in the output and takes the gradient; nothing above minus infinity still has a winner.
        let nan = Var::from_slice(&[1.0f32, f32::NAN, 2.0, 3.0], (1, 1, 2, 2), &Device::Cpu).unwrap();
        assert!(max_pool2d(&nan, 2, 2, 0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0].is_nan());
        assert_eq!(gradient(&nan), [0.0, 1.0, 0.0, 0.0]);
        let low = Var::from_slice(&[f32::NEG_INFINITY; 4], (1, 1, 2, 2), &Device::Cpu).unwrap();
        assert_eq!(gradient(&low), [1.0, 0.0, 0.0, 0.0]);
        let ties = Var::from_slice(&[0.0f32; 4], (1, 1, 2, 2), &Device::Cpu).unwrap();
        assert_eq!(gradient(&ties), [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn subsample_keeps_every_other_pixel_of_odd_sizes() {
        let x = random(1, (2, 3, 7, 5)).unwrap();
        for s in [1, 2, 3] {
            let y = subsample(&x, s).unwrap();
            assert_eq!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), naive(&x, 1, s, 0));
            check_gradient(|t| subsample(&t[0], s), std::slice::from_ref(&x), 1e-2, 1e-3).unwrap();
        }
        assert!(subsample(&x, 0).is_err());
    }

    #[test]
    fn unusable_windows_are_named() {
        let x = random(1, (1, 1, 4, 4)).unwrap();
        for (k, s, p) in [(0, 1, 0), (3, 0, 1), (2, 2, 2), (7, 1, 1)] {
            assert!(max_pool2d(&x, k, s, p).unwrap_err().to_string().contains("kernel"), "{k} {s} {p}");
        }
    }
}
