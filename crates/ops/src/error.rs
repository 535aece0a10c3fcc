//! The crate's error.

/// What can go wrong in an operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operand has a shape, device or type that the operation does not take.
    #[error("{op}: {message}")]
    Operand {
        /// The operation's name.
        op: &'static str,
        /// What was given, what is needed.
        message: String,
    },
    /// candle's own error.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// An operand error of `op`.
    pub fn operand(op: &'static str, message: impl Into<String>) -> Self {
        Self::Operand { op, message: message.into() }
    }
}

impl From<docent_tensor::Error> for Error {
    fn from(e: docent_tensor::Error) -> Self {
        match e {
            docent_tensor::Error::Operand { op, message } => Self::Operand { op, message },
            e => Self::Candle(e.into()),
        }
    }
}

impl From<Error> for candle_core::Error {
    fn from(e: Error) -> Self {
        match e {
            Error::Candle(e) => e,
            e => candle_core::Error::wrap(e),
        }
    }
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;
