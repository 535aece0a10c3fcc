//! Anchors and the level base, fitted to the boxes of the resized images.
//!
//! Rules:
//! - *Ratios*: 3-means of `ln(height / width)`, started at the boxes' 1/6, 1/2 and 5/6 quantiles; means that lie within a factor of
//!   1.25 become one.
//! - *Sizes*: P2's and a factor from level to level, searched on a grid, then each level by itself in steps of a tenth, for the
//!   largest sum of two figures: the share of boxes whose best anchor has an IoU of 0.5 or more, and the mean IoU of the best anchors.
//!   torchvision's own sizes take part, so that the fit is never worse than they are.
//! - *Level base*: 1.75 times P4's size, torchvision's own proportion (224 to 128), so that a region is pooled from the level that
//!   torchvision would take.
//!
//! Every class counts alike: its boxes' figures are averaged, then the classes'. A hundred frequent big objects do not outvote a rare
//! small one that no anchor fits.
//!
//! A box's best anchor is looked for at the cell nearest to its centre on every level, so that strides count.

use std::collections::BTreeMap;

use docent_coco::{Dataset, Resize};
use docent_detect::AnchorConfig;
use docent_detect::anchors::base_anchors;
use docent_ops::BoxXyxy;
use docent_ops::boxes::iou;

/// Levels of the pyramid, P2 to P6, and their strides.
const LEVELS: usize = 5;
const STRIDES: [usize; LEVELS] = [4, 8, 16, 32, 64];
/// So many boxes are looked at, evenly over the data.
const MOST_BOXES: usize = 4000;
/// Means of ratios that are this near to each other become one.
const SAME_RATIO: f64 = 1.25;
/// Factors from one level's size to the next that are tried.
const FACTORS: [f64; 4] = [1.4, 1.6, 1.8, 2.0];
/// Sizes of P2 that are tried, and between which, in pixels.
const STARTS: usize = 24;
const SMALLEST: f64 = 4.0;
/// Rounds of moving each level by itself at most.
const ROUNDS: usize = 12;
/// torchvision's level base over its P4 anchor.
const BASE_OVER_P4: f64 = 224.0 / 128.0;

/// How well anchors cover a set of boxes, averaged over the boxes of each class and then over the classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coverage {
    /// Share of the boxes whose best anchor has an IoU of at least 0.5.
    pub share: f64,
    /// Mean IoU of a box with its best anchor.
    pub mean_iou: f64,
}

/// Fitted anchors.
#[derive(Debug, Clone, PartialEq)]
pub struct AnchorFit {
    /// The fitted ones.
    pub config: AnchorConfig,
    /// `roi.canonical_box_size`.
    pub canonical_box_size: f32,
    /// What torchvision's default anchors cover.
    pub before: Coverage,
    /// What the fitted ones cover.
    pub after: Coverage,
    /// How many boxes were looked at.
    pub boxes: usize,
}

impl AnchorFit {
    /// Fits anchors to a split as `resize` makes it. Without a box, torchvision's defaults stay.
    pub fn of(train: &Dataset, resize: &Resize) -> Self {
        let boxes = sample(train, resize);
        let default = AnchorConfig::default();
        let before = coverage(&default, &boxes);
        let config = if boxes.is_empty() { default } else { fit(&boxes) };
        let after = coverage(&config, &boxes);
        let canonical_box_size = (BASE_OVER_P4 * f64::from(config.sizes[2])).round() as f32;
        Self { config, canonical_box_size, before, after, boxes: boxes.len() }
    }

    /// The anchors in words.
    pub fn reason(&self) -> String {
        let sizes: Vec<String> = self.config.sizes.iter().map(|s| format!("{s}")).collect();
        format!(
            "One size a level, P2 to P6, in pixels of the resized image: {}; searched over {} boxes for the largest share covered and \
             mean IoU, every class counting alike. Ratios (height to width) are 3-means of the boxes', alike ones made one. {:.0}% of \
             the boxes, on the average of the classes, have an anchor of IoU 0.5 or more (mean {:.2}); of torchvision's default anchors \
             it would be {:.0}% (mean {:.2}). The level base follows P4's size as in torchvision: 1.75 times.",
            sizes.join(", "),
            self.boxes,
            100.0 * self.after.share,
            self.after.mean_iou,
            100.0 * self.before.share,
            self.before.mean_iou
        )
    }
}

/// Boxes of the resized images.
type Boxes = Vec<Seen>;

#[derive(Debug, Clone, Copy)]
struct Seen {
    bbox: BoxXyxy,
    /// Height and width of its image.
    image: (usize, usize),
    label: u32,
    /// Its share in the average.
    weight: f64,
}

