//! Draws from a scene's own generator: spans, chances, directions. Only + - * / and square roots, so the same bits everywhere.

use crate::rng;
use rand::RngCore;

/// The source of all that is random about one image, or one stage of it.
pub(super) struct Draw(rng::ChaCha8Rng);

impl Draw {
    /// The generator of `stage` of image `index`.
    pub(super) fn new(seed: u64, purpose: &str, stage: u64, index: u64) -> Self {
        Self(rng::keyed(seed, purpose, stage, index))
    }

    /// A number in `[0, 1)`.
    pub(super) fn unit(&mut self) -> f32 {
        rng::unit(&mut self.0)
    }

    /// A number of the span, each equally likely.
    pub(super) fn span(&mut self, (low, high): (f32, f32)) -> f32 {
        low + (high - low) * self.unit()
    }

    /// A number of the span with density 1/x, by rejection: a logarithm's bits differ between machines.
    pub(super) fn log_span(&mut self, (low, high): (f32, f32)) -> f32 {
        loop {
            let x = self.span((low, high));
            if self.unit() * x <= low {
                return x;
            }
        }
    }

    /// A whole number of the span, both ends included.
    pub(super) fn whole(&mut self, (low, high): (usize, usize)) -> usize {
        low + rng::below(&mut self.0, high - low + 1)
    }

    /// True with the given chance.
    pub(super) fn chance(&mut self, chance: f32) -> bool {
        self.unit() < chance
    }

    /// A random seed for a lattice of values.
    pub(super) fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A point of the unit circle: a point of the disc, by rejection, divided by its length. No sine is taken.
    pub(super) fn direction(&mut self) -> [f32; 2] {
        loop {
            let [x, y] = [self.span((-1.0, 1.0)), self.span((-1.0, 1.0))];
            let square = x * x + y * y;
            if (0.01..=1.0).contains(&square) {
                let length = square.sqrt();
                return [x / length, y / length];
            }
        }
    }

    /// A point of the unit sphere, in the same way.
    pub(super) fn direction3(&mut self) -> [f32; 3] {
        loop {
            let v = [0; 3].map(|_: i32| self.span((-1.0, 1.0)));
            let square = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
            if (0.01..=1.0).contains(&square) {
                let length = square.sqrt();
                return v.map(|x| x / length);
            }
        }
    }

    /// Bell-shaped noise of mean 0 and deviation 1 from one 32-bit draw: its four bytes added up.
    pub(super) fn bell(&mut self) -> f32 {
        let sum: u32 = self.0.next_u32().to_le_bytes().map(u32::from).iter().sum();
        // Four bytes have mean 4 * 127.5 and variance 4 * (256² - 1) / 12.
        (sum as f32 - 510.0) * (1.0 / 147.8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_lie_on_the_circle_and_point_everywhere() {
        let mut draw = Draw::new(0, "test", 0, 0);
        let mut quadrants = [0; 4];
        for _ in 0..4_000 {
            let [x, y] = draw.direction();
            assert!((x * x + y * y - 1.0).abs() < 1e-5);
            quadrants[usize::from(x > 0.0) * 2 + usize::from(y > 0.0)] += 1;
            let [a, b, c] = draw.direction3();
            assert!((a * a + b * b + c * c - 1.0).abs() < 1e-5);
        }
        assert!(quadrants.iter().all(|&n| (880..1120).contains(&n)), "{quadrants:?}");
    }

    #[test]
    fn the_log_span_has_as_many_in_each_octave() {
        let mut draw = Draw::new(0, "test", 0, 1);
        let mut octaves = [0; 3];
        for _ in 0..6_000 {
            let x = draw.log_span((10.0, 80.0));
            assert!((10.0..=80.0).contains(&x));
            octaves[usize::from(x >= 20.0) + usize::from(x >= 40.0)] += 1;
        }
        assert!(octaves.iter().all(|&n| (1_850..2_150).contains(&n)), "{octaves:?}");
    }

    #[test]
    fn the_bell_has_deviation_one() {
        let mut draw = Draw::new(0, "test", 0, 2);
        let x: Vec<f64> = (0..40_000).map(|_| f64::from(draw.bell())).collect();
        let mean = x.iter().sum::<f64>() / 40_000.0;
        let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 40_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
    }

    #[test]
    fn whole_numbers_reach_both_ends() {
        let mut draw = Draw::new(0, "test", 0, 3);
        let seen: std::collections::BTreeSet<usize> = (0..200).map(|_| draw.whole((3, 6))).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
    }
}
