//! Kernels as points, and the kernels' gradient from the points'.

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

    /// The points of all kernels, [36, C_out, C_in].
    pub fn points(&self) -> Vec<f32> {
        let (rows, len) = (self.rows.0, POINTS * self.rows.0 * self.cols.0);
        // SAFETY: the rows cover each point's matrix.
        unsafe {
            parallel::build(len, |out| {
                parallel::for_each(rows, len, |row| {
                    self.row_points(row, |point| out.ptr((point * rows + row) * self.cols.0))
                });
            })
        }
    }

    /// Writes the points of an output channel's kernels; those of point `k` go to `to(k)`.
    ///
    /// # Safety
    /// C_in values may be written to each of `to(0..36)`.
    pub unsafe fn row_points(&self, row: usize, to: impl Fn(usize) -> *mut f32) {
        let (mut taps, mut points) = ([0.0; TAPS * KERNELS], [0.0; POINTS * KERNELS]);
        for first in (0..self.cols.0).step_by(KERNELS) {
            let n = KERNELS.min(self.cols.0 - first);
            for j in 0..n {
                let kernel = &self.w[row * self.rows.1 + (first + j) * self.cols.1..][..TAPS];
                for (tap, v) in kernel.iter().enumerate() {
                    taps[if self.turned { TAPS - 1 - tap } else { tap } * KERNELS + j] = *v;
                }
            }
            kernels(&taps, &mut points);
            for (point, values) in points.chunks_exact(KERNELS).enumerate() {
                // SAFETY: the caller's promise; first + n is at most C_in.
                unsafe { to(point).add(first).copy_from_nonoverlapping(values.as_ptr(), n) };
            }
        }
    }
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
