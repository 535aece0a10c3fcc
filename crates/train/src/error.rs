//! The crate's error.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::lock::Holder;
use crate::weights::StrictReport;

/// What can go wrong around a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {source}{}", path.display(), hint(path, source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's word on it.
        source: io::Error,
    },
    /// A file is there, but its content is not what it should be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and the way out.
        message: String,
    },
    /// Tensors do not fit the model they were given to.
    #[error("{what} does not fit the model:\n{report}")]
    Strict {
        /// Which file or set of tensors.
        what: String,
        /// Every name that is missing, unexpected or wrongly shaped.
        report: Box<StrictReport>,
    },
    /// One parameter is not what the model or the optimizer asks for.
    #[error("parameter `{name}`: {message}")]
    Param {
        /// The parameter's full name.
        name: String,
        /// What was found, what is needed.
        message: String,
    },
    /// A recipe cannot be read or used; the text names the key and the way out.
    #[error("recipe: {0}")]
    Recipe(String),
    /// Not even one epoch of a study fits into the time that it is given.
    #[error(
        "one epoch of each run takes about {seconds:.0} s with its evaluation, and the time that is given leaves {:.0} s for that; give \
         more time, or train on fewer images (data.limit), smaller ones (data.resize) or a smaller model",
        room.max(0.0)
    )]
    NoTime {
        /// Seconds of one epoch of each run, with its evaluation.
        seconds: f64,
        /// Seconds that are left for it; below 0 where measuring took all.
        room: f64,
    },
    /// A setting has a value that cannot be used.
    #[error("`{field}`: {message}")]
    Config {
        /// The setting's path, as a recipe spells it.
        field: String,
        /// What it is, and what it may be.
        message: String,
    },
    /// A loss or gradient is not a number any more; the last checkpoint is the last good one.
    #[error(
        "run {run}, step {step}, images {images:?}: {what}; the last checkpoint was kept. Lower schedule.lr or schedule.clip, or look at these images"
    )]
    Diverged {
        /// The run's name.
        run: String,
        /// 1-based step.
        step: usize,
        /// Ids of the step's images.
        images: Vec<u64>,
        /// Which number it is.
        what: String,
    },
    /// No fault: the study stopped because it was asked to, and its state is kept.
    #[error("stopped as asked, in run {run} after step {step}; its state is kept, and --resume goes on from there")]
    Stopped {
        /// The run's name.
        run: String,
        /// Steps done.
        step: usize,
    },
    /// Another process writes into this folder.
    #[error(
        "{}: in use by {}; wait for it or stop it, or choose another --out",
        dir.display(),
        holder.as_ref().map_or_else(|| "another process".to_owned(), ToString::to_string)
    )]
    Locked {
        /// The study's folder.
        dir: PathBuf,
        /// Who it is, where its lock file tells.
        holder: Option<Box<Holder>>,
    },
    /// The data set's error.
    #[error(transparent)]
    Coco(#[from] docent_coco::Error),
    /// The detector's error.
    #[error(transparent)]
    Detect(#[from] docent_detect::Error),
    /// The distillation's error.
    #[error(transparent)]
    Distill(#[from] docent_distill::Error),
    /// An error of a tensor's values or of the backward pass.
    #[error(transparent)]
    Tensor(#[from] docent_tensor::Error),
    /// An operation's error.
    #[error(transparent)]
    Ops(#[from] docent_ops::Error),
    /// candle's own error.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// As the data's [`docent_coco::io_hint`]; a run can also go on.
fn hint(path: &Path, source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "; nothing written before is lost: make room, then go on with --resume"
        }
        _ => docent_coco::io_hint(path, source),
    }
}

impl Error {
    /// An error of reading or writing `path`.
    pub fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    /// An error in the content of `path`.
    pub fn file(path: &Path, message: impl Into<String>) -> Self {
        Self::File { path: path.to_path_buf(), message: message.into() }
    }

    /// JSON in `path` that cannot be read, or a value that cannot be written there.
    pub fn json(path: &Path, source: serde_json::Error) -> Self {
        Self::file(path, format!("JSON: {source}"))
    }

    /// An error about one parameter.
    pub fn param(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Param { name: name.into(), message: message.into() }
    }

    /// An error about one setting.
    pub fn config(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config { field: field.into(), message: message.into() }
    }
}

impl From<Error> for candle_core::Error {
    fn from(e: Error) -> Self {
        match e {
            Error::Candle(e) => e,
            Error::Tensor(e) => e.into(),
            Error::Ops(e) => e.into(),
            e => candle_core::Error::wrap(e),
        }
    }
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;
