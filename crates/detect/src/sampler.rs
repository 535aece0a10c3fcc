//! The choice of the anchors and RoIs that a training step looks at.

use crate::{Error, Result};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a sample is drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplePurpose {
    /// The RPN's losses; indices count the image's anchors, level after level, each in the order (row, column, anchor).
    Rpn,
    /// The heads; indices count the image's proposals, then its ground truths.
    Roi,
}

/// Chooses among the positives and negatives of an image. The heads can be tested, and compared with another system,
/// by one that makes known choices.
pub trait Sampler {
    /// Chooses `n_pos` of `positives` and `n_neg` of `negatives`, which are ascending indices, for image `image` of
    /// the batch. There are always enough. The order of the answer does not matter.
    fn sample(
        &mut self,
        purpose: SamplePurpose,
        image: usize,
        positives: &[usize],
        negatives: &[usize],
        n_pos: usize,
        n_neg: usize,
    ) -> (Vec<usize>, Vec<usize>);
}

/// Draws without replacement, with one generator an image, so that an image's choice does not depend on its batch.
#[derive(Debug, Clone)]
pub struct BalancedPositiveNegativeSampler<R> {
    rngs: Vec<R>,
}

impl BalancedPositiveNegativeSampler<ChaCha8Rng> {
    /// One generator for each of `images` images, by the seed and the image's place in the batch. Give each step a seed of its own.
    pub fn seeded(seed: u64, images: usize) -> Self {
        let generator = |stream| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(stream);
            rng
        };
        Self::new((0..images as u64).map(generator).collect())
    }
}

impl<R: RngCore> BalancedPositiveNegativeSampler<R> {
    /// One generator for each image of the batch. Image i takes generator `i % rngs.len()`; without any, the first
    /// candidates are taken.
    pub fn new(rngs: Vec<R>) -> Self {
        Self { rngs }
    }
}

impl<R: RngCore> Sampler for BalancedPositiveNegativeSampler<R> {
    fn sample(
        &mut self,
        _: SamplePurpose,
        image: usize,
        positives: &[usize],
        negatives: &[usize],
        n_pos: usize,
        n_neg: usize,
    ) -> (Vec<usize>, Vec<usize>) {
        let n = self.rngs.len();
        match self.rngs.get_mut(image % n.max(1)) {
            Some(rng) => (draw(rng, positives, n_pos), draw(rng, negatives, n_neg)),
            None => (positives[..n_pos].to_vec(), negatives[..n_neg].to_vec()),
        }
    }
}

/// `n` of `from`, by the first n steps of a Fisher-Yates shuffle. A whole number below m is the upper half of the
/// product of m and 64 random bits; the mapping is part of what a seed means and must not change.
fn draw(rng: &mut impl RngCore, from: &[usize], n: usize) -> Vec<usize> {
    let mut pool = from.to_vec();
    let n = n.min(pool.len());
    for i in 0..n {
        let rest = (pool.len() - i) as u128;
        let j = i + ((u128::from(rng.next_u64()) * rest) >> 64) as usize;
        pool.swap(i, j);
    }
    pool.truncate(n);
    pool
}

/// How many positives and negatives make a sample of `samples`: torchvision's counts. Negatives fill what the
/// positives leave free.
pub(crate) fn counts(samples: usize, fraction: f64, positives: usize, negatives: usize) -> (usize, usize) {
    let n_pos = ((samples as f64 * fraction) as usize).min(positives);
    (n_pos, (samples - n_pos.min(samples)).min(negatives))
}

