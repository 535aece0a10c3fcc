//! How an input can fail.

use std::fmt;

/// Why an input does not pass.
#[derive(Debug)]
pub enum Fault {
    /// What docent did is not what was expected, and its exit code or its messages show it.
    Wrong(String),
    /// Exit code 0, and the boxes, the classes or the split are not the ground truth.
    Silent(String),
    /// Exit code 0, and what was written is no COCO file. Silent too; no other allowed behaviour makes up for it.
    NoCoco(String),
    /// The comparison itself could not be made. It ends the command.
    Failed(anyhow::Error),
}

impl Fault {
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::NoCoco(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(what) | Self::Silent(what) => f.write_str(what),
            Self::NoCoco(what) => write!(f, "what was written is no COCO file: {what}"),
            Self::Failed(error) => write!(f, "{error:#}"),
        }
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
