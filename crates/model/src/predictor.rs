//! A trained detector, rebuilt from its checkpoint alone.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use docent_coco::{Category, Resize, Rgb8};
use docent_detect::{BoxXyxy, Detection, Detector, ImageBatch, Registry, Size};

use crate::checkpoint::{Checkpoint, CheckpointMeta, load_checkpoint};
use crate::error::{Error, Result};
use crate::params::ParamStore;

/// Feature maps go down to 1/32 (C5), so images are padded to multiples of it.
pub const SIZE_DIVISOR: usize = 32;

/// A detector and everything that is needed to use it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Predictor {
    /// The model. Its tensors are frozen, so no graph is built.
    pub model: Arc<dyn Detector>,
    /// The model's tensors by name.
    pub store: ParamStore,
    /// What the checkpoint says of itself: categories of the classes 1, 2, ..., recipe, step.
    pub meta: CheckpointMeta,
    /// How its images are resized.
    pub resize: Resize,
    /// SHA-256 of the checkpoint.
    pub sha256: String,
}

impl Predictor {
    /// Loads `path` strictly: the tensors must be exactly those of the architecture in its metadata, which `registry` must hold.
    ///
    /// # Errors
    /// When the file is no checkpoint of ours, is damaged, is of an architecture that the registry does not hold, lacks a tensor, has
    /// one too many or of another shape (all are listed).
    pub fn load(path: &Path, registry: &Registry) -> Result<Self> {
        Self::from_checkpoint(path, load_checkpoint(path)?, registry)
    }

    /// [`Self::load`] from a checkpoint that was read before; `path` names it in messages.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_checkpoint(path: &Path, checkpoint: Checkpoint, registry: &Registry) -> Result<Self> {
        let Checkpoint { tensors, meta, sha256 } = checkpoint;
        let config = meta.detector(path)?;
        let resize = meta.resizing(path)?;
        if config.classes() != meta.categories.len() + 1 {
            let (classes, named) = (config.classes(), meta.categories.len());
            return Err(Error::file(path, format!("{classes} classes with the background, but {named} categories")));
        }
        let probe = ParamStore::probe(&Device::Cpu);
        // What is wrong with a configuration is wrong with this file.
        let wanted = registry.detector(&config, probe.var_builder()).map_err(|e| Error::file(path, e.to_string()))?;
        probe.check(&tensors).into_result(path.display().to_string())?;
        // The list of layers tells buffers, which are no parameters.
        let store = ParamStore::frozen_all(0, &Device::Cpu).with_layers(wanted.layers(), 0);
        store.load(tensors);
        let model = registry.detector(&config, store.var_builder())?;
        Ok(Self { model, store, meta, resize, sha256 })
    }

    /// Detects objects in one image: best first, boxes `[x1, y1, x2, y2]` in pixels of `image`.
    ///
    /// # Errors
    /// An image without pixels; errors of the model.
    pub fn detect(&self, image: &Rgb8) -> Result<Vec<Detection>> {
        let planes = self.resize.apply(image)?;
        let size = Size::new(planes.height, planes.width);
        let batch = ImageBatch::from_planes(&[(size, &planes.data)], SIZE_DIVISOR, &Device::Cpu)?;
        let Ok([mut found]) = <[Vec<Detection>; 1]>::try_from(self.model.detect(&batch)?) else {
            let message = "the detector must give one list of detections for one image".to_owned();
            return Err(docent_detect::Error::Input { stage: "detect", message }.into());
        };
        for detection in &mut found {
            detection.bbox = to_original(detection.bbox, size, Size::new(image.height, image.width));
        }
        Ok(found)
    }

    /// The category of a detection's label; None for the background (0) and for labels that the model does not have.
    pub fn category(&self, label: u32) -> Option<&Category> {
        self.meta.categories.get((label as usize).checked_sub(1)?)
    }

    /// The name of a class, or its number where the checkpoint has none for it.
    pub fn class_name(&self, label: u32) -> String {
        self.category(label).map_or_else(|| format!("class {label}"), |category| category.name.clone())
    }
}

/// A box in pixels of the resized image, in pixels of the original one. Each axis has its own ratio, as in torchvision's
/// `resize_boxes`.
pub fn to_original(bbox: BoxXyxy, resized: Size, original: Size) -> BoxXyxy {
    let y = original.height as f32 / resized.height as f32;
    let x = original.width as f32 / resized.width as f32;
    [bbox[0] * x, bbox[1] * y, bbox[2] * x, bbox[3] * y]
}
