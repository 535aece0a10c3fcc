//! How sure a difference is: a paired bootstrap over images and seeds.
//!
//! One draw takes as many held-out images as there are, with repeats, and as many seeds as were run, with repeats. Both sides of
//! a difference see the same images and the same seeds. What is not drawn is the teacher: where runs share one, the interval
//! holds for this teacher.

use docent_coco::{Resampled, rng};
use rand::Rng;
use rayon::prelude::*;

/// Draws of a bootstrap.
pub const BOOTSTRAP_SAMPLES: usize = 1000;

/// A mean with the middle 95% of its samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The figure itself, of all images once and all seeds once.
    pub mean: f64,
    /// 2.5th percentile of the samples.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// How often each of `images` stands in each of `samples` samples; the same for everybody who asks with these numbers.
pub fn bootstrap_images(images: usize, samples: usize) -> Vec<Vec<u32>> {
    let draw = |number: usize| {
        let mut random = rng::keyed(0, "bootstrap images", 0, number as u64);
        let mut counts = vec![0; images];
        for _ in 0..images {
            counts[random.random_range(0..images)] += 1;
        }
        counts
    };
    (0..samples).map(draw).collect()
}

/// The AP of one run on each draw of images.
pub fn bootstrap_ap(run: &Resampled, images: &[Vec<u32>]) -> Vec<f64> {
    images.par_iter().map(|counts| run.ap(counts)).collect()
}

/// The difference of two cells, seed by seed: `pairs` holds each seed's (AP of the cell, AP of the other), and `samples` the
/// same two figures on every draw of images.
///
/// Returns nothing without a pair. With one pair alone, images alone are drawn. A draw of images without an object says nothing
/// and is left out.
pub fn paired(pairs: &[(f64, f64)], samples: &[(&[f64], &[f64])]) -> Option<Interval> {
    let seeds = pairs.len();
    let count = samples.iter().map(|(a, b)| a.len().min(b.len())).min()?;
    if seeds == 0 || samples.len() != seeds {
        return None;
    }
    let draw = |number: usize| {
        let mut random = rng::keyed(0, "bootstrap seeds", seeds as u64, number as u64);
        let mut sum = 0.0;
        for _ in 0..seeds {
            let (a, b) = samples[random.random_range(0..seeds)];
            if a[number] < 0.0 || b[number] < 0.0 {
                return None;
            }
            sum += a[number] - b[number];
        }
        Some(sum / seeds as f64)
    };
    let mut drawn: Vec<f64> = (0..count).filter_map(draw).collect();
    drawn.sort_by(f64::total_cmp);
    let mean = pairs.iter().map(|(a, b)| a - b).sum::<f64>() / seeds as f64;
    Some(Interval { mean, low: percentile(&drawn, 0.025)?, high: percentile(&drawn, 0.975)? })
}

/// Quantiles 0.975 of Student's t for 1, 2, ... degrees of freedom.
const T: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];

/// The 95% interval of the mean of `values` by Student's t; nothing for fewer than two.
pub fn students_t(values: &[f64]) -> Option<Interval> {
    let (mean, deviation) = mean_and_deviation(values)?;
    let freedom = values.len() - 1;
    // Beyond the table: the normal's quantile with Fisher's expansion, right to three decimals there.
    let (n, z) = (freedom as f64, 1.959_964_f64);
    let expanded = z + (z.powi(3) + z) / (4.0 * n) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n);
    let quantile = T.get(freedom.checked_sub(1)?).copied().unwrap_or(expanded);
    let half = quantile * deviation? / (values.len() as f64).sqrt();
    Some(Interval { mean, low: mean - half, high: mean + half })
}

/// The value below which that share of sorted values lies, between neighbours in proportion (numpy's default).
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted.get(at.floor() as usize)?, sorted.get(at.ceil() as usize)?);
    Some(low + (high - low) * at.fract())
}

/// Mean and standard deviation (of a sample: n - 1); no deviation of fewer than two values.
pub fn mean_and_deviation(values: &[f64]) -> Option<(f64, Option<f64>)> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    Some((mean, (values.len() > 1).then(|| (square / (n - 1.0)).sqrt())))
}

#[cfg(test)]
mod tests {
    use docent_coco::{Annotation, Category, Dataset, Detection, Image};

    use super::*;

    /// `images` images with one object each; a run that finds those which `finds` names, and nothing else.
    fn run(images: u64, finds: impl Fn(u64) -> bool) -> Resampled {
        let bbox = [10.0, 10.0, 40.0, 40.0];
        let image = |id| Image { id, file_name: format!("{id}.png"), width: 100, height: 100 };
        let object = |id| Annotation { id, image_id: id, category_id: 1, bbox, area: 1600.0, iscrowd: false };
        let truth = Dataset::from_parts(
            "t",
            "",
            (1..=images).map(image).collect(),
            (1..=images).map(object).collect(),
            vec![Category { id: 1, name: "cat".into() }],
        );
        let found: Vec<_> = (1..=images)
            .filter(|id| finds(*id))
            .map(|image_id| Detection { image_id, category_id: 1, bbox, score: 0.9 })
            .collect();
        Resampled::new(&truth.unwrap(), &found).unwrap()
    }

