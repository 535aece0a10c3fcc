//! The records of a COCO annotation file that boxes need: image, annotation, category.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

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

/// Reads the flag as tools write it: 0 or 1, `0.0`, `true` or `false`.
fn flag_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct Flag;
    impl de::Visitor<'_> for Flag {
        type Value = bool;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("iscrowd as 0, 1, true or false")
        }
        fn visit_bool<E: de::Error>(self, v: bool) -> Result<bool, E> {
            Ok(v)
        }
        fn visit_u64<E: de::Error>(self, v: u64) -> Result<bool, E> {
            match v {
                0 => Ok(false),
                1 => Ok(true),
                _ => Err(E::invalid_value(de::Unexpected::Unsigned(v), &self)),
            }
        }
        fn visit_f64<E: de::Error>(self, v: f64) -> Result<bool, E> {
            match v {
                0.0 => Ok(false),
                1.0 => Ok(true),
                _ => Err(E::invalid_value(de::Unexpected::Float(v), &self)),
            }
        }
    }
    deserializer.deserialize_any(Flag)
}

impl<'de> Deserialize<'de> for Annotation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// As in the file; `area` and `iscrowd` may be missing.
        #[derive(Deserialize)]
        struct Raw {
            id: u64,
            image_id: u64,
            category_id: u64,
            bbox: [f64; 4],
            area: Option<f64>,
            #[serde(default, deserialize_with = "flag_in")]
            iscrowd: bool,
        }
        let raw = Raw::deserialize(deserializer)?;
        Ok(Self {
            id: raw.id,
            image_id: raw.image_id,
            category_id: raw.category_id,
            bbox: raw.bbox,
            area: raw.area.unwrap_or(raw.bbox[2] * raw.bbox[3]),
            iscrowd: raw.iscrowd,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_read_as_tools_write_them() {
        let read = |text: &str| serde_json::from_str::<Annotation>(text);
        let base = r#""id": 7, "image_id": 1, "category_id": 90, "bbox": [1, 2.5, 3, 4]"#;
        let plain = read(&format!("{{{base}}}")).unwrap();
        assert_eq!(plain.area, 12.0);
        assert!(!plain.iscrowd);
        for (flag, crowd) in [("0", false), ("1", true), ("true", true), ("0.0", false)] {
            let text = format!(r#"{{{base}, "iscrowd": {flag}, "area": 5.5, "segmentation": [[0, 0]]}}"#);
            let annotation = read(&text).unwrap();
            assert_eq!((annotation.iscrowd, annotation.area), (crowd, 5.5));
        }
        assert!(read(&format!(r#"{{{base}, "iscrowd": 2}}"#)).is_err());
        assert!(read(r#"{"id": 7, "image_id": 1, "category_id": 90}"#).is_err());
        assert!(read(r#"{"id": 7, "image_id": 1, "category_id": 90, "bbox": [1, 2, 3]}"#).is_err());
        let text = serde_json::to_string(&plain).unwrap();
        assert!(text.contains(r#""iscrowd":0"#), "{text}");
        assert_eq!(read(&text).unwrap(), plain);
    }

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
