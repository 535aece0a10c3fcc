//! COCO's box metrics by the library `hotcoco`. Only with the feature `metrics`.

use std::collections::HashSet;

use hotcoco::params::IouType;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::evaluate::{ClassMetrics, Evaluator, Metrics};
use crate::results::Detection;

/// COCO's box metrics by `hotcoco`, which agrees with pycocotools to the last bit on the files that the tests have.
///
/// Matching is pycocotools': detections inside a crowd count neither as true nor as false positives, at most 100 detections of a category count
/// in an image, and equal scores keep the order of the list. Ground truth is taken as the file has it, boxes without area too.
///
/// ```
/// use docent_coco::{Annotation, Category, CocoMetrics, Dataset, Detection, Evaluator, Image};
/// # fn main() -> docent_coco::Result<()> {
/// let ground_truth = Dataset::from_parts(
///     "one cat", "images",
///     vec![Image { id: 1, file_name: "a.jpg".into(), width: 100, height: 100 }],
///     vec![Annotation { id: 1, image_id: 1, category_id: 7, bbox: [10.0, 10.0, 40.0, 40.0], area: 1600.0, iscrowd: false }],
///     vec![Category { id: 7, name: "cat".into() }],
/// )?;
/// let found = [Detection { image_id: 1, category_id: 7, bbox: [10.0, 10.0, 40.0, 40.0], score: 0.9 }];
/// let metrics = CocoMetrics.evaluate(&ground_truth, &found)?;
/// assert!((metrics.ap() - 1.0).abs() < 1e-12);
/// assert_eq!(metrics.ap_small(), -1.0); // no small object in the ground truth
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct CocoMetrics;

impl Evaluator for CocoMetrics {
    fn evaluate(&self, ground_truth: &Dataset, detections: &[Detection]) -> Result<Metrics> {
        let metrics = figures(ground_truth, detections, &mut matched(ground_truth, detections)?);
        free_left();
        metrics
    }
}

/// hotcoco leaves the freeing of long lists to rayon's pool. A caller who is the pool's only thread does it here, or nobody would.
pub(crate) fn free_left() {
    while let Some(rayon::Yield::Executed) = rayon::yield_local() {}
}

/// Accumulates matched detections into COCO's figures.
pub(crate) fn figures(
    ground_truth: &Dataset,
    detections: &[Detection],
    eval: &mut hotcoco::COCOeval,
) -> Result<Metrics> {
    eval.accumulate();
    // This one sets the figures and prints nothing.
    eval.summarize_lines();
    let stats = eval
        .stats()
        .and_then(|s| <[f64; 12]>::try_from(s).ok())
        .ok_or_else(|| Error::Metrics("the library gave no twelve figures".to_owned()))?;
    let mut per_class = per_class(ground_truth, eval);
    for class in &mut per_class {
        let objects =
            ground_truth.all_annotations().iter().filter(|a| a.category_id == class.category_id && !a.iscrowd);
        class.objects = objects.count();
        class.detections = detections.iter().filter(|d| d.category_id == class.category_id).count();
    }
    Ok(Metrics { stats, per_class })
}

/// Checks the detections and matches them with the ground truth, image by image.
pub(crate) fn matched(ground_truth: &Dataset, detections: &[Detection]) -> Result<hotcoco::COCOeval> {
    check(ground_truth, detections)?;
    let refused = |e: hotcoco::Error| Error::Metrics(e.to_string());
    let gt = hotcoco::COCO::from_dataset(hotcoco_dataset(ground_truth));
    let dt = gt.load_res_anns(detections.iter().map(result_of).collect()).map_err(refused)?;
    let mut eval = hotcoco::COCOeval::new(gt, dt, IouType::Bbox);
    eval.evaluate().map_err(refused)?;
    Ok(eval)
}

