//! A study: an ordered set of runs that share data, seed, first student and teacher.
//!
//! The recipe's study is teacher, student alone, distilled student. Finished runs are kept, so a study goes on where it stopped.

use std::path::{Path, PathBuf};

use candle_core::Device;
use docent_distill::TaskAdaptive;
use rand::RngCore;

use crate::build::{Built, build};
use crate::data::Data;
use crate::detector::Detector;
use crate::evaluate::evaluate;
use crate::events::{Event, EventSink};
use crate::manifest::{FileHash, Host, Manifest, Provenance};
use crate::recipe::{ModelRecipe, Recipe, TeacherRecipe};
use crate::run::{self, Learner, RunFolder, RunPlan, Teaching};
use crate::summary::{RunSummary, StudySummary};
use crate::{Error, Kind, ParamStore, Result, files};

/// Where and how a study runs.
#[derive(Debug, Clone)]
pub struct StudyOptions {
    /// The study's folder.
    pub dir: PathBuf,
    /// Go on in a folder that holds a study already.
    pub resume: bool,
    /// For the manifests.
    pub provenance: Provenance,
}

/// Runs `recipe`'s study and writes `summary.json`.
///
/// # Errors
/// A folder that holds something else, data or weights that do not fit, a teacher under its floor, a run that diverges.
/// What was written before stays.
pub fn run(recipe: &Recipe, options: &StudyOptions, sink: &mut dyn EventSink) -> Result<StudySummary> {
    claim_folder(recipe, options)?;
    let data = Data::open(&recipe.data)?;
    let summary = data.summary();
    sink.event(&Event::Note {
        text: format!(
            "data {}: {} training and {} held-out images, {} categories",
            summary.name,
            summary.images[0],
            summary.images[1],
            data.train.categories().len()
        ),
    })?;
    for finding in data.train.findings().iter().chain(data.val.findings()) {
        sink.event(&Event::Note { text: format!("data: {finding}") })?;
    }
    let study = Study { recipe, options, data };
    let teacher = match (&recipe.teacher, &recipe.distill) {
        (Some(teacher), Some(_)) => Some(study.teacher(teacher, sink)?),
        _ => None,
    };
    let baseline = study.student("baseline", None, sink)?;
    let distilled = match &teacher {
        Some((_, checkpoint)) => Some(study.student("distilled", Some(checkpoint), sink)?),
        None => None,
    };
    let summary = StudySummary {
        recipe: recipe.name.clone(),
        seed: recipe.seed,
        dataset: summary,
        gain: distilled.as_ref().map(|d| d.ap - baseline.ap),
        teacher: teacher.map(|(summary, _)| summary),
        baseline,
        distilled,
    };
    files::write_json(&options.dir.join("summary.json"), &summary)?;
    Ok(summary)
}

/// Makes the folder, or checks that the study in it is this one.
fn claim_folder(recipe: &Recipe, options: &StudyOptions) -> Result<()> {
    let kept = options.dir.join("recipe.toml");
    let text = recipe.to_toml()?;
    if !kept.exists() {
        files::create_dir(&options.dir)?;
        return files::write_atomic(&kept, text.as_bytes());
    }
    if !options.resume {
        return Err(Error::file(
            &options.dir,
            "holds a study already; go on in it with --resume, or choose another --out",
        ));
    }
    let before = std::fs::read_to_string(&kept).map_err(|e| Error::io(&kept, e))?;
    if before == text {
        return Ok(());
    }
    let line = before.lines().zip(text.lines()).find(|(a, b)| a != b);
    let (was, is) = line.unwrap_or(("(end)", "(end)"));
    Err(Error::file(
        &kept,
        format!("is another experiment: there `{was}`, here `{is}`; choose another --out, or the old settings"),
    ))
}

struct Study<'a> {
    recipe: &'a Recipe,
    options: &'a StudyOptions,
    data: Data,
}

