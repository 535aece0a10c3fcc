//! The state file: everything a stopped run needs to go on with the same bits.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use docent_model::{read_safetensors, save_keeping};
use docent_tensor::with_f32;
use docent_train::{Patience, TrainerState};

use crate::error::{Error, Result};

/// The format that [`RunState`] writes and reads.
///
/// 2: the recipe's digest leaves out where files lie; an epoch counts as finished after its evaluation; the content has a digest.
/// 3: sections named after the trainer's state.
pub const STATE_FORMAT: &str = "docent-state-3";

/// The best evaluation so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// Step after which it was measured.
    pub step: usize,
    /// Its AP.
    pub ap: f64,
}

/// Where a run stands.
///
/// The model's own tensors are in it too, though a checkpoint holds them as well: one file is replaced at once, two are not, and a
/// model of step 100 beside an optimizer of step 50 would go on without an error and with other bits.
#[derive(Debug, Clone, Default)]
pub struct RunState {
    /// Everything that a step changes.
    pub trainer: TrainerState,
    /// Epochs finished, their evaluation included.
    pub epoch: usize,
    /// Seconds of training that the steps took.
    pub seconds: f64,
    /// The run's seed.
    pub seed: u64,
    /// Digest of the resolved recipe without its paths: another recipe is another run.
    pub recipe_digest: String,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// How long an early stop has waited; the default where there is none.
    pub patience: Patience,
}

const SECTIONS: [&str; 5] = ["model", "optimizer", "adapters", "adapter_optimizer", "ema"];

/// Nobody could go on from a value that is not finite, so it is written nowhere.
///
/// # Errors
/// A value that is NaN or infinite.
pub fn check_finite(name: &str, tensor: &Tensor) -> Result<()> {
    let finite = with_f32(tensor, |values| values.iter().all(|v| v.is_finite())).map_err(docent_model::Error::from)?;
    if finite { Ok(()) } else { Err(Error::param(name, "holds NaN or infinity; what was written before is kept")) }
}

impl RunState {
    fn sections(&self) -> [&BTreeMap<String, Tensor>; SECTIONS.len()] {
        let t = &self.trainer;
        [&t.model, &t.optimizer, &t.adapters, &t.adapter_optimizer, &t.ema]
    }

    /// Writes the state as [`docent_model::save_checkpoint`] does: whole or not at all. The state that stood at `path` is kept under the
    /// name `previous`, where that is given. Returns the file's SHA-256.
    ///
    /// # Errors
    /// A tensor with a value that is not finite: nobody could go on from it, so the last good state stays. Else as
    /// [`docent_model::save_checkpoint`].
    pub fn save(&self, path: &Path, previous: Option<&Path>) -> Result<String> {
        let mut tensors = BTreeMap::new();
        for (section, entries) in SECTIONS.into_iter().zip(self.sections()) {
            for (name, tensor) in entries {
                let name = format!("{section}/{name}");
                check_finite(&name, tensor)?;
                tensors.insert(name, tensor.clone());
            }
        }
        let mut metadata = BTreeMap::from([
            ("format".to_owned(), STATE_FORMAT.to_owned()),
            ("step".to_owned(), self.trainer.step.to_string()),
            ("epoch".to_owned(), self.epoch.to_string()),
            // Rust's shortest form reads back to the same bits.
            ("seconds".to_owned(), format!("{:?}", self.seconds)),
            ("seed".to_owned(), self.seed.to_string()),
            ("recipe_digest".to_owned(), self.recipe_digest.clone()),
        ]);
        if let Some(best) = self.best {
            metadata.insert("best_step".to_owned(), best.step.to_string());
            metadata.insert("best_ap".to_owned(), format!("{:?}", best.ap));
        }
        if let Some(reference) = self.patience.reference {
            metadata.insert("patience_reference".to_owned(), format!("{reference:?}"));
            metadata.insert("patience_waited".to_owned(), self.patience.waited.to_string());
        }
        Ok(save_keeping(path, previous, &tensors, &metadata)?)
    }

    /// Reads what [`RunState::save`] wrote.
    ///
    /// # Errors
    /// A file that is absent, damaged, of an older build, or with a key that is missing or does not parse.
    pub fn load(path: &Path) -> Result<Self> {
        let file = read_safetensors(path)?;
        let map = &file.metadata;
        match map.get("format").map(String::as_str) {
            Some(STATE_FORMAT) => {}
            Some(other) if other.starts_with("docent-state-") => {
                let what = format!(
                    "a training state of another build (format `{other}`; this one reads `{STATE_FORMAT}`): finish the run with \
                     that build, or begin anew under another --out; weights and figures of finished runs can still be used"
                );
                return Err(Error::file(path, what));
            }
            _ => {
                let what =
                    format!("no training state (format `{STATE_FORMAT}`); begin the run anew under another --out");
                return Err(Error::file(path, what));
            }
        }
        let mut state = Self {
            trainer: TrainerState { step: number(path, map, "step")?, ..TrainerState::default() },
            epoch: number(path, map, "epoch")?,
            seconds: number(path, map, "seconds")?,
            seed: number(path, map, "seed")?,
            recipe_digest: text(path, map, "recipe_digest")?.to_owned(),
            ..Self::default()
        };
        if map.contains_key("best_ap") {
            state.best = Some(Best { step: number(path, map, "best_step")?, ap: number(path, map, "best_ap")? });
        }
        if map.contains_key("patience_reference") {
            let reference = Some(number(path, map, "patience_reference")?);
            state.patience = Patience { reference, waited: number(path, map, "patience_waited")? };
        }
        let trainer = &mut state.trainer;
        for (name, tensor) in file.tensors {
            let section = match name.split_once('/') {
                Some(("model", rest)) => Some((&mut trainer.model, rest)),
                Some(("optimizer", rest)) => Some((&mut trainer.optimizer, rest)),
                Some(("adapters", rest)) => Some((&mut trainer.adapters, rest)),
                Some(("adapter_optimizer", rest)) => Some((&mut trainer.adapter_optimizer, rest)),
                Some(("ema", rest)) => Some((&mut trainer.ema, rest)),
                _ => None,
            };
            let Some((entries, rest)) = section else {
                return Err(Error::file(path, format!("tensor `{name}` belongs to no part of a training state")));
            };
            entries.insert(rest.to_owned(), tensor);
        }
        Ok(state)
    }
}

fn text<'a>(path: &Path, map: &'a BTreeMap<String, String>, key: &str) -> Result<&'a str> {
    map.get(key).map(String::as_str).ok_or_else(|| Error::file(path, format!("the state's metadata lacks `{key}`")))
}

fn number<T: std::str::FromStr>(path: &Path, map: &BTreeMap<String, String>, key: &str) -> Result<T> {
    let text = text(path, map, key)?;
    text.parse()
        .map_err(|_| Error::file(path, format!("the state's metadata `{key}` = `{text}` is no number of its kind")))
}
