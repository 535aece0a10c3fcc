//! Seeded randomness keyed by (seed, purpose, epoch, id), with a mapping from bits to numbers that never changes.
//!
//! A generator is made for one decision about one thing ("does image 42 flip in epoch 3?"), so the answer depends neither on
//! the thread that asks nor on what was asked before. The bits are ChaCha8's, whose output is fixed by its definition; how bits
//! become numbers is written out here, so that an update of a library cannot move a single draw.

use rand::{RngCore, SeedableRng};
pub use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The generator for one purpose, epoch and id under one seed.
///
/// The key is hashed with SHA-256 (the purpose preceded by its length, so that no two keys spell the same bytes), and the
/// digest is ChaCha8's 32-byte seed.
///
/// ```
/// use docent_coco::rng;
/// let a = rng::unit(&mut rng::keyed(0, "flip", 1, 42));
/// let b = rng::unit(&mut rng::keyed(0, "flip", 1, 42));
/// assert_eq!(a, b);
/// assert_ne!(a, rng::unit(&mut rng::keyed(0, "flip", 2, 42)));
/// ```
pub fn keyed(seed: u64, purpose: &str, epoch: u64, id: u64) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(b"docent rng 1");
    hash.update(seed.to_le_bytes());
    hash.update((purpose.len() as u64).to_le_bytes());
    hash.update(purpose.as_bytes());
    hash.update(epoch.to_le_bytes());
    hash.update(id.to_le_bytes());
    let mut key = [0u8; 32];
    key.copy_from_slice(&hash.finalize()[..]);
    ChaCha8Rng::from_seed(key)
}

/// A number in `[0, 1)`: the upper 24 bits of one 32-bit draw, each value exact in `f32`.
pub fn unit(rng: &mut impl RngCore) -> f32 {
    (rng.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A number in `[0, 1)`: the upper 53 bits of one 64-bit draw, each value exact in `f64`.
pub fn unit_f64(rng: &mut impl RngCore) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
}

/// A whole number in `0..n`, each equally likely; 0 for `n` of 0 or 1 (one draw is made all the same).
///
/// The upper half of the 128-bit product of a 64-bit draw and `n`; draws that would favour some values are repeated
/// (D. Lemire, *Fast Random Integer Generation in an Interval*, 2019).
pub fn below(rng: &mut impl RngCore, n: usize) -> usize {
    let n = n.max(1) as u64;
    // 2^64 mod n: low halves under it belong to the values that would come up once too often.
    let reject = n.wrapping_neg() % n;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(n);
        if product as u64 >= reject {
            return (product >> 64) as usize;
        }
    }
}

/// A sample of the normal distribution with mean 0 and deviation 1 (Box and Muller's formula, its cosine half).
///
/// Unlike the other draws this one goes through `ln` and `cos`, whose last bit may differ between platforms.
pub fn normal(rng: &mut impl RngCore) -> f64 {
    // 1 - u lies in (0, 1], where the logarithm is finite.
    let radius = (-2.0 * (1.0 - unit_f64(rng)).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit_f64(rng)).cos()
}

/// Puts `items` in random order (Fisher and Yates, from the last to the second), each order equally likely.
pub fn shuffle<T>(rng: &mut impl RngCore, items: &mut [T]) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(rng, i + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from a second implementation of the key, of ChaCha8 and of the mapping; a change here changes every shuffled order
    /// and every generated image.
    #[test]
    fn draws_never_change() {
        let mut rng = keyed(7, "test", 3, 11);
        let bits: Vec<u32> = (0..4).map(|_| rng.next_u32()).collect();
        assert_eq!(bits, [2_394_444_403, 392_649_774, 3_139_516_395, 2_441_894_965]);
        let mut rng = keyed(7, "test", 3, 12);
        let mut items: Vec<usize> = (0..10).collect();
        shuffle(&mut rng, &mut items);
        assert_eq!(items, [1, 0, 8, 2, 6, 5, 3, 4, 7, 9]);
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let base = keyed(1, "a", 2, 3).next_u64();
        assert_eq!(base, keyed(1, "a", 2, 3).next_u64());
        for other in [
            keyed(2, "a", 2, 3),
            keyed(1, "b", 2, 3),
            keyed(1, "a", 3, 3),
            keyed(1, "a", 2, 4),
            keyed(1, "aa", 2, 3),
            keyed(1, "", 2, 3),
        ] {
            let mut other = other;
            assert_ne!(base, other.next_u64());
        }
    }

    #[test]
    fn numbers_stay_in_their_range_and_are_even() {
        let mut rng = keyed(0, "range", 0, 0);
        let mut sum = 0.0;
        let mut counts = [0usize; 7];
        for _ in 0..70_000 {
            let u = unit(&mut rng);
            assert!((0.0..1.0).contains(&u));
            sum += f64::from(u);
            let d = unit_f64(&mut rng);
            assert!((0.0..1.0).contains(&d));
            counts[below(&mut rng, 7)] += 1;
        }
        assert!((sum / 70_000.0 - 0.5).abs() < 0.005);
        assert!(counts.iter().all(|&n| (9_500..10_500).contains(&n)), "{counts:?}");
        assert_eq!(below(&mut rng, 0), 0);
        assert_eq!(below(&mut rng, 1), 0);
        assert!(below(&mut rng, usize::MAX) < usize::MAX);
    }

    #[test]
    fn the_largest_bits_stay_below_one() {
        struct Ones;
        impl RngCore for Ones {
            fn next_u32(&mut self) -> u32 {
                u32::MAX
            }
            fn next_u64(&mut self) -> u64 {
                u64::MAX
            }
            fn fill_bytes(&mut self, dst: &mut [u8]) {
                dst.fill(255);
            }
        }
        assert!(unit(&mut Ones) < 1.0);
        assert!(unit_f64(&mut Ones) < 1.0);
        assert_eq!(below(&mut Ones, 10), 9);
        assert!(normal(&mut Ones).is_finite());
    }

    #[test]
    fn normal_has_mean_zero_and_deviation_one() {
        let mut rng = keyed(0, "normal", 0, 0);
        let xs: Vec<f64> = (0..50_000).map(|_| normal(&mut rng)).collect();
        let mean = xs.iter().sum::<f64>() / 50_000.0;
        let var = xs.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 50_000.0;
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.03, "{mean} {var}");
    }

    #[test]
    fn shuffle_is_a_permutation_and_every_place_is_reached() {
        let mut seen = [[0usize; 4]; 4];
        for id in 0..4_000 {
            let mut items = [0, 1, 2, 3];
            shuffle(&mut keyed(0, "perm", 0, id), &mut items);
            let mut sorted = items;
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            for (place, &item) in items.iter().enumerate() {
                seen[place][item] += 1;
            }
        }
        assert!(seen.iter().flatten().all(|&n| (850..1150).contains(&n)), "{seen:?}");
        shuffle::<u8>(&mut keyed(0, "perm", 0, 0), &mut []);
    }
}
