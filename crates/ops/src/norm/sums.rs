//! Sums that stay accurate over long planes: 16 lanes of f32 over short stretches, stretches in f64.

use crate::simd::wide;

/// Elements summed in f32 before they go to f64: few enough that no more than a rounding is lost.
const STRETCH: usize = 512;
const LANES: usize = 16;

/// A variance as it was computed: what rounding took below 0 is 0, and what f32 could not hold is no number, which must show in
/// the loss.
pub(super) fn variance(computed: f64) -> f64 {
    if computed.is_finite() { computed.max(0.0) } else { f64::NAN }
}

wide! {

    /// `sum of term(a_i, b_i)`.
    pub(crate) fn sum2(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f64 {
        let mut total = 0.0;
        for (a, b) in a.chunks(STRETCH).zip(b.chunks(STRETCH)) {
            let mut lanes = [0.0f32; LANES];
            let (whole_a, whole_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
            let rest = whole_a.remainder().iter().zip(whole_b.remainder());
            let rest: f32 = rest.map(|(&a, &b)| term(a, b)).sum();
            for (a, b) in whole_a.zip(whole_b) {
                for i in 0..LANES {
                    lanes[i] += term(a[i], b[i]);
                }
            }
            total += lanes.iter().map(|&v| f64::from(v)).sum::<f64>() + f64::from(rest);
        }
        total
    }

    /// `sum of term(a_i, b_i, c_i)`.
    pub(crate) fn sum3(a: &[f32], b: &[f32], c: &[f32], term: impl Fn(f32, f32, f32) -> f32) -> f64 {
        let mut total = 0.0;
        for ((a, b), c) in a.chunks(STRETCH).zip(b.chunks(STRETCH)).zip(c.chunks(STRETCH)) {
            let mut lanes = [0.0f32; LANES];
            let (whole_a, whole_b, whole_c) = (a.chunks_exact(LANES), b.chunks_exact(LANES), c.chunks_exact(LANES));
            let rest = whole_a.remainder().iter().zip(whole_b.remainder()).zip(whole_c.remainder());
            let rest: f32 = rest.map(|((&a, &b), &c)| term(a, b, c)).sum();
            for ((a, b), c) in whole_a.zip(whole_b).zip(whole_c) {
                for i in 0..LANES {
                    lanes[i] += term(a[i], b[i], c[i]);
                }
            }
            total += lanes.iter().map(|&v| f64::from(v)).sum::<f64>() + f64::from(rest);
        }
        total
    }
}

/// `sum of term(a_i)`.
#[inline]
pub(crate) fn sum1(a: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    sum2(a, a, |a, _| term(a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;

    #[test]
    fn sums_are_those_of_f64() {
        for n in [0, 1, 15, 16, 17, 511, 512, 513, 100_003] {
            let (a, b) = (values(1, n), values(2, n));
            let exact: f64 = a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            assert!((sum2(&a, &b, |a, b| a * b) - exact).abs() < 1e-7 * (n as f64).sqrt().max(1.0) * 10.0, "{n}");
            let exact: f64 = a.iter().map(|&a| f64::from(a) + 1000.0).sum();
            assert!((sum1(&a, |a| a + 1000.0) / exact.max(1.0) - if n == 0 { 0.0 } else { 1.0 }).abs() < 1e-6, "{n}");
        }
    }
}