    #[test]
    fn the_interval_of_a_known_case_is_the_binomials() {
        // A run that finds half of 200 objects without a false alarm has an AP of its recall (in steps of 1/101), and its recall
        // on a draw is binomial: n 200, p 0.5. The middle 95% of that lie between 0.43 and 0.57 (86 and 114 of 200).
        let images = bootstrap_images(200, 4000);
        let (half, none) = (run(200, |id| id % 2 == 0), run(200, |_| false));
        let (a, b) = (bootstrap_ap(&half, &images), bootstrap_ap(&none, &images));
        let interval = paired(&[(half.ap(&[1; 200]), 0.0)], &[(&a, &b)]).unwrap();
        assert!((interval.mean - 51.0 / 101.0).abs() < 1e-12, "{interval:?}");
        assert!((interval.low - 0.43).abs() < 0.013 && (interval.high - 0.57).abs() < 0.013, "{interval:?}");
        let (mean, deviation) = mean_and_deviation(&a).unwrap();
        assert!((mean - 0.505).abs() < 0.003 && (deviation.unwrap() - (0.25f64 / 200.0).sqrt()).abs() < 0.002);
    }

    #[test]
    fn pairing_takes_away_what_both_sides_share() {
        // Both runs find the same half, one finds 4 more: the difference moves with these 4 alone.
        let images = bootstrap_images(100, BOOTSTRAP_SAMPLES);
        let (less, more) = (run(100, |id| id <= 50), run(100, |id| id <= 54));
        let (a, b) = (bootstrap_ap(&more, &images), bootstrap_ap(&less, &images));
        let interval = paired(&[(more.ap(&[1; 100]), less.ap(&[1; 100]))], &[(&a, &b)]).unwrap();
        assert!((interval.mean - 4.0 / 101.0).abs() < 1e-12);
        // Poisson with mean 4: 1 to 8 of them in the middle 95%.
        assert!((0.0..=0.015).contains(&interval.low) && (0.07..=0.1).contains(&interval.high), "{interval:?}");
        let same = paired(&[(0.5, 0.5)], &[(&a, &a)]).unwrap();
        assert_eq!(same, Interval { mean: 0.0, low: 0.0, high: 0.0 });
    }

    #[test]
    fn seeds_are_drawn_too() {
        // Two seeds that differ by 0 and by 0.2 on every image: their mean is 0, 0.1 or 0.2, one draw in four at each end.
        let (zero, fifth) = (vec![0.0; BOOTSTRAP_SAMPLES], vec![0.2; BOOTSTRAP_SAMPLES]);
        let interval = paired(&[(0.0, 0.0), (0.2, 0.0)], &[(&zero, &zero), (&fifth, &zero)]).unwrap();
        assert!((interval.mean - 0.1).abs() < 1e-12);
        assert_eq!((interval.low, interval.high), (0.0, 0.2));
        assert_eq!(paired(&[], &[]), None);
    }

    #[test]
    fn draws_are_with_repeats_and_always_the_same() {
        let samples = bootstrap_images(50, 20);
        assert_eq!(samples, bootstrap_images(50, 20));
        assert!(samples.iter().all(|d| d.iter().sum::<u32>() == 50 && d.iter().any(|&n| n > 1)));
        assert_ne!(samples[0], samples[1]);
    }

    #[test]
    fn percentiles_and_deviations() {
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 4.0], 0.5), Some(2.5));
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(mean_and_deviation(&[]), None);
        assert_eq!(mean_and_deviation(&[0.4]), Some((0.4, None)));
        assert_eq!(mean_and_deviation(&[1.0, 3.0]), Some((2.0, Some(2f64.sqrt()))));
    }

    #[test]
    fn t_of_three_seeds_and_of_many() {
        let t = students_t(&[0.1, 1.7, 3.6]).unwrap();
        // Mean 1.8, deviation 1.752, 4.303 / sqrt 3.
        assert!((t.mean - 1.8).abs() < 1e-9 && (t.low + 2.553).abs() < 2e-3 && (t.high - 6.153).abs() < 2e-3, "{t:?}");
        assert_eq!(students_t(&[1.0]), None);
        // 30 degrees of freedom: 2.0423.
        let many: Vec<f64> = (0..31).map(f64::from).collect();
        let (t, deviation) = (students_t(&many).unwrap(), mean_and_deviation(&many).unwrap().1.unwrap());
        assert!(((t.high - t.mean) * 31f64.sqrt() / deviation - 2.0423).abs() < 5e-4, "{t:?}");
    }
}
