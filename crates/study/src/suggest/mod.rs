//! From a data folder to a recipe for it, with the reasons: classes, input size, anchors, models, schedule.
//!
//! The rules are plain and stand where they are computed: `input` for sizes, `anchors` for anchors and the level base, `plan`
//! for models and the schedule. The text comes from [`write`]; it is read back as a recipe before anybody sees it.

pub mod anchors;
mod draft;
mod input;
mod plan;
mod write;

use std::path::Path;

use docent_coco::{Dataset, ImageCheck, Stats};

use crate::budget::{self, Fit};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::recipe::{DataRecipe, Recipe};
use anchors::AnchorFit;
use draft::Draft;
pub use draft::{Reason, SuggestOptions};
use input::InputSize;
use plan::{Pair, Schedule};

/// A recipe and why it is so.
#[derive(Debug, Clone, PartialEq)]
pub struct Suggestion {
    /// The recipe.
    pub recipe: Recipe,
    /// Its text, each part under a comment with its reason.
    pub toml: String,
    /// The same reasons, in the order of the recipe.
    pub reasons: Vec<Reason>,
    /// How well the anchors fit.
    pub anchors: AnchorFit,
    /// What was measured, where it was.
    pub measured: Option<Fit>,
    /// Lines about how the folder was read.
    pub notes: Vec<String>,
}

/// Up to so many images are decoded once before a recipe is proposed. Of more the headers were read when the data were opened.
const MOST_DECODED: usize = 20_000;

/// The draft's text, read back.
fn recipe_of(draft: &Draft<'_>) -> Result<Recipe> {
    Recipe::parse(&write::toml(draft), &[])
}

/// Looks at a data folder and proposes a recipe for it: a teacher, a student that it teaches, and a schedule that fits the time.
///
/// # Errors
/// Data that cannot be opened or holds no box; image files that would stop the training; a weight file that is no backbone's.
pub fn suggest(options: &SuggestOptions) -> Result<Suggestion> {
    let data = Data::open(&data_recipe(options))?;
    // A training would stop at these, maybe after hours.
    let look = if data.train.len() + data.val.len() <= MOST_DECODED { ImageCheck::Pixels } else { ImageCheck::Header };
    for set in [&data.train, &data.val] {
        set.refuse_images_at_fault(look)?;
    }
    let train = &data.train;
    let stats = Stats::of(train);
    let input = InputSize::fit(train);
    let anchors = AnchorFit::of(train, &input.resize);
    let ladder = plan::ladder(options.weights.as_deref())?;
    let schedule = Schedule::usual(train.len(), plan::batch(input.pixels(), train.len()));
    let flip = if train.class_names().iter().any(|name| tells_left_from_right(name)) { 0.0 } else { 0.5 };
    let mut draft = Draft {
        options,
        name: recipe_name(&options.dir),
        classes: train.class_names(),
        reasons: Vec::new(),
        roi_samples: if stats.boxes_an_image.p95 > 24.0 { 128 } else { 64 },
        proposals: if input.pixels() < 200.0 * 200.0 { 250 } else { 500 },
        input,
        anchors,
        pair: ladder[0].clone(),
        schedule,
        limit: None,
        flip,
    };
    draft.because("classes", class_reason(&data.val, &stats));
    let reason = draft.input.reason();
    draft.because("input size", reason);
    if flip == 0.0 {
        draft.because("flip", "A class's name tells left from right, so images are not mirrored.".to_owned());
    }
    let reason = draft.anchors.reason();
    draft.because("anchors", reason);
    let measured = draft.fit_schedule(&ladder)?;
    let toml = write::toml(&draft);
    Ok(Suggestion {
        recipe: recipe_of(&draft)?,
        toml,
        reasons: draft.reasons,
        anchors: draft.anchors,
        measured,
        notes: data.notes,
    })
}

