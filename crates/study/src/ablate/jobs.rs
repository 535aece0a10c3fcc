//! The runs of an ablation, several at a time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use docent_model::files;
use docent_model::sha256_hex;
use docent_tensor::process::STACK_BYTES;
use docent_train::events::{Event, EventSink};

use crate::ablate::grid::{Cell, Grid, MAIN};
use crate::ablate::options::{AblateOptions, Planned, State, run_name, with_paths};
use crate::ablate::record::{DivergedRecord, Line, Record, Records, TeacherRecord};
use crate::ablate::report::{Report, report};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::manifest::FileHash;
use crate::recipe::Recipe;
use crate::run::RunFolder;
use crate::study::{Study, StudyOptions, Teacher, same_recipe};
use crate::summary::percent;

/// What is the same for every run of an ablation.
pub(super) struct Setting<'a> {
    pub grid: &'a Grid,
    pub options: &'a AblateOptions,
    pub data: Data,
}

/// One job a sink makes the runs of `plan` that are not done, all on an equal share of the compute threads.
///
/// A run that diverges is recorded as such, and the others go on. Any other failure ends the others after the runs they are at,
/// which are recorded like any.
pub(super) fn make(
    setting: &Setting<'_>,
    records: &mut Records,
    plan: &[Planned],
    jobs: &mut [&mut (dyn EventSink + Send)],
) -> Result<Report> {
    let mut open = Vec::new();
    for (at, run) in plan.iter().enumerate() {
        match (setting.grid.cell(&run.cell), jobs.first_mut()) {
            (_, Some(sink)) if run.state == State::Done => {
                sink.event(&Event::RunSkipped { run: run_name(&run.cell, run.seed) })?;
            }
            (Some(cell), Some(sink)) if run.state == State::Diverged => {
                let text = format!(
                    "cell {}, seed {}: diverged before; --cells {} tries it again",
                    cell.name, run.seed, cell.name
                );
                sink.event(&Event::Warning { text })?;
            }
            (Some(cell), Some(_)) => open.push(Task { number: at + 1, cell, seed: run.seed }),
            _ => {}
        }
    }
    let board = Board {
        setting,
        total: plan.len(),
        state: Mutex::new(Shared { records, open, teacher: Slot::Empty, users: 0, failure: None, closed: false }),
        changed: Condvar::new(),
    };
    match jobs {
        [one] => board.work(*one),
        jobs => {
            let threads = (rayon::current_num_threads() / jobs.len().max(1)).max(1);
            let pool = || rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK_BYTES).build();
            let pools = jobs.iter().map(|_| pool()).collect::<std::result::Result<Vec<_>, _>>();
            let pools = pools.map_err(|e| Error::Recipe(format!("no threads for {} jobs: {e}", jobs.len())))?;
            std::thread::scope(|scope| {
                for (pool, sink) in pools.iter().zip(jobs) {
                    scope.spawn(|| pool.install(|| board.work(*sink)));
                }
            });
        }
    }
    board.finish()
}

/// Who makes which run, and what is known of those that are made.
struct Board<'a> {
    setting: &'a Setting<'a>,
    total: usize,
    state: Mutex<Shared<'a>>,
    changed: Condvar,
}

struct Shared<'a> {
    records: &'a mut Records,
    /// Runs that no job has taken, in the plan's order.
    open: Vec<Task<'a>>,
    teacher: Slot,
    /// Jobs that make or use the teacher in the slot.
    users: usize,
    failure: Option<Error>,
    /// No run is begun any more.
    closed: bool,
}

/// One teacher at a time: two need not fit into memory.
enum Slot {
    Empty,
    Coming,
    Here(String, Arc<Teacher>),
}

/// A run to be made.
struct Task<'a> {
    /// Its 1-based number in the plan.
    number: usize,
    cell: &'a Cell,
    seed: u64,
}

/// Where a run's teacher comes from.
enum TeacherChoice {
    Alone,
    /// It must be made first, by this job.
    Make,
    From(Arc<Teacher>),
}

