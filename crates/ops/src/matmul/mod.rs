//! Strided matrix products on one thread, transposition, and a product cut into fixed blocks for all threads.

mod kernel;
mod strips;

use crate::parallel::{self, Shared};

pub(crate) use kernel::Sum;
pub(crate) use strips::{Packed, strip};

/// A matrix read through strides: element (i, j) lies at `i * rows + j * cols`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub cols: usize,
}

impl<'a> Mat<'a> {
    /// Row-major, with rows of length `width`.
    pub fn row_major(data: &'a [f32], width: usize) -> Self {
        Self { data, rows: width, cols: 1 }
    }

    /// The transpose of a row-major matrix with rows of length `width`.
    pub fn transposed(data: &'a [f32], width: usize) -> Self {
        Self { data, rows: 1, cols: width }
    }

    fn covers(&self, m: usize, n: usize) -> bool {
        m == 0 || n == 0 || (m - 1) * self.rows + (n - 1) * self.cols < self.data.len()
    }

    fn offset(self, i: usize, j: usize) -> Self {
        Self { data: &self.data[i * self.rows + j * self.cols..], ..self }
    }
}

/// `dst = a b` or, with `add`, `dst += a b`, for a of m x k, b of k x n and a row-major dst with rows `ld` apart.
///
/// # Safety
/// `dst` may be written at all `i * ld + j`, i < m, j < n, and nobody else uses these elements meanwhile; with `add`
/// they are initialised.
pub(crate) unsafe fn gemm([m, n, k]: [usize; 3], dst: *mut f32, ld: usize, add: bool, a: Mat<'_>, b: Mat<'_>) {
    assert!(a.covers(m, k) && b.covers(k, n), "a product's operands are shorter than its shape");
    #[cfg(miri)]
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let product: f32 = (0..k).map(|p| a.data[i * a.rows + p * a.cols] * b.data[p * b.rows + j * b.cols]).sum();
        // SAFETY: dst is the caller's promise.
        unsafe {
            let to = dst.add(i * ld + j);
            to.write(if add { *to + product } else { product });
        }
    }
    // SAFETY: a and b cover their index ranges (checked above); dst is the caller's promise.
    #[cfg(not(miri))]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst,
            1,
            ld as isize,
            add,
            a.data.as_ptr(),
            a.cols as isize,
            a.rows as isize,
            b.data.as_ptr(),
            b.cols as isize,
            b.rows as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Columns of one panel of a right operand: a whole number of the kernels' vectors.
pub(crate) const PANEL: usize = 48;

/// The depth of one stretch of a sum. A kernel's part of a panel of this depth stays in the first cache for all rows.
pub(crate) const DEPTH: usize = 256;

/// Rows of one call of the gemm crate: with so few it reads both operands where they lie, more are packed first.
const FEW_ROWS: usize = 32;

/// The product of `a` and a dense panel, rows of [`PANEL`] values of which n count, to `dst` as `sum` says.
///
/// # Safety
/// As [`gemm`]; the elements of `dst` are initialised, unless the sum is new.
pub(crate) unsafe fn gemm_panel([m, n, k]: [usize; 3], dst: *mut f32, ld: usize, sum: Sum, a: Mat<'_>, panel: &[f32]) {
    assert!(n <= PANEL && a.covers(m, k) && panel.len() >= k * PANEL, "a panel's operands are shorter than its shape");
    let left = kernel::Left::Matrix { at: a.data.as_ptr(), rows: a.rows, cols: a.cols };
    // SAFETY: the operands cover the sizes (checked above); dst is the caller's promise.
    if unsafe { kernel::multiply([m, n, k], dst, ld, sum, left, panel) } {
        return;
    }
    // In the kernels' stretches, so that a sum does not depend on who cuts the depth.
    for (from, i) in (0..k.max(1)).step_by(DEPTH).flat_map(|from| (0..m).step_by(FEW_ROWS).map(move |i| (from, i))) {
        let (size, to) = ([FEW_ROWS.min(m - i), n, DEPTH.min(k - from)], dst.wrapping_add(i * ld));
        let (left, right) = (a.offset(i, from), Mat::row_major(&panel[from * PANEL..], PANEL));
        // SAFETY: rows i.. of what the caller has promised.
        unsafe { gemm(size, to, ld, sum != Sum::New || from > 0, left, right) };
    }
}

/// Fewest rows (whole strips of any height) and the columns of the blocks of [`product`], and the depth of one step.
const BLOCK_ROWS: usize = 96;
const BLOCK_COLS: usize = 2 * PANEL;
const STEP: usize = 4 * DEPTH;

/// Blocks of a product, if it is large enough: each thread has some.
const BLOCKS: usize = 24;

