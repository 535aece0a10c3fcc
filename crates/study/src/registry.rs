//! Everything that a recipe may name.

use docent_distill::DistillerRegistry;

/// The detectors, backbones and distillation methods that a program knows, by name.
///
/// ```
/// use std::sync::Arc;
///
/// use docent_detect::backbone::{ResNet, ResNetConfig};
/// use docent_study::Registry;
///
/// let mut registry = Registry::builtin();
/// registry.models = registry.models.with_backbone("tiny", |_config, builder| {
///     let config = ResNetConfig::default().depth(18).width_multiplier(0.125);
///     Ok(Arc::new(ResNet::new(&config, builder)?))
/// });
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Registry {
    /// Detectors and backbones.
    pub models: docent_detect::Registry,
    /// Distillation methods.
    pub distillers: DistillerRegistry,
}

impl Registry {
    /// The project's own.
    pub fn builtin() -> Self {
        Self { models: docent_detect::Registry::builtin(), distillers: DistillerRegistry::builtin() }
    }
}
