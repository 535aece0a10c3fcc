//! Transposition, in blocks that use whole cache lines.

use crate::parallel;

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