/// The row-major m x n product of a (m x k) and b (k x n), in fixed blocks on all threads.
pub(crate) fn product([m, n, k]: [usize; 3], a: Mat<'_>, b: Mat<'_>) -> Vec<f32> {
    assert!(a.covers(m, k) && b.covers(k, n), "a product's operands are shorter than its shape");
    if k == 0 {
        return vec![0.0; m * n];
    }
    // Every block of rows packs the panels anew: no more of them than the threads need.
    let across = n.div_ceil(BLOCK_COLS);
    let rows = m.div_ceil(BLOCKS.div_ceil(across.max(1))).next_multiple_of(BLOCK_ROWS);
    let down = m.div_ceil(rows.max(1));
    let packed = Packed::new([m, k], a);
    // SAFETY: the blocks are disjoint and cover the output, and a block adds only to what its first step has written.
    unsafe {
        parallel::build(m * n, |out: Shared<'_>| {
            parallel::for_each(down * across, m * n * k, |task| {
                // Column blocks outermost: neighbours in time share a block of b.
                let (i, first) = ((task % down) * rows, (task / down) * BLOCK_COLS);
                let rows = rows.min(m - i);
                parallel::scratch(STEP.min(k) * PANEL, |panel| {
                    for j in (first..n.min(first + BLOCK_COLS)).step_by(PANEL) {
                        let width = PANEL.min(n - j);
                        for from in (0..k).step_by(STEP) {
                            let depth = STEP.min(k - from);
                            pack(b.offset(from, j), depth, width, panel);
                            let left = packed.strips().at(i, from);
                            let sum = if from > 0 { Sum::Added } else { Sum::New };
                            left.multiply([rows, width, depth], out.ptr(i * n + j), n, sum, panel);
                        }
                    }
                });
            });
        })
    }
}

/// Copies `depth` x `width` of `b` to a dense panel.
fn pack(b: Mat<'_>, depth: usize, width: usize, panel: &mut [f32]) {
    assert!(b.covers(depth, width) && width <= PANEL && panel.len() >= depth * PANEL);
    if b.rows == 1 {
        // SAFETY: b covers width rows of depth values, and the panel has depth rows of PANEL values (checked above).
        unsafe { transpose(width, depth, b.data.as_ptr(), b.cols, panel.as_mut_ptr(), PANEL) };
    } else {
        for (x, row) in panel.chunks_mut(PANEL).take(depth).enumerate() {
            let source = b.data[x * b.rows..].iter().step_by(b.cols.max(1));
            row[..width].iter_mut().zip(source).for_each(|(p, v)| *p = *v);
        }
    }
}

/// Writes the transpose of the `rows` x `cols` matrix at `src` (rows `src_ld` apart) to `dst` (rows `dst_ld` apart).
///
/// # Safety
/// All elements of `src` may be read and are initialised, all of `dst` may be written, and nobody else uses those meanwhile.
pub(crate) unsafe fn transpose(rows: usize, cols: usize, src: *const f32, src_ld: usize, dst: *mut f32, dst_ld: usize) {
    let (whole_rows, whole_cols) = (rows & !3, cols & !3);
    // SAFETY: i < rows and j < cols everywhere below, so that all reads and writes are of the caller's matrices.
    unsafe {
        // Sixteen columns at a time: whole cache lines are read, and the lines written stay in the first cache.
        for from in (0..whole_cols).step_by(16) {
            for i in (0..whole_rows).step_by(4) {
                for j in (from..whole_cols.min(from + 16)).step_by(4) {
                    transpose4(src.add(i * src_ld + j), src_ld, dst.add(j * dst_ld + i), dst_ld);
                }
            }
        }
        for i in 0..rows {
            let first = if i < whole_rows { whole_cols } else { 0 };
            for j in first..cols {
                *dst.add(j * dst_ld + i) = *src.add(i * src_ld + j);
            }
        }
    }
}

