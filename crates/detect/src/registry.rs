//! Detectors and backbones by name, for recipes and checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_nn::VarBuilder;

use crate::backbone::{self, Backbone, BackboneConfig};
use crate::detector::Detector;
use crate::detector_config::{DetectorConfig, FASTER_RCNN};
use crate::faster_rcnn::FasterRcnn;
use crate::layers::ModelBuilder;
use crate::{Error, Result};

type BackboneFactory = Arc<dyn Fn(&BackboneConfig, &ModelBuilder<'_>) -> Result<Arc<dyn Backbone>> + Send + Sync>;
type DetectorFactory =
    Arc<dyn Fn(&DetectorConfig, &Registry, &ModelBuilder<'_>) -> Result<Arc<dyn Detector>> + Send + Sync>;

/// The detectors and backbones that a program knows, by name. Functions that read recipes or checkpoints take one.
///
/// ```
/// use std::sync::Arc;
///
/// use candle_core::{DType, Device};
/// use candle_nn::VarBuilder;
/// use docent_detect::backbone::{ResNet, ResNetConfig};
/// use docent_detect::{DetectorConfig, Registry};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::builtin().with_backbone("tiny", |_config, builder| {
///     let config = ResNetConfig::default().depth(18).width_multiplier(0.125);
///     Ok(Arc::new(ResNet::new(&config, builder)?))
/// });
/// let config: DetectorConfig = serde_json::from_str(r#"{"classes": 3, "backbone": {"architecture": "tiny"}}"#)?;
/// let model = registry.detector(&config, VarBuilder::zeros(DType::F32, &Device::Cpu))?;
/// assert_eq!(model.stages()[0].channels, 8);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Registry {
    detectors: BTreeMap<String, DetectorFactory>,
    backbones: BTreeMap<String, BackboneFactory>,
}

impl Registry {
    /// An empty registry.
    pub fn empty() -> Self {
        Self { detectors: BTreeMap::new(), backbones: BTreeMap::new() }
    }

    /// This crate's detector `faster_rcnn` and backbones `resnet` and `mobilenet_v2`.
    pub fn builtin() -> Self {
        let mut registry = Self::empty().with_detector(FASTER_RCNN, |config, registry, builder| {
            let config = config.faster_rcnn()?;
            let body = registry.backbone(&config.backbone, &builder.pp("backbone").pp("body"))?;
            Ok(Arc::new(FasterRcnn::from_parts(config, body, builder)?))
        });
        for name in backbone::BUILTIN {
            registry = registry.with_backbone(name, backbone::builtin);
        }
        registry
    }

    /// Adds a detector, or replaces the one of this name.
    #[must_use]
    pub fn with_detector(
        mut self,
        name: &str,
        factory: impl Fn(&DetectorConfig, &Self, &ModelBuilder<'_>) -> Result<Arc<dyn Detector>> + Send + Sync + 'static,
    ) -> Self {
        self.detectors.insert(name.to_owned(), Arc::new(factory));
        self
    }

    /// Adds a backbone, or replaces the one of this name. The factory's builder is at the backbone's path, such as `backbone.body`.
    #[must_use]
    pub fn with_backbone(
        mut self,
        name: &str,
        factory: impl Fn(&BackboneConfig, &ModelBuilder<'_>) -> Result<Arc<dyn Backbone>> + Send + Sync + 'static,
    ) -> Self {
        self.backbones.insert(name.to_owned(), Arc::new(factory));
        self
    }

    /// Builds the detector that `config` names, from the parameters of `vb`.
    ///
    /// # Errors
    /// [`Error::Unknown`] lists the names that there are; the constructor's own errors.
    pub fn detector(&self, config: &DetectorConfig, vb: VarBuilder<'_>) -> Result<Arc<dyn Detector>> {
        let factory = find("detector", &self.detectors, config.architecture())?;
        factory(config, self, &ModelBuilder::new(vb))
    }

    /// Builds the backbone that `config` names, from the parameters of `builder`.
    ///
    /// # Errors
    /// As [`Registry::detector`].
    pub fn backbone(&self, config: &BackboneConfig, builder: &ModelBuilder<'_>) -> Result<Arc<dyn Backbone>> {
        find("backbone", &self.backbones, config.architecture())?(config, builder)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = |keys: Vec<&String>| keys.into_iter().cloned().collect::<Vec<_>>();
        f.debug_struct("Registry")
            .field("detectors", &names(self.detectors.keys().collect()))
            .field("backbones", &names(self.backbones.keys().collect()))
            .finish()
    }
}

fn find<'a, T>(kind: &'static str, all: &'a BTreeMap<String, T>, name: &str) -> Result<&'a T> {
    all.get(name).ok_or_else(|| Error::Unknown { kind, name: name.to_owned(), known: all.keys().cloned().collect() })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let message = |text: &str| {
            let config: DetectorConfig = serde_json::from_str(text).unwrap();
            let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
            Registry::builtin().detector(&config, vb).unwrap_err().to_string()
        };
        let m = message(r#"{"architecture": "yolo"}"#);
        assert!(m.contains("detector `yolo`") && m.contains("faster_rcnn"), "{m}");
        let m = message(r#"{"backbone": {"architecture": "convnext"}}"#);
        assert!(m.contains("backbone `convnext`") && m.contains("mobilenet_v2, resnet"), "{m}");
    }
}
