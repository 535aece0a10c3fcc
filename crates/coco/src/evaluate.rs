//! Detections against ground truth: the twelve COCO figures and each class's AP, behind one trait.

use std::collections::HashSet;
use std::path::Path;

use hotcoco::params::IouType;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::atomic::write_atomic;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::loose::whole;

/// One detection, as in a COCO results file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// The image's id in the annotations.
    #[serde(deserialize_with = "whole")]
    pub image_id: u64,
    /// The category's id in the annotations (not the label).
    #[serde(deserialize_with = "whole")]
    pub category_id: u64,
    /// `[x, y, width, height]` in pixels of the original image.
    pub bbox: [f64; 4],
    /// The higher, the surer.
    pub score: f64,
}

/// Scores detections.
pub trait Evaluator {
    /// Compares detections with the ground truth of a split. No detections at all is a valid case: every figure with ground truth is 0.
    ///
    /// # Errors
    /// Detections that cannot be scored: of an unlisted image or category, or with numbers that are not finite.
    fn evaluate(&self, ground_truth: &Dataset, detections: &[Detection]) -> Result<Metrics>;
}

/// The figures of one category; -1 where there is no ground truth to score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassMetrics {
    /// The category's name.
    pub name: String,
    /// The category's id.
    pub category_id: u64,
    /// AP over IoU 0.50 to 0.95, all areas, 100 detections an image.
    pub ap: f64,
    /// The same at IoU 0.50.
    pub ap50: f64,
    /// The same at IoU 0.75.
    pub ap75: f64,
    /// Recall over IoU 0.50 to 0.95, all areas, 100 detections an image.
    pub ar: f64,
    /// Annotated objects, crowds apart.
    pub objects: usize,
    /// Detections, also those beyond the hundred of an image.
    pub detections: usize,
}

/// The names of [`Metrics::stats`], in order.
pub const STAT_NAMES: [&str; 12] =
    ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"];

/// COCO's figures, each between 0 and 1, or -1 where there is no ground truth to score (as pycocotools has it).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// In the order of [`STAT_NAMES`], pycocotools' own.
    pub stats: [f64; 12],
    /// In the order of the categories' ids.
    pub per_class: Vec<ClassMetrics>,
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident = $at:literal;)*) => {
        impl Metrics {
            $($(#[$doc])* pub fn $name(&self) -> f64 { self.stats[$at] })*
        }
    };
}
accessors! {
    /// Mean AP over IoU 0.50 to 0.95 and all categories with ground truth.
    ap = 0;
    /// AP at IoU 0.50.
    ap50 = 1;
    /// AP at IoU 0.75.
    ap75 = 2;
    /// AP of objects under 32² pixels.
    ap_small = 3;
    /// AP of objects between 32² and 96² pixels.
    ap_medium = 4;
    /// AP of objects over 96² pixels.
    ap_large = 5;
    /// Mean recall with one detection an image.
    ar1 = 6;
    /// Mean recall with ten detections an image.
    ar10 = 7;
    /// Mean recall with a hundred detections an image.
    ar100 = 8;
    /// Mean recall of small objects.
    ar_small = 9;
    /// Mean recall of medium objects.
    ar_medium = 10;
    /// Mean recall of large objects.
    ar_large = 11;
}

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

/// Reads detections: a JSON list of them (COCO's results format), or an object with such a list under `annotations`. Other keys
/// are passed over.
///
/// # Errors
/// A file that cannot be read or holds neither.
pub fn read_results(path: &Path) -> Result<Vec<Detection>> {
    let bytes = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
    parse_results(&bytes, path)
}

/// [`read_results`] from bytes; `path` names them in messages.
///
/// # Errors
/// As [`read_results`].
pub fn parse_results(bytes: &[u8], path: &Path) -> Result<Vec<Detection>> {
    parse(bytes, path)
}

/// [`parse_results`] into any form of detections.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<Vec<T>> {
    #[derive(Deserialize)]
    #[serde(bound = "T: DeserializeOwned")]
    struct Wrapped<T> {
        annotations: Vec<T>,
    }
    let is_list = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let read = if is_list {
        serde_json::from_slice(bytes)
    } else {
        serde_json::from_slice(bytes).map(|w: Wrapped<T>| w.annotations)
    };
    read.map_err(|source| Error::Json {
        path: path.to_owned(),
        expected: "a COCO results file (a list of image_id, category_id, bbox, score, or an object with it under annotations)",
        source,
    })
}

/// Writes detections as a COCO results file, whole or not at all, which [`read_results`] and pycocotools read.
///
/// # Errors
/// A file that cannot be written.
pub fn write_results(path: &Path, detections: &[Detection]) -> Result<()> {
    write(path, detections)
}

/// [`write_results`] of any form of detections.
pub(crate) fn write<T: Serialize>(path: &Path, detections: &[T]) -> Result<()> {
    let text = serde_json::to_vec(detections).map_err(|source| Error::Json {
        path: path.to_owned(),
        expected: "writable as JSON",
        source,
    })?;
    write_atomic(path, &text)
}
