//! The crate's error.

use std::io;
use std::path::{Path, PathBuf};

use crate::holder::Holder;

/// What can go wrong around recipes, runs and studies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// A loss or gradient of a run is not a number any more; the last checkpoint is the last good one.
    #[error("run {run}, {source}")]
    Diverged {
        /// The run's name.
        run: String,
        /// The step and what was found.
        source: Box<docent_train::Error>,
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
    /// An error of a training.
    #[error(transparent)]
    Train(Box<docent_train::Error>),
    /// An error of parameters, settings and model files.
    #[error(transparent)]
    Model(Box<docent_model::Error>),
    /// The data set's error.
    #[error(transparent)]
    Coco(#[from] docent_coco::Error),
    /// The detector's error.
    #[error(transparent)]
    Detect(#[from] docent_detect::Error),
    /// The distillation's error.
    #[error(transparent)]
    Distill(#[from] docent_distill::Error),
    /// candle's own error.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<docent_train::Error> for Error {
    fn from(error: docent_train::Error) -> Self {
        match error {
            docent_train::Error::Model(error) => Self::Model(error),
            docent_train::Error::Coco(error) => Self::Coco(error),
            docent_train::Error::Detect(error) => Self::Detect(error),
            docent_train::Error::Distill(error) => Self::Distill(error),
            docent_train::Error::Candle(error) => Self::Candle(error),
            error => Self::Train(Box::new(error)),
        }
    }
}

impl From<docent_model::Error> for Error {
    fn from(error: docent_model::Error) -> Self {
        Self::Model(Box::new(error))
    }
}

impl Error {
    /// An error of reading or writing `path`.
    pub fn io(path: &Path, source: io::Error) -> Self {
        docent_model::Error::io(path, source).into()
    }

    /// An error in the content of `path`.
    pub fn file(path: &Path, message: impl Into<String>) -> Self {
        docent_model::Error::file(path, message).into()
    }

    /// JSON in `path` that cannot be read, or a value that cannot be written there.
    pub fn json(path: &Path, source: serde_json::Error) -> Self {
        docent_model::Error::json(path, source).into()
    }

    /// An error about one parameter.
    pub fn param(name: impl Into<String>, message: impl Into<String>) -> Self {
        docent_model::Error::param(name, message).into()
    }

    /// An error about one setting.
    pub fn config(field: impl Into<String>, message: impl Into<String>) -> Self {
        docent_model::Error::config(field, message).into()
    }

    /// The error of run `run` after `step` steps: names the run where the error alone does not.
    pub(crate) fn in_run(error: impl Into<Self>, run: &str, step: usize) -> Self {
        match error.into() {
            Self::Train(error) => match *error {
                docent_train::Error::Cancelled => Self::Stopped { run: run.to_owned(), step },
                docent_train::Error::Diverged { .. } => Self::Diverged { run: run.to_owned(), source: error },
                _ => Self::Train(error),
            },
            error => error,
        }
    }

    /// Whether the system could not read or write a file.
    pub fn is_io(&self) -> bool {
        matches!(self, Self::Model(error) if matches!(**error, docent_model::Error::Io { .. }))
    }
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;