impl<'a> Board<'a> {
    fn lock(&self) -> MutexGuard<'_, Shared<'a>> {
        // A job that panicked has left nothing half-done that the others would read: records are pushed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes run after run until none is left.
    fn work(&self, sink: &mut dyn EventSink) {
        let _closing = CloseOnPanic(self);
        while let Some((task, choice)) = self.next() {
            let with_teacher = !matches!(choice, TeacherChoice::Alone);
            let result = self.make(&task, choice, sink);
            let mut state = self.lock();
            if with_teacher {
                state.users -= 1;
            }
            if let Err(error) = result {
                state.closed = true;
                // A stop reaches every job; who stops first speaks for all.
                state.failure.get_or_insert(error);
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The first open run whose teacher is there, is not needed, or can be made now; waits while there are others. The
    /// first teacher comes before everything else, so that one that is no good shows at once.
    fn next(&self) -> Option<(Task<'a>, TeacherChoice)> {
        let mut state = self.lock();
        loop {
            if state.closed || state.open.is_empty() {
                return None;
            }
            let free = |cell: &Cell| match &state.teacher {
                _ if cell.alone => Some(TeacherChoice::Alone),
                Slot::Here(name, teacher) if *name == cell.teacher => Some(TeacherChoice::From(teacher.clone())),
                Slot::Empty | Slot::Here(..) if state.users == 0 => Some(TeacherChoice::Make),
                _ => None,
            };
            let all = || state.open.iter().enumerate();
            let no_teacher = matches!(state.teacher, Slot::Empty);
            let with_teacher = all().filter(|(_, task)| no_teacher && !task.cell.alone);
            let found = with_teacher.chain(all()).find_map(|(at, task)| Some((at, free(task.cell)?)));
            if let Some((at, choice)) = found {
                if !matches!(choice, TeacherChoice::Alone) {
                    state.users += 1;
                }
                if matches!(choice, TeacherChoice::Make) {
                    // The old one goes before the new one comes.
                    state.teacher = Slot::Coming;
                }
                return Some((state.open.remove(at), choice));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn make(
        &self,
        &Task { number, cell, seed }: &Task<'_>,
        choice: TeacherChoice,
        sink: &mut dyn EventSink,
    ) -> Result<()> {
        let teacher = match choice {
            TeacherChoice::Alone => None,
            TeacherChoice::From(teacher) => Some(teacher),
            TeacherChoice::Make => Some(self.make_teacher(&cell.teacher, sink)?),
        };
        let text = format!("{number} of {}: cell {} ({}), seed {seed}", self.total, cell.name, cell.about);
        sink.event(&Event::Note { text })?;
        let line = match self.setting.run_cell(cell, seed, teacher.as_deref(), sink) {
            Ok(record) => Line::Cell(record),
            // It would diverge again at every start, and the cells behind it would never be made.
            Err(error @ Error::Diverged { .. }) => {
                sink.event(&Event::Warning { text: error.to_string() })?;
                Line::Diverged(DivergedRecord {
                    cell: cell.name.clone(),
                    seed,
                    settings: self.setting.grid.settings(cell, &self.setting.options.set)?,
                    what: error.to_string(),
                    provenance: self.setting.options.provenance.clone(),
                })
            }
            Err(other) => return Err(other),
        };
        let mut state = self.lock();
        state.records.push(line)?;
        self.setting.report(state.records)?;
        Ok(())
    }

    fn make_teacher(&self, name: &str, sink: &mut dyn EventSink) -> Result<Arc<Teacher>> {
        let made = self.setting.teacher(name, sink).and_then(|teacher| {
            self.record_teacher(name, &teacher)?;
            Ok(Arc::new(teacher))
        });
        self.lock().teacher = match &made {
            Ok(teacher) => Slot::Here(name.to_owned(), teacher.clone()),
            Err(_) => Slot::Empty,
        };
        self.changed.notify_all();
        made
    }

    /// Records a teacher, if it is not there. Runs of another one under its name could not be compared.
    fn record_teacher(&self, name: &str, teacher: &Teacher) -> Result<()> {
        let Setting { grid, options, data } = self.setting;
        let records = &mut *self.lock().records;
        for record in records.cells() {
            let of_this = grid.cell(&record.cell).is_some_and(|c| c.teacher == name);
            if of_this && record.teacher.as_ref().is_some_and(|hash| *hash != teacher.file.sha256) {
                return Err(Error::file(
                    records.path(),
                    format!("cell {}, seed {} was with_teacher by another teacher '{name}'", record.cell, record.seed),
                ));
            }
        }
        if records.teacher(name).is_some_and(|t| t.file.sha256 == teacher.file.sha256) {
            return Ok(());
        }
        let path = Path::new("teachers").join(format!("{name}-detections.json"));
        files::create_dir(&options.dir.join("teachers"))?;
        docent_coco::write_results(&options.dir.join(&path), &teacher.detections)?;
        records.push(Line::Teacher(TeacherRecord {
            name: name.to_owned(),
            file: teacher.file.clone(),
            data: data.summary(),
            detections: self.setting.hashed(&path)?,
            provenance: options.provenance.clone(),
            summary: teacher.summary.clone(),
        }))
    }

    fn finish(self) -> Result<Report> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.failure {
            Some(error) => Err(error),
            None => self.setting.report(state.records),
        }
    }
}

/// Without it, jobs would wait for ever for a teacher whose maker has panicked.
struct CloseOnPanic<'b, 'a>(&'b Board<'a>);

impl Drop for CloseOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().closed = true;
            self.0.changed.notify_all();
        }
    }
}

impl Setting<'_> {
    pub(super) fn folder(&self, cell: &Cell, seed: u64) -> RunFolder {
        RunFolder::new(&self.options.dir, &run_name(&cell.name, seed))
    }

    pub(super) fn report(&self, records: &Records) -> Result<Report> {
        report(self.grid, self.options, &self.data, records)
    }

    fn study<'s>(&'s self, recipe: &'s Recipe, options: &'s StudyOptions) -> Study<'s> {
        Study { recipe, options, data: self.data.clone(), summary: self.data.summary() }
    }

