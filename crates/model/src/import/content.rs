//! What a weight file is of, and the detector in it.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use docent_detect::backbone::BackboneConfig;
use docent_detect::layers::NormKind;
use docent_detect::{DetectorConfig, FasterRcnnConfig};

use super::backbone::{BackboneInfo, backbone_tensors, is_classifier};
use super::names::{self, BACKBONE_PREFIX, names_of};
use super::{deduce, foreign};
use crate::checkpoint::CheckpointMeta;
use crate::error::{Error, Result};
use crate::weights::WeightFile;

/// What the tensors of a file are of.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// A checkpoint that this program wrote.
    Checkpoint(Box<CheckpointMeta>),
    /// torchvision's Faster R-CNN with a pyramid.
    Detector {
        /// What its shapes tell.
        config: Box<FasterRcnnConfig>,
        /// Names of older versions of torchvision: the form of the COCO_V1 files, whose frozen BatchNorm has an epsilon of 0.
        old_names: usize,
    },
    /// A classification network, or its backbone alone.
    Backbone {
        /// What its shapes tell, and its metadata.
        config: BackboneConfig,
        /// Mean and deviation, stride place and epsilon from its metadata.
        info: BackboneInfo,
        /// Names of its classifier.
        classifier: Vec<String>,
    },
    /// Neither; why.
    Unknown(String),
}

impl Content {
    /// Tells what `file` is of.
    ///
    /// # Errors
    /// Metadata of a checkpoint or a backbone that does not parse; two spellings of one name.
    pub fn of(path: &Path, file: &WeightFile) -> Result<Self> {
        // Other programs write a format too: `pt`.
        if file.metadata.get("format").is_some_and(|format| format.starts_with("docent")) {
            return Ok(Self::Checkpoint(Box::new(CheckpointMeta::from_map(path, &file.metadata)?)));
        }
        let (tensors, old_names) = up_to_date(path, file.tensors.clone())?;
        if let Some(foreign) = foreign::architecture(&names_of(&tensors)) {
            return Ok(Self::Unknown(format!("its names are {foreign}")));
        }
        if tensors.keys().any(|n| n.starts_with("roi_heads.") || n.starts_with("rpn.")) {
            return Ok(match deduce::detector(&tensors) {
                Ok(mut config) => {
                    if old_names > 0 && config.backbone.norm() == Some(NormKind::FrozenBatchNorm) {
                        config.backbone.set_norm_eps(0.0);
                    }
                    Self::Detector { config: Box::new(config), old_names }
                }
                Err(why) => Self::Unknown(why),
            });
        }
        let info = file.backbone_info(path)?;
        let classifier = file.tensors.keys().filter(|n| is_classifier(n)).cloned().collect();
        Ok(match deduce::backbone(&backbone_tensors(file.tensors.clone()), BACKBONE_PREFIX) {
            Ok(mut config) => {
                info.adopt(&mut config);
                Self::Backbone { config, info, classifier }
            }
            Err(why) => Self::Unknown(format!("{why}; names begin with {}", file.top_level_names().join(", "))),
        })
    }

    /// One line for a person.
    pub fn describe(&self) -> String {
        match self {
            Self::Checkpoint(meta) => {
                format!(
                    "docent checkpoint, recipe {}, step {}, {} categories",
                    meta.recipe,
                    meta.step,
                    meta.categories.len()
                )
            }
            Self::Detector { config, old_names } => {
                let (c, form) = (config, if *old_names > 0 { ", older names (COCO_V1's form)" } else { "" });
                format!(
                    "torchvision detector: Faster R-CNN, {} with {}, {} pyramid channels, {} classes{form}",
                    c.backbone,
                    c.backbone.norm().map_or_else(|| "another norm".to_owned(), norm_name),
                    c.fpn_channels,
                    c.classes
                )
            }
            Self::Backbone { config, info, classifier } => {
                let form = if info.stride_in_1x1 == Some(true) { "MSRA's form" } else { "torchvision's form" };
                let classifier = if classifier.is_empty() { "without" } else { "with" };
                format!("backbone: {config}, {form}, {classifier} classifier")
            }
            Self::Unknown(why) => format!("not recognised: {why}"),
        }
    }
}

fn norm_name(norm: NormKind) -> String {
    match norm {
        NormKind::BatchNorm => "BatchNorm".to_owned(),
        NormKind::FrozenBatchNorm => "frozen BatchNorm".to_owned(),
        NormKind::GroupNorm { groups } => format!("GroupNorm of {groups}"),
    }
}

fn up_to_date(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<(BTreeMap<String, Tensor>, usize)> {
    names::up_to_date(tensors).map_err(|name| Error::file(path, format!("two tensors come to the name `{name}`")))
}

/// A detector from a file, whoever wrote it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DetectorFile {
    /// Its architecture and settings.
    pub config: DetectorConfig,
    /// Its tensors under present names.
    pub tensors: BTreeMap<String, Tensor>,
    /// What a checkpoint of ours says of itself.
    pub meta: Option<CheckpointMeta>,
    /// What a person should know of it.
    pub notes: Vec<String>,
}

impl DetectorFile {
    /// Reads the detector in `file`.
    ///
    /// # Errors
    /// A file of something else; two tensors that come to one name.
    pub fn new(path: &Path, file: WeightFile) -> Result<Self> {
        match Content::of(path, &file)? {
            Content::Checkpoint(meta) => {
                let config = meta.detector(path)?;
                Ok(Self { config, tensors: file.tensors, meta: Some(*meta), notes: file.notes })
            }
            Content::Detector { config, old_names } => {
                let (tensors, _) = up_to_date(path, file.tensors)?;
                let mut notes = file.notes;
                if old_names > 0 {
                    notes.push(format!("{old_names} names of older versions of torchvision brought up to date"));
                }
                if config.backbone.norm() == Some(NormKind::FrozenBatchNorm) {
                    let eps = config.backbone.norm_eps().unwrap_or_default();
                    notes.push(if eps == 0.0 {
                        "BatchNorm's epsilon is 0, as files with these older names want it".to_owned()
                    } else {
                        format!(
                            "BatchNorm's epsilon is {eps}, torchvision's own; the COCO_V1 weights, saved again under present \
                             names, want 0: --set backbone.norm_eps=0"
                        )
                    });
                }
                Ok(Self { config: DetectorConfig::FasterRcnn(config), tensors, meta: None, notes })
            }
            unknown @ Content::Unknown(_) => Err(Error::file(path, unknown.describe())),
            other => Err(Error::file(path, format!("a detector is needed; {}", other.describe()))),
        }
    }
}
