//! An ablation: a grid of ways to train one student, each against the student alone.
//!
//! It is a study with many runs: data, first weights and data order are the same for every cell of a seed, and a teacher is
//! trained (or given) once for all that name it. Every finished run is appended to a file of [records](Records) at once; the
//! next start skips what stands there and goes on with a run that was stopped. [`report`](report()) makes table and plots of the
//! records, whatever is there so far.

mod bootstrap;
mod grid;
mod plot;
mod record;
mod report;
mod why;

use std::path::{Path, PathBuf};

pub use bootstrap::{DRAWS, Interval, ap_draws, image_draws, mean_and_deviation, paired};
pub use grid::{ALONE, Cell, Grid, GridTeacher, MAIN, Tier, shipped};
pub use record::{Line, Record, Records, TeacherRecord};
pub use report::{Report, report};

use crate::data::Data;
use crate::events::{Event, EventSink};
use crate::lock::FolderLock;
use crate::manifest::{FileHash, Provenance};
use crate::recipe::Recipe;
use crate::run::RunFolder;
use crate::study::{Study, StudyOptions, Teacher, same_recipe};
use crate::summary::percent;
use crate::weights::sha256_hex;
use crate::{Error, Result, Stop, files};

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
    /// A trained checkpoint for the teacher [`MAIN`].
    pub teacher: Option<PathBuf>,
    /// These cells alone; all where it is empty.
    pub cells: Vec<String>,
    /// These tiers alone; all where it is empty.
    pub tiers: Vec<Tier>,
    /// For the manifests and records.
    pub provenance: Provenance,
    /// Who holds a clone can stop the ablation; the next start goes on.
    pub stop: Stop,
}

/// Where a run of a cell stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    /// It stands in the records.
    Done,
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

/// An ablation over open data.
pub struct Ablation<'a> {
    grid: &'a Grid,
    options: &'a AblateOptions,
    data: Data,
    records: Records,
}

