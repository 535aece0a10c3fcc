//! Kernels as points, and the kernels' gradient from the points'.

use std::ops::Range;

use crate::matmul::{PANEL, transpose};
use crate::parallel::{self, scratch};

use super::transform::{KERNELS, LINE, POINTS, Rows, kernel_gradients, kernels};

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

    /// The points of all kernels: for each of the 36, [`of_panels`] apart, a panel [C_in, PANEL] for every PANEL outputs.
    pub fn panels(&self) -> Vec<f32> {
        let of_point = of_panels([self.rows.0, self.cols.0]);
        let blocks = self.cols.0.div_ceil(NEAR);
        // SAFETY: the tasks cover each point's panels, all PANEL values of a row, and the first the line behind each point.
        unsafe {
            parallel::build(POINTS * of_point, |to| {
                parallel::for_each(self.rows.0.div_ceil(PANEL) * blocks, POINTS * of_point, |task| {
                    let (panel, block) = (task / blocks * PANEL, task % blocks * NEAR);
                    let cols = block..self.cols.0.min(block + NEAR);
                    let at = to.ptr(panel * self.cols.0 + block * PANEL);
                    self.panel(panel..self.rows.0.min(panel + PANEL), cols, at, of_point);
                    if task == 0 {
                        (1..=POINTS).for_each(|point| to.ptr(point * of_point - LINE).write_bytes(0, LINE));
                    }
                });
            })
        }
    }

    /// Writes the points of at most [`PANEL`] outputs' kernels for some inputs to `to`: a row of PANEL values an input, those of the
    /// next point `of_point` values further on.
    ///
    /// # Safety
    /// The rows may be written, and nobody else uses them meanwhile.
    pub unsafe fn panel(&self, rows: Range<usize>, cols: Range<usize>, to: *mut f32, of_point: usize) {
        let (n, [down, across]) = (rows.len(), [self.rows.1, self.cols.1]);
        assert!(n <= PANEL);
        // The taps of some inputs' kernels, an output a lane. Lanes without an output hold anything; nobody reads what becomes of it.
        scratch(NEAR * TAPS * PANEL, |near| {
            for first in cols.clone().step_by(NEAR) {
                let run = NEAR.min(cols.end - first);
                let from = &self.w[rows.start * down + first * across..];
                assert!((n - 1) * down + (run - 1) * across + TAPS <= from.len());
                // Kernels of neighbouring inputs that lie side by side are turned together.
                let (runs, together) = if across == TAPS { (1, run) } else { (run, 1) };
                for c in 0..runs {
                    // Four rows at a time: they lie far apart, and are read in long runs, which the CPU foresees.
                    for i in (0..n).step_by(4) {
                        let to = near[c * TAPS * PANEL + i..].as_mut_ptr();
                        // SAFETY: the weights hold these kernels of n outputs (checked above); `near` has NEAR * TAPS rows of PANEL
                        // values, of which these are columns i.. of `together * TAPS`.
                        unsafe {
                            let from = from.as_ptr().add(i * down + c * across);
                            transpose(4.min(n - i), together * TAPS, from, down, to, PANEL);
                        }
                    }
                }
                for (c, near) in near.as_chunks().0.iter().take(run).enumerate() {
                    let to = to.wrapping_add((first + c - cols.start) * PANEL);
                    // SAFETY: an input's row of each point, by the caller's promise.
                    unsafe { kernels(near, self.turned, Rows { to, of_point }) };
                }
            }
        });
    }
}

/// Inputs whose kernels are read at once.
const NEAR: usize = 16;

/// From the panels of a point [rows, columns] to the next point's.
pub(super) fn of_panels([rows, cols]: [usize; 2]) -> usize {
    rows.next_multiple_of(PANEL) * cols + LINE
}

/// Writes the gradient of `n` kernels [n, 3, 3] to `to` by their points' gradients, point `k` of kernel `j` at `from[k * of_point + j]`;
/// up to the next multiple of [`KERNELS`], `from` may hold anything behind them.
///
/// # Safety
/// The kernels may be written at `to`, and nobody else uses them meanwhile.
pub(super) unsafe fn gradients(from: &[f32], of_point: usize, n: usize, to: *mut f32) {
    let mut taps = [0.0; TAPS * KERNELS];
    for first in (0..n).step_by(KERNELS) {
        kernel_gradients(&from[first..], of_point, &mut taps);
        // SAFETY: `taps` has TAPS rows of KERNELS values; kernels first.. may be written by the caller's promise.
        unsafe { transpose(TAPS, KERNELS.min(n - first), taps.as_ptr(), KERNELS, to.add(first * TAPS), TAPS) };
    }
}
