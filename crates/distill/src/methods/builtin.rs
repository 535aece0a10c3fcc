//! This crate's own methods by their configuration.

use candle_nn::VarBuilder;

use super::config::{DEFEAT, DistillerConfig, FGFI, FITNETS, PKD, TASK_ADAPTIVE};
use super::defeat::Defeat;
use super::fgfi::Fgfi;
use super::fitnets::Fitnets;
use super::pkd::Pkd;
use super::task_adaptive::TaskAdaptive;
use crate::context::Channels;
use crate::distiller::Distiller;
use crate::error::{Error, Result};

/// Names of the methods that [`builtin`] makes.
pub const BUILTIN: [&str; 5] = [TASK_ADAPTIVE, FITNETS, FGFI, PKD, DEFEAT];

/// One of this crate's methods; its own parameters come from `vb`.
///
/// # Errors
/// Settings that mean nothing, channels that do not fit, a name that `vb` does not have, a method that this crate does not have.
pub fn builtin(
    config: &DistillerConfig,
    student: &Channels,
    teacher: &Channels,
    vb: VarBuilder<'_>,
) -> Result<Box<dyn Distiller>> {
    Ok(match config {
        DistillerConfig::TaskAdaptive(config) => Box::new(TaskAdaptive::new(config, student, teacher, vb)?),
        DistillerConfig::Fitnets(config) => Box::new(Fitnets::new(config, student, teacher, vb)?),
        DistillerConfig::Fgfi(config) => Box::new(Fgfi::new(config, student, teacher, vb)?),
        DistillerConfig::Pkd(config) => Box::new(Pkd::new(config, student, teacher, vb)?),
        DistillerConfig::Defeat(config) => Box::new(Defeat::new(config, student, teacher, vb)?),
        DistillerConfig::Other(other) => {
            return Err(Error::Unknown { name: other.method.clone(), known: BUILTIN.map(str::to_owned).to_vec() });
        }
    })
}