fn sample(train: &Dataset, resize: &Resize) -> Boxes {
    let mut all = Boxes::new();
    for i in 0..train.len() {
        let info = train.image(i);
        let image = resize.output_size(info.height as usize, info.width as usize);
        let (sx, sy) = (image.1 as f32 / info.width as f32, image.0 as f32 / info.height as f32);
        let truth = train.ground_truth(i);
        let scaled = |(b, &label): (&BoxXyxy, &u32)| {
            let bbox = [b[0] * sx, b[1] * sy, b[2] * sx, b[3] * sy];
            Seen { bbox, image, label, weight: 0.0 }
        };
        all.extend(truth.boxes.iter().zip(&truth.labels).map(scaled));
    }
    let step = all.len().div_ceil(MOST_BOXES).max(1);
    weighted(all.into_iter().step_by(step).collect())
}

/// Gives each class the same weight, and each of its boxes the same part of it.
fn weighted(mut boxes: Boxes) -> Boxes {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for seen in &boxes {
        *counts.entry(seen.label).or_default() += 1;
    }
    let classes = counts.len();
    for seen in &mut boxes {
        seen.weight = counts.get(&seen.label).map_or(0.0, |n| 1.0 / (classes * n) as f64);
    }
    boxes
}

/// How well `config`'s anchors cover `boxes`, 0 of none.
fn coverage(config: &AnchorConfig, boxes: &Boxes) -> Coverage {
    let base: Vec<Vec<BoxXyxy>> = config.sizes.iter().map(|&size| base_anchors(size, &config.ratios)).collect();
    let mut found = Coverage { share: 0.0, mean_iou: 0.0 };
    for seen in boxes {
        let best = best_iou(&seen.bbox, seen.image, &base);
        found.share += if best >= 0.5 { seen.weight } else { 0.0 };
        found.mean_iou += seen.weight * f64::from(best);
    }
    found
}

/// The IoU of a box with its best anchor: of each level those at the nearest cell.
fn best_iou(b: &BoxXyxy, (height, width): (usize, usize), base: &[Vec<BoxXyxy>]) -> f32 {
    let mut best = 0f32;
    for (anchors, stride) in base.iter().zip(STRIDES) {
        let s = stride as f32;
        // Anchors stand around the cells' upper left corners; the last cell begins within the padded image.
        let nearest = |low: f32, high: f32, side: usize| {
            ((low + high) / 2.0 / s).round().min(side.div_ceil(stride).saturating_sub(1) as f32) * s
        };
        let (x, y) = (nearest(b[0], b[2], width), nearest(b[1], b[3], height));
        for a in anchors {
            best = best.max(iou(b, &[a[0] + x, a[1] + y, a[2] + x, a[3] + y]));
        }
    }
    best
}

fn fit(boxes: &Boxes) -> AnchorConfig {
    let side = |b: &BoxXyxy| (f64::from(b[2] - b[0]) * f64::from(b[3] - b[1])).sqrt();
    let mut sides: Vec<(f64, f64)> = boxes.iter().map(|seen| (side(&seen.bbox), seen.weight)).collect();
    sides.sort_by(|a, b| a.0.total_cmp(&b.0));
    // The side below which this share of the weight lies.
    let quantile = |q: f64| {
        let mut below = 0.0;
        let reached = |(_, weight): &&(f64, f64)| {
            below += weight;
            below >= q
        };
        sides.iter().find(reached).or(sides.last()).map_or(SMALLEST, |(side, _)| *side)
    };
    let ratios = ratios(boxes);
    // P2's size lies between half of the small boxes' and the median.
    let (low, high) = ((quantile(0.02) / 2.0).max(SMALLEST), quantile(0.5).max(SMALLEST));
    let start = |i: usize| low * (high / low).max(1.0).powf(i as f64 / (STARTS - 1) as f64);
    let sizes = |start: f64, factor: f64| -> Vec<f32> {
        (0..LEVELS as i32).map(|level| (start * factor.powi(level)).round() as f32).collect()
    };
    let worth = |config: &AnchorConfig| {
        let Coverage { share, mean_iou } = coverage(config, boxes);
        share + mean_iou
    };
    let mut best = AnchorConfig::default();
    let mut most = worth(&best);
    // Ties go to the earlier one.
    let mut consider = |best: &mut AnchorConfig, config: AnchorConfig| {
        let value = worth(&config);
        if value > most {
            (most, *best) = (value, config);
        }
    };
    for i in 0..STARTS {
        for factor in FACTORS {
            consider(&mut best, AnchorConfig::default().sizes(sizes(start(i), factor)).ratios(ratios.clone()));
        }
    }
    for _ in 0..ROUNDS {
        let before = best.clone();
        for level in 0..LEVELS {
            for step in [0.9f32, 1.1] {
                let mut config = best.clone();
                config.sizes[level] = (config.sizes[level] * step).round().max(SMALLEST as f32);
                if config.sizes.is_sorted() {
                    consider(&mut best, config);
                }
            }
        }
        if best == before {
            break;
        }
    }
    best
}

