//! The crate's error: every message names the file or the id, and says what to do about it.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::finding::Finding;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between a folder of images and a table of metrics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}{}", path.display(), io_hint(path, source))]
    Io {
        /// What was tried: "read", "write", "list".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A JSON file is cut, malformed or not of the expected form.
    #[error("{} is not {expected}: {source}{}", path.display(), if source.is_eof() { " (was it cut? fetch or write it again)" } else { "" })]
    Json {
        /// The file.
        path: PathBuf,
        /// What it should have been.
        expected: &'static str,
        /// Where and why reading stopped (line and column).
        source: serde_json::Error,
    },
    /// The annotations contradict themselves, or image files are not what they say.
    #[error("{}: {}", path.display(), summary(path, findings))]
    Annotations {
        /// The annotation file (for PASCAL VOC, their folder).
        path: PathBuf,
        /// All of the faults that stop the load.
        findings: Vec<Finding>,
    },
    /// What the numbers or the images mean cannot be told, and a guess might put boxes in the wrong place.
    #[error("{}: {problem}\n{hint}", path.display())]
    Undecided {
        /// The annotation file or the folder.
        path: PathBuf,
        /// What was seen.
        problem: String,
        /// The flags that decide.
        hint: String,
    },
    /// An image file could not be decoded.
    #[error("cannot decode image {}: {reason}; replace the file, or take its entry out of the annotations", path.display())]
    Decode {
        /// The image file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// The annotations and the image file disagree about the image's size.
    #[error("image {} (id {image_id}) is {}x{} pixels (width x height), but its annotations say {}x{}{}; its boxes would be misplaced: correct the JSON, or put the correct file there",
        path.display(), decoded.0, decoded.1, expected.0, expected.1,
        if (decoded.1, decoded.0) == *expected { " (sides swapped: was the image turned after it was annotated?)" } else { "" })]
    SizeMismatch {
        /// The image file.
        path: PathBuf,
        /// The image's id in the annotations.
        image_id: u64,
        /// Width and height in the file.
        decoded: (usize, usize),
        /// Width and height in the annotations.
        expected: (usize, usize),
    },
    /// An image could not be made ready for a batch.
    #[error("image id {image_id} ({}): {source}", path.display())]
    Item {
        /// The image's id in the annotations.
        image_id: u64,
        /// The image file.
        path: PathBuf,
        /// The reason.
        source: Box<Error>,
    },
    /// A data folder holds no annotations or images that could be meant, or more than one set.
    #[error("{}: {problem}\nlooked for: {looked_for}\nfound: {found}\n{hint}", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What is missing or ambiguous.
        problem: String,
        /// The places and patterns tried.
        looked_for: String,
        /// What is there.
        found: String,
        /// What the caller can do.
        hint: &'static str,
    },
    /// Two splits do not list the same categories in the same order.
    #[error(
        "the splits have different categories (ordered by id):\n  {first_name}: {first}\n  {second_name}: {second}\nboth files must list the same ids with the same names"
    )]
    Categories {
        /// The first file.
        first_name: String,
        /// Its categories.
        first: String,
        /// The second file.
        second_name: String,
        /// Its categories.
        second: String,
    },
    /// A detection cannot be scored against the ground truth it is given with.
    #[error("detection {index} (image_id {image_id}, category_id {category_id}): {reason}")]
    Detection {
        /// Its position in the list, from 0.
        index: usize,
        /// The image it names.
        image_id: u64,
        /// The category it names.
        category_id: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The metrics library refused.
    #[error("COCO metrics: {0}")]
    Metrics(String),
    /// The generated data set could not be made, or is not the one it should be.
    #[error("shapes: {0}")]
    Shapes(String),
    /// A setting is out of its range.
    #[error("{0}")]
    Config(String),
}

impl Error {
    /// For a file that is being made: its folder, its writing, its renaming.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::file("create", path, source)
    }

    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn decode(path: &Path, reason: impl ToString) -> Self {
        Self::Decode { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// What to do about an error that the system reports for `path`, where its own words do not tell: to be put behind them.
pub fn io_hint(path: &Path, source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::NotFound if path.parent().is_some_and(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()) => {
            "; the folder of that path does not exist: is it spelled correctly?"
        }
        ErrorKind::NotFound => "; is the path spelled correctly?",
        ErrorKind::IsADirectory => "; name a file in it",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "; a file lies where a folder is wanted: name another path"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "; nothing written before is lost: make room and try again"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "; choose another place, or change its rights",
        _ => "",
    }
}

/// The first findings, how many more there are, and what to do about them.
fn summary(path: &Path, findings: &[Finding]) -> String {
    const SHOWN: usize = 5;
    let mut text = format!("{} fault(s) in the data", findings.len());
    for finding in findings.iter().take(SHOWN) {
        text.push_str("\n  ");
        // For VOC the path is that of the folder.
        text.push_str(&if finding.file == path { finding.describe() } else { finding.to_string() });
    }
    if findings.len() > SHOWN {
        text.push_str(&format!("\n  and {} more", findings.len() - SHOWN));
    }
    text.push_str("\ncorrect or remove these entries");
    let remedies: BTreeSet<&str> = findings.iter().filter_map(|f| f.kind.remedy()).collect();
    if !remedies.is_empty() {
        let flags: Vec<String> = remedies.iter().map(|remedy| format!("--policy {remedy}")).collect();
        text.push_str(&format!(", or open the data with {} (docs/data.md says what each does)", flags.join(" ")));
    }
    text
}
