//! Image files against their annotations: whether each is there, can be decoded, and has the size that is annotated.

use std::collections::HashSet;
use std::path::Path;

use crate::dataset::Dataset;
use crate::decode::{DecodeOptions, decode_file, is_truncated};
use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::header::image_header;
use crate::parallel::in_order;
use crate::policy::Policy;

/// How closely [`Dataset::check_images`] looks at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageCheck {
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
    pub fn check_images(&self, check: ImageCheck) -> Vec<Finding> {
        let threads = if check == ImageCheck::Exists { 1 } else { 0 };
        in_order(self.len(), threads, |i| self.check_image(i, check)).into_iter().flatten().collect()
    }

    fn check_image(&self, i: usize, check: ImageCheck) -> Option<Finding> {
        let path = self.image_path(i);
        let image = self.image(i);
        let (kind, detail) = if is_there(&path) {
            let size = match check {
                ImageCheck::Exists => return None,
                ImageCheck::Header => image_header(&path).map(|header| {
                    let stored = (header.width, header.height);
                    let (width, height) = if self.is_turned(i) { header.upright_size() } else { stored };
                    (width as usize, height as usize)
                }),
                ImageCheck::Pixels => {
                    decode_file(&path, self.decode_options(i)).map(|image| (image.width, image.height))
                }
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
                    // A policy that keeps the image is named only where it can.
                    let kept = DecodeOptions { keep_truncated: true, ..self.decode_options(i) };
                    match is_truncated(&reason).then(|| decode_file(&path, kept)) {
                        Some(Ok(_)) => (FindingKind::TruncatedImage, format!("{}: {reason}", path.display())),
                        Some(Err(Error::Decode { reason, .. })) => {
                            (FindingKind::UnreadableImage, format!("{}: {reason}", path.display()))
                        }
                        _ => (FindingKind::UnreadableImage, format!("{}: {reason}", path.display())),
                    }
                }
                Err(e) => (FindingKind::UnreadableImage, e.to_string()),
            }
        } else {
            (FindingKind::MissingImage, path.display().to_string())
        };
        let file = self.annotation_file(i).to_owned();
        Some(Finding { kind, file, image_id: Some(image.id), annotation_id: None, detail })
    }

    /// Decodes every image and leaves out those that cannot be read.
    pub(crate) fn without_unreadable_images(self) -> Self {
        let found = self.check_images(ImageCheck::Pixels);
        let gone: HashSet<u64> = found.iter().filter_map(|f| f.image_id).collect();
        if gone.is_empty() {
            return self;
        }
        let kept: Vec<usize> = (0..self.len()).filter(|&i| !gone.contains(&self.image(i).id)).collect();
        let findings = self.findings().iter().cloned().chain(found).collect();
        self.subset(&kept).with_findings(findings)
    }

    /// Looks at every image file, and refuses what would stop a training under the data set's policies.
    ///
    /// # Errors
    /// All such faults.
    pub fn refuse_images_at_fault(&self, check: ImageCheck) -> Result<()> {
        let mut findings = self.check_images(check);
        findings.retain(|f| self.checks().policy(f.kind) == Policy::Error);
        if findings.is_empty() {
            return Ok(());
        }
        Err(Error::Annotations { path: self.source().to_owned(), findings })
    }

    /// The file that says what is in image `i`: its own (VOC's XML, YOLO's text), or the one annotation file.
    ///
    /// # Panics
    /// When `i` is not below [`Self::len`].
    pub fn annotation_file(&self, i: usize) -> &Path {
        self.annotation_files().get(i).map_or(self.source(), |path| path.as_path())
    }
}
