//! Detections, and COCO results files of them.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::atomic::write_atomic;
use crate::error::{Error, Result};
use crate::loose::whole;

/// One detection, as in a COCO results file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// The image's id in the annotations.
    #[serde(deserialize_with = "whole")]
    pub image_id: u64,
    /// The category's id in the annotations (not the label).
    #[serde(deserialize_with = "whole")]
    pub category_id: u64,
    /// `[x, y, width, height]` in pixels of the original image.
    pub bbox: [f64; 4],
    /// The higher, the surer.
    pub score: f64,
}

/// Reads detections: a JSON list of them (COCO's results format), or an object with such a list under `annotations`. Other keys
/// are passed over.
///
/// # Errors
/// A file that cannot be read or holds neither.
pub fn read_results(path: &Path) -> Result<Vec<Detection>> {
    let bytes = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
    parse_results(&bytes, path)
}

/// [`read_results`] from bytes; `path` names them in messages.
///
/// # Errors
/// As [`read_results`].
pub fn parse_results(bytes: &[u8], path: &Path) -> Result<Vec<Detection>> {
    parse(bytes, path)
}

/// [`parse_results`] into any form of detections.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<Vec<T>> {
    #[derive(Deserialize)]
    #[serde(bound = "T: DeserializeOwned")]
    struct Wrapped<T> {
        annotations: Vec<T>,
    }
    let is_list = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let read = if is_list {
        serde_json::from_slice(bytes)
    } else {
        serde_json::from_slice(bytes).map(|w: Wrapped<T>| w.annotations)
    };
    read.map_err(|source| Error::Json {
        path: path.to_owned(),
        expected: "a COCO results file (a list of image_id, category_id, bbox, score, or an object with it under annotations)",
        source,
    })
}

/// Writes detections as a COCO results file, whole or not at all, which [`read_results`] and pycocotools read.
///
/// # Errors
/// A file that cannot be written.
pub fn write_results(path: &Path, detections: &[Detection]) -> Result<()> {
    write(path, detections)
}

/// [`write_results`] of any form of detections.
pub(crate) fn write<T: Serialize>(path: &Path, detections: &[T]) -> Result<()> {
    let text = serde_json::to_vec(detections).map_err(|source| Error::Json {
        path: path.to_owned(),
        expected: "writable as JSON",
        source,
    })?;
    write_atomic(path, &text)
}
