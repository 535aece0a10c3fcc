//! The crate's error.

/// What can go wrong in a detector.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of a configuration has a value that it cannot have.
    #[error("configuration: `{field}`: {message}")]
    Config {
        /// The field's path, such as `backbone.depth`.
        field: &'static str,
        /// What was given, and the nearest allowed values.
        message: String,
    },
    /// A stage was given an input that it does not take.
    #[error("{stage}: {message}")]
    Input {
        /// The stage, such as `rpn_losses`.
        stage: &'static str,
        /// What was given, what is needed.
        message: String,
    },
    /// A name that the registry does not hold.
    #[error("unknown {kind} `{name}`; known are {}", known.join(", "))]
    Unknown {
        /// `detector` or `backbone`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// An error of a tensor's values or of the backward pass.
    #[error(transparent)]
    Tensor(#[from] docent_tensor::Error),
    /// An operation's own error.
    #[error(transparent)]
    Ops(#[from] docent_ops::Error),
    /// candle's own error: a missing or wrongly shaped parameter, mostly.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn config(field: &'static str, message: impl Into<String>) -> Self {
        Self::Config { field, message: message.into() }
    }

    pub(crate) fn input(stage: &'static str, message: impl Into<String>) -> Self {
        Self::Input { stage, message: message.into() }
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
