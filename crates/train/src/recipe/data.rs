//! A recipe's `[data]`: where images and boxes come from, and how they reach the network.

use std::path::PathBuf;

use docent_coco::{Augment, CheckConfig, OpenOptions, ReadConfig, Resize};
use serde::{Deserialize, Serialize};

/// Where a data set comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A folder of labelled images (docs/data.md lists what opens as it stands), named by `data.dir` (or `--data`).
    #[default]
    Folder,
    /// The project's own generator, [`docent_coco::shapes`].
    Shapes,
}

/// Images and boxes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Embedded generator or folder.
    #[serde(default)]
    pub source: Source,
    /// The data folder (for `shapes`: where it is written; chosen by the program when absent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Training annotations, where the folder's layout does not tell: a JSON or CSV file, or a folder of XML or text files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_annotations: Option<PathBuf>,
    /// Held-out annotations, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_annotations: Option<PathBuf>,
    /// Image folder of both splits, where it lies elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// Use only the first images of the training split (for smoke runs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Score on the training images instead of the held-out ones (for overfitting tests; never for results).
    #[serde(default)]
    pub eval_on_train: bool,
    /// Image size the network sees.
    pub resize: Resize,
    /// Probability of a horizontal flip in training.
    #[serde(default = "half")]
    pub flip: f32,
    /// Other changes of the images in training: sizes, colours, crops. Absent: none.
    #[serde(default, skip_serializing_if = "Augment::is_off")]
    pub augment: Augment,
    /// Threads that decode and augment.
    #[serde(default = "one")]
    pub loader_threads: usize,
    /// Batches that may wait, decoded, for the loop.
    #[serde(default = "four")]
    pub prefetch: usize,
    /// What is done about faults in the data, kind by kind.
    #[serde(default)]
    pub checks: CheckConfig,
    /// What the annotations mean, where the folder does not tell by itself. Absent: all as the format has it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read: ReadConfig,
}

fn is_default(read: &ReadConfig) -> bool {
    *read == ReadConfig::default()
}

impl DataRecipe {
    /// How the data folder is opened.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions::default()
            .train_annotations(self.train_annotations.clone())
            .val_annotations(self.val_annotations.clone())
            .images(self.images.clone())
            .checks(self.checks.clone())
            .read(self.read.clone())
    }

    /// Takes over how the data folder is opened.
    pub fn set_open_options(&mut self, options: OpenOptions) {
        let OpenOptions { train_annotations, val_annotations, images, checks, read, .. } = options;
        (self.train_annotations, self.val_annotations, self.images) = (train_annotations, val_annotations, images);
        (self.checks, self.read) = (checks, read);
    }

    /// Settings for walking a data set that is opened elsewhere: only the size matters.
    pub fn for_evaluation(resize: Resize) -> Self {
        Self {
            source: Source::Folder,
            dir: None,
            train_annotations: None,
            val_annotations: None,
            images: None,
            limit: None,
            eval_on_train: false,
            resize,
            flip: 0.0,
            augment: Augment::default(),
            loader_threads: one(),
            prefetch: four(),
            checks: CheckConfig::default(),
            read: ReadConfig::default(),
        }
    }
}

fn half() -> f32 {
    0.5
}
pub(super) fn one() -> usize {
    1
}
fn four() -> usize {
    4
}
