//! One fault of a data set: its kind, its file, its ids.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// A kind of fault. What is done about it is a [`Policy`](crate::Policy) of [`CheckConfig`](crate::CheckConfig), under the key
/// that [`Self::key`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// A box without area.
    DegenerateBox,
    /// A box that reaches more than [`OUTSIDE_TOLERANCE`](crate::OUTSIDE_TOLERANCE) over the image's border.
    OutsideBox,
    /// A box whose left corner stands right of its right one, or whose top one stands below.
    SwappedCorners,
    /// An object that an image holds twice: the same class and the same box.
    RepeatedObject,
    /// Two images with one id: whose objects are meant cannot be told.
    DuplicateImage,
    /// Two categories with one id or one name: which is meant cannot be told.
    DuplicateCategory,
    /// An annotation of an image that the file does not list.
    UnlistedImage,
    /// An annotation of a category that the file does not list.
    UnknownCategory,
    /// An image whose size is neither in the annotations nor in its file.
    EmptyImage,
    /// A file, a line or an entry that is no annotation of its format.
    BrokenAnnotation,
    /// An image file that is not there.
    MissingImage,
    /// Several image files that fit one name.
    AmbiguousImage,
    /// An image file of another size than the annotations say.
    SizeMismatch,
    /// An image file that cannot be decoded.
    UnreadableImage,
    /// A JPEG that lacks its last bytes.
    TruncatedImage,
    /// One image file under two ids, or with two annotation files.
    RepeatedImage,
    /// One image file, or two copies of it, in both splits.
    SharedImage,
}

impl FindingKind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::DegenerateBox,
        Self::OutsideBox,
        Self::SwappedCorners,
        Self::RepeatedObject,
        Self::DuplicateImage,
        Self::DuplicateCategory,
        Self::UnlistedImage,
        Self::UnknownCategory,
        Self::EmptyImage,
        Self::BrokenAnnotation,
        Self::MissingImage,
        Self::AmbiguousImage,
        Self::SizeMismatch,
        Self::UnreadableImage,
        Self::TruncatedImage,
        Self::RepeatedImage,
        Self::SharedImage,
    ];

    /// The key of [`CheckConfig`](crate::CheckConfig) that decides about it; `None` where it always stops.
    pub fn key(self) -> Option<&'static str> {
        self.remedy().and_then(|remedy| remedy.split_once('=')).map(|(key, _)| key)
    }

    /// The setting under which a data set with this fault opens, as `key=policy`; `None` where no policy helps.
    pub fn remedy(self) -> Option<&'static str> {
        match self {
            Self::DegenerateBox => Some("degenerate=drop"),
            Self::OutsideBox => Some("outside=clip"),
            Self::SwappedCorners => Some("swapped_corners=keep"),
            Self::RepeatedObject => Some("repeated_object=drop"),
            Self::UnlistedImage => Some("unlisted_image=drop"),
            Self::UnknownCategory => Some("unknown_category=drop"),
            Self::BrokenAnnotation => Some("broken_annotation=drop"),
            Self::MissingImage => Some("missing_image=drop"),
            Self::SizeMismatch => Some("size_mismatch=drop"),
            Self::UnreadableImage => Some("unreadable_image=drop"),
            Self::TruncatedImage => Some("truncated_image=keep"),
            Self::SharedImage => Some("shared_image=drop"),
            Self::DuplicateImage
            | Self::DuplicateCategory
            | Self::EmptyImage
            | Self::AmbiguousImage
            | Self::RepeatedImage => None,
        }
    }

    /// A few words for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DegenerateBox => "box without area",
            Self::OutsideBox => "box outside its image",
            Self::SwappedCorners => "box with swapped corners",
            Self::RepeatedObject => "object that is there twice (same image, class and box)",
            Self::DuplicateImage => "duplicate image id",
            Self::DuplicateCategory => "duplicate category",
            Self::UnlistedImage => "annotation of an unlisted image",
            Self::UnknownCategory => "annotation of an unknown category",
            Self::EmptyImage => "image of unknown size",
            Self::BrokenAnnotation => "unreadable annotation",
            Self::MissingImage => "missing image file",
            Self::AmbiguousImage => "image name that fits several files",
            Self::SizeMismatch => "image of another size than annotated",
            Self::UnreadableImage => "unreadable image file",
            Self::TruncatedImage => "image file that lacks its last bytes",
            Self::RepeatedImage => "one image twice",
            Self::SharedImage => "one image in both splits",
        }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What kind of fault.
    pub kind: FindingKind,
    /// The annotation file that says it.
    pub file: PathBuf,
    /// The image it concerns.
    pub image_id: Option<u64>,
    /// The annotation it concerns.
    pub annotation_id: Option<u64>,
    /// The values at fault.
    pub detail: String,
}

impl Finding {
    /// The finding without its file: kind, ids, values.
    pub(crate) fn describe(&self) -> String {
        let mut text = self.kind.name().to_owned();
        if let Some(id) = self.image_id {
            text.push_str(&format!(", image id {id}"));
        }
        if let Some(id) = self.annotation_id {
            text.push_str(&format!(", annotation id {id}"));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.describe())
    }
}
