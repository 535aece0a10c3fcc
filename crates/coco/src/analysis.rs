//! What stands behind COCO's figures: precision over recall, kinds of error, each image's AP and each detection's verdict.

use std::collections::HashMap;

use hotcoco::metrics::counts::average_precision;
use serde::{Deserialize, Serialize};

use crate::coco_metrics::{figures, free_left, matched, mean_of_known};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::evaluate::Metrics;
use crate::results::Detection;

/// A detection that overlaps an object by less than this (IoU) is on background, in the analysis of errors.
pub const BACKGROUND_IOU: f64 = 0.1;

/// The IoU from which on a detection is a true positive, in the matches and in the analysis of errors.
const MATCH_IOU: f64 = 0.5;

/// Everything that one matching of detections with ground truth can tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// COCO's figures.
    pub metrics: Metrics,
    /// Precision over recall: IoU 0.50, IoU 0.75, and the mean over 0.50 to 0.95.
    pub curves: [Curve; 3],
    /// What AP50 is lost to.
    pub errors: Errors,
    /// One for each image, in the ground truth's order.
    pub images: Vec<ImageScore>,
    /// One for each detection, in the list's order.
    pub matches: Vec<DetectionMatch>,
}

/// Precision at the 101 recalls 0, 0.01, ..., 1: the highest that is reached there or further on, mean over the categories with
/// ground truth, all areas, at most 100 detections of a category in an image. Its mean is the AP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The IoU; `None` is the mean over 0.50 to 0.95.
    pub iou: Option<f64>,
    /// At recall i / 100; -1 where there is no ground truth.
    pub precision: Vec<f64>,
}

/// A kind of error, as TIDE has them (Bolya et al., arXiv 2008.08115): a false positive is of the first kind that fits, in the order
/// place, class, duplicate, background, both; the last kind is an object that was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// On an object (IoU of at least 0.5), but of another class.
    Class,
    /// Of the correct class, but an IoU between 0.1 and 0.5.
    Place,
    /// Of another class, and an IoU between 0.1 and 0.5.
    Both,
    /// Right, but a surer detection has the object already.
    Duplicate,
    /// An IoU of at most 0.1 with every object.
    Background,
    /// An object that no detection found, nor nearly found (by an error of class or place).
    Missed,
}

impl ErrorKind {
    /// Every kind, in TIDE's order.
    pub const ALL: [Self; 6] = [Self::Class, Self::Place, Self::Both, Self::Duplicate, Self::Background, Self::Missed];

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Class => "class",
            Self::Place => "place",
            Self::Both => "both",
            Self::Duplicate => "duplicate",
            Self::Background => "background",
            Self::Missed => "missed",
        }
    }

    /// What it means, in a line.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Class => "on an object (IoU >= 0.5), but of another class",
            Self::Place => "of the correct class, but out of place (IoU 0.1 to 0.5)",
            Self::Both => "of another class and out of place",
            Self::Duplicate => "a second box on an object that was found",
            Self::Background => "on no object (IoU <= 0.1)",
            Self::Missed => "an object that was not found, nor nearly",
        }
    }

    /// The library's (and tidecv's) name.
    fn key(self) -> &'static str {
        match self {
            Self::Class => "Cls",
            Self::Place => "Loc",
            Self::Both => "Both",
            Self::Duplicate => "Dupe",
            Self::Background => "Bkg",
            Self::Missed => "Miss",
        }
    }
}

/// How much one kind of error costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ErrorShare {
    /// Which kind.
    pub kind: ErrorKind,
    /// How often.
    pub count: u64,
    /// AP50 that would be gained if all errors of this kind, and no others, were corrected. The kinds do not add up to 1 - AP50.
    pub cost: f64,
}

/// What AP50 is lost to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// AP at IoU 0.50, all areas: what the costs are added to.
    pub ap50: f64,
    /// In the order of [`ErrorKind::ALL`].
    pub kinds: Vec<ErrorShare>,
    /// AP50 that would be gained without any false positive.
    pub false_positives: f64,
    /// AP50 that would be gained if every object that was not found were not there.
    pub false_negatives: f64,
}

impl Errors {
    /// A kind's cost as a share of all kinds' costs; 0 where nothing is lost.
    pub fn share(&self, kind: ErrorKind) -> f64 {
        let sum: f64 = self.kinds.iter().map(|k| k.cost).sum();
        let own = self.kinds.iter().find(|k| k.kind == kind).map_or(0.0, |k| k.cost);
        if sum > 0.0 { own / sum } else { 0.0 }
    }
}

/// One image's figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ImageScore {
    /// The image's id.
    pub image_id: u64,
    /// Its annotated objects, crowds apart.
    pub objects: usize,
    /// The AP (IoU 0.50 to 0.95) of this image alone, its detections of all classes ranked together, each matched with objects of its
    /// class; `None` where there is no object. Other than the mean over classes, it counts detections of absent classes as wrong.
    pub ap: Option<f64>,
}

/// What a detection is at IoU 0.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetectionMatch {
    /// It found an object.
    TruePositive,
    /// It found none, or one that a surer detection has.
    FalsePositive,
    /// It does not count: inside a crowd, or beyond the hundred surest of its class in the image.
    Ignored,
}

