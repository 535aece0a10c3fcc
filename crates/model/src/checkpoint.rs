//! Checkpoints: a model's tensors with the metadata that loading checks, written so that a crash never leaves half a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use candle_core::{DType, Tensor};
use docent_coco::{Category, Resize};
use docent_detect::DetectorConfig;
use docent_tensor::with_f32;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::digest::hex;
use crate::error::{Error, Result};
use crate::files;
use crate::integrity::{self, ContentHash};
use crate::old_keys;
use crate::weights::{WeightFile, read_safetensors};

/// The format that [`CheckpointMeta`] writes and reads.
pub const FORMAT: &str = "docent-1";

/// Writes f32 and f16 tensors and metadata as one safetensors file and returns the file's SHA-256.
///
/// The bytes go to `<name>.tmp` in the same folder, are synced and renamed over `path`: a reader sees the old file or the new one,
/// whatever happens in between. Names stand in order, so equal tensors and metadata give equal bytes. The metadata gains a digest of
/// the content, which [`read_safetensors`] checks.
///
/// # Errors
/// A tensor of another type or named `__metadata__`; the system's errors (full disk, no permission), after which the old file
/// still stands and no temporary file is left.
pub fn save_checkpoint(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<String> {
    save_keeping(path, None, tensors, metadata)
}

/// As [`save_checkpoint`]; the file that stood at `path` goes on under the name `previous`.
pub fn save_keeping(
    path: &Path,
    previous: Option<&Path>,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<String> {
    let mut metadata = metadata.clone();
    let mut content = ContentHash::new(&metadata);
    for (name, tensor) in tensors {
        element_type(name, tensor)?;
        content.tensor(name, tensor.dims());
        each_chunk(tensor, |bytes| {
            content.bytes(bytes);
            Ok(())
        })?;
    }
    metadata.insert(integrity::KEY.to_owned(), content.finish());
    let header = header(path, tensors, &metadata)?;
    files::replace(path, previous, |out| {
        let mut hash = Sha256::new();
        let mut put = |bytes: &[u8]| {
            hash.update(bytes);
            out.write_all(bytes).map_err(|e| Error::io(path, e))
        };
        put(&header)?;
        in_file_order(tensors).try_for_each(|(_, tensor)| each_chunk(tensor, &mut put))?;
        Ok(hex(&hash.finalize()))
    })
}

/// The format's name of what a tensor holds, where it can be saved.
fn element_type(name: &str, tensor: &Tensor) -> Result<&'static str> {
    match tensor.dtype() {
        DType::F32 if name != "__metadata__" => Ok("F32"),
        DType::F16 if name != "__metadata__" => Ok("F16"),
        other => Err(Error::param(name, format!("cannot be saved: {other:?} under this name"))),
    }
}

/// The safetensors header: 8 bytes of length, then JSON padded to a multiple of 8.
///
/// Written here because the safetensors crate keeps metadata in a hash map, whose order differs from run to run.
fn header(path: &Path, tensors: &BTreeMap<String, Tensor>, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let json = |e| Error::json(path, e);
    let mut text = String::from("{\"__metadata__\":");
    text += &serde_json::to_string(metadata).map_err(json)?;
    let mut offset = 0;
    for (name, tensor) in in_file_order(tensors) {
        let dtype = element_type(name, tensor)?;
        let end = offset + tensor.dtype().size_in_bytes() * tensor.elem_count();
        let name = serde_json::to_string(name).map_err(json)?;
        let shape = tensor.dims();
        // Writing into a String cannot fail.
        let _ = write!(text, ",{name}:{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{offset},{end}]}}");
        offset = end;
    }
    text.push('}');
    while text.len() % 8 != 0 {
        text.push(' ');
    }
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    Ok(bytes)
}

/// By name, wide elements first: an f32 then starts at a multiple of its size, as readers that map the file want it.
fn in_file_order(tensors: &BTreeMap<String, Tensor>) -> impl Iterator<Item = (&String, &Tensor)> {
    let of = |wide: bool| tensors.iter().filter(move |(_, t)| (t.dtype() != DType::F16) == wide);
    of(true).chain(of(false))
}

/// Hands a tensor's values to `f` as the bytes of the file, some thousand at a time.
fn each_chunk(tensor: &Tensor, mut f: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut bytes = Vec::with_capacity(4 << 14);
    if tensor.dtype() == DType::F16 {
        tensor.write_bytes(&mut bytes)?;
        return f(&bytes);
    }
    with_f32(tensor, |values| {
        values.chunks(1 << 14).try_for_each(|chunk| {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|v| v.to_le_bytes()));
            f(&bytes)
        })
    })?
}

