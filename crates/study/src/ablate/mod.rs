//! An ablation: a grid of ways to train one student, each against the student alone.
//!
//! It is a study with many runs: data, first weights and data order are the same for every cell of a seed, and a teacher is
//! trained (or given) once for all that name it. Every finished run is appended to a file of [records](Records) at once; the
//! next start skips what stands there and goes on with a run that was stopped. [`report`](report()) makes table and plots of the
//! records, whatever is there so far.

mod bootstrap;
mod grid;
mod jobs;
mod kept_runs;
mod options;
mod plot;
mod record;
mod report;
mod row;
mod term_shares;

pub use bootstrap::{
    BOOTSTRAP_SAMPLES, Interval, bootstrap_ap, bootstrap_images, mean_and_deviation, paired, students_t,
};
pub use grid::{ALONE, Cell, Grid, GridTeacher, MAIN, Tier, shipped};
pub use options::{AblateOptions, Planned, State};
pub use record::{DivergedRecord, Line, Record, Records, TeacherRecord};
pub use report::{Report, report};

use docent_model::files;
use docent_train::events::EventSink;

use crate::data::Data;
use crate::error::{Error, Result};
use crate::lock::FolderLock;
use jobs::Setting;
use options::with_paths;

/// An ablation over open data.
pub struct Ablation<'a> {
    setting: Setting<'a>,
    records: Records,
}

impl<'a> Ablation<'a> {
    /// Opens data and records. Nothing is written but `shapes`, where that is the data and not drawn yet.
    ///
    /// # Errors
    /// An option that names nothing in the grid, data or records that cannot be read, a record of other settings, of another teacher
    /// or of other data.
    pub fn open(grid: &'a Grid, options: &'a AblateOptions) -> Result<Self> {
        if options.seeds.is_empty() {
            return Err(Error::Recipe("an ablation needs a seed: --seeds 0".to_owned()));
        }
        if let Some(name) = options.cells.iter().find(|name| grid.cell(name).is_none()) {
            let names: Vec<_> = grid.cells.iter().map(|c| c.name.as_str()).collect();
            return Err(Error::Recipe(format!(
                "ablation {} has no cell '{name}'; it has {}",
                grid.name,
                names.join(", ")
            )));
        }
        let recipe = grid.teacher_recipe(MAIN, &options.set)?;
        if options.weights.is_some() && !recipe.teacher.as_ref().is_some_and(|t| t.init.required) {
            let text =
                format!("the teacher of recipe '{}' starts from random weights; leave --weights out", grid.recipe);
            return Err(Error::Recipe(text));
        }
        let data = Data::open(&with_paths(recipe, options, None).data)?;
        let ablation = Self { setting: Setting { grid, options, data }, records: Records::open(&options.results)? };
        ablation.check_records()?;
        Ok(ablation)
    }

    /// The records so far.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// A record under a cell's name must be of this cell, of its teacher and of this data.
    fn check_records(&self) -> Result<()> {
        let Setting { grid, options, data } = &self.setting;
        let digest = data.summary().digest;
        if let Some(teacher) = self.records.teachers().find(|teacher| teacher.data.digest != digest) {
            return Err(Error::file(
                self.records.path(),
                format!("teacher {} was measured on other data; name another --results", teacher.name),
            ));
        }
        for record in self.records.cells() {
            let Some(cell) = grid.cell(&record.cell) else { continue };
            let teacher = self.records.teacher(&cell.teacher).map(|teacher| &teacher.file.sha256);
            let what = if record.data.digest != digest {
                "other data"
            } else if record.settings != grid.settings(cell, &options.set)? {
                "other settings"
            } else if record.teacher.as_ref() != if cell.alone { None } else { teacher } {
                "another teacher"
            } else {
                continue;
            };
            let (name, seed) = (&record.cell, record.seed);
            return Err(Error::file(
                self.records.path(),
                format!("cell {name}, seed {seed} was run with {what}; name another --results, or the cell otherwise"),
            ));
        }
        Ok(())
    }

    /// Every run that the options ask for, in the order in which they are made: tiers A, C, B; in each, seed by seed.
    ///
    /// # Errors
    /// A cell whose recipe does not fit.
    pub fn plan(&self) -> Result<Vec<Planned>> {
        let Setting { grid, options, .. } = &self.setting;
        let mut plan = Vec::new();
        for tier in [Tier::A, Tier::C, Tier::B] {
            let seeds = if tier == Tier::B { &options.seeds[..1] } else { &options.seeds[..] };
            for &seed in seeds {
                for cell in grid.cells.iter().filter(|c| c.tier == tier && self.asked(c)) {
                    plan.push(self.planned(cell, seed)?);
                }
            }
        }
        Ok(plan)
    }

    fn asked(&self, cell: &Cell) -> bool {
        let AblateOptions { cells, tiers, .. } = self.setting.options;
        (cells.is_empty() || cells.contains(&cell.name)) && (tiers.is_empty() || tiers.contains(&cell.tier))
    }

    fn planned(&self, cell: &Cell, seed: u64) -> Result<Planned> {
        let Setting { grid, options, data } = &self.setting;
        let recipe = grid.recipe_of(cell, seed, &options.set)?;
        let steps = recipe.train.epochs * data.train.len().div_ceil(recipe.train.batch);
        let named = options.cells.contains(&cell.name);
        let settings = grid.settings(cell, &options.set)?;
        let diverged = self.records.diverged(&cell.name, seed).is_some_and(|record| record.settings == settings);
        let (state, done) = match self.records.cell(&cell.name, seed) {
            Some(_) => (State::Done, steps),
            None if diverged && !named => (State::Diverged, steps),
            None => match self.setting.folder(cell, seed).steps_done()? {
                0 => (State::NotRun, 0),
                done => (State::Stopped(done), done),
            },
        };
        let alike = |r: &&Record| r.teacher.is_none() == cell.alone && r.summary.steps > 0;
        let of_their_kind = self.records.cells().filter(alike);
        let (seconds, made) = of_their_kind.fold((0.0, 0), |(s, n), r| (s + r.summary.seconds, n + r.summary.steps));
        let left = steps.saturating_sub(done) as f64;
        let seconds = (made > 0 || left == 0.0).then(|| left * seconds / made.max(1) as f64);
        Ok(Planned { cell: cell.name.clone(), tier: cell.tier, seed, state, steps, seconds })
    }

    /// Makes every run of the [plan](Ablation::plan) that is not done, and after each the [report](report()).
    ///
    /// As many runs are made at a time as there are `jobs`, each with its sink and its share of the compute threads; no bit of
    /// a result depends on their number. A step has serial parts, so that two jobs of one thread are faster than one of two;
    /// they take twice the memory.
    ///
    /// # Errors
    /// A run that fails; what was finished before stands in the records, and so does what other jobs were at.
    pub fn run(&mut self, jobs: &mut [&mut (dyn EventSink + Send)]) -> Result<Report> {
        files::create_dir(&self.setting.options.dir)?;
        let _lock = FolderLock::acquire(&self.setting.options.dir)?;
        // With what another program has recorded since they were opened.
        self.records = Records::open_alone(&self.setting.options.results)?;
        let report = self.check_records().and_then(|()| {
            let plan = self.plan()?;
            jobs::make(&self.setting, &mut self.records, &plan, jobs)
        });
        self.records.release();
        report
    }

    /// Makes the [report](report()) of what stands in the records.
    ///
    /// # Errors
    /// Detections that cannot be scored, or a file that cannot be written.
    pub fn report(&self) -> Result<Report> {
        self.setting.report(&self.records)
    }
}
