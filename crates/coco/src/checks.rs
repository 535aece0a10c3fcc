//! What is wrong with a set of annotations, each fault with its file, image id and annotation id.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::finding::{Finding, FindingKind};
use crate::policy::CheckConfig;
use crate::types::{Annotation, Category, Image};

/// How far a box may reach over the image's border without being listed, in pixels: annotation tools round, and the ground truth is
/// clipped in any case.
pub const OUTSIDE_TOLERANCE: f64 = 1.0;

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

    for annotation in annotations {
        let (image, id) = (Some(annotation.image_id), Some(annotation.id));
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

/// For formats with a file for each image: puts the image's own file into each finding, and the object's place in it before what it
/// says. `places` has the text of a place by annotation id.
pub(crate) fn locate(findings: &mut [Finding], files: &HashMap<u64, &Path>, places: &HashMap<u64, String>) {
    for finding in findings {
        if let Some(path) = finding.image_id.and_then(|id| files.get(&id)) {
            finding.file = path.to_path_buf();
        }
        if let Some(place) = finding.annotation_id.and_then(|id| places.get(&id)) {
            finding.detail = format!("{place}{}", finding.detail);
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
