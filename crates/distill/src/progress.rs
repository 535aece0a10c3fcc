//! The progress of a training run.

/// The progress of a training run.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The epoch now running, from 1.
    pub epoch: usize,
    /// Epochs of the whole run.
    pub epochs: usize,
    /// The optimizer step now running, from 1, counted over the whole run.
    pub iteration: usize,
    /// Optimizer steps of the whole run.
    pub iterations: usize,
    /// Steps after which the learning rate drops: the drop holds from step `m + 1` on.
    pub milestones: &'a [usize],
}

impl Progress<'static> {
    /// Step `iteration`, from 1, of a run that is one epoch of `iterations` steps.
    pub fn one_epoch(iteration: usize, iterations: usize) -> Self {
        Self { epoch: 1, epochs: 1, iteration, iterations, milestones: &[] }
    }
}