    fn study_options(&self, below: PathBuf) -> StudyOptions {
        let dir = self.options.dir.join(below);
        let AblateOptions { provenance, cancel, registry, .. } = self.options;
        let (provenance, cancel, registry) = (provenance.clone(), cancel.clone(), registry.clone());
        StudyOptions { dir, resume: true, provenance, cancel, registry }
    }

    /// Trains or loads a teacher and measures it.
    fn teacher(&self, name: &str, sink: &mut dyn EventSink) -> Result<Teacher> {
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
        Ok(teacher)
    }

    fn run_cell(&self, cell: &Cell, seed: u64, teacher: Option<&Teacher>, sink: &mut dyn EventSink) -> Result<Record> {
        let recipe = self.grid.recipe_of(cell, seed, &self.options.set)?;
        let recipe = with_paths(recipe, self.options, teacher.map(|t| Path::new(&t.file.path)));
        let name = run_name(&cell.name, seed);
        let folder = self.folder(cell, seed);
        // The folder of a run that was finished, or stopped, under other settings is no folder of this one.
        same_recipe(&folder.recipe(), &recipe)?;
        let options = self.study_options(PathBuf::new());
        let with_teacher = match (teacher, &recipe.distill) {
            (Some(teacher), Some(method)) => Some((teacher, method)),
            (None, None) => None,
            _ => return Err(Error::Recipe(format!("cell {}: recipe '{}' has no [distill]", cell.name, recipe.name))),
        };
        let summary = self.study(&recipe, &options).student(&name, with_teacher, sink)?;
        Ok(Record {
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
        })
    }

    /// A file of the ablation's folder, by its path in it.
    fn hashed(&self, path: &Path) -> Result<FileHash> {
        let whole = self.options.dir.join(path);
        let bytes = std::fs::read(&whole).map_err(|e| Error::io(&whole, e))?;
        Ok(FileHash { path: path.display().to_string(), sha256: sha256_hex(bytes) })
    }
}
