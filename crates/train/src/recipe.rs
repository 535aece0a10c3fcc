//! The recipe: one TOML file is one experiment.
//!
//! A recipe names data, models, distillation, schedule and seed. The shipped ones are embedded ([`shipped`]), any field can be
//! overridden ([`Recipe::parse`] takes `a.b=c` assignments), and every run folder keeps the resolved text.

mod assign;
mod data;
mod renamed;
mod training;

use std::path::{Path, PathBuf};

use docent_detect::FasterRcnnConfig;
use docent_detect::config::FREEZABLE;
use docent_distill::{Channels, MethodConfig};
use serde::{Deserialize, Serialize};

use crate::{CacheSize, EarlyStop, Error, Result};

use assign::nearest;
pub(crate) use assign::{assign, with_hint};
pub use data::{DataRecipe, Source};
use renamed::refuse_renamed;
pub use training::TrainingRecipe;

/// One experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Short name; the study's folder carries it.
    pub name: String,
    /// One or two sentences: what the experiment is.
    #[serde(default)]
    pub about: String,
    /// Seed of everything random: initial weights, data order, flips, sampling.
    #[serde(default)]
    pub seed: u64,
    /// Where images and boxes come from, and how they reach the network.
    pub data: DataRecipe,
    /// Optimizer, learning rate and length; the student's, and the teacher's where it sets nothing else.
    pub schedule: TrainingRecipe,
    /// The small detector.
    pub student: ModelRecipe,
    /// The big detector. Without one the recipe trains the student alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<TeacherRecipe>,
    /// How the teacher teaches: `method` (the default is `task_adaptive`) and its settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distill: Option<MethodConfig>,
    /// When the run's state is written.
    #[serde(default)]
    pub checkpoint: CheckpointRecipe,
    /// When and how detections are scored.
    #[serde(default)]
    pub eval: EvalRecipe,
    /// What is measured besides, to find out why.
    #[serde(default)]
    pub diagnose: DiagnoseRecipe,
    /// What is written beside `metrics.jsonl`. No part of the experiment: it may differ after a resume.
    #[serde(default, skip_serializing_if = "LogRecipe::is_default")]
    pub log: LogRecipe,
}

/// A detector and its first weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// Architecture; `classes` is filled from the data.
    pub model: FasterRcnnConfig,
    /// First weights and what stays fixed.
    #[serde(default)]
    pub init: InitRecipe,
}

/// First weights.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitRecipe {
    /// A file with a backbone's weights under torchvision's names (safetensors or `.pth`); absent: random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<PathBuf>,
    /// A whole detector's weights to go on from, for fine-tuning: a checkpoint, or torchvision's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// The distilled student's own detector to go on from, in place of `from`, which then is the baseline's alone: for more epochs of
    /// both, each from where it was. The student's alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distilled_from: Option<PathBuf>,
    /// Names in `from` that stay out, so that these tensors start at their own first values; `*` stands for any run of
    /// characters. Another number of classes wants `roi_heads.box_predictor.*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<String>,
    /// Must `backbone` or `from` be given? `bccd`'s teacher is meant to start from ImageNet weights.
    #[serde(default)]
    pub required: bool,
    /// 0: everything trains. n: the stem and the first n - 1 stages are frozen (as detectron2's FREEZE_AT).
    #[serde(default)]
    pub freeze_at: usize,
}

impl InitRecipe {
    /// The distilled student's first weights.
    pub(crate) fn of_distilled(&self) -> Self {
        let from = self.distilled_from.clone().or_else(|| self.from.clone());
        Self { from, distilled_from: None, ..self.clone() }
    }
}

/// A detector that teaches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherRecipe {
    /// Architecture; `classes` is filled from the data.
    pub model: FasterRcnnConfig,
    /// First weights and what stays fixed.
    #[serde(default)]
    pub init: InitRecipe,
    /// Use this trained checkpoint instead of training a teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// The teacher's own number of epochs, when it differs from the student's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Refuse to distil from a teacher whose AP on the held-out split is below this.
    #[serde(default)]
    pub floor: f64,
    /// Memory for the teacher's pyramids of images that it has seen: training gets them from there instead of computing
    /// them again, with the same bits. Default `"1GiB"`; `"off"` keeps none.
    #[serde(default)]
    pub cache: CacheSize,
    /// Disk, in the study's folder, for those that memory has no room for. Default `"off"`.
    #[serde(default = "CacheSize::off", skip_serializing_if = "CacheSize::is_off")]
    pub cache_disk: CacheSize,
    /// Ends the teacher's training when its AP rises no more. Absent: it is trained to its last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
}

