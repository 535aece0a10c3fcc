//! The crate's error.

/// What can go wrong in a distillation term.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting has a value that means nothing, or that would be ignored.
    #[error("distillation setting `{field}`: {message}")]
    Config {
        /// The setting's name, as a recipe spells it.
        field: &'static str,
        /// What is wrong, and what to do.
        message: String,
    },
    /// Teacher, student and the step's data do not fit each other.
    #[error("{what}: {message}")]
    Mismatch {
        /// The term or the input.
        what: &'static str,
        /// What was given, what is needed.
        message: String,
    },
    /// A method that the registry does not hold.
    #[error("unknown distillation method `{name}`; known are {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The detector's own error.
    #[error(transparent)]
    Detect(#[from] docent_detect::Error),
    /// An operation failed.
    #[error(transparent)]
    Ops(#[from] docent_ops::Error),
    /// candle's own error.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// A bad setting.
    pub fn config(field: &'static str, message: impl Into<String>) -> Self {
        Self::Config { field, message: message.into() }
    }

    /// Inputs that do not fit each other.
    pub fn mismatch(what: &'static str, message: impl Into<String>) -> Self {
        Self::Mismatch { what, message: message.into() }
    }
}

impl From<Error> for candle_core::Error {
    fn from(e: Error) -> Self {
        match e {
            Error::Candle(e) => e,
            Error::Ops(e) => e.into(),
            Error::Detect(e) => e.into(),
            e => candle_core::Error::wrap(e),
        }
    }
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;
