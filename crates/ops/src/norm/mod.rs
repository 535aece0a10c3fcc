//! Normalisation that trains: over the batch, and over groups of channels.

mod batch;
mod group;
mod measured;
mod sums;
#[cfg(test)]
mod tests;

pub use batch::{BatchStats, batch_norm_train, conv_batch_norm_train};
pub use group::group_norm;
pub(crate) use sums::{sum1, sum2};
