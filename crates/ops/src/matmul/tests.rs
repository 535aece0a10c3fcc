//! Tests of matrix products: every kernel, block and cut gives the same sums.

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
