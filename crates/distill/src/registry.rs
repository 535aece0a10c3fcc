//! Distillation methods by name, for recipes.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_nn::VarBuilder;

use crate::context::Channels;
use crate::distiller::Distiller;
use crate::error::{Error, Result};
use crate::methods::{BUILTIN, DistillerConfig, builtin};

type Factory =
    Arc<dyn Fn(&DistillerConfig, &Channels, &Channels, VarBuilder<'_>) -> Result<Box<dyn Distiller>> + Send + Sync>;

/// The distillation methods that a program knows, by name.
#[derive(Clone)]
pub struct DistillerRegistry {
    methods: BTreeMap<String, Factory>,
}

impl DistillerRegistry {
    /// An empty registry.
    pub fn empty() -> Self {
        Self { methods: BTreeMap::new() }
    }

    /// This crate's methods.
    pub fn builtin() -> Self {
        BUILTIN.into_iter().fold(Self::empty(), |registry, name| registry.with_method(name, builtin))
    }

    /// Adds a method, or replaces the one of this name. The factory gets the settings, the channels of the student's and of
    /// the teacher's maps, and a builder for parameters of the method's own.
    #[must_use]
    pub fn with_method(
        mut self,
        name: &str,
        factory: impl Fn(&DistillerConfig, &Channels, &Channels, VarBuilder<'_>) -> Result<Box<dyn Distiller>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.methods.insert(name.to_owned(), Arc::new(factory));
        self
    }

    /// Builds the method that `config` names; its own parameters come from `vb`.
    ///
    /// # Errors
    /// [`Error::Unknown`] lists the names that there are; settings that mean nothing, channels that do not fit, a name that `vb` does
    /// not have.
    pub fn distiller(
        &self,
        config: &DistillerConfig,
        student: &Channels,
        teacher: &Channels,
        vb: VarBuilder<'_>,
    ) -> Result<Box<dyn Distiller>> {
        let known = || self.methods.keys().cloned().collect();
        let factory = self
            .methods
            .get(config.method())
            .ok_or_else(|| Error::Unknown { name: config.method().to_owned(), known: known() })?;
        factory(config, student, teacher, vb)
    }
}

impl std::fmt::Debug for DistillerRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DistillerRegistry").field("methods", &self.methods.keys().collect::<Vec<_>>()).finish()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let config: DistillerConfig = serde_json::from_str(r#"{"method": "fitnet"}"#).unwrap();
        let channels = Channels { fpn: vec![4], stages: vec![4] };
        let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
        let error =
            DistillerRegistry::builtin().distiller(&config, &channels, &channels, vb).err().unwrap().to_string();
        assert!(error.contains("`fitnet`") && error.contains("defeat, fgfi, fitnets, pkd, task_adaptive"), "{error}");
    }
}
