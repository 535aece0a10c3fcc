//! The crate's error.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::strict::StrictReport;

/// What can go wrong with parameters and model files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {source}{}", path.display(), hint(path, source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is there, but its content is not what it should be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
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
    /// A setting has a value that cannot be used.
    #[error("`{field}`: {message}")]
    Config {
        /// The setting's path, as a recipe spells it.
        field: String,
        /// What it is, and what it may be.
        message: String,
    },
    /// The data set's error.
    #[error(transparent)]
    Coco(#[from] docent_coco::Error),
    /// The detector's error.
    #[error(transparent)]
    Detect(#[from] docent_detect::Error),
    /// An error of a tensor's values or of the backward pass.
    #[error(transparent)]
    Tensor(#[from] docent_tensor::Error),
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

    /// JSON in `path` that cannot be read, or a value that cannot be written there as JSON.
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

impl StrictReport {
    /// `Ok` when everything fits.
    ///
    /// # Errors
    /// [`Error::Strict`] with this report; `what` names the file.
    pub fn into_result(self, what: impl Into<String>) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(Error::Strict { what: what.into(), report: Box::new(self) }) }
    }
}

impl From<Error> for candle_core::Error {
    fn from(e: Error) -> Self {
        match e {
            Error::Candle(e) => e,
            Error::Tensor(e) => e.into(),
            e => candle_core::Error::wrap(e),
        }
    }
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;
