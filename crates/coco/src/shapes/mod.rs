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
mod config;
mod draw;
mod figure;
mod folder;
mod knobs;
mod lock;
mod make;
mod object;
mod paint;
mod scene;

pub use config::{ShapesConfig, Split, VERSION};
pub use folder::{generate, generate_with};
pub use lock::{Lock, digest, locked};
pub use object::{Class, Object};
pub use scene::render;
