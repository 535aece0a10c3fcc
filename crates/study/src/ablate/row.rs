//! One row of an ablation's table.

use crate::ablate::bootstrap::Interval;
use crate::ablate::grid::Cell;
use crate::ablate::record::Record;

/// One row of the table: a cell with what is known of it.
pub(super) struct Row<'a> {
    pub cell: &'a Cell,
    /// Each seed's AP, in the order of the options; None where it has not run.
    pub seeds: Vec<(u64, Option<f64>)>,
    /// Difference to its reference, over the seeds that both have.
    pub gain: Option<Gain>,
    /// The same with its interval, where the detections are there.
    pub interval: Option<Interval>,
    /// Difference to its own teacher, with its interval.
    pub teacher: Option<Interval>,
    pub records: Vec<&'a Record>,
    pub diverged: Vec<u64>,
}

/// A mean difference over seeds.
pub(super) struct Gain {
    pub mean: f64,
    pub pairs: usize,
    /// Of the seeds alone, by Student's t.
    pub t: Option<Interval>,
}

impl Row<'_> {
    /// The APs that are there.
    pub fn aps(&self) -> Vec<f64> {
        self.seeds.iter().filter_map(|(_, ap)| *ap).collect()
    }
}