/// A model's tensors and metadata.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Tensors under torchvision's names.
    pub tensors: BTreeMap<String, Tensor>,
    /// What the model is and was trained for.
    pub meta: CheckpointMeta,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// Reads what [`save_checkpoint`] wrote with a [`CheckpointMeta`].
///
/// # Errors
/// As [`read_safetensors`]; metadata that is missing, does not parse, or has another format.
pub fn load_checkpoint(path: &Path) -> Result<Checkpoint> {
    Checkpoint::from_file(path, read_safetensors(path)?)
}

impl Checkpoint {
    /// A weight file whose metadata are a checkpoint's; `path` names it in messages.
    ///
    /// # Errors
    /// As [`CheckpointMeta::from_map`].
    pub fn from_file(path: &Path, file: WeightFile) -> Result<Self> {
        Ok(Self { meta: CheckpointMeta::from_map(path, &file.metadata)?, tensors: file.tensors, sha256: file.sha256 })
    }
}

/// What a checkpoint says of itself: enough to rebuild the model and to name its detections.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CheckpointMeta {
    /// The detector's settings as JSON, under today's keys: architecture, strides, norm, mean and deviation, anchors, sizes.
    pub model: Value,
    /// Categories in the order of the model's classes 1, 2, … (0 is background).
    pub categories: Vec<Category>,
    /// How images are resized before they reach the model, as JSON.
    pub resize: Value,
    /// The recipe's name.
    pub recipe: String,
    /// Optimizer steps done.
    pub step: usize,
}

impl CheckpointMeta {
    /// Metadata of a detector with these settings.
    ///
    /// # Errors
    /// Settings that have no JSON form.
    pub fn new(
        model: &DetectorConfig,
        categories: &[Category],
        resize: &Resize,
        recipe: &str,
        step: usize,
    ) -> Result<Self> {
        let (model, resize) = (to_value("model", model)?, to_value("resize", resize)?);
        Ok(Self { model, categories: categories.to_vec(), resize, recipe: recipe.to_owned(), step })
    }

