//! Detections of a model on a data set, and their COCO figures.

use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use docent_coco::{CocoMetrics, Dataset, Detection, Evaluator, Loader, LoaderConfig, Metrics, Resize};
use docent_detect::{Detector, Size};
use docent_model::{ParamStore, to_original};

use crate::batch::Batch;
use crate::error::Result;

/// How images are loaded for an evaluation: in order, unflipped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvalLoading {
    /// The size that the network sees.
    pub resize: Resize,
    /// Threads that decode and resize.
    pub threads: usize,
    /// Batches that may wait, decoded.
    pub prefetch: usize,
}

impl EvalLoading {
    /// One thread, four batches ahead.
    pub fn new(resize: Resize) -> Self {
        Self { resize, threads: 1, prefetch: 4 }
    }

    /// A loader that walks `dataset` in order.
    ///
    /// # Errors
    /// When its threads cannot be started.
    pub fn loader(&self, dataset: &Arc<Dataset>, batch: usize) -> Result<Loader> {
        let config =
            LoaderConfig::default().resize(self.resize).batch(batch).threads(self.threads).prefetch(self.prefetch);
        Ok(Loader::new(Arc::clone(dataset), config)?)
    }
}

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
    model: &dyn Detector,
    dataset: &Arc<Dataset>,
    loading: &EvalLoading,
    batch: usize,
    progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Evaluation> {
    evaluate_as(model, dataset, loading, batch, |label| dataset.category_of(label), progress)
}

/// As [`evaluate`], for a model whose classes are not the data's: `category` gives a label's category id, and a detection without
/// one is dropped.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_as(
    model: &dyn Detector,
    dataset: &Arc<Dataset>,
    loading: &EvalLoading,
    batch: usize,
    category: impl Fn(u32) -> Option<u64>,
    mut progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Evaluation> {
    let start = Instant::now();
    let loader = loading.loader(dataset, batch)?;
    let mut detections = Vec::new();
    let mut done = 0;
    for items in loader.epoch(0) {
        let items = items?;
        let images = Batch::new(&items, &Device::Cpu)?.images;
        for (item, found) in items.iter().zip(model.detect(&images)?) {
            for d in found {
                let Some(category_id) = category(d.label) else { continue };
                let resized = Size::new(item.planes.height, item.planes.width);
                let original = Size::new(item.key.original.0, item.key.original.1);
                let [x1, y1, x2, y2] = to_original(d.bbox, resized, original);
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
    model: &dyn Detector,
    store: &ParamStore,
    dataset: &Dataset,
    loading: &EvalLoading,
    images: usize,
) -> Result<Cost> {
    let first: Vec<usize> = (0..images.max(1).min(dataset.len())).collect();
    let subset = Arc::new(dataset.subset(&first));
    let mut times = Vec::new();
    let mut flops = 0;
    for items in loading.loader(&subset, 1)?.epoch(0) {
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
