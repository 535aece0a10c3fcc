//! The backbone's configuration: an architecture's name and its fields.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::mobilenet::MobileNetV2Config;
use super::resnet::ResNetConfig;
use crate::Result;
use crate::layers::NormKind;

/// The backbone: a table with an `architecture` (`resnet` is the default) and that architecture's fields. A
/// [`Registry`](crate::Registry) holds the architectures by name.
///
/// ```
/// use docent_detect::backbone::BackboneConfig;
///
/// let resnet: BackboneConfig = serde_json::from_str(r#"{"depth": 18}"#).unwrap();
/// assert_eq!(resnet.to_string(), "ResNet-18");
/// let mobile: BackboneConfig = serde_json::from_str(r#"{"architecture": "mobilenet_v2", "width_multiplier": 0.5}"#).unwrap();
/// assert_eq!(mobile.to_string(), "MobileNetV2, width 0.5");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
#[non_exhaustive]
pub enum BackboneConfig {
    /// [`crate::backbone::ResNet`]
    ResNet(ResNetConfig),
    /// [`crate::backbone::MobileNetV2`]
    MobileNetV2(MobileNetV2Config),
    /// A backbone that the caller's registry holds.
    Other(OtherBackbone),
}

/// A backbone that this crate does not have: its name in the registry and the fields that its constructor reads.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OtherBackbone {
    /// The name in the registry.
    pub architecture: String,
    /// Its fields.
    pub fields: Map<String, Value>,
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self::ResNet(ResNetConfig::default())
    }
}

impl From<ResNetConfig> for BackboneConfig {
    fn from(cfg: ResNetConfig) -> Self {
        Self::ResNet(cfg)
    }
}

impl From<MobileNetV2Config> for BackboneConfig {
    fn from(cfg: MobileNetV2Config) -> Self {
        Self::MobileNetV2(cfg)
    }
}

impl BackboneConfig {
    /// The architecture's name in the registry.
    pub fn architecture(&self) -> &str {
        match self {
            Self::ResNet(_) => RESNET,
            Self::MobileNetV2(_) => MOBILENET_V2,
            Self::Other(other) => &other.architecture,
        }
    }

    /// Checks every field of the architectures that this crate knows.
    ///
    /// # Errors
    /// The first field with a value that it cannot have.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::ResNet(c) => c.validate(),
            Self::MobileNetV2(c) => c.validate(),
            Self::Other(_) => Ok(()),
        }
    }

    /// The norm of every layer, where the architecture is known.
    pub fn norm(&self) -> Option<NormKind> {
        match self {
            Self::ResNet(c) => Some(c.norm),
            Self::MobileNetV2(c) => Some(c.norm),
            Self::Other(_) => None,
        }
    }

    /// What is added to the variance, where the architecture is known.
    pub fn norm_eps(&self) -> Option<f64> {
        match self {
            Self::ResNet(c) => Some(c.norm_eps),
            Self::MobileNetV2(c) => Some(c.norm_eps),
            Self::Other(_) => None,
        }
    }

    /// Another value to add to the variance: it belongs to the weights.
    pub fn set_norm_eps(&mut self, eps: f64) {
        match self {
            Self::ResNet(c) => c.norm_eps = eps,
            Self::MobileNetV2(c) => c.norm_eps = eps,
            Self::Other(_) => {}
        }
    }

    /// Where the bottlenecks stride, which belongs to the weights too; only a ResNet has them.
    pub fn set_stride_in_1x1(&mut self, stride_in_1x1: bool) {
        if let Self::ResNet(c) = self {
            c.stride_in_1x1 = stride_in_1x1;
        }
    }
}

impl std::fmt::Display for BackboneConfig {
    /// `ResNet-18, width 0.5`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = match self {
            Self::ResNet(c) => {
                write!(f, "ResNet-{}", c.depth)?;
                c.width_multiplier
            }
            Self::MobileNetV2(c) => {
                f.write_str("MobileNetV2")?;
                c.width_multiplier
            }
            Self::Other(other) => {
                f.write_str(&other.architecture)?;
                1.0
            }
        };
        if width == 1.0 { Ok(()) } else { write!(f, ", width {width}") }
    }
}

/// Names of the architectures that this crate knows.
pub(crate) const RESNET: &str = "resnet";
pub(crate) const MOBILENET_V2: &str = "mobilenet_v2";
const KEY: &str = "architecture";

impl TryFrom<Map<String, Value>> for BackboneConfig {
    type Error = serde_json::Error;

    fn try_from(mut fields: Map<String, Value>) -> std::result::Result<Self, Self::Error> {
        let architecture = match fields.remove(KEY) {
            None => RESNET.to_owned(),
            Some(name) => serde_json::from_value(name)?,
        };
        let known = |fields| Value::Object(fields);
        Ok(match architecture.as_str() {
            RESNET => Self::ResNet(serde_json::from_value(known(fields))?),
            MOBILENET_V2 => Self::MobileNetV2(serde_json::from_value(known(fields))?),
            _ => Self::Other(OtherBackbone { architecture, fields }),
        })
    }
}

impl From<BackboneConfig> for Map<String, Value> {
    fn from(config: BackboneConfig) -> Self {
        let architecture = config.architecture().to_owned();
        // Structs of numbers and names have a JSON form.
        let fields = match config {
            BackboneConfig::ResNet(c) => serde_json::to_value(c),
            BackboneConfig::MobileNetV2(c) => serde_json::to_value(c),
            BackboneConfig::Other(other) => Ok(Value::Object(other.fields)),
        };
        let mut map = Map::from_iter([(KEY.to_owned(), Value::String(architecture))]);
        if let Ok(Value::Object(fields)) = fields {
            map.extend(fields);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<BackboneConfig, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn what_is_written_comes_back() {
        let resnet = BackboneConfig::default();
        let text = serde_json::to_string(&resnet).unwrap();
        assert_eq!(read(&text).unwrap(), resnet);
        assert_eq!(read("{}").unwrap(), resnet);
        let mobile = MobileNetV2Config { width_multiplier: 0.75, norm: NormKind::BatchNorm, norm_eps: 1e-3 }.into();
        let text = serde_json::to_string(&mobile).unwrap();
        assert!(text.contains(r#""architecture":"mobilenet_v2""#), "{text}");
        assert_eq!(read(&text).unwrap(), mobile);
    }

    #[test]
    fn another_architectures_field_is_refused_by_name() {
        let message = read(r#"{"architecture": "mobilenet_v2", "depth": 18}"#).unwrap_err().to_string();
        assert!(message.contains("`depth`"), "{message}");
        let other = read(r#"{"architecture": "convnext", "depths": [3, 3]}"#).unwrap();
        assert_eq!(other.architecture(), "convnext");
        assert_eq!(read(&serde_json::to_string(&other).unwrap()).unwrap(), other);
        assert!(read(r#"{"deep": 18}"#).unwrap_err().to_string().contains("unknown field `deep`"));
    }
}
