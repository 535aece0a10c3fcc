//! Softmax of one row of logits with log p and log(1 - p) that stay right when a class is all but certain.

/// One row's softmax, as logarithms.
pub(crate) struct Row {
    /// `log p_c`.
    pub log_p: Vec<f32>,
    /// `log(1 - p_c)`.
    pub log_q: Vec<f32>,
    /// The most probable class, the first of equals.
    pub argmax: usize,
}

impl Row {
    /// The softmax of `logits / temperature`.
    ///
    /// `log(1 - p_c)` is `log1p(-p_c)` while `p_c` is at most a half; beyond, it is the log-sum-exp of the *other*
    /// classes less that of all, so that nothing is subtracted from 1.
    pub fn new(logits: &[f32], temperature: f32) -> Self {
        let argmax = argmax(logits);
        let top = logits[argmax];
        let below: Vec<f32> = logits.iter().map(|z| (z - top) / temperature).collect();
        // The log-sum-exp over the row, less its maximum: log1p keeps a tiny rest.
        let rest: f32 = below.iter().enumerate().filter(|(c, _)| *c != argmax).map(|(_, z)| z.exp()).sum();
        let excess = rest.ln_1p();
        let log_p: Vec<f32> = below.iter().map(|z| z - excess).collect();
        let log_q = log_p
            .iter()
            .enumerate()
            .map(|(c, l)| {
                let p = l.exp();
                if p <= 0.5 { (-p).ln_1p() } else { log_sum_exp_without(&below, c) - excess }
            })
            .collect();
        Self { log_p, log_q, argmax }
    }

    /// `p_c`.
    pub fn p(&self, c: usize) -> f32 {
        self.log_p[c].exp()
    }

    /// `1 - p_c`.
    pub fn q(&self, c: usize) -> f32 {
        self.log_q[c].exp()
    }

    /// `p_c` of this row less that of another: as a difference of the complements where both are near 1.
    pub fn minus(&self, other: &Self, c: usize) -> f32 {
        let (a, b) = (self.p(c), other.p(c));
        if a > 0.5 && b > 0.5 { other.q(c) - self.q(c) } else { a - b }
    }
}

fn argmax(z: &[f32]) -> usize {
    let mut best = 0;
    for (c, v) in z.iter().enumerate() {
        if *v > z[best] {
            best = c;
        }
    }
    best
}

/// `log sum exp` over all classes but one, with its own maximum taken out.
fn log_sum_exp_without(z: &[f32], c: usize) -> f32 {
    let others = || z.iter().enumerate().filter(|(o, _)| *o != c).map(|(_, v)| *v);
    let max = others().fold(f32::NEG_INFINITY, f32::max);
    max + others().map(|v| (v - max).exp()).sum::<f32>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_odds() {
        let row = Row::new(&[3.0, 3.0], 1.0);
        assert_eq!(row.argmax, 0);
        for c in 0..2 {
            assert!((row.log_p[c] + std::f32::consts::LN_2).abs() < 1e-7);
            assert!((row.log_q[c] + std::f32::consts::LN_2).abs() < 1e-7);
        }
    }

    #[test]
    fn certainty_keeps_its_small_numbers() {
        // Against f64, where p and 1 - p are both exact to 1e-16 at these margins' own scale.
        for margin in [0.5f64, 4.0, 8.0, 16.0, 24.0, 40.0, 80.0] {
            let row = Row::new(&[0.25, margin as f32 + 0.25, -0.75], 1.0);
            let rest = (-margin).exp() + (-margin - 1.0).exp();
            let (log_p, log_q) = (-rest.ln_1p(), (rest / (1.0 + rest)).ln());
            assert!((f64::from(row.log_p[1]) / log_p - 1.0).abs() < 1e-5, "log p at {margin}");
            assert!((f64::from(row.log_q[1]) / log_q - 1.0).abs() < 1e-5, "log (1 - p) at {margin}");
            assert!((f64::from(row.q(1)) / (rest / (1.0 + rest)) - 1.0).abs() < 1e-4, "1 - p at {margin}");
        }
    }

    #[test]
    fn temperature_divides_the_logits() {
        let (hot, cold) = (Row::new(&[2.0, -4.0, 6.0], 2.0), Row::new(&[1.0, -2.0, 3.0], 1.0));
        assert_eq!(hot.log_p, cold.log_p);
        assert_eq!(hot.log_q, cold.log_q);
    }
}
