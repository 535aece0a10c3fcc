//! A study: an ordered set of runs that share data, seed, first student and teacher.
//!
//! The recipe's study is teacher, student alone, distilled student. Finished runs are kept, so a study goes on where it stopped.

use std::path::{Path, PathBuf};

use candle_core::Device;
use docent_coco::Detection;
use docent_distill::{Channels, MethodConfig};
use rand::RngCore;
use serde_json::Value;

use crate::build::{Built, build, with_classes};
use crate::checkpoint::differences;
use crate::data::{Data, DataSummary};
use crate::detector::Detector;
use crate::evaluate::{cost, evaluate};
use crate::events::{Event, EventSink};
use crate::experiment::without_paths;
use crate::lock::{FolderLock, LOCK_FILE};
use crate::manifest::{FileHash, Host, Manifest, Provenance};
use crate::recipe::{InitRecipe, ModelRecipe, Recipe, TeacherRecipe};
use crate::run::{self, Learner, RunFolder, RunPlan, Teaching};
use crate::summary::{RunSummary, StudySummary, percent};
use crate::{EarlyStop, Error, Kind, ParamStore, Result, Stop, TeacherCache, files, report};

/// Where and how a study runs.
#[derive(Debug, Clone)]
pub struct StudyOptions {
    /// The study's folder.
    pub dir: PathBuf,
    /// Go on with the study in the folder. Where there is none, one begins.
    pub resume: bool,
    /// For the manifests.
    pub provenance: Provenance,
    /// Asks the study to stop.
    pub stop: Stop,
}

/// Runs `recipe`'s study and writes `summary.json`.
///
/// # Errors
/// A folder that holds something else, data or weights that do not fit, a teacher under its floor, a run that diverges.
/// What was written before stays. [`Error::Stopped`] is no failure: the study was asked to stop, and `resume` goes on;
/// [`Error::Locked`] says that another process works in the folder.
pub fn run(recipe: &Recipe, options: &StudyOptions, sink: &mut dyn EventSink) -> Result<StudySummary> {
    recipe.validate()?;
    let dir = &options.dir;
    // A folder in use is refused at once; one that is not there yet stays free until nothing can fail any more.
    let lock = if files::exists(&dir.join("recipe.toml"))? { Some(FolderLock::acquire(dir)?) } else { None };
    check_folder(recipe, options)?;
    let data = Data::open(&recipe.data)?;
    let study = Study { recipe, options, summary: data.summary(), data };
    // What is wrong with the student must not show when the teacher has been trained, and the folder stays free until then.
    study.build_student(false)?;
    if recipe.student.init.distilled_from.is_some() {
        study.build_student(true)?;
    }
    files::create_dir(dir)?;
    let lock = match lock {
        Some(lock) => lock,
        None => {
            let lock = FolderLock::acquire(dir)?;
            // Somebody may have been faster.
            check_folder(recipe, options)?;
            lock
        }
    };
    files::write_atomic(&dir.join("recipe.toml"), recipe.to_toml()?.as_bytes())?;
    if let Some(holder) = lock.left_by() {
        let text = format!("the lock of {holder}, was left behind when that ended; taken over");
        sink.event(&Event::Warning { text })?;
    }
    study.describe_data(sink)?;

    let teacher = match (&recipe.teacher, &recipe.distill) {
        (Some(given), Some(config)) => {
            let teacher = study.teacher(given, sink)?;
            if given.checkpoint.is_some() {
                // It has no run here; its detections are kept for whoever looks at the study.
                let folder = RunFolder::new(dir, "teacher");
                files::create_dir(folder.path())?;
                docent_coco::write_results(&folder.detections(), &teacher.detections)?;
            }
            Some((teacher, config))
        }
        _ => None,
    };
    let baseline = study.student("baseline", None, sink)?;
    let distilled = match &teacher {
        Some((teacher, config)) => Some(study.student("distilled", Some((teacher, config)), sink)?),
        None => None,
    };
    let summary = StudySummary {
        recipe: recipe.name.clone(),
        seed: recipe.seed,
        dataset: study.summary.clone(),
        gain: distilled.as_ref().map(|d| d.ap - baseline.ap),
        teacher: teacher.map(|(teacher, _)| teacher.summary),
        baseline,
        distilled,
    };
    files::write_json(&dir.join("summary.json"), &summary)?;
    study.report(dir, sink)?;
    Ok(summary)
}

