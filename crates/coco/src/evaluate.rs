//! The trait that scores detections against ground truth, and COCO's figures, which it gives.

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::Result;
use crate::results::Detection;

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
