//! How an ablation runs, and where its runs stand.

use std::path::{Path, PathBuf};

use docent_train::CancelToken;

use super::grid::Tier;
use crate::manifest::Provenance;
use crate::recipe::Recipe;
use crate::registry::Registry;

/// Where and how an ablation runs.
#[derive(Debug, Clone)]
pub struct AblateOptions {
    /// Folder of the runs.
    pub dir: PathBuf,
    /// The file of records; table and plots stand beside it.
    pub results: PathBuf,
    /// Seeds of the cells. A cell of tier B takes the first alone.
    pub seeds: Vec<u64>,
    /// Assignments for every run, teachers included.
    pub set: Vec<String>,
    /// The data folder.
    pub data: Option<PathBuf>,
    /// Pre-trained backbone of the teachers whose `init.required` is set.
    pub weights: Option<PathBuf>,
    /// A trained checkpoint for the teacher [`MAIN`](super::MAIN).
    pub teacher: Option<PathBuf>,
    /// These cells alone; all where it is empty.
    pub cells: Vec<String>,
    /// These tiers alone; all where it is empty.
    pub tiers: Vec<Tier>,
    /// For the manifests and records.
    pub provenance: Provenance,
    /// Who holds a clone can stop the ablation; the next start goes on.
    pub cancel: CancelToken,
    /// What the recipes may name.
    pub registry: Registry,
}

/// Where a run of a cell stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    /// It stands in the records.
    Done,
    /// It has diverged, which stands there too; made again where the cell is asked for by name.
    Diverged,
    /// It was stopped after so many steps.
    Stopped(usize),
    /// Nothing is there.
    NotRun,
}

/// One run of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The cell's name.
    pub cell: String,
    /// Its tier.
    pub tier: Tier,
    /// The seed.
    pub seed: u64,
    /// Where it stands.
    pub state: State,
    /// Steps of the whole run.
    pub steps: usize,
    /// Seconds that are left, by what the finished runs of this kind (alone, or with a teacher) took; evaluation not counted.
    pub seconds: Option<f64>,
}

pub(super) fn run_name(cell: &str, seed: u64) -> String {
    format!("{cell}-seed{seed}")
}

/// The recipe with the paths of the command line.
pub(super) fn with_paths(mut recipe: Recipe, options: &AblateOptions, teacher: Option<&Path>) -> Recipe {
    if options.data.is_some() {
        recipe.data.dir.clone_from(&options.data);
    }
    if let Some(part) = &mut recipe.teacher {
        // A grid's other teachers may start from random weights: only one that needs a file takes it.
        if part.init.required {
            part.init.backbone = options.weights.clone().or(part.init.backbone.take());
        }
        part.checkpoint = teacher.map(Path::to_path_buf).or(part.checkpoint.take());
    }
    recipe
}