/// Is the folder free, or is the study in it this one?
fn check_folder(recipe: &Recipe, options: &StudyOptions) -> Result<()> {
    let dir = &options.dir;
    let kept = dir.join("recipe.toml");
    if !files::exists(&kept)? {
        // Also an error when it is no folder; one that is not there yet is free.
        if files::exists(dir)? {
            for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
                // A study that ended before it wrote anything leaves its lock file, or a recipe that never got its name.
                let name = entry.map_err(|e| Error::io(dir, e))?.file_name();
                if name != LOCK_FILE && name != "recipe.toml.tmp" {
                    let what = "holds something that is no study (it has no recipe.toml); choose another --out";
                    return Err(Error::file(dir, what));
                }
            }
        }
        return Ok(());
    }
    if !options.resume {
        return Err(Error::file(dir, "holds a study already; go on in it with --resume, or choose another --out"));
    }
    same_recipe(&kept, recipe)
}

/// Is the recipe in the file `kept`, if there is one, this recipe?
pub(crate) fn same_recipe(kept: &Path, recipe: &Recipe) -> Result<()> {
    if !files::exists(kept)? {
        return Ok(());
    }
    let before = std::fs::read_to_string(kept).map_err(|e| Error::io(kept, e))?;
    let before = Recipe::parse(&before, &[]).map_err(|e| {
        let what = format!("{e}. It is of another build: choose another --out, or finish the study with that build");
        Error::file(kept, what)
    })?;
    let value = |recipe: &Recipe| -> Result<Value> {
        let text = without_paths(recipe).to_toml()?;
        let table: toml::Table = text.parse().map_err(|e| Error::file(kept, format!("not TOML: {e}")))?;
        serde_json::to_value(table).map_err(|e| Error::json(kept, e))
    };
    let differences = differences("", &value(&before)?, &value(recipe)?);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::file(
        kept,
        format!("is another experiment; choose another --out, or the old settings:\n  {}", differences.join("\n  ")),
    ))
}

/// More epochs, asked of a study that is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoreEpochs {
    /// Epochs of the finished study.
    pub done: usize,
    /// Epochs asked for.
    pub asked: usize,
    /// The checkpoint that the student alone goes on from.
    pub baseline: PathBuf,
    /// The distilled student's, where there is one.
    pub distilled: Option<PathBuf>,
    /// The study's teacher, where there is one.
    pub teacher: Option<PathBuf>,
}

/// Does `recipe` ask the finished study in `dir` for more epochs, and for nothing else? A finished run does not go on: its learning
/// rate has run down, and its figures stand. Further epochs are another study, in which each student goes on from its checkpoint.
///
/// # Errors
/// A recipe or summary in `dir` that cannot be read.
pub fn more_epochs(recipe: &Recipe, dir: &Path) -> Result<Option<MoreEpochs>> {
    let (kept, summary) = (dir.join("recipe.toml"), dir.join("summary.json"));
    if !files::exists(&kept)? || !files::exists(&summary)? {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&kept).map_err(|e| Error::io(&kept, e))?;
    // A recipe of another build is told by whoever goes on with the study.
    let Ok(before) = Recipe::parse(&text, &[]) else { return Ok(None) };
    let (done, asked) = (before.schedule.epochs, recipe.schedule.epochs);
    let mut same = recipe.clone();
    same.schedule.epochs = done;
    if asked <= done || same_recipe(&kept, &same).is_err() {
        return Ok(None);
    }
    let summary: StudySummary = files::read_json(&summary)?;
    let last = |run: &str| RunFolder::new(dir, run).last();
    let teacher = recipe.teacher.as_ref().filter(|_| summary.teacher.is_some());
    let teacher = teacher.map(|teacher| teacher.checkpoint.clone().unwrap_or_else(|| last("teacher")));
    let distilled = summary.distilled.map(|_| last("distilled"));
    Ok(Some(MoreEpochs { done, asked, baseline: last("baseline"), distilled, teacher }))
}

/// How many faults of a kind the log names; `docent dataset check` lists more.
const FINDINGS_SHOWN: usize = 5;

pub(crate) struct Study<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) options: &'a StudyOptions,
    pub(crate) data: Data,
    pub(crate) summary: DataSummary,
}

