//! What lies in the folder of a study or of a run.

use std::path::Path;

use docent_coco::{Detection, read_results};
use docent_model::files;

use super::log::Log;
use crate::data::DataSummary;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::recipe::Recipe;
use crate::run::RunFolder;
use crate::summary::{RunSummary, StudySummary};

/// The runs of a study: folder, and what the page calls it.
const RUNS: [(&str, &str); 3] =
    [("teacher", "teacher"), ("alone", "student alone"), ("distilled", "distilled student")];

/// A folder, read.
pub(super) struct Source {
    /// The recipe's name for a study, the run's for a run.
    name: String,
    pub(super) recipe: Recipe,
    pub(super) dataset: Option<DataSummary>,
    /// AP of the distilled student minus AP of the student alone.
    pub(super) gain: Option<f64>,
    pub(super) runs: Vec<Run>,
}

/// One run.
pub(super) struct Run {
    /// The folder's name.
    pub(super) key: String,
    pub(super) label: String,
    /// Index of its colour: the same on every page.
    pub(super) colour: usize,
    /// The figures, once it is finished.
    pub(super) summary: Option<RunSummary>,
    pub(super) log: Log,
    pub(super) detections: Option<Vec<Detection>>,
    pub(super) manifest: Option<Manifest>,
}

impl Source {
    /// Reads a study's folder or a run's.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let recipe_file = dir.join("recipe.toml");
        if !recipe_file.exists() {
            let what = "is no folder of a study or a run: it has no recipe.toml. Name one that docent train wrote, or a run's \
                        folder in an ablation's";
            return Err(Error::file(dir, what));
        }
        let text = std::fs::read_to_string(&recipe_file).map_err(|e| Error::io(&recipe_file, e))?;
        let recipe = Recipe::parse(&text, &[]).map_err(|e| Error::file(&recipe_file, e.to_string()))?;
        if dir.join("manifest.json").exists() { Self::of_run(dir, recipe) } else { Self::of_study(dir, recipe) }
    }

    fn of_run(dir: &Path, recipe: Recipe) -> Result<Self> {
        // The folder's own name, also where it was called `.`.
        let full = std::fs::canonicalize(dir).map_err(|e| Error::io(dir, e))?;
        let key = full.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let known = RUNS.iter().position(|(name, _)| *name == key);
        let label = known.map_or(key.clone(), |i| RUNS[i].1.to_owned());
        let run = Run::read(&RunFolder::at(dir), &key, &label, known.unwrap_or(2), None)?;
        let dataset = run.manifest.as_ref().map(|m| m.data.clone());
        Ok(Self { name: label, recipe, dataset, gain: None, runs: vec![run] })
    }

    fn of_study(dir: &Path, recipe: Recipe) -> Result<Self> {
        let file = dir.join("summary.json");
        let summary: Option<StudySummary> = if file.exists() { Some(files::read_json(&file)?) } else { None };
        let mut runs = Vec::new();
        for (colour, (key, label)) in RUNS.into_iter().enumerate() {
            let folder = RunFolder::new(dir, key);
            let of_summary = summary.as_ref().and_then(|s| match key {
                "teacher" => s.teacher.clone(),
                "alone" => Some(s.alone.clone()),
                _ => s.distilled.clone(),
            });
            if of_summary.is_some() || folder.path().is_dir() {
                runs.push(Run::read(&folder, key, label, colour, of_summary)?);
            }
        }
        let dataset = summary.as_ref().map(|s| s.dataset.clone());
        let dataset = dataset.or_else(|| runs.iter().find_map(|r| r.manifest.as_ref()).map(|m| m.data.clone()));
        Ok(Self { name: recipe.name.clone(), recipe, dataset, gain: summary.and_then(|s| s.gain), runs })
    }

    pub(super) fn title(&self) -> String {
        format!("{} · seed {}", self.name, self.recipe.seed)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The position of a run.
    pub(super) fn position(&self, key: &str) -> Option<usize> {
        self.runs.iter().position(|run| run.key == key)
    }
}

impl Run {
    fn read(folder: &RunFolder, key: &str, label: &str, colour: usize, summary: Option<RunSummary>) -> Result<Self> {
        let json = |path: std::path::PathBuf| path.exists().then_some(path);
        let summary = match (summary, json(folder.result())) {
            (Some(summary), _) => Some(summary),
            (None, Some(path)) => Some(files::read_json(&path)?),
            (None, None) => None,
        };
        Ok(Self {
            key: key.to_owned(),
            label: label.to_owned(),
            colour,
            summary,
            log: Log::read(&folder.metrics())?,
            detections: json(folder.detections()).map(|path| read_results(&path)).transpose()?,
            manifest: json(folder.manifest()).map(|path| files::read_json(&path)).transpose()?,
        })
    }
}