/// Matches detections with ground truth as [`crate::CocoMetrics`] does and looks at the result from every side.
///
/// # Errors
/// As [`crate::Evaluator::evaluate`].
pub fn analyze(ground_truth: &Dataset, detections: &[Detection]) -> Result<Analysis> {
    let mut eval = matched(ground_truth, detections)?;
    let metrics = figures(ground_truth, detections, &mut eval)?;
    let errors = errors(&eval)?;
    let curves = [Some(MATCH_IOU), Some(0.75), None].map(|iou| curve(&eval, iou));
    let (images, matches) = one_by_one(ground_truth, detections.len(), &eval);
    drop(eval);
    free_left();
    Ok(Analysis { metrics, curves, errors, images, matches })
}

fn curve(eval: &hotcoco::COCOeval, iou: Option<f64>) -> Curve {
    let Some(acc) = eval.accumulated() else {
        return Curve { iou, precision: Vec::new() };
    };
    let area = eval.params.area_ranges.iter().position(|a| a.label == "all").unwrap_or(0);
    let cap = acc.shape.m.saturating_sub(1);
    let wanted = |t: &usize| iou.is_none_or(|iou| (eval.params.iou_thrs[*t] - iou).abs() < 1e-9);
    let at = |r: usize| {
        let thresholds = (0..acc.shape.t).filter(wanted);
        let each = |t| (0..acc.shape.k).map(move |k| acc.precision[acc.precision_idx(t, r, k, area, cap)]);
        mean_of_known(thresholds.flat_map(each))
    };
    Curve { iou, precision: (0..acc.shape.r).map(at).collect() }
}

fn errors(eval: &hotcoco::COCOeval) -> Result<Errors> {
    let tide = eval.tide_errors(MATCH_IOU, BACKGROUND_IOU).map_err(|e| Error::Metrics(e.to_string()))?;
    let cost = |key: &str| tide.delta_ap.get(key).copied().unwrap_or(0.0);
    let kind = |kind: ErrorKind| ErrorShare {
        kind,
        count: tide.counts.get(kind.key()).copied().unwrap_or(0),
        // -0 is 0.
        cost: cost(kind.key()) + 0.0,
    };
    Ok(Errors {
        ap50: tide.ap_base,
        kinds: ErrorKind::ALL.map(kind).to_vec(),
        false_positives: cost("FP"),
        false_negatives: cost("FN"),
    })
}

/// One image's detections, class by class: scores, and (matched, ignored) at each IoU.
#[derive(Default)]
struct OfImage {
    objects: usize,
    scores: Vec<f64>,
    marks: Vec<Vec<(bool, bool)>>,
}

fn one_by_one(
    ground_truth: &Dataset,
    detections: usize,
    eval: &hotcoco::COCOeval,
) -> (Vec<ImageScore>, Vec<DetectionMatch>) {
    let steps = eval.params.iou_thrs.len();
    let at_match_iou = eval.params.iou_thrs.iter().position(|t| (t - MATCH_IOU).abs() < 1e-9).unwrap_or(0);
    let all = eval.params.area_ranges.iter().find(|a| a.label == "all").map(|a| a.range);
    // What no cell holds is beyond its image's hundred.
    let mut matches = vec![DetectionMatch::Ignored; detections];
    let mut images: HashMap<u64, OfImage> = HashMap::new();
    for cell in eval.eval_imgs().iter().flatten().filter(|cell| Some(cell.area_rng) == all) {
        let image = images.entry(cell.image_id).or_default();
        image.objects += cell.num_gt_in_denominator();
        for (d, &score) in cell.dt_scores.iter().enumerate() {
            let marks: Vec<_> = (0..steps).map(|t| (cell.dt_matched[(t, d)], cell.dt_ignore[(t, d)])).collect();
            // The library numbers the detections from 1.
            let slot = cell.dt_ids.get(d).and_then(|id| matches.get_mut((*id as usize).checked_sub(1)?));
            if let (Some(slot), Some(&(matched, ignored))) = (slot, marks.get(at_match_iou)) {
                *slot = match (ignored, matched) {
                    (true, _) => DetectionMatch::Ignored,
                    (false, true) => DetectionMatch::TruePositive,
                    (false, false) => DetectionMatch::FalsePositive,
                };
            }
            image.scores.push(score);
            image.marks.push(marks);
        }
    }
    let score = |image: &crate::Image| {
        let own = images.remove(&image.id).unwrap_or_default();
        let at = |t: usize| {
            let (matched, ignored): (Vec<bool>, Vec<bool>) = own.marks.iter().map(|m| m[t]).unzip();
            average_precision(&own.scores, &matched, Some(&ignored), own.objects, &eval.params.rec_thrs)
        };
        let ap = (own.objects > 0).then(|| (0..steps).map(at).sum::<f64>() / steps.max(1) as f64);
        ImageScore { image_id: image.id, objects: own.objects, ap }
    };
    (ground_truth.images().iter().map(score).collect(), matches)
}
