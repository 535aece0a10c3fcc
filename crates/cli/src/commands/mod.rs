//! One file a command.

pub mod ablate;
pub mod dataset;
pub mod eval;
pub mod predict;
pub mod recipe;
pub mod report;
pub mod train;
pub mod weights;
