//! Normalisation that trains: over the batch, and over groups of channels.

mod batch;
mod batch_kernel;
mod group;
mod sums;
#[cfg(test)]
mod tests;

pub use batch::{batch_norm_train, conv_batch_norm_train};
pub use batch_kernel::BatchStats;
pub use group::group_norm;
pub(crate) use sums::{sum1, sum2};