/// 3-means of the boxes' `ln(height / width)`, those alike made one.
fn ratios(boxes: &Boxes) -> Vec<f32> {
    let mut logs: Vec<f64> =
        boxes.iter().map(|Seen { bbox: b, .. }| (f64::from(b[3] - b[1]) / f64::from(b[2] - b[0])).ln()).collect();
    logs.sort_by(f64::total_cmp);
    let at = |sixths: usize| logs[(sixths * logs.len() / 6).min(logs.len() - 1)];
    let mut means = vec![at(1), at(3), at(5)];
    for _ in 0..50 {
        let mut sums = [(0f64, 0usize); 3];
        for &log in &logs {
            // The first of two equally near means.
            let near = (0..3).min_by(|&a, &b| (means[a] - log).abs().total_cmp(&(means[b] - log).abs())).unwrap_or(0);
            sums[near].0 += log;
            sums[near].1 += 1;
        }
        let next: Vec<f64> =
            sums.iter().zip(&means).map(|((sum, n), old)| if *n > 0 { sum / *n as f64 } else { *old }).collect();
        if next == means {
            break;
        }
        means = next;
    }
    means.sort_by(f64::total_cmp);
    let mut groups: Vec<Vec<f64>> = Vec::new();
    for mean in means {
        match groups.last_mut() {
            Some(group) if mean - group[0] < SAME_RATIO.ln() => group.push(mean),
            _ => groups.push(vec![mean]),
        }
    }
    let ratio = |group: &Vec<f64>| (group.iter().sum::<f64>() / group.len() as f64).exp();
    groups.iter().map(|group| ((ratio(group) * 100.0).round() / 100.0).max(0.01) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Boxes of one width and height all over an image.
    fn spread(n: usize, width: f32, height: f32) -> Boxes {
        let place = |i: usize| ((i * 37 % 400) as f32, (i * 53 % 300) as f32);
        let seen =
            |(x, y): (f32, f32)| Seen { bbox: [x, y, x + width, y + height], image: (480, 640), label: 1, weight: 0.0 };
        weighted((0..n).map(place).map(seen).collect())
    }

    #[test]
    fn small_boxes_that_the_defaults_miss_are_covered() {
        let boxes = weighted([spread(300, 12.0, 12.0), spread(100, 40.0, 40.0)].concat());
        let before = coverage(&AnchorConfig::default(), &boxes);
        let config = fit(&boxes);
        let after = coverage(&config, &boxes);
        assert!(before.share < 0.5 && after.share > 0.95, "{before:?} {after:?} {config:?}");
        assert_eq!(config.ratios, [1.0], "all boxes are square");
        assert!(config.sizes.is_sorted() && config.sizes.len() == LEVELS);
        config.validate().unwrap();
    }

    #[test]
    fn a_rare_class_counts_like_a_frequent_one() {
        let mut rare = spread(10, 12.0, 12.0);
        rare.iter_mut().for_each(|seen| seen.label = 2);
        let boxes = weighted([spread(990, 80.0, 80.0), rare].concat());
        let small = AnchorConfig::default().sizes(vec![12.0; LEVELS]).ratios(vec![1.0]);
        let share = coverage(&small, &boxes).share;
        assert!((share - 0.5).abs() < 0.05, "of one class all, of the other none: {share}");
        assert!(coverage(&fit(&boxes), &boxes).share > 0.9);
    }

    #[test]
    fn ratios_are_those_of_the_boxes() {
        let boxes = [spread(100, 60.0, 20.0), spread(100, 30.0, 30.0), spread(100, 20.0, 60.0)].concat();
        let found = ratios(&boxes);
        for (ratio, wanted) in found.iter().zip([1.0 / 3.0, 1.0, 3.0]) {
            assert!((ratio - wanted).abs() < 0.01, "{found:?}");
        }
        // Two kinds give two.
        assert_eq!(ratios(&[spread(200, 40.0, 20.0), spread(100, 20.0, 20.0)].concat()), [0.5, 1.0]);
    }

    #[test]
    fn an_anchor_of_the_boxs_own_form_covers_it_as_far_as_the_stride_lets() {
        let config = AnchorConfig::default().sizes(vec![32.0; 5]).ratios(vec![1.0]);
        let base: Vec<Vec<BoxXyxy>> = config.sizes.iter().map(|&s| base_anchors(s, &config.ratios)).collect();
        // Centred on a cell of every level, then two pixels off P2's.
        assert_eq!(best_iou(&[112.0, 112.0, 144.0, 144.0], (480, 640), &base), 1.0);
        let off = best_iou(&[114.0, 112.0, 146.0, 144.0], (480, 640), &base);
        assert!((off - 30.0 / 34.0).abs() < 1e-6, "{off}");
        assert_eq!(coverage(&config, &Boxes::new()), Coverage { share: 0.0, mean_iou: 0.0 });
    }
}