/// Writing of state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointRecipe {
    /// Steps between two writes of the state; each epoch's end writes too.
    pub steps: usize,
}

impl Default for CheckpointRecipe {
    fn default() -> Self {
        Self { steps: 50 }
    }
}

/// Scoring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalRecipe {
    /// Epochs between two evaluations; 0 evaluates at the end only. The end is always evaluated.
    pub every: usize,
    /// Images a forward pass.
    pub batch: usize,
    /// Images timed one by one for `ms_per_image`.
    pub timed_images: usize,
}

impl Default for EvalRecipe {
    fn default() -> Self {
        Self { every: 0, batch: 4, timed_images: 20 }
    }
}

/// Measurements that training does not need.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiagnoseRecipe {
    /// Steps between two looks at how detection and distillation pull: the cosine of their gradients and the scale of each term
    /// against the detection losses. Each look costs one more backward pass. 0, the default, never looks.
    pub every: usize,
}

/// Writers of the log.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogRecipe {
    /// TensorBoard event files in each run's `tensorboard/`. Default false.
    pub tensorboard: bool,
}

impl LogRecipe {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The recipes inside the program: name and TOML text.
pub fn shipped() -> &'static [(&'static str, &'static str)] {
    &[
        ("shapes", include_str!("../recipes/shapes.toml")),
        ("bccd", include_str!("../recipes/bccd.toml")),
        ("smoke", include_str!("../recipes/smoke.toml")),
        ("coco-r101-r50", include_str!("../recipes/coco-r101-r50.toml")),
        ("coco-r50-r18", include_str!("../recipes/coco-r50-r18.toml")),
    ]
}

/// The text of a shipped recipe or of a file.
///
/// # Errors
/// When `name_or_path` is neither; the message lists the shipped names.
pub fn text_of(name_or_path: &str) -> Result<String> {
    if let Some((_, text)) = shipped().iter().find(|(name, _)| *name == name_or_path) {
        return Ok((*text).to_owned());
    }
    let path = Path::new(name_or_path);
    if path.exists() {
        return std::fs::read_to_string(path).map_err(|e| Error::io(path, e));
    }
    let names: Vec<_> = shipped().iter().map(|(name, _)| *name).collect();
    Err(Error::Recipe(format!(
        "'{name_or_path}' is neither a shipped recipe ({}) nor a file{}",
        names.join(", "),
        nearest(name_or_path, names.iter().copied())
    )))
}

impl Recipe {
    /// Reads TOML, applies `assignments` of the form `a.b=c` in order, checks everything.
    ///
    /// # Errors
    /// Unknown keys (the nearest known one is named), wrong types, values out of range.
    pub fn parse(text: &str, assignments: &[String]) -> Result<Self> {
        let mut table: toml::Table = text.parse().map_err(|e| Error::Recipe(format!("not TOML: {e}")))?;
        for assignment in assignments {
            assign(&mut table, assignment)?;
        }
        for model in ["student", "teacher"] {
            classes_from_data(&mut table, model);
        }
        if let Some(distill) = table.get_mut("distill").and_then(toml::Value::as_table_mut) {
            distill.entry("method").or_insert_with(|| docent_distill::method::DEFAULT_METHOD.into());
        }
        refuse_renamed(&table)?;
        let recipe: Self = table.try_into().map_err(|e: toml::de::Error| Error::Recipe(with_hint(&e.to_string())))?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// The resolved recipe as TOML, defaults written out; features that are off are left out.
    ///
    /// # Errors
    /// Only if a value has no TOML form.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::Recipe(format!("cannot be written as TOML: {e}")))
    }

