//! What is wrong with a set of annotations, each fault with its file, image id and annotation id.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::policy::CheckConfig;
use crate::types::{Annotation, Category, Image};

/// How far a box may reach over the image's border without being listed, in pixels: annotation tools round, and the truth is
/// clipped in any case.
pub const OUTSIDE_TOLERANCE: f64 = 1.0;

/// A kind of fault. What is done about it is a [`Policy`](crate::Policy) of [`CheckConfig`](crate::CheckConfig), under the key
/// that [`Self::key`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// A box without area.
    DegenerateBox,
    /// A box that reaches more than [`OUTSIDE_TOLERANCE`] over the image's border.
    OutsideBox,
    /// Two annotations with one id.
    DuplicateAnnotation,
    /// Two images with one id.
    DuplicateImage,
    /// Two categories with one id or one name: which is meant cannot be told.
    DuplicateCategory,
    /// An annotation of an image that the file does not list.
    UnlistedImage,
    /// An annotation of a category that the file does not list.
    UnknownCategory,
    /// An image whose width or height is 0 in the annotations.
    EmptyImage,
    /// A file, or a line of one, that is no annotation of its format (PASCAL VOC's XML, YOLO's text).
    BrokenAnnotation,
    /// An image file that is not there.
    MissingImage,
    /// An image file of another size than the annotations say.
    SizeMismatch,
    /// An image file that cannot be decoded.
    UnreadableImage,
}

impl FindingKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::DegenerateBox,
        Self::OutsideBox,
        Self::DuplicateAnnotation,
        Self::DuplicateImage,
        Self::DuplicateCategory,
        Self::UnlistedImage,
        Self::UnknownCategory,
        Self::EmptyImage,
        Self::BrokenAnnotation,
        Self::MissingImage,
        Self::SizeMismatch,
        Self::UnreadableImage,
    ];

    /// The key of [`CheckConfig`](crate::CheckConfig) that decides about it; `None` where it always stops.
    pub fn key(self) -> Option<&'static str> {
        match self {
            Self::DegenerateBox => Some("degenerate"),
            Self::OutsideBox => Some("outside"),
            Self::DuplicateAnnotation | Self::DuplicateImage => Some("duplicate_id"),
            Self::UnlistedImage => Some("unlisted_image"),
            Self::UnknownCategory => Some("unknown_category"),
            Self::MissingImage => Some("missing_image"),
            Self::SizeMismatch => Some("size_mismatch"),
            Self::UnreadableImage => Some("unreadable_image"),
            Self::DuplicateCategory | Self::EmptyImage | Self::BrokenAnnotation => None,
        }
    }

    /// A few words for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DegenerateBox => "box without area",
            Self::OutsideBox => "box outside its image",
            Self::DuplicateAnnotation => "duplicate annotation id",
            Self::DuplicateImage => "duplicate image id",
            Self::DuplicateCategory => "duplicate category",
            Self::UnlistedImage => "annotation of an unlisted image",
            Self::UnknownCategory => "annotation of an unknown category",
            Self::EmptyImage => "image of size 0",
            Self::BrokenAnnotation => "unreadable annotation",
            Self::MissingImage => "missing image file",
            Self::SizeMismatch => "image of another size than annotated",
            Self::UnreadableImage => "unreadable image file",
        }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What kind of fault.
    pub kind: FindingKind,
    /// The annotation file that says it.
    pub file: PathBuf,
    /// The image it concerns.
    pub image_id: Option<u64>,
    /// The annotation it concerns.
    pub annotation_id: Option<u64>,
    /// The values at fault.
    pub detail: String,
}

impl Finding {
    /// The finding without its file: kind, ids, values.
    pub(crate) fn describe(&self) -> String {
        let mut text = self.kind.name().to_owned();
        if let Some(id) = self.image_id {
            text.push_str(&format!(", image id {id}"));
        }
        if let Some(id) = self.annotation_id {
            text.push_str(&format!(", annotation id {id}"));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.describe())
    }
}

