//! Kernels as points, and the kernels' gradient from the points'.

use std::ops::Range;

use crate::matmul::{PANEL, transpose};
use crate::parallel::{self, Shared};

use super::LINE;
use super::transform::{KERNELS, POINTS, kernel_gradients, kernels};

/// Weights of a kernel.
pub(super) const TAPS: usize = 9;

/// Kernels that are to become points: those of a convolution, or of its adjoint.
#[derive(Clone, Copy)]
pub(super) struct Kernels<'a> {
    /// [C_out, C_in, 3, 3] of the convolution.
    w: &'a [f32],
    /// Output channels, and from one's kernels to the next's.
    rows: (usize, usize),
    /// Input channels, and from one's kernel to the next's.
    cols: (usize, usize),
    turned: bool,
}

impl<'a> Kernels<'a> {
    /// The kernels `w` [C_out, C_in, 3, 3].
    pub fn new(w: &'a [f32], c_out: usize, c_in: usize) -> Self {
        assert_eq!(w.len(), c_out * c_in * TAPS, "conv2d: weights of another size than their geometry");
        Self { w, rows: (c_out, c_in * TAPS), cols: (c_in, TAPS), turned: false }
    }

    /// The adjoint's: turned by 180 degrees, the channels exchanged.
    pub fn adjoint(self) -> Self {
        Self { rows: self.cols, cols: self.rows, turned: !self.turned, ..self }
    }

    /// The points of all kernels: for each of the 36 panels of outputs, [C_in, PANEL] each, [`of_panels`] apart.
    pub fn panels(&self) -> Vec<f32> {
        let of_point = of_panels([self.rows.0, self.cols.0]);
        let blocks = self.cols.0.div_ceil(NEAR);
        // SAFETY: the tasks cover each point's panels; the line between points is nobody's.
        let mut points = vec![0.0; POINTS * of_point];
        let to = Shared::new(&mut points);
        parallel::for_each(self.rows.0.div_ceil(PANEL) * blocks, POINTS * of_point, |task| {
            let (panel, block) = (task / blocks * PANEL, task % blocks * NEAR);
            let cols = block..self.cols.0.min(block + NEAR);
            let at = to.ptr(panel * self.cols.0 + block * PANEL);
            unsafe { self.panel(panel..self.rows.0.min(panel + PANEL), cols, at, of_point) };
        });
        points
    }

    /// Writes the points of at most [`PANEL`] outputs' kernels for some inputs to `to`: a row of PANEL values an input, those of the
    /// next point `of_point` values further on.
    ///
    /// # Safety
    /// The rows may be written.
    pub unsafe fn panel(&self, rows: Range<usize>, cols: Range<usize>, to: *mut f32, of_point: usize) {
        let n = rows.len();
        let (mut near, mut taps, mut points) = ([0.0; NEAR * TAPS * PANEL], [0.0; TAPS * PANEL], [0.0; POINTS * PANEL]);
        for first in cols.clone().step_by(NEAR) {
            let run = NEAR.min(cols.end - first);
            let from = &self.w[rows.start * self.rows.1 + first * self.cols.1..];
            if self.cols.1 == TAPS {
                unsafe { transpose(n, run * TAPS, from.as_ptr(), self.rows.1, near.as_mut_ptr(), PANEL) };
            } else {
                for c in 0..run {
                    let from = &from[c * self.cols.1..];
                    unsafe {
                        transpose(n, TAPS, from.as_ptr(), self.rows.1, near[c * TAPS * PANEL..].as_mut_ptr(), PANEL)
                    };
                }
            }
            for (c, near) in near.chunks_exact(TAPS * PANEL).take(run).enumerate() {
                for (tap, near) in near.chunks_exact(PANEL).enumerate() {
                    let tap = if self.turned { TAPS - 1 - tap } else { tap };
                    taps[tap * PANEL..][..PANEL].copy_from_slice(near);
                }
                kernels(&taps, &mut points);
                for (point, values) in points.chunks_exact(PANEL).enumerate() {
                    let to = to.wrapping_add(point * of_point + (first + c - cols.start) * PANEL);
                    unsafe { to.copy_from_nonoverlapping(values.as_ptr(), PANEL) };
                }
            }
        }
    }
}

/// Inputs whose kernels are read at once.
const NEAR: usize = 16;

/// From the panels of a point [rows, columns] to the next point's.
pub(super) fn of_panels([rows, cols]: [usize; 2]) -> usize {
    rows.next_multiple_of(PANEL) * cols + LINE
}

/// The gradient of an output channel's kernels [C_in, 3, 3], whose points have the gradients `from(k)`, C_in values each.
pub(super) fn row_gradient<'a>(from: impl Fn(usize) -> &'a [f32], dw: &mut [f32]) {
    let (mut points, mut taps) = ([0.0; POINTS * KERNELS], [0.0; TAPS * KERNELS]);
    for (block, dw) in dw.chunks_mut(KERNELS * TAPS).enumerate() {
        let n = dw.len() / TAPS;
        for (point, row) in points.chunks_exact_mut(KERNELS).enumerate() {
            row[..n].copy_from_slice(&from(point)[block * KERNELS..][..n]);
        }
        kernel_gradients(&points, &mut taps);
        for (j, kernel) in dw.chunks_exact_mut(TAPS).enumerate() {
            kernel.iter_mut().enumerate().for_each(|(tap, v)| *v = taps[tap * KERNELS + j]);
        }
    }
}
