//! One file a command.

pub mod dataset;
pub mod ablate;
pub mod eval;
pub mod predict;
pub mod recipe;
pub mod train;