    /// Checks ranges and combinations.
    ///
    /// # Errors
    /// The first finding, naming its key.
    pub fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Recipe(message));
        self.schedule.validate()?;
        if self.teacher.as_ref().is_some_and(|t| t.epochs == Some(0)) {
            return fail("teacher.epochs must be at least 1".into());
        }
        self.validate_early_stop()?;
        if !(0.0..=1.0).contains(&self.data.flip) {
            return fail(format!("data.flip = {}: a probability lies in 0..=1", self.data.flip));
        }
        if self.data.loader_threads == 0 || self.data.prefetch == 0 {
            return fail("data.loader_threads and data.prefetch must be at least 1".into());
        }
        if !self.teacher.as_ref().is_none_or(|t| t.floor.is_finite()) {
            return fail("teacher.floor must be a number".into());
        }
        if self.eval.batch == 0 || self.checkpoint.steps == 0 {
            return fail("eval.batch and checkpoint.steps must be at least 1".into());
        }
        if self.data.limit == Some(0) {
            return fail("data.limit must be at least 1; leave it out for all images".into());
        }
        self.data.resize.validate().map_err(|e| Error::Recipe(format!("data.{e}")))?;
        self.data.augment.validate().map_err(|e| Error::Recipe(format!("data.{e}")))?;
        self.data.checks.validate().map_err(|e| Error::Recipe(format!("data.{e}")))?;
        check_model("student", &self.student.model, &self.student.init)?;
        if let Some(teacher) = &self.teacher {
            check_model("teacher", &teacher.model, &teacher.init)?;
        }
        if self.student.init.distilled_from.is_some() && (self.student.init.from.is_none() || self.distill.is_none()) {
            return fail(
                "student.init.distilled_from is the distilled student's, beside the baseline's init.from: it needs a [distill] and \
                 init.from"
                    .into(),
            );
        }
        if self.teacher.as_ref().is_some_and(|t| t.init.distilled_from.is_some()) {
            return fail("teacher.init.distilled_from: no teacher is distilled; use teacher.init.from".into());
        }
        if self.teacher.is_some() && self.distill.is_none() {
            return fail(
                "[teacher] needs a [distill] (an empty one means the defaults); without both, the student trains alone"
                    .into(),
            );
        }
        if let Some(distill) = &self.distill {
            let Some(teacher) = &self.teacher else { return fail("[distill] needs a [teacher]".into()) };
            let mut checked = distill.validate();
            // A teacher from a file has the channels that it has.
            if teacher.checkpoint.is_none() {
                let (student, teacher) = (Channels::of(&self.student.model), Channels::of(&teacher.model));
                checked = checked.and_then(|()| distill.validate_channels(&student, &teacher));
            }
            checked.map_err(|e| Error::Recipe(format!("distill: {e}")))?;
        }
        Ok(())
    }

    /// Two runs that stop where each likes are no comparison, and without evaluations there is nothing to stop for.
    fn validate_early_stop(&self) -> Result<()> {
        let students = self.schedule.early_stop.as_ref();
        let teachers = self.teacher.as_ref().and_then(|t| t.early_stop.as_ref());
        if students.is_some() && self.distill.is_some() {
            return Err(Error::Recipe(
                "schedule.early_stop with a [distill]: student alone and distilled student would stop at different steps, and \
                 their comparison would be one of schedules. teacher.early_stop stops the teacher's training alone; a recipe \
                 without [teacher] and [distill] may stop its student"
                    .into(),
            ));
        }
        for (key, stop) in [("schedule", students), ("teacher", teachers)] {
            let Some(stop) = stop else { continue };
            stop.validate().map_err(|e| Error::Recipe(format!("{key}.early_stop: {e}")))?;
            if self.eval.every == 0 {
                return Err(Error::Recipe(format!(
                    "{key}.early_stop needs evaluations on the way: set eval.every, the epochs between two of them"
                )));
            }
        }
        Ok(())
    }
}

