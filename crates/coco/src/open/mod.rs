//! From a folder to its training and held-out splits: what is in it, which format, whose split.

pub(crate) mod coco;
pub(crate) mod data_folder;
pub(crate) mod find_image;
pub(crate) mod fits;
pub(crate) mod hold_out;
pub(crate) mod index;
pub(crate) mod item;
mod kept_folders;
pub(crate) mod labelled;
pub(crate) mod list_lines;
mod listed;
pub(crate) mod named;
mod open_dir;
pub(crate) mod roles;
mod shared;
pub(crate) mod sides;
pub(crate) mod sniff;

pub use hold_out::split_by_name;
pub use listed::{Listed, ListedImage, listed};
pub use open_dir::{Splits, annotation_file, open_annotations, open_dir};
