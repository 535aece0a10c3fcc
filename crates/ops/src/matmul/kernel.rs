//! The innermost loops of a product with a dense panel, for AVX-512 and AVX2; elsewhere the gemm crate's.
//!
//! A block of rows and columns of the result stays in registers while the depth runs: at each step of it, vectors of the
//! panel's row are loaded once and multiplied by one value of each row of the left operand. An element is the sum over the
//! depth in order, in stretches of [`DEPTH`], whatever block it lies in, so that its bits do not depend on how many rows and
//! columns are asked for.

/// Columns of one panel of a right operand: a whole number of the kernels' vectors.
pub(crate) const PANEL: usize = 48;

/// The depth of one stretch of a sum. A kernel's part of a panel of this depth stays in the first cache for all rows.
pub(crate) const DEPTH: usize = 256;

/// A left operand by its address.
#[derive(Clone, Copy)]
pub(super) enum Left {
    /// Element (i, p) lies at `i * rows + p * cols`.
    Matrix { at: *const f32, rows: usize, cols: usize },
    /// Strips of [`strip`] rows, each column by column, of `k` columns each; the operand begins at column `first`.
    Strips { at: *const f32, k: usize, first: usize },
}

impl Left {
    /// From column `p` on.
    fn from(self, p: usize) -> Self {
        match self {
            Self::Matrix { at, rows, cols } => Self::Matrix { at: at.wrapping_add(p * cols), rows, cols },
            Self::Strips { at, k, first } => Self::Strips { at, k, first: first + p },
        }
    }
}

/// Rows of a strip: those of this CPU's tile, one where there is no kernel; a divisor of 24.
pub(crate) fn strip() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::simd::{Level, level};
        match level() {
            Level::Avx512 => avx512::ROWS,
            Level::Avx2 => avx2::ROWS,
            Level::Baseline => 1,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        1
    }
}

/// What becomes of a result's elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sum {
    /// They are the product's.
    New,
    /// The product's are added to them.
    Added,
    /// They are a sum up to here within one stretch of [`DEPTH`], which goes on with the bits of one that was never cut. (The gemm
    /// crate, where there is no kernel, adds.)
    Continued,
}

/// The product `a b` for the first `n` columns of a panel, to `dst` as `sum` says; false if this CPU has no kernel.
///
/// # Safety
/// `a` covers m x k (in strips: whole ones) and the panel k rows. `dst` may be written at all `i * ld + j`, i < m, j < n, and nobody else uses
/// these elements meanwhile; they are initialised, unless the sum is new.
pub(super) unsafe fn multiply(
    [m, n, k]: [usize; 3],
    dst: *mut f32,
    ld: usize,
    sum: Sum,
    a: Left,
    panel: &[f32],
) -> bool {
    debug_assert!(n <= PANEL && panel.len() >= k * PANEL && (sum != Sum::Continued || k <= DEPTH));
    #[cfg(target_arch = "x86_64")]
    {
        use crate::simd::{Level, level};
        let block: Block = match level() {
            Level::Avx512 => avx512::block,
            Level::Avx2 => avx2::block,
            Level::Baseline => return false,
        };
        if k == 0 && sum == Sum::New {
            // SAFETY: the caller's promise: n elements of each row.
            (0..m).for_each(|i| unsafe { dst.add(i * ld).write_bytes(0, n) });
        }
        for from in (0..k).step_by(DEPTH) {
            let right = panel.as_ptr().wrapping_add(from * PANEL);
            let sum = if from > 0 { Sum::Added } else { sum };
            // SAFETY: the CPU has the instructions; the rest is the caller's promise.
            unsafe { block([m, n, DEPTH.min(k - from)], dst, ld, sum, a.from(from), right) };
        }
        true
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (m, k, dst, ld, sum, a);
        false
    }
}

/// Sizes, result, its rows' distance, what becomes of it, left operand, panel. Unsafe as [`multiply`] is, and because the CPU must have the
/// instructions.
#[cfg(target_arch = "x86_64")]
type Block = unsafe fn([usize; 3], *mut f32, usize, Sum, Left, *const f32);

