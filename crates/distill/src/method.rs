//! The methods by name: what a recipe writes, and the distiller that it means.

use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use crate::config::TaskAdaptiveConfig;
use crate::distiller::{Channels, Distiller};
use crate::error::Result;
use crate::rivals::{Defeat, DefeatConfig, Fgfi, FgfiConfig, Fitnets, FitnetsConfig, Pkd, PkdConfig};
use crate::task_adaptive::TaskAdaptive;

/// The method that a recipe means when it names none.
pub const DEFAULT_METHOD: &str = "task_adaptive";

/// A distillation method with its settings.
///
/// In a recipe, `method` names the variant and the other keys are its settings. A method of one's own is a file that
/// implements [`Distiller`], a variant here and an arm in each of the functions below; the loop does not change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum MethodConfig {
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
}

impl Default for MethodConfig {
    fn default() -> Self {
        Self::TaskAdaptive(TaskAdaptiveConfig::default())
    }
}

impl MethodConfig {
    /// Checks that every setting means something.
    ///
    /// # Errors
    /// [`crate::Error::Config`] names the setting and the way out.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::TaskAdaptive(config) => config.validate(),
            Self::Fitnets(config) => config.validate(),
            Self::Fgfi(config) => config.validate(),
            Self::Pkd(config) => config.validate(),
            Self::Defeat(config) => config.validate(),
        }
    }

    /// Checks that the method can join the two models' feature maps.
    ///
    /// # Errors
    /// [`crate::Error::Config`] if there is no adapter and the channels differ.
    pub fn validate_channels(&self, student: &Channels, teacher: &Channels) -> Result<()> {
        match self {
            Self::TaskAdaptive(config) => config.validate_channels(student, teacher),
            Self::Fitnets(config) => config.validate_channels(student, teacher),
            Self::Fgfi(config) => config.validate_channels(student, teacher),
            Self::Pkd(config) => config.validate_channels(student, teacher),
            Self::Defeat(config) => config.validate_channels(student, teacher),
        }
    }

    /// The distiller; its own parameters come from `vb`.
    ///
    /// # Errors
    /// Settings that mean nothing, channels that do not fit, a name that `vb` does not have.
    pub fn build(&self, student: &Channels, teacher: &Channels, vb: VarBuilder<'_>) -> Result<Box<dyn Distiller>> {
        Ok(match self {
            Self::TaskAdaptive(config) => Box::new(TaskAdaptive::new(config, student, teacher, vb)?),
            Self::Fitnets(config) => Box::new(Fitnets::new(config, student, teacher, vb)?),
            Self::Fgfi(config) => Box::new(Fgfi::new(config, student, teacher, vb)?),
            Self::Pkd(config) => Box::new(Pkd::new(config, student, teacher, vb)?),
            Self::Defeat(config) => Box::new(Defeat::new(config, student, teacher, vb)?),
        })
    }
}
