//! A run's folder: where its files lie, and whether what lies there is of these data and this teacher.

use std::path::{Path, PathBuf};

use docent_model::{files, sha256_hex};
use docent_train::events::Event;

use crate::data::DataSummary;
use crate::error::{Error, Result};
use crate::manifest::{FileHash, Manifest};
use crate::summary::RunSummary;

/// Paths of a run's folder.
#[derive(Debug, Clone)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// The folder of run `name` in a study.
    pub fn new(study: &Path, name: &str) -> Self {
        Self(study.join(name))
    }
    /// The folder at `path`.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }
    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// The reported weights.
    pub fn last(&self) -> PathBuf {
        self.0.join("checkpoints/last.safetensors")
    }
    /// The weights with the highest AP seen; never part of a comparison.
    pub fn best(&self) -> PathBuf {
        self.0.join("checkpoints/best.safetensors")
    }
    /// Optimizer, adapters and position.
    pub fn state(&self) -> PathBuf {
        self.0.join("checkpoints/last.state.safetensors")
    }
    /// The state before that one, for the day on which that one cannot be read.
    pub fn previous_state(&self) -> PathBuf {
        self.0.join("checkpoints/previous.state.safetensors")
    }
    /// The finished run's figures.
    pub fn result(&self) -> PathBuf {
        self.0.join("result.json")
    }

    /// The resolved recipe.
    pub fn recipe(&self) -> PathBuf {
        self.0.join("recipe.toml")
    }
    /// The reported weights' detections on the held-out split, in COCO's results form.
    pub fn detections(&self) -> PathBuf {
        self.0.join("detections.json")
    }

    /// Steps up to the last checkpoint, as the log tells; 0 where no run has begun.
    ///
    /// # Errors
    /// When the log is there and cannot be read.
    pub fn steps_done(&self) -> Result<usize> {
        let path = self.metrics();
        if !files::exists(&self.state())? {
            return Ok(0);
        }
        let text = files::read_lines(&path)?.unwrap_or_default();
        let step = |line: &str| match serde_json::from_str::<Event>(line) {
            Ok(Event::Checkpoint { step, .. }) => Some(step),
            _ => None,
        };
        Ok(text.lines().rev().find_map(step).unwrap_or(0))
    }

    /// What produced the run.
    pub fn manifest(&self) -> PathBuf {
        self.0.join("manifest.json")
    }
    /// TensorBoard's event file, where `log.tensorboard` is on.
    pub fn tensorboard(&self) -> PathBuf {
        self.0.join("tensorboard")
    }
    /// One line of JSON an event.
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// The figures, if the run is finished. `init` is the recipe's file of first weights: a finished run needs it no more, but where
    /// it is there, the study's other runs begin with it.
    ///
    /// # Errors
    /// When the files are there and cannot be read, or when the run was made from other data, another teacher or other first weights.
    pub fn finished(
        &self,
        data: &DataSummary,
        teacher: Option<&FileHash>,
        init: Option<&Path>,
    ) -> Result<Option<RunSummary>> {
        let path = self.result();
        if !files::exists(&path)? {
            return Ok(None);
        }
        let before = self.check_inputs(data, teacher)?;
        if let Some(init) = init.filter(|path| path.is_file()) {
            let bytes = std::fs::read(init).map_err(|e| Error::io(init, e))?;
            self.same("other first weights", hash(before.init.as_ref()), &sha256_hex(bytes))?;
        }
        Ok(Some(files::read_json(&path)?))
    }

    /// A recipe names files, and files change: is what lies here made from this data and this teacher?
    pub(super) fn check_inputs(&self, data: &DataSummary, teacher: Option<&FileHash>) -> Result<Manifest> {
        let before: Manifest = files::read_json(&self.manifest())?;
        self.same("other data", &before.data.digest, &data.digest)?;
        self.same("another teacher", hash(before.teacher.as_ref()), hash(teacher))?;
        Ok(before)
    }

    pub(super) fn same(&self, what: &str, was: &str, is: &str) -> Result<()> {
        if was == is {
            return Ok(());
        }
        let what = format!("this run began with {what} (SHA-256 there {was}, here {is}); choose another --out");
        Err(Error::file(&self.manifest(), what))
    }
}

pub(super) fn hash(file: Option<&FileHash>) -> &str {
    file.map_or("none", |f| &f.sha256)
}
