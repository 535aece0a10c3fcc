//! What the comparison needs of a COCO file that docent wrote.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::fault::Fault;

#[derive(Debug, Deserialize)]
pub struct Coco {
    pub images: Vec<Image>,
    pub annotations: Vec<Annotation>,
    pub categories: Vec<Category>,
}

#[derive(Debug, Deserialize)]
pub struct Image {
    pub id: Id,
    pub file_name: String,
    pub width: f64,
    pub height: f64,
}

#[derive(Debug, Deserialize)]
pub struct Annotation {
    pub id: Id,
    pub image_id: Id,
    pub category_id: Id,
    /// `[x, y, width, height]` in pixels.
    pub bbox: [f64; 4],
    #[serde(default, deserialize_with = "is_set")]
    pub iscrowd: bool,
}

#[derive(Debug, Deserialize)]
pub struct Category {
    pub id: Id,
    pub name: String,
}

/// An id; `1` and `1.0` are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "Value")]
pub enum Id {
    Number(i64),
    Text(String),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl TryFrom<Value> for Id {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let whole = |v: f64| (v.fract() == 0.0 && v.abs() < 2f64.powi(53)).then_some(v as i64);
        match &value {
            Value::String(text) => Ok(Self::Text(text.clone())),
            number => number
                .as_i64()
                .or_else(|| number.as_f64().and_then(whole))
                .map(Self::Number)
                .ok_or_else(|| format!("{value} is no id")),
        }
    }
}

/// `iscrowd` in any form; absent, `null`, `false` and 0 are not set.
fn is_set<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => false,
        Value::Bool(set) => set,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(keys) => !keys.is_empty(),
    })
}

impl Coco {
    /// Reads the file of a split below `folder`, and looks for its images: each `file_name` is absolute, or relative to `out`,
    /// to `out/annotations`, or to `data` or a folder inside it.
    pub fn read(folder: &Path, split: &str) -> Result<Self, Fault> {
        let name = format!("instances_{split}.json");
        let path = folder.join("out/annotations").join(&name);
        if !path.is_file() {
            return Err(Fault::Silent(format!("exit code 0, but {name} was not written")));
        }
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let coco: Self = serde_json::from_slice(&bytes).map_err(|e| Fault::NoCoco(format!("{name}: {e}")))?;
        let inside = Tails::of(&folder.join("data"))?;
        let tops = ["out", "out/annotations", "data"].map(|top| folder.join(top));
        for Image { file_name, .. } in &coco.images {
            if !tops.iter().any(|top| top.join(file_name).is_file()) && !inside.contain(file_name) {
                return Err(Fault::Silent(format!("{name} names {file_name:?}, and there is no such file")));
            }
        }
        Ok(coco)
    }
}

/// The path of every file of a folder, relative to the folder above, to the folder itself, and to each folder inside.
struct Tails(HashSet<String>);

impl Tails {
    fn of(folder: &Path) -> Result<Self> {
        let mut tails = HashSet::new();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let mut folders = vec![(folder.to_owned(), vec![format!("{name}/"), String::new()])];
        while let Some((folder, prefixes)) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let mut longer: Vec<String> = prefixes.iter().map(|prefix| format!("{prefix}{name}")).collect();
                if path.is_dir() {
                    longer.iter_mut().for_each(|prefix| prefix.push('/'));
                    longer.push(String::new());
                    folders.push((path, longer));
                } else {
                    tails.extend(longer);
                }
            }
        }
        Ok(Self(tails))
    }

    fn contain(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}
