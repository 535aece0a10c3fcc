//! What a reader of annotations hands on: images and objects as the files have them, before sizes and box readings are settled.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::box_reading::BoxReading;
use crate::finding::{Finding, FindingKind};
use crate::types::Category;

/// One image of the annotations.
#[derive(Debug, Clone)]
pub(crate) struct FoundImage {
    /// Unique in its [`Found`].
    pub id: u64,
    /// Path below [`Found::image_root`], or an absolute path.
    pub file_name: String,
    /// Width and height, where the annotations have them.
    pub size: Option<(u32, u32)>,
    /// The file of its own that says what is in the image; `None` where one file serves all images.
    pub annotation_file: Option<PathBuf>,
}

/// One object of the annotations.
#[derive(Debug, Clone)]
pub(crate) struct FoundObject {
    /// Unique in its [`Found`].
    pub id: u64,
    pub image_id: u64,
    /// 0 where the class is not known: no category has that id in formats without ids.
    pub category_id: u64,
    /// Four numbers as [`Self::reading`] says.
    pub numbers: [f64; 4],
    /// Where the format itself says what the numbers are (a polygon's points, say): that. `None`: the folder's reading.
    pub reading: Option<BoxReading>,
    /// The area that the annotations give, in pixels.
    pub area: Option<f64>,
    pub crowd: bool,
    /// The line in the image's annotation file, from 1; 0 where there is none.
    pub line: u32,
}

/// The images and objects of one annotation file, or of one folder of them.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// A short name.
    pub name: String,
    /// The annotation file or folder.
    pub source: PathBuf,
    /// The folder that file names are relative to.
    pub image_root: PathBuf,
    pub images: Vec<FoundImage>,
    pub objects: Vec<FoundObject>,
    pub categories: Vec<Category>,
    /// Names of classes that are no category, by the ids that objects have for them; for messages.
    pub other_classes: HashMap<u64, String>,
    pub findings: Vec<Finding>,
    /// The reading of boxes that is the format's own.
    pub reading: BoxReading,
    /// SHA-256 of the annotation file, where there is one.
    pub digest: Option<String>,
}

impl Found {
    /// Nothing yet.
    pub fn new(name: String, source: &Path, image_root: &Path, reading: BoxReading) -> Self {
        Self {
            name,
            source: source.to_owned(),
            image_root: image_root.to_owned(),
            images: Vec::new(),
            objects: Vec::new(),
            categories: Vec::new(),
            other_classes: HashMap::new(),
            findings: Vec::new(),
            reading,
            digest: None,
        }
    }

    /// The file of image `i`.
    pub fn path(&self, i: usize) -> PathBuf {
        self.image_root.join(&self.images[i].file_name)
    }

    /// The file that says what is in image `i`.
    pub fn file_of(&self, i: usize) -> &Path {
        self.images[i].annotation_file.as_deref().unwrap_or(&self.source)
    }

    /// Lists a fault of image `i`.
    pub fn fault(&mut self, kind: FindingKind, i: usize, detail: String) {
        let (file, id) = (self.file_of(i).to_owned(), self.images[i].id);
        self.findings.push(Finding { kind, file, image_id: Some(id), annotation_id: None, detail });
    }
}