/// Checks a model as far as that is possible before the data is known.
fn check_model(part: &str, model: &FasterRcnnConfig, init: &InitRecipe) -> Result<()> {
    let mut model = model.clone();
    model.classes = model.classes.max(2);
    model.validate().map_err(|e| Error::Recipe(format!("{part}.model: {e}")))?;
    if init.freeze_at > FREEZABLE {
        return Err(Error::Recipe(format!(
            "{part}.init.freeze_at = {}: a backbone has a stem and 4 stages, so {FREEZABLE} freezes all of it",
            init.freeze_at
        )));
    }
    if init.backbone.is_some() && init.from.is_some() {
        return Err(Error::Recipe(format!("{part}.init: backbone and from both bring a backbone's weights; keep one")));
    }
    if !init.skip.is_empty() && init.from.is_none() {
        return Err(Error::Recipe(format!("{part}.init.skip names tensors of init.from, which is not given")));
    }
    Ok(())
}

/// A recipe does not say how many classes there are: the data does. 0 stands for that, instead of the architecture's own default.
fn classes_from_data(table: &mut toml::Table, model: &str) {
    let part = table.get_mut(model).and_then(|t| t.get_mut("model")).and_then(toml::Value::as_table_mut);
    if let Some(part) = part {
        part.entry("classes").or_insert(toml::Value::Integer(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_recipes_parse_and_round_trip() {
        for (name, text) in shipped() {
            let recipe = Recipe::parse(text, &[]).unwrap();
            assert_eq!(recipe.name, *name);
            assert_eq!(Recipe::parse(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
        }
    }

    #[test]
    fn set_overrides_any_field_and_refuses_unknown_ones() {
        let text = text_of("shapes").unwrap();
        let recipe =
            Recipe::parse(&text, &["schedule.epochs=2".into(), "teacher.init.freeze_at=1".into(), "name=x".into()])
                .unwrap();
        assert_eq!((recipe.schedule.epochs, recipe.teacher.unwrap().init.freeze_at), (2, 1));
        assert_eq!(recipe.name, "x");
        let message = Recipe::parse(&text, &["schedule.epoch=2".into()]).unwrap_err().to_string();
        assert!(message.contains("did you mean 'epochs'"), "{message}");
        assert!(Recipe::parse(&text, &["schedule.epochs.more=2".into()]).is_err());
        assert!(Recipe::parse(&text, &["schedule.batch=0".into()]).is_err());
        assert!(Recipe::parse(&text, &["schedule.lr=-1.0".into()]).is_err());
        assert!(Recipe::parse(&text, &["schedule.lr=\"fast\"".into()]).is_err());
    }

    #[test]
    fn what_is_wrong_with_a_model_is_found_before_any_data_is_read() {
        let text = text_of("shapes").unwrap();
        for (assignment, part) in [
            ("student.model.backbone.depth=17", "student.model"),
            ("teacher.model.anchors.sizes=[8.0]", "teacher.model"),
            ("student.init.freeze_at=6", "freeze_at = 6"),
            ("data.limit=0", "data.limit"),
            ("teacher.floor=nan", "teacher.floor"),
            ("data.checks.unknown_category=clip", "data.checks.unknown_category = clip"),
            ("data.checks.outside=fix", "unknown variant `fix`"),
            ("data.checks.missing_images=drop", "did you mean 'missing_image'"),
            ("distill.w_cls=-1.0", "w_cls"),
            ("student.init.distilled_from=a.safetensors", "beside the baseline's init.from"),
            ("teacher.init.distilled_from=a.safetensors", "no teacher is distilled"),
        ] {
            let message = Recipe::parse(&text, &[assignment.into()]).unwrap_err().to_string();
            assert!(message.contains(part), "{assignment}: {message}");
        }
        let unequal = ["distill.adapt=none".to_owned(), "student.model.fpn_channels=32".to_owned()];
        assert!(Recipe::parse(&text, &unequal).unwrap_err().to_string().contains("channels"));
        let given = [unequal.as_slice(), &["teacher.checkpoint=t.safetensors".to_owned()]].concat();
        assert!(Recipe::parse(&text, &given).is_ok());
    }

    #[test]
    fn an_unknown_recipe_lists_the_shipped_ones() {
        let message = text_of("shape").unwrap_err().to_string();
        assert!(message.contains("bccd") && message.contains("did you mean 'shapes'"), "{message}");
    }
}