impl<'a> Ablation<'a> {
    /// Opens data and records. Nothing is written.
    ///
    /// # Errors
    /// An option that names nothing in the grid, data or records that cannot be read, a record of other settings or other data.
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
        let ablation = Self { grid, options, data, records: Records::open(&options.results)? };
        ablation.check_records()?;
        Ok(ablation)
    }

    /// The records so far.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// A record under a cell's name must be of this cell, and of this data.
    fn check_records(&self) -> Result<()> {
        let digest = self.data.summary().digest;
        for record in self.records.cells() {
            let Some(cell) = self.grid.cell(&record.cell) else { continue };
            let what = if record.data.digest != digest {
                "other data"
            } else if record.settings != self.grid.settings(cell, &self.options.set)? {
                "other settings"
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
        let mut plan = Vec::new();
        for tier in [Tier::A, Tier::C, Tier::B] {
            let seeds = if tier == Tier::B { &self.options.seeds[..1] } else { &self.options.seeds[..] };
            for &seed in seeds {
                for cell in self.grid.cells.iter().filter(|c| c.tier == tier && self.asked(c)) {
                    plan.push(self.planned(cell, seed)?);
                }
            }
        }
        Ok(plan)
    }

    fn asked(&self, cell: &Cell) -> bool {
        let AblateOptions { cells, tiers, .. } = self.options;
        (cells.is_empty() || cells.contains(&cell.name)) && (tiers.is_empty() || tiers.contains(&cell.tier))
    }

    fn planned(&self, cell: &Cell, seed: u64) -> Result<Planned> {
        let recipe = self.grid.recipe_of(cell, seed, &self.options.set)?;
        let steps = recipe.schedule.epochs * self.data.train.len().div_ceil(recipe.schedule.batch);
        let (state, done) = match self.records.cell(&cell.name, seed) {
            Some(_) => (State::Done, steps),
            None => match self.folder(cell, seed).steps_done()? {
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

    fn folder(&self, cell: &Cell, seed: u64) -> RunFolder {
        RunFolder::new(&self.options.dir, &run_name(&cell.name, seed))
    }

    /// Makes every run of the [plan](Ablation::plan) that is not done, and after each the [report](report()).
    ///
    /// # Errors
    /// A run that fails; what was finished before stands in the records.
    pub fn run(&mut self, sink: &mut dyn EventSink) -> Result<Report> {
        files::create_dir(&self.options.dir)?;
        let _lock = FolderLock::acquire(&self.options.dir)?;
        // The first draws are dear; what was drawn once is kept.
        let mut cache = report::Cache::default();
        let plan = self.plan()?;
        let total = plan.len();
        let mut teacher: Option<(String, Teacher)> = None;
        for (number, planned) in plan.iter().enumerate() {
            let Some(cell) = self.grid.cell(&planned.cell) else { continue };
            if planned.state == State::Done {
                sink.event(&Event::RunSkipped { run: run_name(&planned.cell, planned.seed) })?;
                continue;
            }
            if !cell.alone && teacher.as_ref().is_none_or(|(name, _)| *name != cell.teacher) {
                // The old one goes first: two need not fit into memory.
                drop(teacher.take());
                teacher = Some((cell.teacher.clone(), self.teacher(&cell.teacher, sink)?));
            }
            let text = format!("{} of {total}: cell {} ({}), seed {}", number + 1, cell.name, cell.about, planned.seed);
            sink.event(&Event::Note { text })?;
            let taught = teacher.as_ref().filter(|_| !cell.alone).map(|(_, teacher)| teacher);
            self.run_cell(cell, planned.seed, taught, sink)?;
            self.report_with(&mut cache)?;
        }
        self.report_with(&mut cache)
    }

    /// Makes the [report](report()) of what stands in the records.
    ///
    /// # Errors
    /// Detections that cannot be scored, or a file that cannot be written.
    pub fn report(&self) -> Result<Report> {
        self.report_with(&mut report::Cache::default())
    }

    fn report_with(&self, cache: &mut report::Cache) -> Result<Report> {
        report(self.grid, self.options, &self.data, &self.records, cache)
    }

    fn study<'s>(&'s self, recipe: &'s Recipe, options: &'s StudyOptions) -> Study<'s> {
        Study { recipe, options, data: self.data.clone(), summary: self.data.summary() }
    }

    /// Trains or loads a teacher, measures it, and records that.
    fn teacher(&mut self, name: &str, sink: &mut dyn EventSink) -> Result<Teacher> {
        let given = self.options.teacher.as_deref().filter(|_| name == MAIN);
        let recipe = with_paths(self.grid.teacher_recipe(name, &self.options.set)?, self.options, given);
        let options = self.study_options(Path::new("teachers").join(name));
        let Some(wanted) = &recipe.teacher else {
            return Err(Error::Recipe(format!("recipe '{}' has no teacher", self.grid.recipe)));
        };
        same_recipe(&RunFolder::new(&options.dir, "teacher").recipe(), &recipe)?;
        let teacher = self.study(&recipe, &options).teacher(wanted, sink)?;
        let text = format!("teacher {name}: AP {}, shared by every cell that names it", percent(teacher.summary.ap));
        sink.event(&Event::Note { text })?;
        for record in self.records.cells() {
            let of_this = self.grid.cell(&record.cell).is_some_and(|c| c.teacher == name);
            if of_this && record.teacher.as_ref().is_some_and(|hash| *hash != teacher.file.sha256) {
                return Err(Error::file(
                    self.records.path(),
                    format!("cell {}, seed {} was taught by another teacher '{name}'", record.cell, record.seed),
                ));
            }
        }
        if self.records.teacher(name).is_none_or(|t| t.file.sha256 != teacher.file.sha256) {
            let path = Path::new("teachers").join(format!("{name}-detections.json"));
            files::create_dir(&self.options.dir.join("teachers"))?;
            docent_coco::write_results(&self.options.dir.join(&path), &teacher.detections)?;
            let record = TeacherRecord {
                name: name.to_owned(),
                file: teacher.file.clone(),
                data: self.data.summary(),
                detections: self.hashed(&path)?,
                provenance: self.options.provenance.clone(),
                summary: teacher.summary.clone(),
            };
            self.records.push(Line::Teacher(record))?;
        }
        Ok(teacher)
    }

    fn run_cell(&mut self, cell: &Cell, seed: u64, teacher: Option<&Teacher>, sink: &mut dyn EventSink) -> Result<()> {
        let recipe = self.grid.recipe_of(cell, seed, &self.options.set)?;
        let recipe = with_paths(recipe, self.options, teacher.map(|t| Path::new(&t.file.path)));
        let name = run_name(&cell.name, seed);
        let folder = self.folder(cell, seed);
        // The folder of a run that was finished, or stopped, under other settings is no folder of this one.
        same_recipe(&folder.recipe(), &recipe)?;
        let options = self.study_options(PathBuf::new());
        let taught = match (teacher, &recipe.distill) {
            (Some(teacher), Some(method)) => Some((teacher, method)),
            (None, None) => None,
            _ => return Err(Error::Recipe(format!("cell {}: recipe '{}' has no [distill]", cell.name, recipe.name))),
        };
        let summary = self.study(&recipe, &options).student(&name, taught, sink)?;
        let record = Record {
            cell: cell.name.clone(),
            tier: cell.tier,
            seed,
            set: [cell.set.as_slice(), &self.options.set].concat(),
            settings: self.grid.settings(cell, &self.options.set)?,
            teacher: teacher.map(|t| t.file.sha256.clone()),
            data: self.data.summary(),
            detections: self.hashed(&Path::new(&name).join("detections.json"))?,
            provenance: self.options.provenance.clone(),
            summary,
        };
        self.records.push(Line::Cell(record))
    }

    fn study_options(&self, below: PathBuf) -> StudyOptions {
        let dir = self.options.dir.join(below);
        let (provenance, stop) = (self.options.provenance.clone(), self.options.stop.clone());
        StudyOptions { dir, resume: true, provenance, stop }
    }

    /// A file of the ablation's folder, by its path in it.
    fn hashed(&self, path: &Path) -> Result<FileHash> {
        let whole = self.options.dir.join(path);
        let bytes = std::fs::read(&whole).map_err(|e| Error::io(&whole, e))?;
        Ok(FileHash { path: path.display().to_string(), sha256: sha256_hex(bytes) })
    }
}

fn run_name(cell: &str, seed: u64) -> String {
    format!("{cell}-seed{seed}")
}

/// The recipe with the paths of the command line.
fn with_paths(mut recipe: Recipe, options: &AblateOptions, teacher: Option<&Path>) -> Recipe {
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
