//! What is done about each kind of fault: stop, leave out, or clip.

use serde::{Deserialize, Serialize};

use crate::checks::FindingKind;
use crate::error::{Error, Result};

/// What is done about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The data are refused, with a list of these faults.
    Error,
    /// What is at fault is left out and listed in [`Dataset::findings`](crate::Dataset::findings).
    Drop,
    /// A box is cut at the image's border, and listed.
    Clip,
}

impl Policy {
    /// As configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Drop => "drop",
            Self::Clip => "clip",
        }
    }
}

/// A policy for each kind of fault.
///
/// ```
/// use docent_coco::{CheckConfig, FindingKind, Policy};
/// let checks: CheckConfig = serde_json::from_str(r#"{ "missing_image": "drop" }"#)?;
/// assert_eq!(checks.policy(FindingKind::MissingImage), Policy::Drop);
/// assert!(CheckConfig { unknown_category: Policy::Clip, ..CheckConfig::default() }.validate().is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckConfig {
    /// Boxes without area. Default `drop`: never a training target, but part of the truth that a COCO file is scored with, as in
    /// pycocotools.
    pub degenerate: Policy,
    /// Boxes that reach more than [`OUTSIDE_TOLERANCE`](crate::OUTSIDE_TOLERANCE) over the border. Default `clip`; with `drop`
    /// they are no training targets. Boxes that reach over it by less are always clipped.
    pub outside: Policy,
    /// Two images or two annotations with one id. Default `error`; with `drop` the first one stays.
    pub duplicate_id: Policy,
    /// Annotations of images that are not listed. Default `error`.
    pub unlisted_image: Policy,
    /// Annotations of categories that are not listed. Default `error`.
    pub unknown_category: Policy,
    /// Image files that are not there. Default `error`; with `drop` the image goes with its annotations.
    pub missing_image: Policy,
    /// Images whose file has another size than the annotations say. Default `error`, when the image is loaded; with `drop` every
    /// file's header is read when the data are opened.
    pub size_mismatch: Policy,
    /// Image files that cannot be decoded. Default `error`, when the image is loaded; with `drop` every image is decoded once when
    /// the data are opened.
    pub unreadable_image: Policy,
}

impl Default for CheckConfig {
    fn default() -> Self {
        Self {
            degenerate: Policy::Drop,
            outside: Policy::Clip,
            duplicate_id: Policy::Error,
            unlisted_image: Policy::Error,
            unknown_category: Policy::Error,
            missing_image: Policy::Error,
            size_mismatch: Policy::Error,
            unreadable_image: Policy::Error,
        }
    }
}

impl CheckConfig {
    /// Refuses as little as possible, so that one pass lists everything: for reports, not for training.
    pub fn lenient() -> Self {
        Self {
            duplicate_id: Policy::Drop,
            unlisted_image: Policy::Drop,
            unknown_category: Policy::Drop,
            missing_image: Policy::Drop,
            ..Self::default()
        }
    }

    /// What is done about a kind of fault. Kinds without a key (see [`FindingKind::key`]) always stop.
    pub fn policy(&self, kind: FindingKind) -> Policy {
        match kind {
            FindingKind::DegenerateBox => self.degenerate,
            FindingKind::OutsideBox => self.outside,
            FindingKind::DuplicateAnnotation | FindingKind::DuplicateImage => self.duplicate_id,
            FindingKind::UnlistedImage => self.unlisted_image,
            FindingKind::UnknownCategory => self.unknown_category,
            FindingKind::MissingImage => self.missing_image,
            FindingKind::SizeMismatch => self.size_mismatch,
            FindingKind::UnreadableImage => self.unreadable_image,
            FindingKind::DuplicateCategory | FindingKind::EmptyImage | FindingKind::BrokenAnnotation => Policy::Error,
        }
    }

    /// Checks that each policy means something for its kind.
    ///
    /// # Errors
    /// `clip` for anything but `outside`.
    pub fn validate(&self) -> Result<()> {
        let clipped = FindingKind::ALL
            .into_iter()
            .find(|kind| *kind != FindingKind::OutsideBox && self.policy(*kind) == Policy::Clip)
            .and_then(FindingKind::key);
        match clipped {
            None => Ok(()),
            Some(key) => Err(Error::Config(format!(
                "checks.{key} = clip: only a box that reaches over the border (checks.outside) can be clipped; use error or drop"
            ))),
        }
    }
}
