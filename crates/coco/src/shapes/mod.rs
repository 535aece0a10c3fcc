//! `shapes`: a data set of our own, made by a program, so that a fresh clone has something worth detecting.
//!
//! Scenes of six classes (disc, ring, square, triangle, star, cross) in any direction, colour and size, one over the other, on
//! textured grounds, amid clutter that is no class (halves of shapes, bars, angles, blobs, lines, scribbles, writing), seen through
//! a camera that shades, blurs, tints and adds noise. [`generate`] writes ordinary COCO folders, which the ordinary reader reads:
//!
//! ```text
//! ROOT/shapes.json                        version, seed, sizes and digests: the mark of a complete folder
//! ROOT/annotations/instances_train.json   ROOT/train/000001.png …
//! ROOT/annotations/instances_val.json     ROOT/val/100001.png …
//! ```
//!
//! Most objects wear their class's colour, the rest any other, and clutter wears the same colours: colour is evidence and no proof.
//! All chances and sizes stand in `knobs.rs`.
//!
//! # What an annotation says
//! - `bbox` is the tight box of the object's **visible** samples (16 a pixel, so it moves in quarters of a pixel), as COCO's
//!   annotators box what they see; pixels that show less than a quarter of themselves do not count.
//! - `area` is the box's width times height. COCO's bounds stay as they are: small is under 32², large is from 96² on.
//! - An object of which less than a quarter is visible, or less than 4 pixels across, has no annotation; its rest is clutter.
//!
//! # The same bits everywhere
//! Image i of a split is a function of version, seed, split and i alone: not of the number of images or threads. Arithmetic is
//! whole numbers, and + - * / and square roots of `f32`, which IEEE 754 defines to the last bit and Rust never fuses; directions
//! come from points of the circle and not from a sine. `shapes.lock` holds the digest of the default data set, and a test makes it
//! again: **a change of the generator is a new version**.

mod camera;
mod draw;
mod figure;
mod folder;
mod knobs;
mod lock;
mod paint;
mod scene;

pub use folder::{generate, generate_with};
pub use lock::{Lock, digest, locked};

use crate::{Error, Result, Rgb8};
use serde::{Deserialize, Serialize};

/// Version of the generator. A change of any bit it makes is a new number here and in `shapes.lock`.
pub const VERSION: u32 = 1;

/// Most images a split can have: file names and ids have room for so many.
const MOST_IMAGES: usize = 99_999;

/// How much of the data set to make, and from which seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShapesConfig {
    /// Training images; default 800.
    pub train: usize,
    /// Validation images; default 200.
    pub val: usize,
    /// Seed of all scenes; default 0. It is not the seed of a training: runs of several seeds share one data set.
    pub seed: u64,
}

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
    fn purpose(self) -> String {
        format!("shapes/{VERSION}/{}", self.name())
    }
}

/// What can be detected. Some are near each other on purpose: ring and disc, cross and star, small disc and small square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A disc, or nearly one.
    Disc,
    /// A disc with a hole.
    Ring,
    /// A square, or nearly one.
    Square,
    /// A triangle.
    Triangle,
    /// A star of four, five or six points.
    Star,
    /// Two bars across each other.
    Cross,
}

impl Class {
    /// All classes, in the order of their ids.
    pub const ALL: [Self; 6] = [Self::Disc, Self::Ring, Self::Square, Self::Triangle, Self::Star, Self::Cross];

    /// The category's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disc => "disc",
            Self::Ring => "ring",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Star => "star",
            Self::Cross => "cross",
        }
    }

    /// The category's id, 1 to 6.
    pub fn id(self) -> u64 {
        self as u64 + 1
    }
}

/// An annotated object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Its class.
    pub class: Class,
    /// Tight box of its visible part: left, top, width, height in pixels.
    pub bbox: [f64; 4],
    /// Share of the whole object that is visible; what lies outside the picture counts as hidden.
    pub visible: f32,
}

impl Object {
    /// COCO's `area`: the box's width times height.
    pub fn area(&self) -> f64 {
        self.bbox[2] * self.bbox[3]
    }
}

/// Image `index` of a split and its annotated objects, bottom to top. Any index can be asked for; the data set on disk holds the
/// first `config.images(split)`.
///
/// ```
/// use docent_coco::shapes::{ShapesConfig, Split, render};
/// let (image, objects) = render(&ShapesConfig::default(), Split::Train, 0);
/// assert_eq!(image.data.len(), 3 * image.width * image.height);
/// assert!(objects.iter().all(|o| o.bbox[0] + o.bbox[2] <= image.width as f64));
/// ```
pub fn render(config: &ShapesConfig, split: Split, index: usize) -> (Rgb8, Vec<Object>) {
    scene::render(config.seed, &split.purpose(), index as u64)
}