fn check(ground_truth: &Dataset, detections: &[Detection]) -> Result<()> {
    let ids: HashSet<u64> = ground_truth.images().iter().map(|image| image.id).collect();
    for (index, d) in detections.iter().enumerate() {
        let reason = if !ids.contains(&d.image_id) {
            "the ground truth does not list this image: are these results of another split?"
        } else if ground_truth.label_of(d.category_id).is_none() {
            "the ground truth does not list this category: are labels written where category ids belong?"
        } else if !d.score.is_finite() {
            "the score is not a finite number"
        } else if d.bbox.iter().any(|v| !v.is_finite()) {
            "the box is not finite"
        } else {
            continue;
        };
        return Err(Error::Detection { index, image_id: d.image_id, category_id: d.category_id, reason });
    }
    Ok(())
}

fn hotcoco_dataset(ground_truth: &Dataset) -> hotcoco::Dataset {
    let images = ground_truth.images().iter().map(|image| hotcoco::Image {
        id: image.id,
        file_name: image.file_name.clone(),
        width: image.width,
        height: image.height,
        ..Default::default()
    });
    // Ids from 1: pycocotools takes a match with annotation 0 for none, and its port may do so too.
    let annotations = (1..).zip(ground_truth.all_annotations()).map(|(id, a)| hotcoco::Annotation {
        id,
        image_id: a.image_id,
        category_id: a.category_id,
        bbox: Some(a.bbox),
        area: Some(a.area),
        iscrowd: a.iscrowd,
        ..Default::default()
    });
    let categories = ground_truth.categories().iter().map(|c| hotcoco::Category {
        id: c.id,
        name: c.name.clone(),
        ..Default::default()
    });
    hotcoco::Dataset {
        images: images.collect(),
        annotations: annotations.collect(),
        categories: categories.collect(),
        ..Default::default()
    }
}

fn result_of(d: &Detection) -> hotcoco::Annotation {
    hotcoco::Annotation {
        image_id: d.image_id,
        category_id: d.category_id,
        bbox: Some(d.bbox),
        score: Some(d.score),
        ..Default::default()
    }
}

fn per_class(ground_truth: &Dataset, eval: &hotcoco::COCOeval) -> Vec<ClassMetrics> {
    let Some(acc) = eval.accumulated() else {
        return Vec::new();
    };
    let area = eval.params.area_ranges.iter().position(|a| a.label == "all").unwrap_or(0);
    let cap = acc.shape.m.saturating_sub(1); // 1, 10, 100
    let threshold = |iou: f64| {
        let at = eval.params.iou_thrs.iter().position(|t| (t - iou).abs() < 1e-9);
        at.map_or(0..0, |t| t..t + 1)
    };
    let ap = |k: usize, thresholds: std::ops::Range<usize>| {
        mean_of_known(
            thresholds
                .flat_map(|t| (0..acc.shape.r).map(move |r| acc.precision[acc.precision_idx(t, r, k, area, cap)])),
        )
    };
    let class = |c: &crate::Category| {
        let k = acc.cat_ids.iter().position(|&id| id == c.id);
        let of = |thresholds| k.map_or(-1.0, |k| ap(k, thresholds));
        let recalls = |k| (0..acc.shape.t).map(move |t| acc.recall[acc.recall_idx(t, k, area, cap)]);
        ClassMetrics {
            name: c.name.clone(),
            category_id: c.id,
            ap: of(0..acc.shape.t),
            ap50: of(threshold(0.5)),
            ap75: of(threshold(0.75)),
            ar: k.map_or(-1.0, |k| mean_of_known(recalls(k))),
            objects: 0,
            detections: 0,
        }
    };
    ground_truth.categories().iter().map(class).collect()
}

/// The mean of the values that were computed (-1 stands for "not"), or -1.
pub(crate) fn mean_of_known(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut n) = (0.0, 0usize);
    for v in values.filter(|&v| v > -1.0) {
        sum += v;
        n += 1;
    }
    if n == 0 { -1.0 } else { sum / n as f64 }
}
