//! Image files against their annotations: whether each is there, can be decoded, and has the size that is annotated.

use std::path::Path;

use crate::checks::{Finding, FindingKind};
use crate::dataset::Dataset;
use crate::decode::{decode_file, image_size};
use crate::error::{Error, Result};
use crate::parallel::in_order;
use crate::policy::{CheckConfig, Policy};

/// How closely [`Dataset::check_images`] looks at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// Whether they are there: one call of the file system an image.
    Exists,
    /// Their sizes too: the first few kilobytes are read.
    Header,
    /// Every pixel: the whole file is decoded, on all cores.
    Pixels,
}

/// Is there something to read? A pipe is read as a file is.
pub(crate) fn is_there(path: &Path) -> bool {
    path.exists() && !path.is_dir()
}

impl Dataset {
    /// Looks at every image file and lists what is wrong, in the order of the images.
    pub fn check_images(&self, look: Look) -> Vec<Finding> {
        let threads = if look == Look::Exists { 1 } else { 0 };
        in_order(self.len(), threads, |i| self.check_image(i, look)).into_iter().flatten().collect()
    }

    fn check_image(&self, i: usize, look: Look) -> Option<Finding> {
        let path = self.image_path(i);
        let image = self.image(i);
        let (kind, detail) = if is_there(&path) {
            let size = match look {
                Look::Exists => return None,
                Look::Header => image_size(&path),
                Look::Pixels => decode_file(&path).map(|image| (image.width, image.height)),
            };
            match size {
                Ok(size) if size == (image.width as usize, image.height as usize) => return None,
                Ok((width, height)) => {
                    let detail = format!(
                        "{} is {width}x{height}, annotated as {}x{}",
                        path.display(),
                        image.width,
                        image.height
                    );
                    (FindingKind::SizeMismatch, detail)
                }
                Err(Error::Decode { reason, .. }) => {
                    (FindingKind::UnreadableImage, format!("{}: {reason}", path.display()))
                }
                Err(e) => (FindingKind::UnreadableImage, e.to_string()),
            }
        } else {
            (FindingKind::MissingImage, path.display().to_string())
        };
        let file = self.annotation_file(i).to_owned();
        Some(Finding { kind, file, image_id: Some(image.id), annotation_id: None, detail })
    }

    /// Applies the policies for image files: looks as closely as these ask for, and no closer.
    ///
    /// # Errors
    /// Files at fault whose policy is `error`; the message counts and names them.
    pub fn with_images_checked(self, config: &CheckConfig) -> Result<Self> {
        let look = if config.unreadable_image == Policy::Drop {
            Look::Pixels
        } else if config.size_mismatch == Policy::Drop {
            Look::Header
        } else {
            Look::Exists
        };
        let found = self.check_images(look);
        if found.is_empty() {
            return Ok(self);
        }
        let (fatal, dropped): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|f| config.policy(f.kind) == Policy::Error);
        if !fatal.is_empty() {
            return Err(Error::Annotations { path: self.source().to_owned(), findings: fatal });
        }
        let gone: std::collections::HashSet<u64> = dropped.iter().filter_map(|f| f.image_id).collect();
        let kept: Vec<usize> = (0..self.len()).filter(|&i| !gone.contains(&self.image(i).id)).collect();
        let findings = self.findings().iter().cloned().chain(dropped).collect();
        Ok(self.subset(&kept).with_findings(findings))
    }

    /// The file that says what is in image `i`: its own (VOC's XML, YOLO's text), or the one annotation file.
    ///
    /// # Panics
    /// When `i` is not below [`Self::len`].
    pub fn annotation_file(&self, i: usize) -> &Path {
        self.annotation_files().get(i).map_or(self.source(), |path| path.as_path())
    }
}