/// All faults of a set of annotations, in the order of the file: categories, images, annotations.
///
/// # Example
/// ```
/// use docent_coco::{Annotation, Category, FindingKind, Image, checks};
/// let images = [Image { id: 1, file_name: "a.png".into(), width: 10, height: 10 }];
/// let categories = [Category { id: 3, name: "cat".into() }];
/// let flat = Annotation { id: 9, image_id: 1, category_id: 3, bbox: [2.0, 2.0, 0.0, 5.0], area: 0.0, iscrowd: false };
/// let findings = checks("a.json".as_ref(), &images, &[flat], &categories);
/// assert_eq!(findings[0].kind, FindingKind::DegenerateBox);
/// assert_eq!(findings[0].annotation_id, Some(9));
/// ```
pub fn checks(file: &Path, images: &[Image], annotations: &[Annotation], categories: &[Category]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |kind, image_id, annotation_id, detail: String| {
        findings.push(Finding { kind, file: file.to_owned(), image_id, annotation_id, detail });
    };

    let mut category_ids = HashSet::with_capacity(categories.len());
    let mut names = HashSet::with_capacity(categories.len());
    for category in categories {
        if !category_ids.insert(category.id) || !names.insert(category.name.as_str()) {
            let detail = format!("id {}, name {:?}", category.id, category.name);
            add(FindingKind::DuplicateCategory, None, None, detail);
        }
    }

    let mut sizes = HashMap::with_capacity(images.len());
    for image in images {
        match sizes.entry(image.id) {
            Entry::Vacant(entry) => {
                entry.insert((f64::from(image.width), f64::from(image.height)));
            }
            // The first one stays; boxes are measured against that.
            Entry::Occupied(_) => {
                let detail = format!("file_name {:?}", image.file_name);
                add(FindingKind::DuplicateImage, Some(image.id), None, detail);
            }
        }
        if image.width == 0 || image.height == 0 {
            let detail = format!("{:?} is {}x{}", image.file_name, image.width, image.height);
            add(FindingKind::EmptyImage, Some(image.id), None, detail);
        }
    }

    let mut ids = HashSet::with_capacity(annotations.len());
    for annotation in annotations {
        let (image, id) = (Some(annotation.image_id), Some(annotation.id));
        if !ids.insert(annotation.id) {
            add(FindingKind::DuplicateAnnotation, image, id, String::new());
        }
        if !category_ids.contains(&annotation.category_id) {
            let detail = format!("category id {}", annotation.category_id);
            add(FindingKind::UnknownCategory, image, id, detail);
        }
        let Some(&(width, height)) = sizes.get(&annotation.image_id) else {
            add(FindingKind::UnlistedImage, image, id, String::new());
            continue;
        };
        if annotation.is_degenerate() {
            let detail = format!("[x, y, width, height] = {:?}", annotation.bbox);
            add(FindingKind::DegenerateBox, image, id, detail);
        } else if is_outside(&annotation.bbox, width, height) {
            let detail = format!("[x, y, width, height] = {:?} in an image of {width}x{height}", annotation.bbox);
            add(FindingKind::OutsideBox, image, id, detail);
        }
    }
    findings
}

/// For formats with a file for each image: puts the image's own file into each finding, and the object's line and class before what
/// it says. Annotation `id`, counted from 1 over all files, stands at `places[id - 1]`.
pub(crate) fn locate(findings: &mut [Finding], files: &HashMap<u64, &Path>, places: &[(u32, &str)]) {
    for finding in findings {
        if let Some(path) = finding.image_id.and_then(|id| files.get(&id)) {
            finding.file = path.to_path_buf();
        }
        if let Some((line, name)) = finding.annotation_id.and_then(|id| places.get((id as usize).checked_sub(1)?)) {
            finding.detail = format!("line {line}, {name:?} {}", finding.detail);
        }
    }
}

/// Whether a box `[x, y, width, height]` reaches over the border by more than [`OUTSIDE_TOLERANCE`].
pub(crate) fn is_outside([x, y, w, h]: &[f64; 4], width: f64, height: f64) -> bool {
    *x < -OUTSIDE_TOLERANCE
        || *y < -OUTSIDE_TOLERANCE
        || x + w > width + OUTSIDE_TOLERANCE
        || y + h > height + OUTSIDE_TOLERANCE
}

/// Findings as a few lines for a log: each kind with its number, what was done, and the first `shown` of it.
pub fn summarize(findings: &[Finding], config: &CheckConfig, shown: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for kind in FindingKind::ALL {
        let of_kind: Vec<&Finding> = findings.iter().filter(|f| f.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        lines.push(format!("{} x {} ({})", of_kind.len(), kind.name(), config.policy(kind).name()));
        lines.extend(of_kind.iter().take(shown).map(|f| format!("  {f}")));
        if of_kind.len() > shown {
            lines.push(format!("  and {} more", of_kind.len() - shown));
        }
    }
    lines
}
