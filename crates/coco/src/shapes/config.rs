//! How much of the data set to make: its version, sizes and splits.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::setters::setters;

/// Version of the generator. A change of any bit it makes is a new number here and in `shapes.lock`.
pub const VERSION: u32 = 1;

/// Most images a split can have: file names and ids have room for so many.
const MOST_IMAGES: usize = 99_999;

/// How much of the data set to make, and from which seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ShapesConfig {
    /// Training images; default 800.
    pub train: usize,
    /// Validation images; default 200.
    pub val: usize,
    /// Seed of all scenes; default 0. It is not the seed of a training: runs of several seeds share one data set.
    pub seed: u64,
}

setters!(ShapesConfig { train: usize, val: usize, seed: u64 });

impl ShapesConfig {
    /// The data set that `shapes.lock` describes.
    pub const DEFAULT: Self = Self { train: 800, val: 200, seed: 0 };

    /// Checks the numbers.
    ///
    /// # Errors
    /// When a split has no image or more than 99 999.
    pub fn validate(&self) -> Result<()> {
        for (split, images) in [(Split::Train, self.train), (Split::Val, self.val)] {
            if images == 0 || images > MOST_IMAGES {
                return Err(Error::Config(format!(
                    "shapes: {} = {images} images; give 1 to {MOST_IMAGES}",
                    split.name()
                )));
            }
        }
        Ok(())
    }

    /// Images of a split.
    pub fn images(&self, split: Split) -> usize {
        match split {
            Split::Train => self.train,
            Split::Val => self.val,
        }
    }
}

impl Default for ShapesConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// One half of the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// What models learn from.
    Train,
    /// What they are measured on.
    Val,
}

impl Split {
    /// Both, in the order of the digest.
    pub const ALL: [Self; 2] = [Self::Train, Self::Val];

    /// The name in paths: `train` or `val`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
        }
    }

    /// COCO's id of image `index`; the ids of the two splits never meet.
    pub fn image_id(self, index: usize) -> u64 {
        let first = match self {
            Self::Train => 1,
            Self::Val => MOST_IMAGES as u64 + 2,
        };
        first + index as u64
    }

    /// What the generators of this split's images are keyed by.
    pub(super) fn purpose(self) -> String {
        format!("shapes/{VERSION}/{}", self.name())
    }
}
