//! One split of a data set: images, their annotations, categories, and the way to the pixels.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::atomic::write_atomic;
use crate::checks::{checks, is_outside};
use crate::coco_json::{CocoJson, parse};
use crate::decode::{DecodeOptions, decode_file};
use crate::digest::hex_digest;
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::header::image_header;
use crate::parts::Parts;
use crate::policy::{CheckConfig, Policy};
use crate::rgb8::Rgb8;
use crate::types::{Annotation, Category, Image};
use crate::write_json::coco_text;

/// The ground truth for training of one image: crowds and boxes without area are left out, the rest is clipped to the image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroundTruth {
    /// `[x1, y1, x2, y2]` in pixels of the original image, each with `x1 < x2` and `y1 < y2`.
    pub boxes: Vec<[f32; 4]>,
    /// One for each box, from 1 (0 is background): see [`Dataset::label_of`].
    pub labels: Vec<u32>,
}

/// One image with its ground truth for training.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The pixels.
    pub image: Rgb8,
    /// As in [`GroundTruth::boxes`].
    pub boxes: Vec<[f32; 4]>,
    /// As in [`GroundTruth::labels`].
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
    checks: CheckConfig,
    /// One file an image, where the annotations are VOC's or YOLO's; else empty.
    annotation_files: Vec<PathBuf>,
    /// For each image whether it is turned as its EXIF orientation says.
    upright: Vec<bool>,
    digest: OnceLock<String>,
}

impl Dataset {
    /// Reads a COCO annotation file (`images`, `annotations`, `categories`) whose image files lie below `images`, under the
    /// default [`CheckConfig`]. Image files are not touched.
    ///
    /// # Errors
    /// As [`Self::load_with`].
    pub fn load(json: &Path, images: &Path) -> Result<Self> {
        Self::load_with(json, images, &CheckConfig::default())
    }

    /// [`Self::load`] with other policies. Those for image files decide when images are loaded.
    ///
    /// # Errors
    /// A file that cannot be read, is not such JSON, or has faults whose policy is `error`; the message names it and each fault's
    /// ids.
    pub fn load_with(json: &Path, images: &Path, checks: &CheckConfig) -> Result<Self> {
        let bytes = std::fs::read(json).map_err(|e| Error::file("read", json, e))?;
        Self::from_json(&bytes, json, images, checks)
    }

    /// [`Self::load_with`] from bytes; `json` names them in messages.
    ///
    /// # Errors
    /// As [`Self::load_with`].
    pub fn from_json(bytes: &[u8], json: &Path, images: &Path, policies: &CheckConfig) -> Result<Self> {
        let CocoJson { images: entries, objects, categories, digest, mut findings, .. } = parse(bytes, json)?;
        let mut sized = Vec::with_capacity(entries.len());
        for image in entries {
            // A file without sizes may have its images at hand.
            let size = image.size.or_else(|| {
                let header = image_header(&images.join(&image.file_name)).ok()?;
                Some((header.width, header.height))
            });
            let (width, height) = size.unwrap_or_default();
            sized.push(Image { id: image.id, file_name: image.file_name, width, height });
        }
        let mut annotations = Vec::with_capacity(objects.len());
        for object in objects {
            if object.numbers.iter().all(|v| v.is_finite()) {
                annotations.push(object.annotation());
            } else {
                findings.push(object.degenerate(json));
            }
        }
        let parts = Parts {
            name: stem(json),
            source: json.to_owned(),
            image_root: images.to_owned(),
            upright: vec![false; sized.len()],
            images: sized,
            annotations,
            categories,
            annotation_files: Vec::new(),
            digest: Some(digest),
        };
        findings.extend(checks(&parts.source, &parts.images, &parts.annotations, &parts.categories));
        Self::build_with(parts, findings, policies)
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
        let parts = Parts {
            source: PathBuf::from(&name),
            name,
            image_root: image_root.into(),
            upright: vec![false; images.len()],
            images,
            annotations,
            categories,
            annotation_files: Vec::new(),
            digest: None,
        };
        let findings = checks(&parts.source, &parts.images, &parts.annotations, &parts.categories);
        Self::build_with(parts, findings, &CheckConfig::default())
    }

