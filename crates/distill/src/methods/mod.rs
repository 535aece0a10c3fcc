//! The methods side by side, behind one [`Distiller`](crate::Distiller) trait, one loop and one schedule.
//!
//! Each is one file, written from its paper's formulas; the paper is named there. The papers' code was not consulted. What a
//! paper leaves open, or what we could not check, is marked \[ours\]. For the methods beside [`TaskAdaptive`] that is above all how
//! the loss is shared out over the levels of a pyramid (the mean over levels, so that the number of levels does not act as a weight)
//! and the weights, which the papers give for COCO's channels. None of these decays.

mod builtin;
mod config;
mod defeat;
mod fgfi;
mod fitnets;
mod pkd;
mod shared;
mod task_adaptive;

pub(crate) use builtin::{BUILTIN, builtin};
pub use config::{DistillerConfig, OtherDistiller};
pub use defeat::{Defeat, DefeatConfig};
pub use fgfi::{Fgfi, FgfiConfig, imitation_mask};
pub use fitnets::{Fitnets, FitnetsConfig};
pub use pkd::{Pkd, PkdConfig};
pub use task_adaptive::TaskAdaptive;
