//! AP over images drawn with repeats: matched once, accumulated as often as a bootstrap asks.

use std::collections::HashMap;

use crate::coco_metrics::matched;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::results::Detection;

/// numpy's `spacing(1)`, which pycocotools adds to the divisor of a precision.
const EPS: f64 = f64::EPSILON;

/// Detections matched with a ground truth, ready to be scored on any multiset of its images.
///
/// Matching happens inside an image, so it does not depend on which images are drawn; only the walk down the scores does.
/// [`Resampled::ap`] takes how often each image was drawn and gives what COCO's AP would be on a data set in which each image
/// stands that often, under ids of its own.
///
/// ```
/// use docent_coco::{Annotation, Category, Dataset, Detection, Image, Resampled};
/// # fn main() -> docent_coco::Result<()> {
/// let image = |id| Image { id, file_name: format!("{id}.jpg"), width: 100, height: 100 };
/// let cat = |id| Annotation {
///     id, image_id: id, category_id: 7, bbox: [10.0, 10.0, 40.0, 40.0], area: 1600.0, iscrowd: false,
/// };
/// let ground_truth = Dataset::from_parts(
///     "two cats", "images", vec![image(1), image(2)], vec![cat(1), cat(2)], vec![Category { id: 7, name: "cat".into() }],
/// )?;
/// let found = [Detection { image_id: 1, category_id: 7, bbox: [10.0, 10.0, 40.0, 40.0], score: 0.9 }];
/// let matched = Resampled::new(&ground_truth, &found)?;
/// assert_eq!(matched.ap(&[2, 0]), 1.0); // the image whose cat was found, twice
/// assert_eq!(matched.ap(&[0, 2]), 0.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Resampled {
    images: usize,
    recalls: Vec<f64>,
    classes: Vec<Class>,
}

/// One category: its objects in each image, and its detections at each IoU threshold, surest first.
#[derive(Debug, Clone, Default)]
struct Class {
    objects: Vec<u32>,
    thresholds: Vec<Vec<Hit>>,
}

/// A detection that counts: in which image, and whether it is a true positive.
#[derive(Debug, Clone, Copy)]
struct Hit {
    image: u32,
    is_true_positive: bool,
}

impl Resampled {
    /// Matches `detections` as [`crate::CocoMetrics`] does: all areas, at most 100 detections of a category in an image.
    ///
    /// # Errors
    /// As [`crate::Evaluator::evaluate`].
    pub fn new(ground_truth: &Dataset, detections: &[Detection]) -> Result<Self> {
        let eval = matched(ground_truth, detections)?;
        let slots: HashMap<u64, u32> = ground_truth.images().iter().map(|image| image.id).zip(0..).collect();
        let all = eval.params.area_ranges.iter().find(|a| a.label == "all").map(|a| a.range);
        let steps = eval.params.iou_thrs.len();
        let mut classes: HashMap<u64, (Class, Vec<Scored>)> = HashMap::new();
        for cell in eval.eval_imgs().iter().flatten().filter(|cell| Some(cell.area_rng) == all) {
            let image = *slots.get(&cell.image_id).ok_or_else(|| {
                Error::Metrics(format!(
                    "the library speaks of image {}, which the ground truth does not list",
                    cell.image_id
                ))
            })?;
            let (class, scored) = classes.entry(cell.category_id).or_default();
            class.objects.resize(ground_truth.images().len(), 0);
            class.objects[image as usize] += cell.num_gt_in_denominator() as u32;
            for (d, &score) in cell.dt_scores.iter().enumerate() {
                let marks = |t| (cell.dt_matched[(t, d)], cell.dt_ignore[(t, d)]);
                scored.push(Scored { image, score, marks: (0..steps).map(marks).collect() });
            }
        }
        let class = |category: &crate::Category| {
            let (mut class, mut scored) = classes.remove(&category.id)?;
            // Images in the order of the ground truth's ids, then a stable sort: equal scores keep that order, as in pycocotools.
            scored.sort_by_key(|s| ground_truth.images()[s.image as usize].id);
            scored.sort_by(|a, b| b.score.total_cmp(&a.score));
            let at = |t: usize| {
                let counts = scored.iter().filter(|s| !s.marks[t].1);
                counts.map(|s| Hit { image: s.image, is_true_positive: s.marks[t].0 }).collect()
            };
            class.thresholds = (0..steps).map(at).collect();
            Some(class)
        };
        let classes = ground_truth.categories().iter().filter_map(class).collect();
        Ok(Self { images: ground_truth.images().len(), recalls: eval.params.rec_thrs.clone(), classes })
    }

    /// Number of images of the ground truth.
    pub fn images(&self) -> usize {
        self.images
    }

    /// COCO's AP (IoU 0.50:0.95, all areas, 100 detections) where image i of the ground truth stands `counts[i]` times; images beyond
    /// the end of `counts` stand nowhere. -1 where nothing that was drawn holds an object.
    pub fn ap(&self, counts: &[u32]) -> f64 {
        let (mut sum, mut known) = (0.0, 0usize);
        for class in &self.classes {
            let objects: u64 = class.objects.iter().zip(counts).map(|(&n, &c)| u64::from(n) * u64::from(c)).sum();
            if objects == 0 {
                continue;
            }
            for hits in &class.thresholds {
                sum += self.precision(hits, objects, counts);
                known += 1;
            }
        }
        if known == 0 { -1.0 } else { sum / known as f64 }
    }

    /// The mean over the recall steps of the highest precision from there on.
    ///
    /// Only true positives raise the recall and the envelope, and of copies of one image the last is the most precise, so the
    /// copies can be walked in one step.
    fn precision(&self, hits: &[Hit], objects: u64, counts: &[u32]) -> f64 {
        let (mut true_positives, mut false_positives) = (0u64, 0u64);
        let mut curve: Vec<(f64, f64)> = Vec::new();
        for hit in hits {
            let count = u64::from(counts.get(hit.image as usize).copied().unwrap_or(0));
            if count == 0 {
                continue;
            }
            if hit.is_true_positive {
                true_positives += count;
                let precision = true_positives as f64 / ((true_positives + false_positives) as f64 + EPS);
                curve.push((true_positives as f64 / objects as f64, precision));
            } else {
                false_positives += count;
            }
        }
        let mut highest = 0.0f64;
        for (_, precision) in curve.iter_mut().rev() {
            highest = highest.max(*precision);
            *precision = highest;
        }
        let mut at = 0;
        let mut sum = 0.0;
        for &recall in &self.recalls {
            while curve.get(at).is_some_and(|point| point.0 < recall) {
                at += 1;
            }
            sum += curve.get(at).map_or(0.0, |point| point.1);
        }
        sum / self.recalls.len().max(1) as f64
    }
}

/// A detection with its marks at each IoU threshold: matched, ignored.
struct Scored {
    image: u32,
    score: f64,
    marks: Vec<(bool, bool)>,
}