/// Defines the kernel of one instruction set: its lanes, the vectors of columns and the rows that a tile
/// holds in registers, and the rows of a tile of one vector, for the last columns. One register more than sums, right operands
/// and one left value need stays free: without it the compiler moves sums to memory and back (docs/benchmarks.md).
#[cfg(target_arch = "x86_64")]
macro_rules! kernel {
    ($name:ident, $features:literal, $lanes:literal, [$vectors:literal, $rows:literal, $narrow:literal],
     $zero:ident, $load:ident, $store:ident, $splat:ident, $fma:ident, $plus:ident) => {
        mod $name {
            use std::arch::x86_64::{_mm_load_ss, $fma, $load, $plus, $splat, $store, $zero};

            use super::{Left, PANEL, Sum};

            /// Rows of a full tile.
            pub(super) const ROWS: usize = $rows;

            /// All rows of `n` columns.
            ///
            /// # Safety
            /// As [`multiply`](super::multiply); k <= DEPTH.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn block(
                [m, n, k]: [usize; 3],
                dst: *mut f32,
                ld: usize,
                sum: Sum,
                a: Left,
                b: *const f32,
            ) {
                let mut j = 0;
                while j < n {
                    let (dst, b) = (dst.wrapping_add(j), b.wrapping_add(j));
                    let wide = n - j > ($vectors - 1) * $lanes;
                    let width = (n - j).min(if wide { $vectors * $lanes } else { $lanes });
                    let to = Place { dst, ld, width, sum };
                    match (a, wide) {
                        (Left::Strips { at, k: of, first }, true) => {
                            // SAFETY: columns j.. of what the caller has promised.
                            unsafe { strips::<$vectors>([m, k], to, [of, first], at, b) };
                        }
                        (Left::Strips { at, k: of, first }, false) => {
                            // SAFETY: as above.
                            unsafe { strips::<1>([m, k], to, [of, first], at, b) };
                        }
                        (Left::Matrix { at, rows, cols }, true) => {
                            // SAFETY: as above.
                            unsafe { matrix::<$vectors, $rows>([m, k], to, [rows, cols], at, b) };
                        }
                        (Left::Matrix { at, rows, cols }, false) => {
                            // SAFETY: as above.
                            unsafe { matrix::<1, $narrow>([m, k], to, [rows, cols], at, b) };
                        }
                    }
                    j += width;
                }
            }

            /// Where the sums go: `width` columns of rows `ld` apart.
            #[derive(Clone, Copy)]
            struct Place {
                dst: *mut f32,
                ld: usize,
                width: usize,
                sum: Sum,
            }

            impl Place {
                fn down(self, rows: usize) -> Self {
                    Self { dst: self.dst.wrapping_add(rows * self.ld), ..self }
                }
            }

            /// All rows of `V` vectors of columns; the left operand in strips of `of` columns, from column `first` on. What the
            /// last strip has beyond the rows is not written.
            ///
            /// # Safety
            /// As [`block`], for the columns of the place, no more than `V` vectors.
            #[target_feature(enable = $features)]
            unsafe fn strips<const V: usize>(
                [m, k]: [usize; 2],
                to: Place,
                [of, first]: [usize; 2],
                a: *const f32,
                b: *const f32,
            ) {
                for i in (0..m).step_by(ROWS) {
                    let left = a.wrapping_add(i * of + first * ROWS);
                    // SAFETY: rows i.. of what the caller has promised.
                    unsafe { tile::<V, ROWS>(k, to.down(i), ROWS.min(m - i), left, [1, ROWS], b) };
                }
            }

            /// All rows of `V` vectors of columns, `R` rows at a time; what is left in fours, twos and ones.
            ///
            /// # Safety
            /// As [`strips`].
            #[target_feature(enable = $features)]
            unsafe fn matrix<const V: usize, const R: usize>(
                [m, k]: [usize; 2],
                to: Place,
                step: [usize; 2],
                a: *const f32,
                b: *const f32,
            ) {
                let mut i = 0;
                while i < m {
                    let (to, left) = (to.down(i), a.wrapping_add(i * step[0]));
                    i += if m - i >= R {
                        // SAFETY: rows i.. of what the caller has promised.
                        unsafe { tile::<V, R>(k, to, R, left, step, b) };
                        R
                    } else if m - i >= 4 {
                        // SAFETY: as above.
                        unsafe { tile::<V, 4>(k, to, 4, left, step, b) };
                        4
                    } else if m - i >= 2 {
                        // SAFETY: as above.
                        unsafe { tile::<V, 2>(k, to, 2, left, step, b) };
                        2
                    } else {
                        // SAFETY: as above.
                        unsafe { tile::<V, 1>(k, to, 1, left, step, b) };
                        1
                    };
                }
            }

            /// `R` rows of `V` vectors, in registers. The panel has whole vectors; of the result, `rows` and the place's columns
            /// count. The steps are those of the left operand, to the next row and the next column.
            ///
            /// # Safety
            /// The left operand has `R` rows of k values, the panel k rows of at least `V` vectors. `rows` rows of the place's columns, no
            /// more than `V` vectors, may be written, nobody else uses them meanwhile, and they are initialised unless the sum is new.
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn tile<const V: usize, const R: usize>(
                k: usize,
                to: Place,
                rows: usize,
                mut left: *const f32,
                [down, across]: [usize; 2],
                mut b: *const f32,
            ) {
                let Place { dst, ld, width, sum } = to;
                let add = sum == Sum::Added;
                let mut sums = [[$zero(); V]; R];
                if sum == Sum::Continued {
                    for r in 0..R {
                        if r >= rows {
                            break;
                        }
                        let row = dst.wrapping_add(r * ld);
                        let mut values = [[0f32; $lanes]; V];
                        // SAFETY: the row has `width` initialised columns, no more than the vectors.
                        unsafe { row.copy_to_nonoverlapping(values.as_mut_ptr().cast(), width) };
                        for v in 0..V {
                            // SAFETY: a vector's values.
                            sums[r][v] = unsafe { $load(values[v].as_ptr()) };
                        }
                    }
                }
                for _ in 0..k {
                    let mut right = [$zero(); V];
                    for v in 0..V {
                        // SAFETY: a panel's row has PANEL values.
                        right[v] = unsafe { $load(b.wrapping_add(v * $lanes)) };
                    }
                    for r in 0..R {
                        // SAFETY: the left operand has R rows of k values. (A plain `*` is checked for null in a development build,
                        // which costs more than the products.)
                        let value = $splat(unsafe { _mm_load_ss(left.wrapping_add(r * down)) });
                        for v in 0..V {
                            sums[r][v] = $fma(value, right[v], sums[r][v]);
                        }
                    }
                    left = left.wrapping_add(across);
                    b = b.wrapping_add(PANEL);
                }
                // Counted by constants, so that the sums stay in registers.
                for r in 0..R {
                    if r >= rows {
                        return;
                    }
                    let row = dst.wrapping_add(r * ld);
                    if width == V * $lanes {
                        for v in 0..V {
                            let to = row.wrapping_add(v * $lanes);
                            // SAFETY: the row has `width` columns, initialised where they are added to.
                            unsafe { $store(to, if add { $plus($load(to), sums[r][v]) } else { sums[r][v] }) };
                        }
                    } else {
                        let mut values = [[0f32; $lanes]; V];
                        for v in 0..V {
                            // SAFETY: a vector's values.
                            unsafe { $store(values[v].as_mut_ptr(), sums[r][v]) };
                        }
                        for (j, value) in values.as_flattened().iter().take(width).enumerate() {
                            let to = row.wrapping_add(j);
                            // SAFETY: the row has `width` columns, initialised where they are added to.
                            unsafe { to.write(if add { *to + value } else { *value }) };
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(
    avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    16,
    [3, 8, 12],
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_broadcastss_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps
);
#[cfg(target_arch = "x86_64")]
kernel!(
    avx2,
    "avx2,fma",
    8,
    [2, 6, 8],
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_broadcastss_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps
);

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::simd::{Level, level};
    use crate::testing::values;

    /// Strips of `rows` rows, each column by column.
    fn strips(a: &[f32], [m, k]: [usize; 2], rows: usize) -> Vec<f32> {
        let mut packed = vec![0.0; m.div_ceil(rows) * rows * k];
        for (i, p) in (0..m).flat_map(|i| (0..k).map(move |p| (i, p))) {
            packed[i / rows * rows * k + p * rows + i % rows] = a[i * k + p];
        }
        packed
    }

    #[test]
    fn avx2_and_avx512_give_the_same_bits() {
        if level() != Level::Avx512 {
            println!("skipped: this CPU has no AVX-512");
            return;
        }
        for [m, n, k] in [[1, 1, 1], [7, 48, 256], [25, 47, 100], [48, 33, 9], [13, 5, 200]] {
            let (a, panel) = (values(1, m * k), values(2, k * PANEL));
            let multiply = |block: Block, left: Left, sum: Sum| {
                let mut dst = vec![0.25; m * n];
                // SAFETY: the CPU has both; the operands cover the sizes and the result is ours.
                unsafe { block([m, n, k], dst.as_mut_ptr(), n, sum, left, panel.as_ptr()) };
                dst.iter().map(|v| v.to_bits()).collect::<Vec<u32>>()
            };
            let matrix = Left::Matrix { at: a.as_ptr(), rows: k, cols: 1 };
            for sum in [Sum::New, Sum::Added, Sum::Continued] {
                let narrow = multiply(avx2::block, matrix, sum);
                assert!(multiply(avx512::block, matrix, sum) == narrow, "{m} x {n} x {k}");
                for (block, rows) in [(avx2::block as Block, avx2::ROWS), (avx512::block, avx512::ROWS)] {
                    let packed = strips(&a, [m, k], rows);
                    let left = Left::Strips { at: packed.as_ptr(), k, first: 0 };
                    assert!(multiply(block, left, sum) == narrow, "{m} x {n} x {k} in strips of {rows}");
                }
            }
        }
    }
}
