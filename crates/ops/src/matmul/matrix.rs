//! Strided matrices and their products on one thread.

use super::kernel::{self, DEPTH, PANEL, Sum};

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

    pub(super) fn covers(&self, m: usize, n: usize) -> bool {
        m == 0 || n == 0 || (m - 1) * self.rows + (n - 1) * self.cols < self.data.len()
    }

    pub(super) fn offset(self, i: usize, j: usize) -> Self {
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
