//! The records of a COCO annotation file that boxes need: image, annotation, category.

use serde::{Deserialize, Serialize, Serializer};

/// One image as the annotations describe it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Unique in its file; need not be consecutive.
    pub id: u64,
    /// Path below the image folder.
    pub file_name: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// One annotated object. Masks, key points and other keys of the file are skipped when it is read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Annotation {
    /// Unique in its file.
    pub id: u64,
    /// The image it lies in.
    pub image_id: u64,
    /// The category's id as the file has it (ids may have gaps; see [`Dataset::label_of`](crate::Dataset::label_of)).
    pub category_id: u64,
    /// `[x, y, width, height]` in pixels of the original image.
    pub bbox: [f64; 4],
    /// Area in pixels, of the mask where there is one; it decides between small, medium and large. `width * height` of the box
    /// where the file has none.
    pub area: f64,
    /// A region of many objects: never a training target, and detections inside it are not counted.
    #[serde(serialize_with = "flag_out")]
    pub iscrowd: bool,
}

/// One category of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Category {
    /// Unique in its file; COCO's own 80 categories lie between 1 and 90.
    pub id: u64,
    /// Its name.
    pub name: String,
}

impl Annotation {
    /// Whether the box has no area: a side of zero or less, or a coordinate that is not finite.
    pub fn is_degenerate(&self) -> bool {
        let [x, y, w, h] = self.bbox;
        !(x.is_finite() && y.is_finite() && w.is_finite() && h.is_finite() && w > 0.0 && h > 0.0)
    }
}

/// COCO writes the flag as 0 or 1.
fn flag_out<S: Serializer>(flag: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(u8::from(*flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degenerate_is_no_area() {
        let with = |bbox| Annotation { id: 1, image_id: 1, category_id: 1, bbox, area: 0.0, iscrowd: false };
        assert!(!with([0.0, 0.0, 0.1, 0.1]).is_degenerate());
        for bbox in
            [[0.0, 0.0, 0.0, 5.0], [0.0, 0.0, 5.0, -1.0], [f64::NAN, 0.0, 5.0, 5.0], [0.0, 0.0, f64::INFINITY, 5.0]]
        {
            assert!(with(bbox).is_degenerate(), "{bbox:?}");
        }
    }
}
