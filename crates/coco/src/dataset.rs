//! One split of a data set: images, their annotations, categories, and the way to the pixels.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checks::{Finding, FindingKind, checks};
use crate::decode::{Rgb8, decode_file};
use crate::error::{Error, Result};
use crate::types::{Annotation, Category, Image};

/// The three lists of a COCO file, and nothing else of it.
#[derive(Deserialize)]
struct FileIn {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Serialize)]
struct FileOut<'a> {
    images: &'a [Image],
    annotations: &'a [Annotation],
    categories: &'a [Category],
}

/// The training truth of one image: crowds and boxes without area are left out, the rest is clipped to the image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Truth {
    /// `[x1, y1, x2, y2]` in pixels of the original image, each with `x1 < x2` and `y1 < y2`.
    pub boxes: Vec<[f32; 4]>,
    /// One for each box, from 1 (0 is background): see [`Dataset::label_of`].
    pub labels: Vec<u32>,
}

/// One image with its training truth.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The pixels.
    pub image: Rgb8,
    /// As in [`Truth::boxes`].
    pub boxes: Vec<[f32; 4]>,
    /// As in [`Truth::labels`].
    pub labels: Vec<u32>,
    /// The image's id in the annotations.
    pub image_id: u64,
}

/// One split: images in the order of their file, annotations by image, categories in the order of their ids.
///
/// A *label* is a category's position plus one: 1 for the smallest id, and 0 is left for background. Images without boxes are
/// kept.
#[derive(Debug, Clone)]
pub struct Dataset {
    name: String,
    source: PathBuf,
    image_root: PathBuf,
    images: Vec<Image>,
    /// Grouped by image, in the images' order; within an image in the order of the file.
    annotations: Vec<Annotation>,
    /// Image `i` owns `annotations[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
    categories: Vec<Category>,
    findings: Vec<Finding>,
    digest: OnceLock<String>,
}