impl Study<'_> {
    /// Background and the data's categories.
    fn classes(&self) -> usize {
        self.data.train.categories().len() + 1
    }

    /// The teacher's figures and its checkpoint, trained here or given.
    fn teacher(&self, recipe: &TeacherRecipe, sink: &mut dyn EventSink) -> Result<(RunSummary, PathBuf)> {
        if let Some(path) = &recipe.checkpoint {
            return Ok((self.score_given(path, sink)?, path.clone()));
        }
        let folder = RunFolder::new(&self.options.dir, "teacher");
        if let Some(summary) = folder.finished()? {
            sink.event(&Event::RunSkipped { run: "teacher".to_owned() })?;
            return Ok((summary, folder.last()));
        }
        let model = ModelRecipe { model: recipe.model.clone(), init: recipe.init.clone() };
        // Other numbers than the student's: equal names must not mean correlated weights.
        let seed = docent_coco::rng::keyed(self.recipe.seed, "teacher", 0, 0).next_u64();
        let built = build(&model, self.classes(), seed)?;
        for text in &built.notes {
            sink.event(&Event::Note { text: text.clone() })?;
        }
        let epochs = recipe.epochs.unwrap_or(self.recipe.schedule.epochs);
        let plan = self.plan("teacher", epochs, &built, None);
        let summary = run::run(&plan, &Learner { model: &built.model, store: &built.store }, None, sink)?;
        Ok((summary, folder.last()))
    }

    fn score_given(&self, path: &Path, sink: &mut dyn EventSink) -> Result<RunSummary> {
        let detector = Detector::load(path)?;
        detector.meta.check_categories(path, self.data.val.categories())?;
        let result =
            evaluate(&detector.model, &self.data.val, &self.recipe.data, self.recipe.eval.batch, |done, total| {
                sink.event(&Event::Evaluating { done, total })
            })?;
        let timed = self.recipe.eval.timed_images;
        let (ms, size) = crate::evaluate::time_inference(&detector.model, &self.data.val, &self.recipe.data, timed)?;
        let mut summary = RunSummary::from_metrics(&result.metrics);
        summary.params = detector.store.parameter_count();
        summary.gflops = detector.model.flops(size) as f64 / 1e9;
        summary.ms_per_image = ms;
        path.clone_into(&mut summary.checkpoint);
        Ok(summary)
    }

    /// A student, with the teacher at `teacher` or alone. The first weights are the same in both cases.
    fn student(&self, name: &str, teacher: Option<&Path>, sink: &mut dyn EventSink) -> Result<RunSummary> {
        let folder = RunFolder::new(&self.options.dir, name);
        if let Some(summary) = folder.finished()? {
            sink.event(&Event::RunSkipped { run: name.to_owned() })?;
            return Ok(summary);
        }
        let built = build(&self.recipe.student, self.classes(), self.recipe.seed)?;
        let learner = Learner { model: &built.model, store: &built.store };
        let epochs = self.recipe.schedule.epochs;
        let (Some(path), Some(config)) = (teacher, &self.recipe.distill) else {
            return run::run(&self.plan(name, epochs, &built, None), &learner, None, sink);
        };
        let detector = self.checked_teacher(path, sink)?;
        let store = ParamStore::new(self.recipe.seed, &Device::Cpu);
        let distiller = TaskAdaptive::new(
            config,
            built.model.config().fpn_channels,
            detector.model.config().fpn_channels,
            docent_detect::config::LEVELS,
            store.var_builder(),
        )?;
        let teaching = Teaching { teacher: &detector.model, distiller: &distiller, store: &store };
        let hash = FileHash { path: path.display().to_string(), sha256: detector.sha256.clone() };
        run::run(&self.plan(name, epochs, &built, Some(hash)), &learner, Some(&teaching), sink)
    }

    /// Loads the teacher strictly and measures it before the first step: "distilling made it worse" is often a teacher that
    /// was never loaded.
    fn checked_teacher(&self, path: &Path, sink: &mut dyn EventSink) -> Result<Detector> {
        let detector = Detector::load(path)?;
        detector.meta.check_categories(path, self.data.train.categories())?;
        let recipe = &self.recipe;
        let result = evaluate(&detector.model, &self.data.val, &recipe.data, recipe.eval.batch, |_, _| Ok(()))?;
        let (ap, floor) = (result.metrics.ap(), recipe.teacher.as_ref().map_or(0.0, |t| t.floor));
        sink.event(&Event::Note {
            text: format!("teacher {}: AP {:.1} before the first step", path.display(), ap * 100.0),
        })?;
        if ap < floor {
            return Err(Error::file(
                path,
                format!(
                    "AP {ap:.3} is under the floor of {floor:.3} (teacher.floor): such a teacher would teach its mistakes"
                ),
            ));
        }
        Ok(detector)
    }

    fn plan<'a>(&'a self, name: &'a str, epochs: usize, built: &Built, teacher: Option<FileHash>) -> RunPlan<'a> {
        let entries = built.store.entries();
        let frozen =
            entries.into_iter().filter(|(_, kind, _)| *kind == Kind::Frozen).map(|(name, _, _)| name).collect();
        RunPlan {
            name,
            recipe: self.recipe,
            epochs,
            data: &self.data,
            study: &self.options.dir,
            manifest: Manifest {
                run: name.to_owned(),
                provenance: self.options.provenance.clone(),
                candle: "0.11.1".to_owned(),
                seed: self.recipe.seed,
                data: self.data.summary(),
                host: Host::current(),
                teacher,
                init: built.init.clone(),
                frozen,
            },
        }
    }
}