/// A teacher that was measured.
pub(crate) struct Teacher {
    pub(crate) summary: RunSummary,
    pub(crate) file: FileHash,
    pub(crate) detections: Vec<Detection>,
    detector: Detector,
    cache: TeacherCache,
}

impl Study<'_> {
    /// Background and the data's categories.
    fn classes(&self) -> usize {
        self.data.train.categories().len() + 1
    }

    fn describe_data(&self, sink: &mut dyn EventSink) -> Result<()> {
        let DataSummary { name, images: [train, val], .. } = &self.summary;
        let text =
            format!("data {name}: {train} training and {val} held-out images, {} categories", self.classes() - 1);
        sink.event(&Event::Note { text })?;
        for text in &self.data.notes {
            sink.event(&Event::Note { text: format!("data: {text}") })?;
        }
        for (split, dataset) in [("training", &self.data.train), ("held-out", &self.data.val)] {
            for line in docent_coco::summarize(dataset.findings(), dataset.checks(), FINDINGS_SHOWN) {
                sink.event(&Event::Note { text: format!("{split} data: {line}") })?;
            }
        }
        Ok(())
    }

    /// First weights and what stays fixed of the distilled student, or of the one alone.
    fn student_init(&self, distilled: bool) -> InitRecipe {
        let init = &self.recipe.student.init;
        if distilled { init.of_distilled() } else { init.clone() }
    }

    fn build_student(&self, distilled: bool) -> Result<Built> {
        let student = ModelRecipe { model: self.recipe.student.model.clone(), init: self.student_init(distilled) };
        build(&student, self.classes(), self.recipe.seed)
    }

    /// The teacher, trained here or given; in both cases read from its file and measured before any student is trained:
    /// "distilling made it worse" is often a teacher that was never loaded.
    pub(crate) fn teacher(&self, recipe: &TeacherRecipe, sink: &mut dyn EventSink) -> Result<Teacher> {
        let (path, trained) = match &recipe.checkpoint {
            Some(path) => (std::path::absolute(path).map_err(|e| Error::io(path, e))?, None),
            None => {
                let summary = self.train_teacher(recipe, sink)?;
                (RunFolder::new(&self.options.dir, "teacher").last(), Some(summary))
            }
        };
        let detector = Detector::load(&path)?;
        let Data { val, .. } = &self.data;
        detector.meta.check_categories(&path, val.categories())?;
        if trained.is_none() {
            let model = with_classes(&recipe.model, self.classes())?;
            // It is what its file says; a person who wrote something else into the recipe should know.
            if let Err(other) = detector.meta.check_model(&path, &model) {
                let text = format!("{other}\nteacher.model says otherwise; the checkpoint's own is used");
                sink.event(&Event::Warning { text })?;
            }
        }
        let (data, eval) = (&self.recipe.data, &self.recipe.eval);
        let steps = trained.as_ref().map_or(0, |t| t.steps);
        let measured = evaluate(&detector.model, val, data, eval.batch, |done, total| {
            self.options.stop.check("teacher", steps)?;
            sink.event(&Event::Evaluating { done, total })
        })?;
        let (measured, detections) = (measured.metrics, measured.detections);
        let (ap, floor) = (measured.ap(), recipe.floor);
        sink.event(&Event::Note {
            text: format!("teacher {}: AP {} before the first step", path.display(), percent(ap)),
        })?;
        if ap < floor {
            let what = format!(
                "AP {ap:.3} is under the floor of {floor:.3} (teacher.floor): such a teacher would teach its mistakes"
            );
            return Err(Error::file(&path, what));
        }
        let summary = match trained {
            Some(summary) => summary,
            None => {
                let cost = cost(&detector.model, &detector.store, val, data, eval.timed_images)?;
                RunSummary::new(&measured, &cost, 0.0, 0, path.clone())
            }
        };
        let file = FileHash { path: path.display().to_string(), sha256: detector.sha256.clone() };
        let disk = &self.options.dir;
        files::create_dir(disk)?;
        let cache = TeacherCache::new(recipe.cache).with_disk(recipe.cache_disk, disk)?;
        Ok(Teacher { summary, file, detections, detector, cache })
    }

    fn train_teacher(&self, recipe: &TeacherRecipe, sink: &mut dyn EventSink) -> Result<RunSummary> {
        if let Some(summary) = self.finished("teacher", None, &recipe.init, sink)? {
            return Ok(summary);
        }
        let model = ModelRecipe { model: recipe.model.clone(), init: recipe.init.clone() };
        // Other numbers than the student's: equal names must not mean correlated weights.
        let seed = docent_coco::rng::keyed(self.recipe.seed, "teacher", 0, 0).next_u64();
        let built = build(&model, self.classes(), seed)?;
        let length = (recipe.epochs.unwrap_or(self.recipe.schedule.epochs), recipe.early_stop);
        self.train("teacher", length, &built, None, None, sink)
    }

    /// A student, taught or alone. The first weights are the same in both cases, unless the recipe names others for the taught one.
    pub(crate) fn student(
        &self,
        name: &str,
        taught: Option<(&Teacher, &MethodConfig)>,
        sink: &mut dyn EventSink,
    ) -> Result<RunSummary> {
        let file = taught.map(|(teacher, _)| &teacher.file);
        if let Some(summary) = self.finished(name, file, &self.student_init(taught.is_some()), sink)? {
            return Ok(summary);
        }
        let built = self.build_student(taught.is_some())?;
        let length = (self.recipe.schedule.epochs, self.recipe.schedule.early_stop);
        let Some((teacher, config)) = taught else {
            return self.train(name, length, &built, None, None, sink);
        };
        let Teacher { detector, cache, .. } = teacher;
        let teacher = &detector.model;
        let store = ParamStore::new(self.recipe.seed, &Device::Cpu);
        let [student, taught_by] = [&built.model, teacher].map(|model| Channels::of(model.config()));
        let distiller = config.build(&student, &taught_by, store.var_builder())?;
        let teaching = Teaching { teacher, cache, distiller: distiller.as_ref(), store: &store };
        self.train(name, length, &built, Some(&teaching), file, sink)
    }

    /// A finished run's figures: it is not repeated.
    fn finished(
        &self,
        name: &str,
        teacher: Option<&FileHash>,
        init: &InitRecipe,
        sink: &mut dyn EventSink,
    ) -> Result<Option<RunSummary>> {
        let folder = RunFolder::new(&self.options.dir, name);
        let init = init.backbone.as_deref().or(init.from.as_deref());
        let summary = folder.finished(&self.summary, teacher, init)?;
        if summary.is_some() {
            sink.event(&Event::RunSkipped { run: name.to_owned() })?;
            // A program that was killed after it wrote the figures has left no page.
            if !folder.path().join(report::FILE).exists() {
                self.report(folder.path(), sink)?;
            }
        }
        Ok(summary)
    }

    fn train(
        &self,
        name: &str,
        (epochs, early_stop): (usize, Option<EarlyStop>),
        built: &Built,
        teaching: Option<&Teaching<'_>>,
        teacher: Option<&FileHash>,
        sink: &mut dyn EventSink,
    ) -> Result<RunSummary> {
        for text in &built.notes {
            sink.event(&Event::Note { text: format!("{name}: {text}") })?;
        }
        let entries = built.store.entries();
        let frozen =
            entries.into_iter().filter(|(_, kind, _)| *kind == Kind::Frozen).map(|(name, _, _)| name).collect();
        let plan = RunPlan {
            name,
            recipe: self.recipe,
            epochs,
            early_stop,
            data: &self.data,
            study: &self.options.dir,
            manifest: Manifest {
                run: name.to_owned(),
                provenance: self.options.provenance.clone(),
                candle: "0.11.1".to_owned(),
                seed: self.recipe.seed,
                data: self.summary.clone(),
                host: Host::current(),
                teacher: teacher.cloned(),
                init: built.init.clone(),
                frozen,
            },
            stop: &self.options.stop,
        };
        let summary = run::run(&plan, &Learner { model: &built.model, store: &built.store }, teaching, sink)?;
        self.report(&self.options.dir.join(name), sink)?;
        Ok(summary)
    }

    /// Writes the page of a run or of the study. No result depends on it, so a page that cannot be made is a warning.
    fn report(&self, dir: &Path, sink: &mut dyn EventSink) -> Result<()> {
        match report::write(dir, Some(&self.data)) {
            Ok(written) => written
                .notes
                .into_iter()
                .try_for_each(|note| sink.event(&Event::Note { text: format!("{}: {note}", written.path.display()) })),
            Err(e) => sink.event(&Event::Warning { text: format!("no report: {e}") }),
        }
    }
}
