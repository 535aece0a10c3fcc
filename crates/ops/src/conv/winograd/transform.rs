//! The transforms of Winograd's algorithm F(4x4, 3x3) in one dimension, on scalars; those of kernels in two, many side by side.

use crate::matmul::PANEL;
use crate::simd::wide;

/// Channels that are transformed side by side.
pub(super) const LANES: usize = 16;

/// A line behind each point's values keeps the 36 of them out of one set of the cache.
pub(super) const LINE: usize = 16;

/// Side of a tile of outputs.
pub(super) const OUT: usize = 4;
/// Side of the inputs that a tile reads: neighbours share two rows or columns.
pub(super) const IN: usize = OUT + 2;
/// Products of a tile.
pub(super) const POINTS: usize = IN * IN;
// The interpolation points are 0, A, -A, B, -B and infinity. The usual 1 and 2 make the rows of the transforms grow to 8;
// these keep them between, and lose less: see the test `error_is_bounded`.
const A: f32 = 0.625;
const B: f32 = 1.5;
const AA: f32 = A * A;
const BB: f32 = B * B;
const SUM: f32 = AA + BB;
const PRODUCT: f32 = AA * BB;
const AT_ZERO: f32 = 1.0 / PRODUCT;
const AT_A: f32 = 1.0 / (2.0 * AA * (AA - BB));
const AT_B: f32 = 1.0 / (2.0 * BB * (BB - AA));

/// `B^T d`: inputs to points.
#[inline(always)]
pub(super) fn b_t(d: [f32; IN]) -> [f32; IN] {
    let (even, odd) = (d[4] - BB * d[2], A * (d[3] - BB * d[1]));
    let (even_b, odd_b) = (d[4] - AA * d[2], B * (d[3] - AA * d[1]));
    [
        (PRODUCT * d[0] - SUM * d[2]) + d[4],
        even + odd,
        even - odd,
        even_b + odd_b,
        even_b - odd_b,
        (PRODUCT * d[1] - SUM * d[3]) + d[5],
    ]
}

/// `A^T m`: points to outputs.
#[inline(always)]
pub(super) fn a_t(m: [f32; IN]) -> [f32; OUT] {
    let (sum, difference) = (m[1] + m[2], m[1] - m[2]);
    let (sum_b, difference_b) = (m[3] + m[4], m[3] - m[4]);
    [
        m[0] + (sum + sum_b),
        A * difference + B * difference_b,
        AA * sum + BB * sum_b,
        (AA * A * difference + BB * B * difference_b) + m[5],
    ]
}

/// `A g`: the outputs' gradients to points.
#[inline(always)]
pub(super) fn a(d: [f32; OUT]) -> [f32; IN] {
    let (even, odd) = (d[0] + AA * d[2], A * (d[1] + AA * d[3]));
    let (even_b, odd_b) = (d[0] + BB * d[2], B * (d[1] + BB * d[3]));
    [d[0], even + odd, even - odd, even_b + odd_b, even_b - odd_b, d[3]]
}

/// `G w`: a kernel's row or column to points.
#[inline(always)]
fn g(w: [f32; 3]) -> [f32; IN] {
    let (even, odd) = (w[0] + AA * w[2], A * w[1]);
    let (even_b, odd_b) = (w[0] + BB * w[2], B * w[1]);
    [AT_ZERO * w[0], AT_A * (even + odd), AT_A * (even - odd), AT_B * (even_b + odd_b), AT_B * (even_b - odd_b), w[2]]
}

/// `G^T u`: the points' gradients to the kernel's.
#[inline(always)]
fn g_t(u: [f32; IN]) -> [f32; 3] {
    let (sum, difference) = (AT_A * (u[1] + u[2]), AT_A * (u[1] - u[2]));
    let (sum_b, difference_b) = (AT_B * (u[3] + u[4]), AT_B * (u[3] - u[4]));
    [AT_ZERO * u[0] + (sum + sum_b), A * difference + B * difference_b, (AA * sum + BB * sum_b) + u[5]]
}

/// Rows of [`KERNELS`] values, one a point, that kernels' points go to.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub to: *mut f32,
    pub of_point: usize,
}

impl Rows {
    /// Writes some values of point `k` from kernel `first` on.
    ///
    /// # Safety
    /// They may be written, and nobody else uses them meanwhile.
    #[inline(always)]
    unsafe fn write(self, k: usize, first: usize, values: &[f32; LANES]) {
        let to = self.to.wrapping_add(k * self.of_point + first);
        // SAFETY: the caller's promise; the write needs no alignment beyond that of f32.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(*values) };
    }
}

/// Kernels that are transformed side by side.
pub(super) const KERNELS: usize = PANEL;

wide! {
    /// Transforms kernels of 3 x 3, tap `k` of kernel `j` at `from[k * KERNELS + j]`, to their points; kernels that are turned by 180
    /// degrees before, if so asked.
    ///
    /// # Safety
    /// The rows of all points, of KERNELS values each, may be written, and nobody else uses them meanwhile.
    pub(super) unsafe fn kernels(from: &[f32; 9 * KERNELS], turned: bool, to: Rows) {
        let mut half = [0.0; IN * 3 * KERNELS];
        let row = |y: usize, x: usize| {
            let tap = if turned { 8 - (y * 3 + x) } else { y * 3 + x };
            &from[tap * KERNELS..][..KERNELS]
        };
        for x in 0..3 {
            let rows = [row(0, x), row(1, x), row(2, x)];
            for j in 0..KERNELS {
                let out = g(std::array::from_fn(|y| rows[y][j]));
                for i in 0..IN {
                    half[(i * 3 + x) * KERNELS + j] = out[i];
                }
            }
        }
        for i in 0..IN {
            for first in (0..KERNELS).step_by(LANES) {
                let mut points = [[0.0; LANES]; IN];
                for j in 0..LANES {
                    let out = g(std::array::from_fn(|x| half[(i * 3 + x) * KERNELS + first + j]));
                    for p in 0..IN {
                        points[p][j] = out[p];
                    }
                }
                for (p, points) in points.iter().enumerate() {
                    // SAFETY: LANES values of a point's row, by the caller's promise.
                    unsafe { to.write(i * IN + p, first, points) };
                }
            }
        }
    }
}

wide! {
    /// The way back: from the points' gradients, point `k` of kernel `j` at `from[k * of_point + j]`, to the taps'.
    pub(super) fn kernel_gradients(from: &[f32], of_point: usize, to: &mut [f32; 9 * KERNELS]) {
        let mut half = [0.0; IN * 3 * KERNELS];
        for i in 0..IN {
            let points: [&[f32]; IN] = std::array::from_fn(|p| &from[(i * IN + p) * of_point..][..KERNELS]);
            for j in 0..KERNELS {
                let out = g_t(std::array::from_fn(|p| points[p][j]));
                for x in 0..3 {
                    half[(i * 3 + x) * KERNELS + j] = out[x];
                }
            }
        }
        for x in 0..3 {
            for j in 0..KERNELS {
                let out = g_t(std::array::from_fn(|i| half[(i * 3 + x) * KERNELS + j]));
                for y in 0..3 {
                    to[(y * 3 + x) * KERNELS + j] = out[y];
                }
            }
        }
    }
}
