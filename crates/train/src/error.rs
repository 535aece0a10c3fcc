//! The crate's error.

use std::io;
use std::path::Path;

/// What can go wrong in a training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A loss or gradient is not a number any more; the last checkpoint is the last good one.
    #[error(
        "step {step}, images {images:?}: {what}; the last checkpoint was kept. Lower the learning rate (train.lr) or the bound of the \
         gradient (train.max_grad_norm), or look at these images"
    )]
    Diverged {
        /// 1-based step.
        step: usize,
        /// Ids of the step's images.
        images: Vec<u64>,
        /// Which number it is.
        what: String,
    },
    /// No fault: a [`CancelToken`](crate::CancelToken) asked to stop.
    #[error("stopped as asked")]
    Cancelled,
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
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;
