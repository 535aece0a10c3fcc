//! A method's configuration in recipes: its name and its settings.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::defeat::DefeatConfig;
use super::fgfi::FgfiConfig;
use super::fitnets::FitnetsConfig;
use super::pkd::PkdConfig;
use crate::config::TaskAdaptiveConfig;

/// A distillation method with its settings: a table with a `method` (`task_adaptive` is the default) and that method's settings. A
/// [`DistillerRegistry`](crate::DistillerRegistry) holds the methods by name.
///
/// ```
/// use docent_distill::methods::DistillerConfig;
///
/// let config: DistillerConfig = serde_json::from_str(r#"{"method": "pkd", "weight": 2.0}"#).unwrap();
/// assert_eq!(config.method(), "pkd");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
#[non_exhaustive]
pub enum DistillerConfig {
    /// Task-adaptive distillation: our reading of the paper's method.
    TaskAdaptive(TaskAdaptiveConfig),
    /// FitNets hints.
    Fitnets(FitnetsConfig),
    /// Fine-grained feature imitation.
    Fgfi(FgfiConfig),
    /// Pearson correlation of the maps.
    Pkd(PkdConfig),
    /// Decoupled features.
    Defeat(DefeatConfig),
    /// A method that the caller's registry holds.
    Other(OtherDistiller),
}

/// A method that this crate does not have: its name in the registry and the settings that its constructor reads.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OtherDistiller {
    /// The name in the registry.
    pub method: String,
    /// Its settings.
    pub settings: Map<String, Value>,
}

pub(crate) const TASK_ADAPTIVE: &str = "task_adaptive";
pub(crate) const FITNETS: &str = "fitnets";
pub(crate) const FGFI: &str = "fgfi";
pub(crate) const PKD: &str = "pkd";
pub(crate) const DEFEAT: &str = "defeat";
const METHOD: &str = "method";

impl Default for DistillerConfig {
    fn default() -> Self {
        Self::TaskAdaptive(TaskAdaptiveConfig::default())
    }
}

impl DistillerConfig {
    /// The method's name in the registry.
    pub fn method(&self) -> &str {
        match self {
            Self::TaskAdaptive(_) => TASK_ADAPTIVE,
            Self::Fitnets(_) => FITNETS,
            Self::Fgfi(_) => FGFI,
            Self::Pkd(_) => PKD,
            Self::Defeat(_) => DEFEAT,
            Self::Other(other) => &other.method,
        }
    }

    /// Checks every setting of the methods that this crate knows.
    ///
    /// # Errors
    /// [`crate::Error::Config`] names the setting and says what to do.
    pub fn validate(&self) -> crate::Result<()> {
        match self {
            Self::TaskAdaptive(config) => config.validate(),
            Self::Fitnets(config) => config.validate(),
            Self::Fgfi(config) => config.validate(),
            Self::Pkd(config) => config.validate(),
            Self::Defeat(config) => config.validate(),
            Self::Other(_) => Ok(()),
        }
    }
}

impl TryFrom<Map<String, Value>> for DistillerConfig {
    type Error = serde_json::Error;

    fn try_from(mut settings: Map<String, Value>) -> std::result::Result<Self, Self::Error> {
        let method = match settings.remove(METHOD) {
            None => TASK_ADAPTIVE.to_owned(),
            Some(name) => serde_json::from_value(name)?,
        };
        let known = |settings| Value::Object(settings);
        Ok(match method.as_str() {
            TASK_ADAPTIVE => Self::TaskAdaptive(serde_json::from_value(known(settings))?),
            FITNETS => Self::Fitnets(serde_json::from_value(known(settings))?),
            FGFI => Self::Fgfi(serde_json::from_value(known(settings))?),
            PKD => Self::Pkd(serde_json::from_value(known(settings))?),
            DEFEAT => Self::Defeat(serde_json::from_value(known(settings))?),
            _ => Self::Other(OtherDistiller { method, settings }),
        })
    }
}

impl From<DistillerConfig> for Map<String, Value> {
    fn from(config: DistillerConfig) -> Self {
        let method = config.method().to_owned();
        let settings = match config {
            DistillerConfig::TaskAdaptive(c) => serde_json::to_value(c),
            DistillerConfig::Fitnets(c) => serde_json::to_value(c),
            DistillerConfig::Fgfi(c) => serde_json::to_value(c),
            DistillerConfig::Pkd(c) => serde_json::to_value(c),
            DistillerConfig::Defeat(c) => serde_json::to_value(c),
            DistillerConfig::Other(other) => Ok(Value::Object(other.settings)),
        };
        let mut map = Map::from_iter([(METHOD.to_owned(), Value::String(method))]);
        // A struct of numbers and names has a JSON form.
        if let Ok(Value::Object(settings)) = settings {
            map.extend(settings);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back() {
        let read = |text: &str| serde_json::from_str::<DistillerConfig>(text);
        assert_eq!(read("{}").unwrap(), DistillerConfig::default());
        for text in [r#"{"method":"fgfi","psi":0.4}"#, r#"{"method":"yours","strength":3}"#] {
            let config = read(text).unwrap();
            assert_eq!(read(&serde_json::to_string(&config).unwrap()).unwrap(), config);
        }
        assert!(read(r#"{"method":"pkd","psi":0.4}"#).unwrap_err().to_string().contains("unknown field `psi`"));
    }
}
