//! The detector's configuration in recipes and checkpoints: an architecture's name and its settings.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::FasterRcnnConfig;
use crate::{Error, Result};

/// A detector's settings: a table with an `architecture` (`faster_rcnn` is the default) and that architecture's fields. A
/// [`Registry`](crate::Registry) holds the architectures by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
#[non_exhaustive]
pub enum DetectorConfig {
    /// [`crate::FasterRcnn`]
    FasterRcnn(Box<FasterRcnnConfig>),
    /// A detector that the caller's registry holds.
    Other(OtherDetector),
}

/// A detector that this crate does not have: its name in the registry and the fields that its constructor reads.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OtherDetector {
    /// The name in the registry.
    pub architecture: String,
    /// Its fields. `classes`, the number of classes with the background, is filled in from the data.
    pub fields: Map<String, Value>,
}

pub(crate) const FASTER_RCNN: &str = "faster_rcnn";
const ARCHITECTURE: &str = "architecture";
const CLASSES: &str = "classes";

impl DetectorConfig {
    /// The architecture's name in the registry.
    pub fn architecture(&self) -> &str {
        match self {
            Self::FasterRcnn(_) => FASTER_RCNN,
            Self::Other(other) => &other.architecture,
        }
    }

    /// K: classes with the background; 0 where [`OtherDetector::fields`] has no `classes`.
    pub fn classes(&self) -> usize {
        match self {
            Self::FasterRcnn(c) => c.classes,
            Self::Other(other) => other.fields.get(CLASSES).and_then(Value::as_u64).map_or(0, |n| n as usize),
        }
    }

    /// Sets K, the number of classes with the background.
    pub fn set_classes(&mut self, classes: usize) {
        match self {
            Self::FasterRcnn(c) => c.classes = classes,
            Self::Other(other) => {
                other.fields.insert(CLASSES.to_owned(), Value::from(classes));
            }
        }
    }

    /// The settings of a Faster R-CNN.
    ///
    /// # Errors
    /// Another architecture.
    pub fn faster_rcnn(&self) -> Result<&FasterRcnnConfig> {
        match self {
            Self::FasterRcnn(c) => Ok(c),
            Self::Other(other) => Err(not_faster_rcnn(other)),
        }
    }

    /// As [`DetectorConfig::faster_rcnn`], mutable.
    ///
    /// # Errors
    /// Another architecture.
    pub fn faster_rcnn_mut(&mut self) -> Result<&mut FasterRcnnConfig> {
        match self {
            Self::FasterRcnn(c) => Ok(c),
            Self::Other(other) => Err(not_faster_rcnn(other)),
        }
    }
}

fn not_faster_rcnn(other: &OtherDetector) -> Error {
    Error::config(ARCHITECTURE, format!("`{}`; this needs `{FASTER_RCNN}`", other.architecture))
}

impl From<FasterRcnnConfig> for DetectorConfig {
    fn from(config: FasterRcnnConfig) -> Self {
        Self::FasterRcnn(Box::new(config))
    }
}

impl TryFrom<Map<String, Value>> for DetectorConfig {
    type Error = serde_json::Error;

    fn try_from(mut fields: Map<String, Value>) -> std::result::Result<Self, Self::Error> {
        let architecture = match fields.remove(ARCHITECTURE) {
            None => FASTER_RCNN.to_owned(),
            Some(name) => serde_json::from_value(name)?,
        };
        Ok(match architecture.as_str() {
            FASTER_RCNN => Self::FasterRcnn(serde_json::from_value(Value::Object(fields))?),
            _ => Self::Other(OtherDetector { architecture, fields }),
        })
    }
}

impl From<DetectorConfig> for Map<String, Value> {
    fn from(config: DetectorConfig) -> Self {
        let architecture = config.architecture().to_owned();
        let fields = match config {
            DetectorConfig::FasterRcnn(c) => fields_of(&c),
            DetectorConfig::Other(other) => other.fields,
        };
        let mut map = Map::from_iter([(ARCHITECTURE.to_owned(), Value::String(architecture))]);
        map.extend(fields);
        map
    }
}

/// The fields as JSON, by way of text: an f32 of 0.1 stays 0.1, where `serde_json::to_value` makes it 0.10000000149011612.
fn fields_of(config: &FasterRcnnConfig) -> Map<String, Value> {
    // A struct of numbers and names has a JSON form.
    serde_json::to_string(config).and_then(|text| serde_json::from_str(&text)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back() {
        let read = |text: &str| serde_json::from_str::<DetectorConfig>(text);
        let plain = DetectorConfig::from(FasterRcnnConfig::default());
        assert_eq!(read("{}").unwrap(), plain);
        let text = serde_json::to_string(&plain).unwrap();
        assert!(text.contains(r#""architecture":"faster_rcnn""#), "{text}");
        assert_eq!(read(&text).unwrap(), plain);
        // Numbers as a person wrote them.
        let decimals = read(r#"{"rpn": {"nms_threshold": 0.1}}"#).unwrap();
        assert!(serde_json::to_string(&decimals).unwrap().contains(r#""nms_threshold":0.1,"#));
        let mut other = read(r#"{"architecture": "yours", "depth": 3}"#).unwrap();
        assert_eq!((other.architecture(), other.classes()), ("yours", 0));
        other.set_classes(4);
        assert_eq!(read(&serde_json::to_string(&other).unwrap()).unwrap().classes(), 4);
        assert!(other.faster_rcnn().unwrap_err().to_string().contains("`yours`"));
        assert!(read(r#"{"clases": 3}"#).unwrap_err().to_string().contains("clases"));
    }
}
