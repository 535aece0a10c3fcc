//! One file a command.

pub mod ablate;
pub mod dataset;
pub mod eval;
pub mod init;
pub mod predict;
pub mod recipe;
pub mod report;
pub mod serve;
pub mod train;
pub mod weights;
