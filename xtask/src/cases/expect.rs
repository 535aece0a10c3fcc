//! `expect.json`: what must happen to each input.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The inputs by their folder, relative to the folder of the cases, and the pairs of inputs.
pub struct Cases {
    pub inputs: BTreeMap<String, Input>,
    pub pairs: Vec<Pair>,
}

/// One input.
pub struct Input {
    /// What holds for the input whichever behaviour it is judged by.
    pub format: String,
    pub flags: Vec<String>,
    /// The allowed behaviours; one of them must fit.
    pub any_of: Vec<Expectation>,
}

/// Two inputs that share images. No shared image changes sides.
#[derive(Deserialize)]
pub struct Pair {
    pub before: String,
    pub after: String,
}

/// One allowed behaviour.
#[derive(Clone, Debug, Deserialize)]
pub struct Expectation {
    pub outcome: Outcome,
    pub format: String,
    /// Given in every run. `Some` also means that the input opens without them.
    pub flags: Option<Vec<String>>,
    /// Each is found in what a refusal prints.
    #[serde(default)]
    pub message: Vec<Pattern>,
    pub refused_by: Option<RefusedBy>,
    /// [`expectation`] fills it: every opening is an expectation of its own.
    #[serde(skip)]
    pub openings: Vec<Opening>,
    #[serde(default)]
    pub classes: Vec<String>,
    pub classes_order: Option<ClassesOrder>,
    pub train: Option<BTreeSet<String>>,
    pub val: Option<BTreeSet<String>>,
    pub split: Option<Split>,
    /// Boxes in pixels by the image's base name.
    #[serde(default)]
    pub boxes: BTreeMap<String, Vec<GtBox>>,
    /// Images that may be left out.
    #[serde(default)]
    pub may_lack: BTreeSet<String>,
    /// Width and height of every image.
    pub size: Option<[f64; 2]>,
    /// In pixels, for each of the four numbers.
    #[serde(default = "one_pixel")]
    pub tolerance: f64,
    /// For each group there is one printed line in which all its expressions are found.
    #[serde(default)]
    pub notes_contain: Vec<Vec<Pattern>>,
}

impl Expectation {
    pub fn flags(&self) -> &[String] {
        self.flags.as_deref().unwrap_or_default()
    }
}

fn one_pixel() -> f64 {
    1.0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Opens,
    Refuses,
    OpensWith,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedBy {
    Check,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassesOrder {
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    Hash,
}

/// A way to open an input that is refused as it stands.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The refusal names the flags; `None`: they stand in `expectation`.
    pub flag_named: Option<FlagNamed>,
    pub expectation: Expectation,
}

/// How the flags of an opening are found in a refusal.
#[derive(Clone, Debug, Deserialize)]
pub struct FlagNamed {
    pub find: Pattern,
    /// `{1}`, `{2}` stand for the groups of `find`.
    pub flags: Vec<String>,
}

/// A box of the ground truth: `[class, x, y, width, height]` in pixels.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "(String, f64, f64, f64, f64)")]
pub struct GtBox {
    pub class: String,
    pub xywh: [f64; 4],
}

impl From<(String, f64, f64, f64, f64)> for GtBox {
    fn from((class, x, y, w, h): (String, f64, f64, f64, f64)) -> Self {
        Self { class, xywh: [x, y, w, h] }
    }
}

/// A regular expression that ignores case.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(pub Regex);

impl Pattern {
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = regex::Error;

    fn try_from(pattern: String) -> Result<Self, regex::Error> {
        RegexBuilder::new(&pattern).case_insensitive(true).build().map(Self)
    }
}

impl Cases {
    /// Reads `expect.json` of the folder of the cases.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("expect.json");
        let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            truths: Map<String, Value>,
            inputs: BTreeMap<String, Map<String, Value>>,
            #[serde(default)]
            pairs: Vec<Pair>,
        }
        let file: File = serde_json::from_str(text)?;
        let mut inputs = BTreeMap::new();
        for (key, keys) in &file.inputs {
            inputs.insert(key.clone(), input(keys, &file.truths).with_context(|| format!("input {key}"))?);
        }
        for pair in &file.pairs {
            for key in [&pair.before, &pair.after] {
                ensure!(inputs.contains_key(key), "a pair names {key}, which is no input");
            }
        }
        Ok(Self { inputs, pairs: file.pairs })
    }
}

fn input(keys: &Map<String, Value>, truths: &Map<String, Value>) -> Result<Input> {
    let any_of = match keys.get("any_of") {
        None => vec![expectation(keys, truths)?],
        Some(Value::Array(choices)) => {
            choices.iter().map(|choice| expectation(&merged(keys, choice)?, truths)).collect::<Result<_>>()?
        }
        Some(other) => bail!("any_of is {other}, should be a list"),
    };
    ensure!(!any_of.is_empty(), "any_of is empty");
    let shared: Shared = serde_json::from_value(Value::Object(keys.clone()))?;
    Ok(Input { format: shared.format, flags: shared.flags, any_of })
}

/// The keys that a pair needs of an input.
#[derive(Deserialize)]
struct Shared {
    format: String,
    #[serde(default)]
    flags: Vec<String>,
}

/// `keys`, where those of `part` replace them.
fn merged(keys: &Map<String, Value>, part: &Value) -> Result<Map<String, Value>> {
    let part = part.as_object().with_context(|| format!("{part} should be an object"))?;
    let mut all = keys.clone();
    all.extend(part.iter().map(|(key, value)| (key.clone(), value.clone())));
    Ok(all)
}

/// An expectation with its openings, and with the boxes that `truths` names.
fn expectation(keys: &Map<String, Value>, truths: &Map<String, Value>) -> Result<Expectation> {
    let mut alone = keys.clone();
    alone.remove("any_of");
    let openings = alone.remove("openings");
    if let Some(Value::String(name)) = alone.get("boxes") {
        let boxes = truths.get(name).with_context(|| format!("no boxes {name:?} among the truths"))?;
        alone.insert("boxes".to_owned(), boxes.clone());
    }
    let mut whole: Expectation = serde_json::from_value(Value::Object(alone.clone()))?;
    ensure!(whole.outcome == Outcome::Opens || alone.contains_key("message"), "a refusal without the key message");
    if whole.outcome != Outcome::Refuses || whole.refused_by == Some(RefusedBy::Check) {
        for key in ["boxes", "classes"] {
            ensure!(alone.contains_key(key), "the key {key} is missing");
        }
        let sides = whole.split.is_some() || (whole.train.is_some() && whole.val.is_some());
        ensure!(sides, "neither split nor train and val are given");
    }
    for opening in openings.as_ref().and_then(Value::as_array).into_iter().flatten() {
        let flag_named = opening.get("flag_named").cloned().map(serde_json::from_value).transpose()?;
        let mut keys = merged(&alone, opening)?;
        // An opening is judged as an input that opens.
        keys.insert("outcome".to_owned(), "opens".into());
        whole.openings.push(Opening { flag_named, expectation: expectation(&keys, truths)? });
    }
    ensure!(whole.outcome != Outcome::OpensWith || !whole.openings.is_empty(), "opens_with without openings");
    Ok(whole)
}
