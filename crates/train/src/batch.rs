//! Loaded images as one batch of tensors.

use candle_core::Device;
use docent_coco::TrainItem;
use docent_detect::{ImageBatch, Size, Target};
use docent_model::SIZE_DIVISOR;

use crate::error::Result;

/// One step's input: pixels, ground truth and where it came from.
pub struct Batch {
    /// Pixels and true sizes.
    pub images: ImageBatch,
    /// Ground-truth boxes in pixels of the resized image, one entry an image.
    pub targets: Vec<Target>,
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
            items
                .iter()
                .map(|i| (Size::new(i.planes.height, i.planes.width), i.planes.data.as_slice()))
                .collect();
        Ok(Self {
            images: ImageBatch::from_planes(&planes, SIZE_DIVISOR, device)?,
            targets: items.iter().map(|i| Target { boxes: i.boxes.clone(), labels: i.labels.clone() }).collect(),
            ids: items.iter().map(|i| i.image_id).collect(),
        })
    }
}
