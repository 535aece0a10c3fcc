//! What is done about each kind of fault: stop, leave out, or clip.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::finding::FindingKind;
use crate::setters::setters;

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
    /// What is at fault is kept, corrected as far as that can be done, and listed.
    Keep,
}

impl Policy {
    /// As configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Drop => "drop",
            Self::Clip => "clip",
            Self::Keep => "keep",
        }
    }
}

/// A policy for each kind of fault.
///
/// ```
/// use docent_coco::{CheckConfig, FindingKind, Policy};
/// let checks: CheckConfig = serde_json::from_str(r#"{ "missing_image": "drop" }"#)?;
/// assert_eq!(checks.policy(FindingKind::MissingImage), Policy::Drop);
/// assert!(CheckConfig::default().unknown_category(Policy::Clip).validate().is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CheckConfig {
    /// Boxes without area. Default `drop`: never a training target, but part of the ground truth that a COCO file is scored with, as in
    /// pycocotools.
    pub degenerate: Policy,
    /// Boxes that reach more than [`OUTSIDE_TOLERANCE`](crate::OUTSIDE_TOLERANCE) over the border. Default `clip`; with `drop`
    /// they are no training targets. Boxes that reach over it by less are always clipped.
    pub outside: Policy,
    /// Boxes whose corners are swapped. Default `keep`: the corners are put in order.
    pub swapped_corners: Policy,
    /// Objects that an image holds twice, with the same class and the same box. Default `drop`: one of them stays.
    pub repeated_object: Policy,
    /// Annotations of images that are not listed. Default `error`.
    pub unlisted_image: Policy,
    /// Annotations of categories that are not listed. Default `error`.
    pub unknown_category: Policy,
    /// Files, lines and entries that are no annotations of their format. Default `error`; with `drop` they are left out.
    pub broken_annotation: Policy,
    /// Image files that are not there. Default `error`; with `drop` the image goes with its annotations.
    pub missing_image: Policy,
    /// Images whose file has another size than the annotations say. Default `error`; with `drop` the image goes with its
    /// annotations.
    pub size_mismatch: Policy,
    /// Image files that cannot be decoded. Default `error`: at once where the header cannot be read, else when the image is
    /// loaded. With `drop` every image is decoded once when the data are opened.
    pub unreadable_image: Policy,
    /// JPEG files that lack their last bytes. Default `error`, when the image is loaded. With `keep` the image is used if less
    /// than one row of blocks is missing; what is missing is grey.
    pub truncated_image: Policy,
    /// One image in both splits: the same file, or two files with the same bytes. Default `error`; with `drop` it is taken out of
    /// the training split.
    pub shared_image: Policy,
}

setters!(CheckConfig {
    degenerate: Policy,
    outside: Policy,
    swapped_corners: Policy,
    repeated_object: Policy,
    unlisted_image: Policy,
    unknown_category: Policy,
    broken_annotation: Policy,
    missing_image: Policy,
    size_mismatch: Policy,
    unreadable_image: Policy,
    truncated_image: Policy,
    shared_image: Policy,
});

impl Default for CheckConfig {
    fn default() -> Self {
        Self {
            degenerate: Policy::Drop,
            outside: Policy::Clip,
            swapped_corners: Policy::Keep,
            repeated_object: Policy::Drop,
            unlisted_image: Policy::Error,
            unknown_category: Policy::Error,
            broken_annotation: Policy::Error,
            missing_image: Policy::Error,
            size_mismatch: Policy::Error,
            unreadable_image: Policy::Error,
            truncated_image: Policy::Error,
            shared_image: Policy::Error,
        }
    }
}

impl CheckConfig {
    /// Refuses as little as possible, so that one pass lists everything: for reports, not for training.
    pub fn lenient() -> Self {
        Self {
            unlisted_image: Policy::Drop,
            unknown_category: Policy::Drop,
            broken_annotation: Policy::Drop,
            missing_image: Policy::Drop,
            size_mismatch: Policy::Drop,
            unreadable_image: Policy::Drop,
            shared_image: Policy::Drop,
            ..Self::default()
        }
    }

    /// What is done about a kind of fault. Kinds without a key (see [`FindingKind::key`]) always stop.
    pub fn policy(&self, kind: FindingKind) -> Policy {
        match kind {
            FindingKind::DegenerateBox => self.degenerate,
            FindingKind::OutsideBox => self.outside,
            FindingKind::SwappedCorners => self.swapped_corners,
            FindingKind::RepeatedObject => self.repeated_object,
            FindingKind::UnlistedImage => self.unlisted_image,
            FindingKind::UnknownCategory => self.unknown_category,
            FindingKind::BrokenAnnotation => self.broken_annotation,
            FindingKind::MissingImage => self.missing_image,
            FindingKind::SizeMismatch => self.size_mismatch,
            FindingKind::UnreadableImage => self.unreadable_image,
            FindingKind::TruncatedImage => self.truncated_image,
            FindingKind::SharedImage => self.shared_image,
            FindingKind::DuplicateImage
            | FindingKind::DuplicateCategory
            | FindingKind::EmptyImage
            | FindingKind::AmbiguousImage
            | FindingKind::RepeatedImage => Policy::Error,
        }
    }

    /// Checks that each policy means something for its kind.
    ///
    /// # Errors
    /// `clip` for anything but `outside`; `keep` for anything but `swapped_corners`, `repeated_object` and `truncated_image`;
    /// `drop` for `truncated_image`, whose images go under `unreadable_image`.
    pub fn validate(&self) -> Result<()> {
        use FindingKind::{OutsideBox, RepeatedObject, SwappedCorners, TruncatedImage};
        for kind in FindingKind::ALL {
            let (policy, Some(key)) = (self.policy(kind), kind.key()) else { continue };
            let known: &[Policy] = match kind {
                OutsideBox => &[Policy::Error, Policy::Drop, Policy::Clip],
                SwappedCorners | RepeatedObject => &[Policy::Error, Policy::Drop, Policy::Keep],
                TruncatedImage => &[Policy::Error, Policy::Keep],
                _ => &[Policy::Error, Policy::Drop],
            };
            if !known.contains(&policy) {
                let names: Vec<&str> = known.iter().map(|p| p.name()).collect();
                return Err(Error::Config(format!(
                    "checks.{key} = {}: that policy has no meaning here; use {}",
                    policy.name(),
                    names.join(" or ")
                )));
            }
        }
        Ok(())
    }
}
