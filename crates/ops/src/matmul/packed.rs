//! Left operands laid out as the kernels read them.

use crate::parallel::{self, Shared};

use super::kernel::{self, PANEL, Sum, strip};
use super::matrix::{Mat, gemm_panel};
use super::transpose::transpose;

/// An m x k left operand in strips of [`strip`] rows, each strip column by column: what a tile reads is one stream of memory,
/// where the rows of a matrix are as many as the tile has. The last strip is filled up with zeros.
pub(crate) struct Packed {
    values: Vec<f32>,
    k: usize,
}

impl Packed {
    /// Packs `a`, on all threads.
    pub fn new([m, k]: [usize; 2], a: Mat<'_>) -> Self {
        assert!(a.covers(m, k), "a product's operand is shorter than its shape");
        let height = strip();
        Self::build([m, k], |first, to| {
            let rows = height.min(m - first);
            if a.cols == 1 {
                // SAFETY: a covers these rows of k values (checked above); the strip has k columns of `height` values, and is this call's.
                unsafe { transpose(rows, k, a.data.as_ptr().wrapping_add(first * a.rows), a.rows, to, height) };
                return;
            }
            for (i, p) in (0..k).flat_map(|p| (0..rows).map(move |i| (i, p))) {
                // SAFETY: value i of column p of the strip, which is this call's.
                unsafe { to.add(p * height + i).write(a.data[(first + i) * a.rows + p * a.cols]) };
            }
        })
    }

    /// Strips that `f(first row, strip)` writes: all columns of those of the `m` rows that the strip has.
    fn build([m, k]: [usize; 2], f: impl Fn(usize, *mut f32) + Sync + Send) -> Self {
        let height = strip();
        let len = Strips::len([m, k]);
        // SAFETY: the strips cover the buffer and do not overlap. f writes all rows of a full strip; one that is not full is zeroed first.
        let values = unsafe {
            parallel::build(len, |out: Shared<'_>| {
                parallel::for_each(m.div_ceil(height), len, |i| {
                    let to = out.ptr(i * height * k);
                    if m < (i + 1) * height {
                        to.write_bytes(0, height * k);
                    }
                    f(i * height, to);
                });
            })
        };
        Self { values, k }
    }

    /// All of it.
    pub fn strips(&self) -> Strips<'_> {
        Strips::new(&self.values, self.k)
    }
}

/// A view of a packed operand from a strip's first row and some column on.
#[derive(Clone, Copy)]
pub(crate) struct Strips<'a> {
    data: &'a [f32],
    k: usize,
    column: usize,
}

impl<'a> Strips<'a> {
    /// Strips of `k` columns one after another.
    pub fn new(data: &'a [f32], k: usize) -> Self {
        Self { data, k, column: 0 }
    }

    /// Values of an m x k operand in strips.
    pub fn len([m, k]: [usize; 2]) -> usize {
        m.next_multiple_of(strip()) * k
    }

    /// From row `i`, the first of a strip, and column `p` on.
    pub fn at(self, i: usize, p: usize) -> Self {
        debug_assert!(i.is_multiple_of(strip()) && self.column + p <= self.k);
        Self { data: &self.data[i * self.k..], column: self.column + p, ..self }
    }

    /// The product of the first m rows and k columns of the strips and a dense panel, rows of [`PANEL`] values of which n count,
    /// to `dst` as `sum` says.
    ///
    /// # Safety
    /// `dst` may be written at all `i * ld + j`, i < m, j < n, and nobody else uses these elements meanwhile; they are
    /// initialised, unless the sum is new.
    pub unsafe fn multiply(self, [m, n, k]: [usize; 3], dst: *mut f32, ld: usize, sum: Sum, panel: &[f32]) {
        assert!(n <= PANEL && self.column + k <= self.k && self.data.len() >= Self::len([m, self.k]));
        assert!(panel.len() >= k * PANEL);
        let left = kernel::Left::Strips { at: self.data.as_ptr(), k: self.k, first: self.column };
        // SAFETY: the operands cover the sizes (checked above); dst is the caller's promise.
        unsafe {
            if !kernel::multiply([m, n, k], dst, ld, sum, left, panel) {
                // Strips of one row are a row-major matrix.
                gemm_panel([m, n, k], dst, ld, sum, Mat::row_major(&self.data[self.column..], self.k), panel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul::transposed;

    #[test]
    fn strips_give_a_matrix_s_bits_from_any_strip_and_column_on() {
        let (m, k) = (29, 300);
        let a: Vec<f32> = (0..m * k).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let at = transposed(&a, m, k);
        let panel: Vec<f32> = (0..k * PANEL).map(|i| ((i * 53) % 89) as f32 / 40.0 - 1.0).collect();
        for (n, first, column) in [(48, 0, 0), (31, 0, 7), (5, 24, 0), (17, 24, 256), (1, 24, 299)] {
            let (rows, depth) = (m - first, k - column);
            let mut want = vec![0.0; rows * n];
            let left = Mat::row_major(&a[first * k + column..], k);
            // SAFETY: rows of n values, and nobody else has them.
            unsafe { gemm_panel([rows, n, depth], want.as_mut_ptr(), n, Sum::New, left, &panel) };
            for packed in [Mat::row_major(&a, k), Mat::transposed(&at, m)].map(|a| Packed::new([m, k], a)) {
                let mut got = vec![0.0; rows * n];
                let strips = packed.strips().at(first, column);
                // SAFETY: as above.
                unsafe { strips.multiply([rows, n, depth], got.as_mut_ptr(), n, Sum::New, &panel) };
                assert_eq!(got, want, "{rows} rows from {first}, {n} columns, depth {depth} from {column}");
            }
        }
    }
}
