//! How the terms of each taught cell weighed against the detection losses, from the logs of its runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use docent_train::events::StepRecord;
use serde::{Deserialize, Serialize};

use crate::ablate::record::Record;
use crate::report::log::Log;
use crate::run::RunFolder;

/// Means over one epoch's steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct EpochMeans {
    /// Sum and number of values, by name.
    sums: BTreeMap<String, (f64, usize)>,
}

impl EpochMeans {
    fn add(&mut self, name: &str, value: f64) {
        let entry = self.sums.entry(name.to_owned()).or_default();
        *entry = (entry.0 + value, entry.1 + 1);
    }

    /// Takes another run's steps in.
    pub(super) fn join(&mut self, other: &Self) {
        for (name, (sum, count)) in &other.sums {
            let entry = self.sums.entry(name.clone()).or_default();
            *entry = (entry.0 + sum, entry.1 + count);
        }
    }

    fn mean(&self, name: &str) -> Option<f64> {
        self.sums.get(name).map(|(sum, count)| sum / *count as f64)
    }

    fn add_step(&mut self, step: &StepRecord) {
        let Some(distill) = &step.distill else { return };
        self.add("all", distill.ratio);
        let detection = step.detection();
        if detection > 0.0 {
            distill.terms.iter().for_each(|t| self.add(&format!("term {}", t.name), t.weighted / detection));
        }
        for (name, value) in distill.stats.iter().filter(|(name, _)| name == "gated_share") {
            self.add(name, *value);
        }
        if let Some(diagnosis) = &step.diagnosis {
            self.add("cosine", diagnosis.cosine);
            self.add("norm ratio", diagnosis.norm_ratio);
        }
    }

    /// The names of the terms, without their prefix.
    fn terms(&self) -> Vec<&str> {
        self.sums.keys().filter_map(|name| name.strip_prefix("term ")).collect()
    }
}

/// The first, the middle and the last epoch of a run; None where no log is there, or nobody taught it.
pub(super) fn epochs(dir: &std::path::Path, record: &Record) -> Option<[EpochMeans; 3]> {
    let name = super::options::run_name(&record.cell, record.seed);
    let steps = Log::read(&RunFolder::new(dir, &name).metrics()).ok()?.steps;
    let last = steps.last()?.epoch;
    let means = [1, last.div_ceil(2), last].map(|epoch| {
        let mut means = EpochMeans::default();
        steps.iter().filter(|step| step.epoch == epoch).for_each(|step| means.add_step(step));
        means
    });
    means[0].mean("all").map(|_| means)
}

/// A table of what [`epochs`] gives for each cell.
pub(super) fn table(rows: &[(String, [EpochMeans; 3])]) -> String {
    let mut text = String::from(
        "| cell | distillation over detection loss | by term, first epoch | gated share | gradients' cosine | norm ratio |\n\
         |---|---|---|---|---|---|\n",
    );
    for (cell, means) in rows {
        let of = |name: &str| -> String {
            let each: Option<Vec<String>> = means.iter().map(|m| m.mean(name).map(|v| format!("{v:.2}"))).collect();
            each.map_or_else(String::new, |each| each.join(", "))
        };
        let first = &means[0];
        let term = |name: &str| first.mean(&format!("term {name}")).map(|v| format!("{name} {v:.2}"));
        let terms: Vec<String> = first.terms().into_iter().filter_map(term).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {cell} | {} | {} | {} | {} | {} |",
            of("all"),
            terms.join(", "),
            of("gated_share"),
            of("cosine"),
            of("norm ratio")
        );
    }
    text
}
