//! What a recipe is suggested for, and what was decided on the way.

use std::path::PathBuf;
use std::time::Duration;

use docent_coco::OpenOptions;

use super::anchors::AnchorFit;
use super::input::InputSize;
use super::plan::{Pair, Schedule};
use crate::registry::Registry;

/// What the caller says.
#[derive(Debug, Clone)]
pub struct SuggestOptions {
    /// The data folder, as [`docent_coco::open_dir`] takes it.
    pub dir: PathBuf,
    /// What else is said about the folder: files, policies, what the annotations mean.
    pub open: OpenOptions,
    /// A file with a backbone's ImageNet weights for the teacher.
    pub weights: Option<PathBuf>,
    /// How long the whole study may take.
    pub time: Duration,
    /// Whether this machine's speed is measured on the proposed models. Without, a usual number of steps is proposed.
    pub measure: bool,
    /// What recipes may name.
    pub registry: Registry,
}

impl SuggestOptions {
    /// The defaults for a folder: no weights, half an hour, measured.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            open: OpenOptions::default(),
            weights: None,
            time: Duration::from_secs(30 * 60),
            measure: true,
            registry: Registry::builtin(),
        }
    }
}

/// Why a part of the recipe is as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The part, in a word: `classes`, `input size`, ...
    pub about: &'static str,
    /// One or more sentences.
    pub text: String,
}

/// Everything that was decided, before it becomes text.
pub(super) struct Draft<'a> {
    pub options: &'a SuggestOptions,
    pub name: String,
    pub classes: Vec<String>,
    pub reasons: Vec<Reason>,
    pub input: InputSize,
    pub anchors: AnchorFit,
    pub pair: Pair,
    pub schedule: Schedule,
    /// How many training images are used, where the time is too short for all.
    pub limit: Option<usize>,
    pub flip: f32,
    pub roi_samples: usize,
    pub proposals: usize,
}

impl Draft<'_> {
    pub fn because(&mut self, about: &'static str, text: String) {
        self.reasons.push(Reason { about, text });
    }

    pub fn reason(&self, about: &str) -> String {
        let texts: Vec<&str> = self.reasons.iter().filter(|r| r.about == about).map(|r| r.text.as_str()).collect();
        texts.join(" ")
    }
}