impl Dataset {
    /// Reads a COCO annotation file (`images`, `annotations`, `categories`) whose image files lie below `images`.
    ///
    /// Image files are not touched. Faults that make the file's meaning doubtful (see [`FindingKind::stops_load`]) are an
    /// error; the others stay listed in [`Self::findings`].
    ///
    /// # Errors
    /// A file that cannot be read, is not such JSON, or contradicts itself; the message names it and each fault's ids.
    pub fn load(json: &Path, images: &Path) -> Result<Self> {
        let bytes = std::fs::read(json).map_err(|e| Error::file("read", json, e))?;
        let file: FileIn = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
            path: json.to_owned(),
            expected: "a COCO annotation file (an object with images, annotations and categories)",
            source,
        })?;
        let name = json.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
        let dataset =
            Self::build(name, json.to_owned(), images.to_owned(), file.images, file.annotations, file.categories)?;
        let _ = dataset.digest.set(hex_digest(&bytes));
        Ok(dataset)
    }

    /// Makes a data set from its parts, under the same checks as [`Self::load`].
    ///
    /// # Errors
    /// Parts that contradict each other.
    pub fn from_parts(
        name: impl Into<String>,
        image_root: impl Into<PathBuf>,
        images: Vec<Image>,
        annotations: Vec<Annotation>,
        categories: Vec<Category>,
    ) -> Result<Self> {
        let name = name.into();
        let source = PathBuf::from(&name);
        Self::build(name, source, image_root.into(), images, annotations, categories)
    }

    fn build(
        name: String,
        source: PathBuf,
        image_root: PathBuf,
        images: Vec<Image>,
        mut annotations: Vec<Annotation>,
        mut categories: Vec<Category>,
    ) -> Result<Self> {
        let findings = checks(&source, &images, &annotations, &categories);
        let (fatal, findings): (Vec<_>, Vec<_>) = findings.into_iter().partition(|f| f.kind.stops_load());
        if !fatal.is_empty() {
            return Err(Error::Annotations { path: source, findings: fatal });
        }
        categories.sort_by_key(|c| c.id);
        let index: HashMap<u64, usize> = images.iter().enumerate().map(|(i, im)| (im.id, i)).collect();
        // Every id is known by now; a stable sort keeps the file's order within an image.
        annotations.sort_by_cached_key(|a| index.get(&a.image_id).copied());
        let mut starts = vec![0usize; images.len() + 1];
        for annotation in &annotations {
            if let Some(&i) = index.get(&annotation.image_id) {
                starts[i + 1] += 1;
            }
        }
        for i in 0..images.len() {
            starts[i + 1] += starts[i];
        }
        Ok(Self {
            name,
            source,
            image_root,
            images,
            annotations,
            starts,
            categories,
            findings,
            digest: OnceLock::new(),
        })
    }

    /// A short name: the annotation file's, without its extension.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The annotation file this was read from (the name, where it was made from parts).
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The folder that the images' file names are relative to.
    pub fn image_root(&self) -> &Path {
        &self.image_root
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// All images, in the order of the file.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// The image at position `i`.
    ///
    /// # Panics
    /// When `i` is not below [`Self::len`], as indexing a slice does.
    pub fn image(&self, i: usize) -> &Image {
        &self.images[i]
    }

    /// The file of image `i`.
    ///
    /// # Panics
    /// When `i` is not below [`Self::len`].
    pub fn image_path(&self, i: usize) -> PathBuf {
        self.image_root.join(&self.images[i].file_name)
    }

    /// All annotations of image `i`, crowds and faulty boxes too, in the order of the file.
    ///
    /// # Panics
    /// When `i` is not below [`Self::len`].
    pub fn annotations(&self, i: usize) -> &[Annotation] {
        &self.annotations[self.starts[i]..self.starts[i + 1]]
    }

    /// All annotations, by image.
    pub fn all_annotations(&self) -> &[Annotation] {
        &self.annotations
    }

    /// The categories in the order of their ids.
    pub fn categories(&self) -> &[Category] {
        &self.categories
    }

    /// The categories' names; the name of label `l` stands at `l - 1`.
    pub fn class_names(&self) -> Vec<String> {
        self.categories.iter().map(|c| c.name.clone()).collect()
    }

    /// The label (from 1) of a category id; `None` for an id that is not listed.
    pub fn label_of(&self, category_id: u64) -> Option<u32> {
        self.categories.binary_search_by_key(&category_id, |c| c.id).ok().map(|i| i as u32 + 1)
    }

    /// The category id of a label (from 1); `None` for 0 (background) and for labels past the last.
    pub fn category_of(&self, label: u32) -> Option<u64> {
        let position = usize::try_from(label).ok()?.checked_sub(1)?;
        self.categories.get(position).map(|c| c.id)
    }

    /// Faults that did not stop the load: boxes without area and boxes outside their image.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many annotations, crowds apart, are left out of the training truth because no box remains of them.
    pub fn dropped_boxes(&self) -> usize {
        let kept: usize = (0..self.len()).map(|i| self.truth(i).boxes.len()).sum();
        let crowds = self.annotations.iter().filter(|a| a.iscrowd).count();
        self.annotations.len() - crowds - kept
    }

    /// Looks for each image's file and lists those that are not there (one file-system call an image).
    pub fn missing_images(&self) -> Vec<Finding> {
        let missing = |(i, image): (usize, &Image)| {
            let path = self.image_path(i);
            (!path.is_file()).then(|| Finding {
                kind: FindingKind::MissingImage,
                file: self.source.clone(),
                image_id: Some(image.id),
                annotation_id: None,
                detail: path.display().to_string(),
            })
        };
        self.images.iter().enumerate().filter_map(missing).collect()
    }

    /// The training truth of image `i`, clipped to the image.
    ///
    /// # Panics
    /// When `i` is not below [`Self::len`].
    pub fn truth(&self, i: usize) -> Truth {
        let image = &self.images[i];
        let (width, height) = (f64::from(image.width), f64::from(image.height));
        let mut truth = Truth::default();
        for annotation in self.annotations(i) {
            let Some(label) = self.label_of(annotation.category_id) else {
                continue;
            };
            if annotation.iscrowd || annotation.is_degenerate() {
                continue;
            }
            let [x, y, w, h] = annotation.bbox;
            let corners = [
                x.clamp(0.0, width) as f32,
                y.clamp(0.0, height) as f32,
                (x + w).clamp(0.0, width) as f32,
                (y + h).clamp(0.0, height) as f32,
            ];
            if has_area(&corners) {
                truth.boxes.push(corners);
                truth.labels.push(label);
            }
        }
        truth
    }

    /// Decodes image `i` and gives it with its training truth.
    ///
    /// # Errors
    /// An image file that is missing, cannot be decoded, or has another size than its annotations say.
    ///
    /// # Panics
    /// When `i` is not below [`Self::len`].
    pub fn sample(&self, i: usize) -> Result<Sample> {
        let path = self.image_path(i);
        let info = &self.images[i];
        let image = decode_file(&path)?;
        let expected = (info.width as usize, info.height as usize);
        if (image.width, image.height) != expected {
            return Err(Error::SizeMismatch {
                path,
                image_id: info.id,
                decoded: (image.width, image.height),
                expected,
            });
        }
        let Truth { boxes, labels } = self.truth(i);
        Ok(Sample { image, boxes, labels, image_id: info.id })
    }

    /// SHA-256, in hexadecimal, of the annotation file's bytes as read; of [`Self::to_json`] where there was no file (parts and
    /// subsets).
    pub fn digest(&self) -> String {
        self.digest.get_or_init(|| hex_digest(self.to_json().as_bytes())).clone()
    }

    /// The images at the given positions, in that order, with their annotations and all categories. Positions past the end and
    /// repeated ones are passed over.
    pub fn subset(&self, positions: &[usize]) -> Self {
        let mut seen = vec![false; self.len()];
        let mut images = Vec::with_capacity(positions.len());
        let mut annotations = Vec::new();
        let mut starts = vec![0];
        for &i in positions {
            if i < self.len() && !std::mem::replace(&mut seen[i], true) {
                images.push(self.images[i].clone());
                annotations.extend_from_slice(self.annotations(i));
                starts.push(annotations.len());
            }
        }
        let ids: std::collections::HashSet<u64> = images.iter().map(|im| im.id).collect();
        let findings =
            self.findings.iter().filter(|f| f.image_id.is_some_and(|id| ids.contains(&id))).cloned().collect();
        Self {
            name: self.name.clone(),
            source: self.source.clone(),
            image_root: self.image_root.clone(),
            images,
            annotations,
            starts,
            categories: self.categories.clone(),
            findings,
            digest: OnceLock::new(),
        }
    }

    /// The annotations as COCO JSON: `images`, `annotations`, `categories`, nothing else. The same data gives the same bytes.
    pub fn to_json(&self) -> String {
        let file = FileOut { images: &self.images, annotations: &self.annotations, categories: &self.categories };
        // Maps with string keys and plain numbers: serialisation has nothing to fail on (a number that is not finite becomes
        // null, and does not load again).
        serde_json::to_string(&file).unwrap_or_default()
    }

    /// Writes [`Self::to_json`] to a file, making its folder where that is missing. [`Self::load`] reads it back.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| Error::file("create", parent, e))?;
        }
        std::fs::write(path, self.to_json()).map_err(|e| Error::file("write", path, e))
    }

    pub(crate) fn with_name(mut self, name: String) -> Self {
        self.name = name;
        self
    }

    pub(crate) fn with_image_root(mut self, root: PathBuf) -> Self {
        self.image_root = root;
        self
    }
}

/// Whether an xyxy box has area in f32.
pub(crate) fn has_area(b: &[f32; 4]) -> bool {
    b[0] < b[2] && b[1] < b[3]
}

fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