/// One block of 4 x 4.
///
/// # Safety
/// As [`transpose`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn transpose4(src: *const f32, src_ld: usize, dst: *mut f32, dst_ld: usize) {
    use std::arch::x86_64::{
        _mm_loadu_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_storeu_ps, _mm_unpackhi_ps, _mm_unpacklo_ps,
    };
    // SAFETY: SSE is part of x86_64; the block is inside both matrices by the caller's promise.
    unsafe {
        let (a, b) = (_mm_loadu_ps(src), _mm_loadu_ps(src.add(src_ld)));
        let (c, d) = (_mm_loadu_ps(src.add(2 * src_ld)), _mm_loadu_ps(src.add(3 * src_ld)));
        let (ab_lo, ab_hi) = (_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
        let (cd_lo, cd_hi) = (_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
        _mm_storeu_ps(dst, _mm_movelh_ps(ab_lo, cd_lo));
        _mm_storeu_ps(dst.add(dst_ld), _mm_movehl_ps(cd_lo, ab_lo));
        _mm_storeu_ps(dst.add(2 * dst_ld), _mm_movelh_ps(ab_hi, cd_hi));
        _mm_storeu_ps(dst.add(3 * dst_ld), _mm_movehl_ps(cd_hi, ab_hi));
    }
}

/// One block of 4 x 4.
///
/// # Safety
/// As [`transpose`].
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
unsafe fn transpose4(src: *const f32, src_ld: usize, dst: *mut f32, dst_ld: usize) {
    for i in 0..4 {
        for j in 0..4 {
            // SAFETY: the block is inside both matrices by the caller's promise.
            unsafe { *dst.add(j * dst_ld + i) = *src.add(i * src_ld + j) };
        }
    }
}

/// The transpose of a row-major `rows` x `cols` matrix, on all threads.
pub(crate) fn transposed(src: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    assert_eq!(src.len(), rows * cols, "a matrix of another size than said");
    // SAFETY: the source has `rows` rows of `cols` values (checked above); the tasks write the rows of the result that belong to their
    // columns of the source, which cover it and do not overlap.
    unsafe {
        parallel::build(src.len(), |out| {
            let piece = 64;
            parallel::for_each(cols.div_ceil(piece), src.len(), |task| {
                let j = task * piece;
                transpose(rows, piece.min(cols - j), src.as_ptr().add(j), cols, out.ptr(j * rows), rows);
            });
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_transposes_agree_with_loops() {
        for [m, n, k] in [[1, 1, 1], [3, 5, 7], [130, 200, 9], [5, 400, 33], [300, 50, 2050], [4, 4, 0]] {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 7) as f32 - 3.0).collect();
            let b: Vec<f32> = (0..k * n).map(|i| (i % 5) as f32 - 2.0).collect();
            let mut want = vec![0.0; m * n];
            for i in 0..m {
                for j in 0..n {
                    want[i * n + j] = (0..k).map(|x| a[i * k + x] * b[x * n + j]).sum();
                }
            }
            assert_eq!(product([m, n, k], Mat::row_major(&a, k), Mat::row_major(&b, n)), want);
            let (at, bt) = (transposed(&a, m, k), transposed(&b, k, n));
            assert!((0..m * k).all(|i| at[(i % k) * m + i / k] == a[i]));
            assert_eq!(product([m, n, k], Mat::transposed(&at, m), Mat::transposed(&bt, k)), want);
        }
    }

    #[test]
    fn panels_agree_with_loops_and_bits_do_not_depend_on_how_many_elements_are_asked_for() {
        let (m, k) = (13, 300);
        let a: Vec<f32> = (0..m * k).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let panel: Vec<f32> = (0..k * PANEL).map(|i| ((i * 53) % 89) as f32 / 40.0 - 1.0).collect();
        let multiply = |rows: usize, n: usize, a: Mat<'_>, before: Option<f32>| {
            // Two columns more than asked for, which must stay as they are.
            let mut dst = vec![before.unwrap_or(7.0); rows * (n + 2)];
            let sum = if before.is_some() { Sum::Added } else { Sum::New };
            // SAFETY: rows of n + 2 values, and nobody else has them.
            unsafe { gemm_panel([rows, n, k], dst.as_mut_ptr(), n + 2, sum, a, &panel) };
            dst
        };
        let whole = multiply(m, PANEL, Mat::row_major(&a, k), None);
        let at = transposed(&a, m, k);
        for rows in 1..=m {
            for n in [1, 2, 7, 8, 9, 15, 16, 17, 24, 25, 31, 40, 47, 48] {
                let got = multiply(rows, n, Mat::row_major(&a, k), None);
                let turned = multiply(rows, n, Mat::transposed(&at, m), None);
                let added = multiply(rows, n, Mat::row_major(&a, k), Some(0.5));
                for (i, j) in (0..rows).flat_map(|i| (0..n + 2).map(move |j| (i, j))) {
                    let here = i * (n + 2) + j;
                    if j >= n {
                        assert_eq!((got[here], added[here]), (7.0, 0.5), "row {i}, column {j} of {rows} x {n}");
                        continue;
                    }
                    let of_whole = whole[i * (PANEL + 2) + j];
                    let want: f64 = (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(panel[p * PANEL + j])).sum();
                    assert!((f64::from(of_whole) - want).abs() < 1e-4);
                    assert!((got[here] - of_whole).abs() < 1e-5 && (added[here] - of_whole - 0.5).abs() < 1e-5);
                    // The gemm crate's kernels, where there are none of ours, promise less.
                    #[cfg(target_arch = "x86_64")]
                    if crate::simd::level() != crate::simd::Level::Baseline {
                        assert_eq!([got[here], turned[here]].map(f32::to_bits), [of_whole.to_bits(); 2]);
                    }
                }
            }
        }
    }
}
