//! Loaded images as one batch of tensors.

use candle_core::Device;
use docent_coco::{ImageKey, TrainItem};
use docent_detect::{ImageBatch, Size, Target};
use docent_model::SIZE_DIVISOR;

use crate::error::Result;

/// One step's input: pixels, ground truth and where it came from.
pub struct Batch {
    /// Pixels and true sizes.
    pub images: ImageBatch,
    /// Ground-truth boxes in pixels of the resized image, one entry an image.
    pub targets: Vec<Target>,
    /// What each image is known by: its id and everything that was drawn for it.
    pub keys: Vec<ImageKey>,
}

impl Batch {
    /// Pads `items` to one size and stacks them.
    ///
    /// # Errors
    /// When `items` is empty or the tensor cannot be made.
    pub fn new(items: &[TrainItem], device: &Device) -> Result<Self> {
        let planes: Vec<_> =
            items.iter().map(|i| (Size::new(i.planes.height, i.planes.width), i.planes.data.as_slice())).collect();
        Ok(Self {
            images: ImageBatch::from_planes(&planes, SIZE_DIVISOR, device)?,
            targets: items.iter().map(|i| Target { boxes: i.boxes.clone(), labels: i.labels.clone() }).collect(),
            keys: items.iter().map(|i| i.key.clone()).collect(),
        })
    }

    /// Image ids, for messages and for keyed randomness.
    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.keys.iter().map(|key| key.image_id)
    }
}