    /// As a safetensors header's metadata.
    ///
    /// # Errors
    /// Only if a category's name has no JSON form.
    pub fn to_map(&self) -> Result<BTreeMap<String, String>> {
        let categories: Vec<Value> =
            self.categories.iter().map(|c| serde_json::json!({ "id": c.id, "name": c.name })).collect();
        Ok(BTreeMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("model".to_owned(), self.model.to_string()),
            ("categories".to_owned(), Value::from(categories).to_string()),
            ("resize".to_owned(), self.resize.to_string()),
            ("recipe".to_owned(), self.recipe.clone()),
            ("step".to_owned(), self.step.to_string()),
        ]))
    }

    /// From a header's metadata; `path` is named in messages. Other keys are left alone.
    ///
    /// # Errors
    /// Each key must be there and parse; `format` must be [`FORMAT`]; categories must have distinct ids and names.
    pub fn from_map(path: &Path, map: &BTreeMap<String, String>) -> Result<Self> {
        match map.get("format").map(String::as_str) {
            Some(FORMAT) => {}
            Some(other) => {
                let what = format!("checkpoint format `{other}`; this version reads `{FORMAT}`");
                return Err(Error::file(path, what));
            }
            None => {
                let hint = "not a checkpoint of this program (no `format` in its metadata); `docent weights convert` makes one of a \
                     detector's bare weights";
                return Err(Error::file(path, hint));
            }
        }
        let text = |key: &str| {
            map.get(key).ok_or_else(|| Error::file(path, format!("the checkpoint's metadata lacks `{key}`")))
        };
        let bad = |key: &str, why: String| Error::file(path, format!("the checkpoint's metadata `{key}`: {why}"));
        let json = |key: &str| serde_json::from_str::<Value>(text(key)?).map_err(|e| bad(key, e.to_string()));
        let list = json("categories")?;
        let categories = list.as_array().map(|a| a.iter().map(category).collect::<Option<Vec<_>>>());
        let Some(Some(categories)) = categories else {
            return Err(bad("categories", "a list of {id, name} is needed".into()));
        };
        for (i, c) in categories.iter().enumerate() {
            if categories[..i].iter().any(|d| d.id == c.id || d.name == c.name) {
                return Err(bad("categories", format!("`{}` ({}) stands twice", c.name, c.id)));
            }
        }
        let step = text("step")?.parse().map_err(|e| bad("step", format!("{e}")))?;
        let mut model = json("model")?;
        old_keys::up_to_date(&mut model);
        Ok(Self { model, categories, resize: json("resize")?, recipe: text("recipe")?.clone(), step })
    }

    /// The detector's architecture and settings; `path` is named in messages.
    ///
    /// # Errors
    /// Settings this program does not know (an unknown field, a wrong type).
    pub fn detector(&self, path: &Path) -> Result<DetectorConfig> {
        DetectorConfig::deserialize(&self.model).map_err(|e| Error::file(path, format!("the checkpoint's model: {e}")))
    }

    /// How images are resized, checked; `path` is named in messages.
    ///
    /// # Errors
    /// As [`CheckpointMeta::detector`]; a side that is 0 or too long.
    pub fn resizing(&self, path: &Path) -> Result<Resize> {
        let bad = |why: String| Error::file(path, format!("the checkpoint's {why}"));
        let resize = Resize::deserialize(&self.resize).map_err(|e| bad(format!("resize: {e}")))?;
        resize.validate().map_err(|e| bad(e.to_string()))?;
        Ok(resize)
    }

    /// Is this checkpoint one of the model `expected`? Its tensors may fit another one too: the stride's place, an epsilon or an
    /// anchor size shows in no shape.
    ///
    /// # Errors
    /// Every field that differs, with both values.
    pub fn check_model(&self, path: &Path, expected: &DetectorConfig) -> Result<()> {
        let differences = differences("model", &self.model, &to_value("model", expected)?);
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::file(path, format!("the checkpoint is of another model:\n  {}", differences.join("\n  "))))
    }

    /// Does this checkpoint know the categories `expected`, in that order?
    ///
    /// # Errors
    /// Both lists, when they differ in an id, a name or the order.
    pub fn check_categories(&self, path: &Path, expected: &[Category]) -> Result<()> {
        let same = self.categories.len() == expected.len()
            && self.categories.iter().zip(expected).all(|(a, b)| a.id == b.id && a.name == b.name);
        if same {
            return Ok(());
        }
        Err(self.other_categories(path, expected))
    }

    /// Does this checkpoint know at least the categories `expected`, in any order? Enough to score it on their data.
    ///
    /// # Errors
    /// Both lists, when one is unknown.
    pub fn covers_categories(&self, path: &Path, expected: &[Category]) -> Result<()> {
        let known = |e: &Category| self.categories.iter().any(|c| c.id == e.id && c.name == e.name);
        if expected.iter().all(known) { Ok(()) } else { Err(self.other_categories(path, expected)) }
    }

    fn other_categories(&self, path: &Path, expected: &[Category]) -> Error {
        let list = |c: &[Category]| c.iter().map(|c| format!("{} {}", c.id, c.name)).collect::<Vec<_>>().join(", ");
        let (had, want) = (list(&self.categories), list(expected));
        Error::file(path, format!("other categories, or another order:\n  checkpoint: {had}\n  data: {want}"))
    }
}

fn category(value: &Value) -> Option<Category> {
    Some(Category { id: value.get("id")?.as_u64()?, name: value.get("name")?.as_str()?.to_owned() })
}

/// A config as the JSON that a reader of the file would see: written and read once, so that both sides of a comparison rounded alike.
fn to_value(what: &str, config: &impl Serialize) -> Result<Value> {
    let text = serde_json::to_string(config).map_err(|e| Error::config(what, e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| Error::config(what, e.to_string()))
}

/// Every leaf that differs between a file's JSON and ours, by its path below `at`.
pub fn differences(at: &str, file: &Value, here: &Value) -> Vec<String> {
    if let (Value::Object(a), Value::Object(b)) = (file, here) {
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        let below = |key: &String| {
            let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            differences(&path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null))
        };
        return keys.into_iter().flat_map(below).collect();
    }
    if file == here { Vec::new() } else { vec![format!("{at}: the file has {file}, here it is {here}")] }
}
