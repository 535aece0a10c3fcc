//! Kernels as points, and the kernels' gradient from the points'.

use std::ops::Range;

use crate::matmul::{Strips, strip};
use crate::parallel;

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

    /// The points of all kernels: for each of the 36 the matrix [C_out, C_in] in strips, [`of_point`] apart.
    pub fn points(&self) -> Vec<f32> {
        let of_point = of_point([self.rows.0, self.cols.0]);
        // SAFETY: the blocks of rows cover each point's strips.
        unsafe {
            parallel::build(POINTS * of_point, |out| {
                parallel::for_each(self.rows.0.div_ceil(ROWS), POINTS * of_point, |block| {
                    let rows = block * ROWS..self.rows.0.min((block + 1) * ROWS);
                    self.points_of(rows, 0..self.cols.0, out.ptr(block * ROWS * self.cols.0), of_point);
                    if block == 0 {
                        (0..POINTS).for_each(|point| out.ptr((point + 1) * of_point - PAD).write_bytes(0, PAD));
                    }
                });
            })
        }
    }

    /// Writes the points of at most [`ROWS`] output channels' kernels for some input channels to `to`: strips of as many
    /// columns, filled up with zeros, those of the next point `of_point` values further on.
    ///
    /// # Safety
    /// The strips may be written.
    pub unsafe fn points_of(&self, rows: Range<usize>, cols: Range<usize>, to: *mut f32, of_point: usize) {
        let (height, width) = (strip(), cols.len());
        let padded = rows.len().next_multiple_of(height);
        // Side by side: all rows of as many columns as there is room for.
        let together = (1..=KERNELS / padded).rev().find(|n| NEAR.is_multiple_of(*n)).unwrap_or(1);
        let (mut taps, mut points) = ([0.0; TAPS * KERNELS], [0.0; POINTS * KERNELS]);
        let mut near = [[0.0; NEAR * TAPS]; ROWS];
        for first in (0..width).step_by(together) {
            let n = together.min(width - first);
            let col = cols.start + first;
            // Rows far apart are read in long runs, which the CPU foresees.
            let copied = self.cols.1 == TAPS;
            if copied && first.is_multiple_of(NEAR) {
                for (row, near) in rows.clone().zip(&mut near) {
                    let run = &self.w[row * self.rows.1 + col * TAPS..][..NEAR.min(width - first) * TAPS];
                    near[..run.len()].copy_from_slice(run);
                }
            }
            for (i, row) in rows.clone().enumerate() {
                for c in 0..n {
                    let kernel = match copied {
                        true => &near[i][(first % NEAR + c) * TAPS..][..TAPS],
                        false => &self.w[row * self.rows.1 + (col + c) * self.cols.1..][..TAPS],
                    };
                    let at = c * padded + i;
                    if self.turned {
                        (0..TAPS).for_each(|tap| taps[tap * KERNELS + at] = kernel[TAPS - 1 - tap]);
                    } else {
                        (0..TAPS).for_each(|tap| taps[tap * KERNELS + at] = kernel[tap]);
                    }
                }
            }
            kernels(&taps, &mut points);
            for (point, values) in points.chunks_exact(KERNELS).enumerate() {
                for (c, column) in values.chunks_exact(padded).take(n).enumerate() {
                    for (i, values) in column.chunks_exact(height).enumerate() {
                        // SAFETY: the caller's promise.
                        unsafe {
                            let to = to.add(point * of_point + i * height * width + (first + c) * height);
                            // Sizes that the compiler knows are moves and no calls.
                            match height {
                                6 => to.copy_from_nonoverlapping(values.as_ptr(), 6),
                                8 => to.copy_from_nonoverlapping(values.as_ptr(), 8),
                                _ => to.copy_from_nonoverlapping(values.as_ptr(), height),
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Columns that are read at once: a multiple of any number that is transformed together.
const NEAR: usize = 24;

/// Most output channels whose kernels are transformed together: whole strips of any height.
pub(super) const ROWS: usize = 24;

/// From the strips of a point [rows, columns] to the next point's. The odd line keeps the 36 of them out of one set of the cache.
pub(super) fn of_point(size: [usize; 2]) -> usize {
    Strips::len(size) + PAD
}

const PAD: usize = 16;

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