/// Draws a sample and checks it: both lists ascending, of the right lengths, without repeats, from the candidates.
pub(crate) fn choose(
    sampler: &mut dyn Sampler,
    purpose: SamplePurpose,
    image: usize,
    (positives, negatives): (&[usize], &[usize]),
    (samples, fraction): (usize, f64),
) -> Result<(Vec<usize>, Vec<usize>)> {
    let (n_pos, n_neg) = counts(samples, fraction, positives.len(), negatives.len());
    let (mut p, mut n) = sampler.sample(purpose, image, positives, negatives, n_pos, n_neg);
    p.sort_unstable();
    n.sort_unstable();
    for (what, chosen, from, most) in [("positive", &p, positives, n_pos), ("negative", &n, negatives, n_neg)] {
        let twice = chosen.windows(2).any(|w| w[0] == w[1]);
        if chosen.len() > most || twice || chosen.iter().any(|i| from.binary_search(i).is_err()) {
            return Err(Error::input(
                "sampler",
                format!(
                    "for {purpose:?}, image {image}: {} {what}s chosen; at most {most} different ones of the {} candidates are allowed",
                    chosen.len(),
                    from.len()
                ),
            ));
        }
    }
    Ok((p, n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SplitMix;

    struct Fixed(Vec<usize>, Vec<usize>);

    impl Sampler for Fixed {
        fn sample(
            &mut self,
            _: SamplePurpose,
            _: usize,
            _: &[usize],
            _: &[usize],
            _: usize,
            _: usize,
        ) -> (Vec<usize>, Vec<usize>) {
            (self.0.clone(), self.1.clone())
        }
    }

    #[test]
    fn counts_are_torchvisions() {
        assert_eq!(counts(256, 0.5, 1000, 1000), (128, 128));
        assert_eq!(counts(256, 0.5, 3, 1000), (3, 253));
        assert_eq!(counts(256, 0.5, 1000, 3), (128, 3));
        assert_eq!(counts(512, 0.25, 200, 0), (128, 0));
        assert_eq!(counts(5, 0.25, 9, 9), (1, 4));
    }

    #[test]
    fn draws_are_keyed_distinct_and_even() {
        let from: Vec<usize> = (10..30).collect();
        let of = |seed| {
            let mut s = BalancedPositiveNegativeSampler::new(vec![SplitMix(seed)]);
            choose(&mut s, SamplePurpose::Rpn, 0, (&from, &[1, 2, 3]), (8, 0.75)).unwrap()
        };
        assert_eq!(of(5), of(5));
        assert_ne!(of(5), of(6));
        let (p, n) = of(7);
        assert_eq!((p.len(), n.len()), (6, 2));
        // Each of 20 candidates comes in 6 of 20 draws.
        let mut seen = [0usize; 20];
        (0..4000).for_each(|seed| of(seed).0.iter().for_each(|i| seen[i - 10] += 1));
        assert!(seen.iter().all(|&s| (1050..1350).contains(&s)), "{seen:?}");
    }

    #[test]
    fn a_seed_gives_each_image_its_own_draws() {
        let from: Vec<usize> = (0..50).collect();
        let of = |seed, images, image| {
            BalancedPositiveNegativeSampler::seeded(seed, images).sample(SamplePurpose::Roi, image, &from, &from, 5, 5)
        };
        assert_eq!(of(1, 2, 1), of(1, 3, 1), "whatever the batch");
        assert_ne!(of(1, 2, 0), of(1, 2, 1));
        assert_ne!(of(1, 2, 0), of(2, 2, 0));
    }

    #[test]
    fn images_have_their_own_generators() {
        let from: Vec<usize> = (0..50).collect();
        let mut both = BalancedPositiveNegativeSampler::new(vec![SplitMix(1), SplitMix(2)]);
        let mut alone = BalancedPositiveNegativeSampler::new(vec![SplitMix(2)]);
        let a = both.sample(SamplePurpose::Roi, 1, &from, &from, 5, 5);
        assert_eq!(a, alone.sample(SamplePurpose::Roi, 0, &from, &from, 5, 5));
    }

    #[test]
    fn injected_choices_are_checked() {
        let ok = |p: &[usize], n: &[usize]| {
            choose(&mut Fixed(p.to_vec(), n.to_vec()), SamplePurpose::Roi, 2, (&[1, 5, 9], &[2, 3]), (4, 0.5))
        };
        assert_eq!(ok(&[9, 1], &[3]).unwrap(), (vec![1, 9], vec![3]));
        assert!(ok(&[2], &[]).is_err(), "not a candidate");
        assert!(ok(&[1, 1], &[]).is_err(), "twice");
        assert!(ok(&[1, 5, 9], &[]).unwrap_err().to_string().contains("image 2"));
    }
}