impl Draft<'_> {
    /// Chooses the pair of models and the epochs; measures each pair of the ladder until one gets steps enough.
    fn fit_schedule(&mut self, ladder: &[Pair; 2]) -> Result<Option<Fit>> {
        if !self.options.measure {
            let (pair, schedule) = (self.pair.reason(), self.schedule.reason_unmeasured());
            self.because("models", pair);
            self.because("schedule", schedule);
            return Ok(None);
        }
        let usual = self.schedule.clone();
        let mut fit = budget::fit(&recipe_of(self)?, &self.options.registry, self.options.time);
        let enough = |fit: &Result<Fit>| fit.as_ref().is_ok_and(|fit| usual.fitted(fit).steps() >= plan::FEW_STEPS);
        let mut smaller = String::new();
        if !enough(&fit) {
            self.pair = ladder[1].clone();
            fit = budget::fit(&recipe_of(self)?, &self.options.registry, self.options.time);
            smaller = format!(" A bigger pair would get fewer than {} student steps here.", plan::FEW_STEPS);
        }
        let fit = match fit {
            Err(Error::NoTime { seconds, room }) => return self.shorten(seconds, room, &smaller).map(|()| None),
            other => other?,
        };
        self.schedule = usual.fitted(&fit);
        let (pair, schedule) = (self.pair.reason() + &smaller, self.schedule.reason(&fit, self.options.time));
        self.because("models", pair);
        self.because("schedule", schedule);
        Ok(Some(fit))
    }
}

impl Draft<'_> {
    /// Proposes one epoch of as many images as there is time for: `seconds` are what one epoch of all takes, `room` is what there is.
    fn shorten(&mut self, seconds: f64, room: f64, smaller: &str) -> Result<()> {
        let images = self.schedule.images();
        let limit = ((images as f64 * room / seconds) as usize).clamp((2 * self.schedule.batch).min(images), images);
        self.limit = Some(limit).filter(|limit| *limit < images);
        self.schedule = Schedule::one_epoch(limit, self.schedule.batch);
        let pair = self.pair.reason() + smaller;
        self.because("models", pair);
        self.because(
            "schedule",
            format!(
                "The time is short: one epoch of all {images} images takes about {seconds:.0} s with its evaluations, and {:.0} s are \
                 left for it. So this is one epoch of {limit} images (data.limit), which teaches little; `--for {:.0}m` is a usual length.",
                room.max(0.0),
                self.schedule.usual_minutes(seconds / images as f64)
            ),
        );
        Ok(())
    }
}

/// The recipe's data section, as far as opening the data needs it.
fn data_recipe(options: &SuggestOptions) -> DataRecipe {
    let mut data = DataRecipe::of_folder(&options.dir);
    data.set_open_options(options.open.clone());
    data
}

/// The folder's name, in the letters that a study's folder may have.
fn recipe_name(dir: &Path) -> String {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let name = dir.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let name = name.trim_matches(['-', '.']).to_owned();
    if name.is_empty() { "mine".to_owned() } else { name }
}

/// Whether a class's name is about a side: `left hand`, `arrow-right`.
fn tells_left_from_right(name: &str) -> bool {
    let lower = name.to_lowercase();
    lower.split(|c: char| !c.is_alphanumeric()).any(|word| word == "left" || word == "right")
}

fn class_reason(val: &Dataset, stats: &Stats) -> String {
    let boxes_of = |c: &docent_coco::ClassStats| format!("{} {}", c.name, c.boxes);
    let each: Vec<String> = stats.classes.iter().take(12).map(boxes_of).collect();
    let more = stats.classes.len().saturating_sub(each.len());
    let more = if more > 0 { format!(" and {more} others") } else { String::new() };
    let mut text = format!(
        "{} classes with so many training boxes: {}{more}. The number of classes comes from the data; no field says it.",
        stats.classes.len(),
        each.join(", ")
    );
    let rare: Vec<&str> = stats.classes.iter().filter(|c| c.boxes < 50).map(|c| c.name.as_str()).take(8).collect();
    if !rare.is_empty() {
        text += &format!(" Fewer than 50 boxes: {}; do not expect much of them.", rare.join(", "));
    }
    text += &format!(" {} training and {} held-out images.", stats.images, val.len());
    if val.len() < 50 {
        text += " With so few held-out images, AP moves by points from chance alone.";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_a_folder() {
        assert_eq!(recipe_name(Path::new("/data/My Cells (2)/")), "my-cells--2");
        assert_eq!(recipe_name(Path::new("/data/Zähler")), "z-hler");
        assert_eq!(recipe_name(Path::new("/")), "mine");
        assert!(tells_left_from_right("Left-Hand") && tells_left_from_right("turn right"));
        assert!(!tells_left_from_right("bright light") && !tells_left_from_right("leftover"));
    }
}
