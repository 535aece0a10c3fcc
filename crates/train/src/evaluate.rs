//! Detections of a model on a data set, and their COCO figures.

use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use docent_coco::{CocoMetrics, Dataset, Detection, Evaluator, Metrics};
use docent_detect::FasterRcnn;
use docent_ops::BoxXyxy;

use crate::data::{Batch, eval_loader};
use crate::recipe::DataRecipe;
use crate::{ParamStore, Result};

/// A model's figures on a split.
pub struct Evaluation {
    /// COCO's figures.
    pub metrics: Metrics,
    /// Every detection, in COCO's results form.
    pub detections: Vec<Detection>,
    /// Seconds that all of it took.
    pub seconds: f64,
}

/// Runs `model` over `dataset` and scores it. `progress` hears (images done, images in all).
///
/// # Errors
/// When an image cannot be read or the metrics cannot be computed.
pub fn evaluate(
    model: &FasterRcnn,
    dataset: &Arc<Dataset>,
    recipe: &DataRecipe,
    batch: usize,
    progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Evaluation> {
    evaluate_as(model, dataset, recipe, batch, |label| dataset.category_of(label), progress)
}

/// As [`evaluate`], for a model whose classes are not the data's: `category` gives a label's category id, and a detection without
/// one is dropped.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_as(
    model: &FasterRcnn,
    dataset: &Arc<Dataset>,
    recipe: &DataRecipe,
    batch: usize,
    category: impl Fn(u32) -> Option<u64>,
    mut progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Evaluation> {
    let start = Instant::now();
    let loader = eval_loader(dataset, recipe, batch)?;
    let mut detections = Vec::new();
    let mut done = 0;
    for items in loader.epoch(0) {
        let items = items?;
        let images = Batch::new(&items, &Device::Cpu)?.images;
        for (item, found) in items.iter().zip(model.detect(&images)?) {
            for d in found {
                let Some(category_id) = category(d.label) else { continue };
                let [x1, y1, x2, y2] = to_original(d.bbox, (item.planes.height, item.planes.width), item.key.original);
                detections.push(Detection {
                    image_id: item.key.image_id,
                    category_id,
                    bbox: [x1, y1, x2 - x1, y2 - y1].map(f64::from),
                    score: f64::from(d.score),
                });
            }
        }
        done += items.len();
        progress(done, dataset.len())?;
    }
    let metrics = CocoMetrics.evaluate(dataset, &detections)?;
    Ok(Evaluation { metrics, detections, seconds: start.elapsed().as_secs_f64() })
}

/// A box in pixels of the resized image, in pixels of the original one; sizes are (h, w). Each axis has its own ratio, as in
/// torchvision's `resize_boxes`.
pub fn to_original(bbox: BoxXyxy, resized: (usize, usize), original: (usize, usize)) -> BoxXyxy {
    let (y, x) = (original.0 as f32 / resized.0 as f32, original.1 as f32 / resized.1 as f32);
    [bbox[0] * x, bbox[1] * y, bbox[2] * x, bbox[3] * y]
}

/// What a model takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Parameters, frozen ones included, buffers not.
    pub params: usize,
    /// 1e9 floating-point operations of one image's inference (a multiply-add is two).
    pub gflops: f64,
    /// Median milliseconds of one image's inference at batch 1, decoding and resizing not counted.
    pub ms_per_image: f64,
}

/// Times `model` on the first `images` (at least one) of `dataset`; operations are those of the first, padded.
///
/// # Errors
/// When `dataset` is empty or an image cannot be read.
pub fn cost(
    model: &FasterRcnn,
    store: &ParamStore,
    dataset: &Dataset,
    recipe: &DataRecipe,
    images: usize,
) -> Result<Cost> {
    let first: Vec<usize> = (0..images.max(1).min(dataset.len())).collect();
    let subset = Arc::new(dataset.subset(&first));
    let mut times = Vec::new();
    let mut flops = 0;
    for items in eval_loader(&subset, recipe, 1)?.epoch(0) {
        let batch = Batch::new(&items?, &Device::Cpu)?.images;
        if times.is_empty() {
            flops = model.flops(batch.padded()?);
        }
        let start = Instant::now();
        model.detect(&batch)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(Cost { params: store.parameter_count(), gflops: flops as f64 / 1e9, ms_per_image: times[times.len() / 2] })
}
