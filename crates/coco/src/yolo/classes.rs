//! The names of YOLO's classes: a text file with one a line, or a `data.yaml`, which may say where the splits lie too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// A bigger file is no list of classes.
const MOST_BYTES: u64 = 1 << 20;

/// What a data set says of itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Described {
    /// The names of the classes 0, 1, ...
    pub classes: Vec<String>,
    /// The folder that the splits' paths start from, where it is given.
    pub root: Option<PathBuf>,
    /// Image folders (or lists of images) of the training split.
    pub train: Vec<PathBuf>,
    /// The same of the held-out split.
    pub val: Vec<PathBuf>,
}

/// The keys of a `data.yaml` that are read; the rest (`nc`, `download`, ...) is passed over.
#[derive(Deserialize)]
struct Yaml {
    path: Option<PathBuf>,
    train: Option<Paths>,
    val: Option<Paths>,
    names: Names,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Paths {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    List(Vec<String>),
    Numbered(BTreeMap<u64, String>),
}

fn paths(given: Option<Paths>) -> Vec<PathBuf> {
    match given {
        None => Vec::new(),
        Some(Paths::One(path)) => vec![path],
        Some(Paths::Many(paths)) => paths,
    }
}

/// Reads a file of class names, as YAML where its name says so.
pub(super) fn read(path: &Path) -> Result<Described> {
    let wrong = |problem: String| Error::Config(format!("{}: {problem}", path.display()));
    let size = std::fs::metadata(path).map_err(|e| Error::file("read", path, e))?.len();
    if size > MOST_BYTES {
        return Err(wrong(format!("{size} bytes are no list of class names")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::file("read", path, e))?;
    let described = if is_yaml(path) { yaml(&text) } else { Ok(lines(&text)) }.map_err(wrong)?;
    match described.classes.iter().position(String::is_empty) {
        Some(i) => Err(wrong(format!("class {i} has no name"))),
        None if described.classes.is_empty() => Err(wrong("names no class".to_owned())),
        None => Ok(described),
    }
}

/// Whether a file's name ends in `.yaml` or `.yml`.
pub(super) fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"))
}

fn lines(text: &str) -> Described {
    let lines = text.trim_start_matches('\u{feff}').trim_end().lines();
    Described { classes: lines.map(|line| line.trim().to_owned()).collect(), ..Described::default() }
}

fn yaml(text: &str) -> std::result::Result<Described, String> {
    let yaml: Yaml = serde_saphyr::from_str(text)
        .map_err(|e| format!("is no data.yaml with `names` (a list, or numbers with names): {e}"))?;
    let classes = match yaml.names {
        Names::List(names) => names,
        Names::Numbered(names) => match names.keys().zip(0..).find(|(number, wanted)| *number != wanted) {
            None => names.into_values().collect(),
            Some((_, missing)) => return Err(format!("`names` has no class {missing}; number them 0, 1, 2, ...")),
        },
    };
    let classes = classes.into_iter().map(|name| name.trim().to_owned()).collect();
    Ok(Described { classes, root: yaml.path, train: paths(yaml.train), val: paths(yaml.val) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_tools_write_them() {
        let list =
            yaml("train: ../train/images\nval: [a, b]\nnc: 2\nnames: ['cat', \"dog\"]\nroboflow:\n  project: x\n");
        let list = list.unwrap();
        assert_eq!(list.classes, ["cat", "dog"]);
        assert_eq!((list.train.len(), list.val.len()), (1, 2));
        let numbered = yaml(
            "path: ../coco8  # root\ntrain: images/train\nval: images/val\ntest:\nnames:\n  0: person\n  1: big dog\n",
        );
        let numbered = numbered.unwrap();
        assert_eq!(numbered.classes, ["person", "big dog"]);
        assert_eq!(numbered.root.as_deref(), Some(Path::new("../coco8")));
        assert_eq!(lines("\u{feff}cat\r\nbig dog\n\n").classes, ["cat", "big dog"]);
    }

    #[test]
    fn what_is_no_list_of_names() {
        for (text, part) in [
            ("train: x\n", "names"),
            ("names:\n  0: a\n  2: b\n", "no class 1"),
            ("names: [a, [b]]\n", "names"),
            ("names: {", "names"),
            ("", "names"),
        ] {
            let message = yaml(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        // Aliases that would multiply without end are refused, not expanded.
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, before) in ('b'..='j').zip('a'..) {
            bomb += &format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 10].join(", "));
        }
        assert!(yaml(&(bomb + "names: [a]\n")).is_err());
    }
}