    /// Applies the policies to `parts` with the faults that were found in them.
    pub(crate) fn build_with(mut parts: Parts, findings: Vec<Finding>, config: &CheckConfig) -> Result<Self> {
        config.validate()?;
        let (fatal, findings): (Vec<_>, Vec<_>) =
            findings.into_iter().partition(|f| config.policy(f.kind) == Policy::Error);
        if !fatal.is_empty() {
            return Err(Error::Annotations { path: parts.source, findings: fatal });
        }
        parts.categories.sort_by_key(|c| c.id);
        parts.drop_faults(&findings);
        let Parts { name, source, image_root, images, mut annotations, categories, annotation_files, upright, digest } =
            parts;
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
            checks: config.clone(),
            annotation_files,
            upright,
            digest: digest.map_or_else(OnceLock::new, OnceLock::from),
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

    /// Faults that did not stop the load, each with its file and ids: what was left out or clipped.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many annotations, crowds apart, are left out of the ground truth for training because no box remains of them.
    pub fn dropped_boxes(&self) -> usize {
        let kept: usize = (0..self.len()).map(|i| self.ground_truth(i).boxes.len()).sum();
        let crowds = self.annotations.iter().filter(|a| a.iscrowd).count();
        self.annotations.len() - crowds - kept
    }

    /// The policies that the data set was made under.
    pub fn checks(&self) -> &CheckConfig {
        &self.checks
    }

    /// The ground truth for training of image `i`, clipped to the image.
    ///
    /// # Panics
    /// When `i` is not below [`Self::len`].
    pub fn ground_truth(&self, i: usize) -> GroundTruth {
        let image = &self.images[i];
        let (width, height) = (f64::from(image.width), f64::from(image.height));
        let mut ground_truth = GroundTruth::default();
        for annotation in self.annotations(i) {
            let Some(label) = self.label_of(annotation.category_id) else {
                continue;
            };
            if annotation.iscrowd || annotation.is_degenerate() {
                continue;
            }
            if self.checks.outside == Policy::Drop && is_outside(&annotation.bbox, width, height) {
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
                ground_truth.boxes.push(corners);
                ground_truth.labels.push(label);
            }
        }
        ground_truth
    }

    /// Decodes image `i` and gives it with its ground truth for training.
    ///
    /// # Errors
    /// An image file that is missing, cannot be decoded, or has another size than its annotations say.
    ///
    /// # Panics
    /// When `i` is not below [`Self::len`].
    pub fn sample(&self, i: usize) -> Result<Sample> {
        let path = self.image_path(i);
        let info = &self.images[i];
        let image = decode_file(&path, self.decode_options(i))?;
        let expected = (info.width as usize, info.height as usize);
        if (image.width, image.height) != expected {
            return Err(Error::SizeMismatch {
                path,
                image_id: info.id,
                decoded: (image.width, image.height),
                expected,
            });
        }
        let GroundTruth { boxes, labels } = self.ground_truth(i);
        Ok(Sample { image, boxes, labels, image_id: info.id })
    }

    /// How image `i` is decoded: turned or not, and whether a cut JPEG is kept.
    pub(crate) fn decode_options(&self, i: usize) -> DecodeOptions {
        DecodeOptions { upright: self.upright[i], keep_truncated: self.checks.truncated_image == Policy::Keep }
    }

    /// Whether image `i` is turned as its EXIF orientation says; its size and boxes are those of the turned image.
    ///
    /// # Panics
    /// When `i` is not below [`Self::len`].
    pub fn is_turned(&self, i: usize) -> bool {
        self.upright[i]
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
        let mut annotation_files = Vec::new();
        let mut upright = Vec::new();
        let mut annotations = Vec::new();
        let mut starts = vec![0];
        for &i in positions {
            if i < self.len() && !std::mem::replace(&mut seen[i], true) {
                images.push(self.images[i].clone());
                annotation_files.extend(self.annotation_files.get(i).cloned());
                upright.push(self.upright[i]);
                annotations.extend_from_slice(self.annotations(i));
                starts.push(annotations.len());
            }
        }
        let ids: HashSet<u64> = images.iter().map(|im| im.id).collect();
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
            checks: self.checks.clone(),
            annotation_files,
            upright,
            digest: OnceLock::new(),
        }
    }

    /// The annotations as COCO JSON: `images`, `annotations`, `categories`, nothing else. The same data gives the same bytes.
    pub fn to_json(&self) -> String {
        coco_text(&self.images, &self.annotations, &self.categories)
    }

    /// Writes [`Self::to_json`] to a file, whole or not at all, making its folder where that is missing. [`Self::load`] reads it
    /// back.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| Error::file("create", parent, e))?;
        }
        write_atomic(path, self.to_json().as_bytes())
    }

    /// Whether each image has an annotation file of its own, as in PASCAL VOC's and YOLO's folders.
    pub fn has_annotation_files(&self) -> bool {
        !self.annotation_files.is_empty()
    }

    pub(crate) fn annotation_files(&self) -> &[PathBuf] {
        &self.annotation_files
    }

    /// The same data set with file names below `root`, a folder above its images.
    pub fn below(mut self, root: &Path) -> Self {
        let Ok(between) = self.image_root.strip_prefix(root) else { return self };
        let between: Vec<_> = between.components().map(|c| c.as_os_str().to_string_lossy()).collect();
        if !between.is_empty() {
            let between = between.join("/");
            for image in self.images.iter_mut().filter(|image| !Path::new(&image.file_name).is_absolute()) {
                image.file_name = format!("{between}/{}", image.file_name);
            }
            self.image_root = root.to_owned();
            self.digest = OnceLock::new();
        }
        self
    }

    pub(crate) fn with_findings(mut self, findings: Vec<Finding>) -> Self {
        self.findings = findings;
        self
    }

    pub(crate) fn with_name(mut self, name: String) -> Self {
        self.name = name;
        self
    }
}

/// A file's name without its extension.
fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned())
}

/// Whether an xyxy box has area in f32.
pub(crate) fn has_area(b: &[f32; 4]) -> bool {
    b[0] < b[2] && b[1] < b[3]
}
