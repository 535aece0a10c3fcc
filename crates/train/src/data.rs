//! From a recipe's data section to splits, loaders and batches of tensors.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use docent_coco::{Augment, Dataset, Loader, LoaderConfig, Splits, TrainItem, shapes};
use docent_detect::{ImageBatch, Targets};
use serde::{Deserialize, Serialize};

use crate::recipe::{DataRecipe, Source};
use crate::weights::sha256_hex;
use crate::{Error, Result};

/// Feature maps go down to 1/32 (C5), so images are padded to multiples of it.
pub const SIZE_DIVISOR: usize = 32;

/// The two splits of an experiment.
#[derive(Debug, Clone)]
pub struct Data {
    /// Where the data comes from: `shapes v1`, or the folder's name.
    pub name: String,
    /// Training split.
    pub train: Arc<Dataset>,
    /// Held-out split, the one that is reported.
    pub val: Arc<Dataset>,
    /// Lines about how the folder was read, for the run's log.
    pub notes: Vec<String>,
}

/// What a summary says of its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataSummary {
    /// As [`Data::name`].
    pub name: String,
    /// SHA-256 of both splits' digests ([`Dataset::digest`]), one after the other.
    pub digest: String,
    /// Number of images: training, held out.
    pub images: [usize; 2],
}

impl Data {
    /// Opens (for `shapes`: makes, where it is not there yet) the data of `recipe`.
    ///
    /// # Errors
    /// When there is no data folder, or what it holds cannot be used; see [`docent_coco::open_dir`].
    pub fn open(recipe: &DataRecipe) -> Result<Self> {
        let dir = recipe
            .dir
            .as_deref()
            .ok_or_else(|| Error::Recipe("data.dir is not set: name the data folder with --data DIR".to_owned()))?;
        let (name, splits) = match recipe.source {
            Source::Shapes => {
                let splits = shapes::generate(dir, &shapes::ShapesConfig::default())?;
                (format!("shapes v{}", shapes::VERSION), splits)
            }
            Source::Folder => (folder_name(dir), docent_coco::open_dir(dir, &recipe.open_options())?),
        };
        // A study whose teacher cannot learn, or whose students cannot be scored, is stopped before its first step.
        splits.require_targets()?;
        let Splits { mut train, mut val, notes, .. } = splits;
        if let Some(limit) = recipe.limit.filter(|limit| *limit < train.len()) {
            train = train.subset(&(0..limit).collect::<Vec<_>>());
        }
        if recipe.eval_on_train {
            val = train.clone();
        }
        for (split, key) in [(&train, "training"), (&val, "held-out")] {
            if split.is_empty() {
                return Err(Error::Recipe(format!("the {key} split of {} holds no image", dir.display())));
            }
        }
        Ok(Self { name, train: Arc::new(train), val: Arc::new(val), notes })
    }

    /// Name, digest and sizes, for manifests and summaries.
    pub fn summary(&self) -> DataSummary {
        let digest = sha256_hex(self.train.digest() + &self.val.digest());
        DataSummary { name: self.name.clone(), digest, images: [self.train.len(), self.val.len()] }
    }
}

fn folder_name(dir: &Path) -> String {
    dir.file_name().map_or_else(|| dir.display().to_string(), |n| n.to_string_lossy().into_owned())
}

/// The loader of training batches.
///
/// # Errors
/// When its threads cannot be started.
pub fn train_loader(data: &Data, recipe: &DataRecipe, batch: usize, seed: u64) -> Result<Loader> {
    loader(Arc::clone(&data.train), recipe, batch, seed, true)
}

/// A loader that walks `dataset` in order, unflipped.
///
/// # Errors
/// When its threads cannot be started.
pub fn eval_loader(dataset: &Arc<Dataset>, recipe: &DataRecipe, batch: usize) -> Result<Loader> {
    loader(Arc::clone(dataset), recipe, batch, 0, false)
}

fn loader(dataset: Arc<Dataset>, recipe: &DataRecipe, batch: usize, seed: u64, training: bool) -> Result<Loader> {
    let config = LoaderConfig::default()
        .resize(recipe.resize)
        .flip(if training { recipe.flip } else { 0.0 })
        .augment(if training { recipe.augment.clone() } else { Augment::default() })
        .batch(batch)
        .threads(recipe.loader_threads)
        .prefetch(recipe.prefetch)
        .seed(seed)
        .shuffle(training);
    Ok(Loader::new(dataset, config)?)
}

/// One step's input: pixels, truth and where it came from.
pub struct Batch {
    /// Pixels and true sizes.
    pub images: ImageBatch,
    /// True boxes in pixels of the resized image, one entry an image.
    pub targets: Vec<Targets>,
    /// Image ids, for messages and for keyed randomness.
    pub ids: Vec<u64>,
}

impl Batch {
    /// Pads `items` to one size and stacks them.
    ///
    /// # Errors
    /// When `items` is empty or the tensor cannot be made.
    pub fn new(items: &[TrainItem], device: &Device) -> Result<Self> {
        let planes: Vec<_> =
            items.iter().map(|i| (i.planes.height, i.planes.width, i.planes.data.as_slice())).collect();
        Ok(Self {
            images: ImageBatch::from_planes(&planes, SIZE_DIVISOR, device)?,
            targets: items.iter().map(|i| Targets { boxes: i.boxes.clone(), labels: i.labels.clone() }).collect(),
            ids: items.iter().map(|i| i.key.image_id).collect(),
        })
    }
}
