//! A trained detector, rebuilt from its checkpoint alone.

use std::path::Path;

use candle_core::Device;
use docent_coco::{Category, Resize, Rgb8};
use docent_detect::{Detection, FasterRcnn, FasterRcnnConfig, ImageBatch};

use crate::checkpoint::{Checkpoint, CheckpointMeta, load_checkpoint};
use crate::data::SIZE_DIVISOR;
use crate::evaluate::to_original;
use crate::{Error, ParamStore, Result};

/// A detector with what it takes to use it.
pub struct Detector {
    /// The model; plain tensors, no graph is built for it.
    pub model: FasterRcnn,
    /// Its tensors.
    pub store: ParamStore,
    /// What the checkpoint says of itself: categories of the classes 1, 2, ..., recipe, step.
    pub meta: CheckpointMeta,
    /// How its images are resized.
    pub resize: Resize,
    /// SHA-256 of the checkpoint.
    pub sha256: String,
}

impl Detector {
    /// Loads `path` strictly: the tensors must be exactly those of the architecture in its metadata.
    ///
    /// # Errors
    /// When the file is no checkpoint of ours, is damaged, lacks a tensor, has one too many or of another shape (all are listed).
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_checkpoint(path, load_checkpoint(path)?)
    }

    /// [`Self::load`] from a checkpoint that was read before; `path` names it in messages.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_checkpoint(path: &Path, checkpoint: Checkpoint) -> Result<Self> {
        let Checkpoint { tensors, meta, sha256 } = checkpoint;
        let config: FasterRcnnConfig = meta.model_as(path)?;
        let resize: Resize = meta.resize_as(path)?;
        resize.validate().map_err(|e| Error::file(path, format!("the checkpoint's {e}")))?;
        if config.classes != meta.categories.len() + 1 {
            let (classes, named) = (config.classes, meta.categories.len());
            return Err(Error::file(path, format!("{classes} classes with the background, but {named} categories")));
        }
        let probe = ParamStore::probe(&Device::Cpu);
        // What is wrong with a configuration is wrong with this file.
        FasterRcnn::new(&config, probe.var_builder()).map_err(|e| Error::file(path, e.to_string()))?;
        probe.check(&tensors).into_result(path.display().to_string())?;
        let store = ParamStore::frozen_all(0, &Device::Cpu);
        store.load(tensors);
        let model = FasterRcnn::new(&config, store.var_builder())?;
        Ok(Self { model, store, meta, resize, sha256 })
    }

    /// Detects objects in one picture; boxes in its own pixels, best first.
    ///
    /// # Errors
    /// When the picture cannot be resized.
    pub fn detect(&self, image: &Rgb8) -> Result<Vec<Detection>> {
        let planes = self.resize.apply(image)?;
        let size = (planes.height, planes.width);
        let batch = ImageBatch::from_planes(&[(size.0, size.1, &planes.data)], SIZE_DIVISOR, &Device::Cpu)?;
        let mut found = self.model.detect(&batch)?.remove(0);
        for detection in &mut found {
            detection.bbox = to_original(detection.bbox, size, (image.height, image.width));
        }
        Ok(found)
    }

    /// A class's category.
    pub fn category(&self, label: u32) -> Option<&Category> {
        self.meta.categories.get((label as usize).checked_sub(1)?)
    }
}
