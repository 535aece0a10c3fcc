//! What a report needs of the runs' folders, kept beside the records: the table can be made again where the folders are not.

use std::path::{Path, PathBuf};

use docent_coco::{Dataset, Resampled, read_results};
use docent_model::files;
use docent_model::sha256_hex;
use serde::{Deserialize, Serialize};

use crate::ablate::bootstrap::{BOOTSTRAP_SAMPLES, bootstrap_ap, bootstrap_images};
use crate::ablate::record::Record;
use crate::ablate::term_shares::{self, EpochMeans};
use crate::error::{Error, Result};
use crate::manifest::FileHash;

/// Decimals of a kept AP, which is a share: a thousandth of a point.
const PLACES: f64 = 1e5;

/// One run, or a teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// SHA-256 of its detections.
    pub detections: String,
    /// Its AP on each draw of images.
    pub bootstrap_samples: Vec<f64>,
    /// What the log of a taught run says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<[EpochMeans; 3]>,
}

/// `NAME-bootstrap.jsonl`: a line for each.
pub(super) struct KeptRuns {
    path: PathBuf,
    lines: Vec<Kept>,
    images: Vec<Vec<u32>>,
    added: bool,
}

impl KeptRuns {
    /// Reads what is there. A line that cannot be read is made again, or missed.
    pub(super) fn open(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Self { path: path.to_owned(), lines, images: Vec::new(), added: false }
    }

    pub(super) fn get(&self, detections: &FileHash) -> Option<&Kept> {
        self.lines.iter().find(|kept| kept.detections == detections.sha256)
    }

    /// Takes what it does not have from the folder `dir` of the runs. Detections that are gone, or are others by now, give nothing.
    pub(super) fn take(
        &mut self,
        dir: &Path,
        val: &Dataset,
        detections: &FileHash,
        record: Option<&Record>,
    ) -> Result<()> {
        let path = dir.join(&detections.path);
        let same = || std::fs::read(&path).is_ok_and(|bytes| sha256_hex(bytes) == detections.sha256);
        if self.get(detections).is_some() || !same() {
            return Ok(());
        }
        if self.images.is_empty() {
            self.images = bootstrap_images(val.len(), BOOTSTRAP_SAMPLES);
        }
        let samples = bootstrap_ap(&Resampled::new(val, &read_results(&path)?)?, &self.images);
        self.lines.push(Kept {
            detections: detections.sha256.clone(),
            bootstrap_samples: samples.into_iter().map(|ap| (ap * PLACES).round() / PLACES).collect(),
            epochs: record.and_then(|record| term_shares::epochs(dir, record)),
        });
        self.added = true;
        Ok(())
    }

    /// Writes the file, if something is new.
    pub(super) fn write(&self) -> Result<()> {
        if !self.added {
            return Ok(());
        }
        let mut text = String::new();
        for kept in &self.lines {
            text += &serde_json::to_string(kept).map_err(|e| Error::json(&self.path, e))?;
            text.push('\n');
        }
        Ok(files::write_atomic(&self.path, text.as_bytes())?)
    }
}
