//! What the caller says about a data folder.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::box_reading::BoxReading;
use crate::policy::CheckConfig;
use crate::setters::setters;

/// A format of annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// COCO's JSON.
    Coco,
    /// PASCAL VOC's XML, a file for each image.
    Voc,
    /// YOLO's text, a file for each image.
    Yolo,
    /// labelme's JSON, a file for each image.
    Labelme,
    /// The JSON of VIA 2 (VGG Image Annotator).
    Via,
    /// TensorFlow's CSV: a line for each object.
    Csv,
}

impl Format {
    /// Every format, in the order in which a folder is searched for them.
    pub const ALL: [Self; 6] = [Self::Coco, Self::Voc, Self::Yolo, Self::Labelme, Self::Via, Self::Csv];

    /// As messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coco => "COCO JSON",
            Self::Voc => "PASCAL VOC XML",
            Self::Yolo => "YOLO text",
            Self::Labelme => "labelme JSON",
            Self::Via => "VIA JSON",
            Self::Csv => "CSV",
        }
    }
}

/// What becomes of an image's EXIF orientation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exif {
    /// The image is turned and mirrored as the orientation says, so that it stands as a viewer shows it.
    #[default]
    Apply,
    /// The image stays as it is stored.
    Ignore,
}

/// What becomes of objects marked `<difficult>1</difficult>` in PASCAL VOC's XML.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difficult {
    /// They become crowds: never a training target, and detections of them count neither as true nor as false positives, as in VOC's own scoring.
    /// (Unlike VOC, several detections of one may be passed over, and overlap is measured over the detection's area.)
    #[default]
    Ignore,
    /// They are objects like others.
    Keep,
    /// They are left out, as though nobody had marked them.
    Drop,
}

/// What becomes of COCO's objects with `iscrowd` 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crowds {
    /// They are crowds: never a training target, and detections inside count neither as true nor as false positives.
    #[default]
    Ignore,
    /// They are objects like others. CVAT marks every brush mask as a crowd.
    Keep,
}

/// What becomes of images without an annotation file, where each image has one of its own, and of those that VIA's file or a CSV file does
/// not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unlabeled {
    /// They are left out, and counted.
    #[default]
    Skip,
    /// They are images without objects.
    #[serde(alias = "as-negatives")]
    AsNegatives,
}

/// What the annotations of a data folder mean, where that is not what the format or the folder says by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ReadConfig {
    /// The format of the annotations. Default: what the folder holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// What the four numbers of a box mean. Default: the format's own reading; numbers that do not fit it are an error that names the
    /// reading that fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<BoxReading>,
    /// Whether images are turned as their EXIF orientation says, where the annotated size does not tell. Default: an error where it
    /// matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exif: Option<Exif>,
    /// The classes in the order of their ids 1, 2, ..., for formats that only name them; an object of another class is an annotation
    /// of an unknown category. Default empty: all names that occur, in byte order; for YOLO the names of the folder's class file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// PASCAL VOC's difficult objects. Default `ignore`.
    pub difficult: Difficult,
    /// COCO's crowds. Default `ignore`.
    pub crowds: Crowds,
    /// Images without an annotation file, where each image has one of its own; images that VIA's file or a CSV file does not list. Default
    /// `skip`.
    pub unlabeled: Unlabeled,
    /// The encoding of text and XML files that do not declare one, by its name in the WHATWG Encoding Standard (`windows-1252`,
    /// `gbk`). Default: UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Where the folder has no split of its own: the share of images, between 0 and 1, that is held out. Default 0.2.
    pub val_fraction: f64,
}

setters!(ReadConfig {
    format: impl Into<Option<Format>>,
    boxes: impl Into<Option<BoxReading>>,
    exif: impl Into<Option<Exif>>,
    classes: Vec<String>,
    difficult: Difficult,
    crowds: Crowds,
    unlabeled: Unlabeled,
    encoding: impl Into<Option<String>>,
    val_fraction: f64,
});

impl Default for ReadConfig {
    fn default() -> Self {
        Self {
            format: None,
            boxes: None,
            exif: None,
            classes: Vec::new(),
            difficult: Difficult::default(),
            crowds: Crowds::default(),
            unlabeled: Unlabeled::default(),
            encoding: None,
            val_fraction: 0.2,
        }
    }
}

/// What the caller says about a data folder; whatever is given wins over what would be found.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// The annotations of the training split: a JSON or CSV file, or the folder of XML, JSON or text files.
    pub train_annotations: Option<PathBuf>,
    /// The annotations of the validation split, likewise.
    pub val_annotations: Option<PathBuf>,
    /// The folder of the images of both splits.
    pub images: Option<PathBuf>,
    /// What is done about faults.
    pub checks: CheckConfig,
    /// What the annotations mean.
    pub read: ReadConfig,
}

setters!(OpenOptions {
    train_annotations: impl Into<Option<PathBuf>>,
    val_annotations: impl Into<Option<PathBuf>>,
    images: impl Into<Option<PathBuf>>,
    checks: CheckConfig,
    read: ReadConfig,
});
