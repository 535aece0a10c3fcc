//! What a data set is made of, before its faults are dealt with.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::finding::{Finding, FindingKind};
use crate::types::{Annotation, Category, Image};

/// What a data set is made of, before it is checked.
pub(crate) struct Parts {
    pub name: String,
    pub source: PathBuf,
    pub image_root: PathBuf,
    pub images: Vec<Image>,
    pub annotations: Vec<Annotation>,
    pub categories: Vec<Category>,
    /// As [`Dataset::annotation_files`].
    pub annotation_files: Vec<PathBuf>,
    /// For each image whether it is turned as its EXIF orientation says.
    pub upright: Vec<bool>,
    /// SHA-256 of the annotation file, where there is one.
    pub digest: Option<String>,
}

impl Parts {
    /// Takes out the images and annotations that `findings` list and whose policy was not `error`.
    pub fn drop_faults(&mut self, findings: &[Finding]) {
        use FindingKind::{MissingImage, SizeMismatch, UnknownCategory, UnlistedImage, UnreadableImage};
        let of_image = |f: &Finding| matches!(f.kind, MissingImage | SizeMismatch | UnreadableImage);
        let gone: HashSet<u64> = findings.iter().filter(|f| of_image(f)).filter_map(|f| f.image_id).collect();
        let contradicts = |f: &Finding| matches!(f.kind, UnlistedImage | UnknownCategory);
        if gone.is_empty() && !findings.iter().any(contradicts) {
            return;
        }
        let keep: Vec<bool> = self.images.iter().map(|image| !gone.contains(&image.id)).collect();
        retain_by(&mut self.images, &keep);
        retain_by(&mut self.upright, &keep);
        if !self.annotation_files.is_empty() {
            retain_by(&mut self.annotation_files, &keep);
        }
        let images: HashSet<u64> = self.images.iter().map(|image| image.id).collect();
        let categories: HashSet<u64> = self.categories.iter().map(|c| c.id).collect();
        self.annotations.retain(|a| images.contains(&a.image_id) && categories.contains(&a.category_id));
    }
}

/// Keeps the items whose flag is set.
fn retain_by<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut flags = keep.iter();
    items.retain(|_| flags.next().copied().unwrap_or(true));
}
