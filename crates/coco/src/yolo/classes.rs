//! What a YOLO folder says of itself: the names of its classes and where its splits lie, in `data.yaml`, `obj.data` or a list of names.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::{Error, Result};
use crate::open::roles::Role;
use crate::text_file::{decoded, read_text};

/// A bigger file is no list of classes.
const MOST_BYTES: u64 = 1 << 20;

/// What a data set says of itself.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct DataYaml {
    /// The names of the classes 0, 1, ...
    pub names: Vec<String>,
    /// The number of classes that the file gives besides.
    pub count: Option<usize>,
    /// The folder that the splits' paths start from, where it is given.
    pub root: Option<String>,
    /// Image folders (or lists of images) of the training split.
    pub train: Vec<String>,
    /// The same of the held-out split.
    pub val: Vec<String>,
    /// The same of the test split.
    pub test: Vec<String>,
    /// Key points: their number, and the numbers of each.
    pub kpt_shape: Option<[usize; 2]>,
}

/// The keys of a `data.yaml` that are read, in any case of letters; the rest (`download`, ...) is passed over.
#[derive(Default)]
struct Yaml {
    path: Option<Scalar>,
    train: Option<Paths>,
    val: Option<Paths>,
    test: Option<Paths>,
    nc: Option<Scalar>,
    kpt_shape: Option<Vec<usize>>,
    names: Option<Names>,
    /// Some tools call the names so, and others their number.
    classes: Option<Classes>,
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct YamlVisitor;
        impl<'de> Visitor<'de> for YamlVisitor {
            type Value = Yaml;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys with values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Yaml, A::Error> {
                let mut yaml = Yaml::default();
                while let Some(key) = map.next_key::<Scalar>()? {
                    match key.text().unwrap_or_default().to_lowercase().as_str() {
                        "path" => yaml.path = once(yaml.path, &mut map, "path")?,
                        "train" => yaml.train = once(yaml.train, &mut map, "train")?,
                        key @ ("val" | "valid" | "validation") => {
                            let value: Option<Paths> = map.next_value()?;
                            match (&yaml.val, value) {
                                (Some(Paths::One(Scalar::Null(()))) | None, value) => yaml.val = value,
                                (Some(_), None | Some(Paths::One(Scalar::Null(())))) => {}
                                _ => {
                                    return Err(de::Error::custom(format!(
                                        "`{key}` is a second list of held-out images"
                                    )));
                                }
                            }
                        }
                        "test" => yaml.test = once(yaml.test, &mut map, "test")?,
                        "nc" => yaml.nc = once(yaml.nc, &mut map, "nc")?,
                        "kpt_shape" => yaml.kpt_shape = once(yaml.kpt_shape, &mut map, "kpt_shape")?,
                        "names" => yaml.names = once(yaml.names, &mut map, "names")?,
                        "classes" => yaml.classes = once(yaml.classes, &mut map, "classes")?,
                        _ => _ = map.next_value::<IgnoredAny>()?,
                    }
                }
                Ok(yaml)
            }
        }
        deserializer.deserialize_map(YamlVisitor)
    }
}

/// The value of a key, which stands in the file once, in whatever case of letters.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    before: Option<T>,
    map: &mut A,
    key: &str,
) -> std::result::Result<Option<T>, A::Error> {
    match before {
        None => map.next_value(),
        Some(_) => Err(de::Error::custom(format!("`{key}` stands there twice"))),
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Classes {
    Names(Names),
    Count(Scalar),
}

/// A scalar as text: `1`, `true` and `1.5` are names like others.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Scalar {
    Whole(i64),
    Number(f64),
    Flag(bool),
    Text(String),
    Null(()),
}

impl Scalar {
    fn text(self) -> Option<String> {
        match self {
            Self::Whole(value) => Some(value.to_string()),
            Self::Number(value) => Some(value.to_string()),
            Self::Flag(value) => Some(value.to_string()),
            Self::Text(text) => Some(text),
            Self::Null(()) => None,
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Paths {
    Many(Vec<Scalar>),
    One(Scalar),
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Names {
    List(Vec<Scalar>),
    Numbered(BTreeMap<u64, Scalar>),
    /// Quoted numbers with names, or names with numbers.
    Pairs(BTreeMap<String, Scalar>),
    /// `"cat, dog"` or `"['cat', 'dog']"`: one text.
    Text(String),
}

fn paths(given: Option<Paths>) -> Vec<String> {
    let all = match given {
        None => Vec::new(),
        Some(Paths::One(path)) => vec![path],
        Some(Paths::Many(paths)) => paths,
    };
    all.into_iter().filter_map(Scalar::text).map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect()
}

/// Reads the names of classes from a file: a `data.yaml`, or a text file with one name a line.
///
/// # Errors
/// A file that cannot be read, or that names no class.
pub fn read_class_names(path: &Path) -> Result<Vec<String>> {
    let names = read(path, None)?.names;
    if names.is_empty() {
        return Err(Error::Config(format!("{} names no class", path.display())));
    }
    Ok(names)
}

/// Reads a file of class names, as YAML where its name says so.
pub(super) fn read(path: &Path, encoding: Option<&str>) -> Result<DataYaml> {
    let wrong = |problem: String| Error::Config(format!("{}: {problem}", path.display()));
    let size = std::fs::metadata(path).map_err(|e| Error::file("read", path, e))?.len();
    if size > MOST_BYTES {
        return Err(wrong(format!("{size} bytes are no list of class names")));
    }
    let file = read_text(path, encoding)?;
    let text = decoded(&file);
    let described = if is_yaml(path) { parse_data_yaml(&text) } else { Ok(lines(&text)) }.map_err(wrong)?;
    if let Some(i) = described.names.iter().position(String::is_empty) {
        return Err(wrong(format!("class {i} has no name")));
    }
    if let Some(name) = described.names.iter().find(|name| name.contains(char::REPLACEMENT_CHARACTER)) {
        return Err(wrong(format!(
            "{name:?} is not UTF-8; name the file's encoding: --encoding windows-1252, gbk, ..."
        )));
    }
    Ok(described)
}

/// Whether a file's name ends in `.yaml` or `.yml`.
pub(super) fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"))
}

fn lines(text: &str) -> DataYaml {
    let lines = text.trim_start_matches('\u{feff}').trim_end().lines();
    DataYaml { names: lines.map(|line| line.trim().to_owned()).collect(), ..DataYaml::default() }
}

/// Reads the text of a `data.yaml`.
///
/// # Errors
/// What is wrong, with its line.
///
/// ```
/// let yaml = docent_coco::parse_data_yaml("train: images/train\nval: images\\val\nnames: [cat, 1]\n")?;
/// assert_eq!((yaml.names, yaml.val), (vec!["cat".to_owned(), "1".into()], vec!["images\\val".to_owned()]));
/// # Ok::<(), String>(())
/// ```
pub fn parse_data_yaml(text: &str) -> std::result::Result<DataYaml, String> {
    let text = text.trim_start_matches('\u{feff}');
    // `n`, `yes` and `off` are names like others.
    let read = |text: &str| {
        serde_saphyr::from_str_with_options::<Yaml>(text, serde_saphyr::options! { strict_booleans: true })
    };
    let yaml: Yaml = read(text)
        // "C:\Users" is no valid YAML, and what people have: in paths, `\` is `/`.
        .or_else(|e| read(&with_slashes(text)).map_err(|_| e))
        .map_err(|e| format!("is no data.yaml with `names` (a list, or numbers with names): {e}"))?;
    let texts = |names: Vec<Scalar>| names.into_iter().map(|name| name.text().unwrap_or_default()).collect::<Vec<_>>();
    let (names, count) = match (yaml.names, yaml.classes) {
        (None, Some(Classes::Names(names))) => (Some(names), yaml.nc),
        (names, Some(Classes::Count(count))) => (names, yaml.nc.or(Some(count))),
        (names, _) => (names, yaml.nc),
    };
    let names = match names {
        None => Vec::new(),
        Some(Names::List(names)) => texts(names),
        Some(Names::Text(text)) => {
            let list = text.trim().trim_start_matches('[').trim_end_matches(']');
            list.split(',')
                .map(|name| name.trim().trim_matches(['\'', '"']).to_owned())
                .filter(|n| !n.is_empty())
                .collect()
        }
        Some(Names::Numbered(names)) => {
            by_number(names.into_iter().map(|(n, s)| (n, s.text().unwrap_or_default())).collect())?
        }
        Some(Names::Pairs(pairs)) => {
            let mut numbered = BTreeMap::new();
            for (key, value) in pairs {
                let value = value.text().unwrap_or_default();
                let (number, name) = match (key.trim().parse::<u64>(), value.trim().parse::<u64>()) {
                    (Ok(number), _) => (number, value),
                    (Err(_), Ok(number)) => (number, key),
                    _ => return Err(format!("`names` has {key:?}: {value:?}, and neither is a number")),
                };
                if numbered.insert(number, name).is_some() {
                    return Err(format!("`names` has class {number} twice"));
                }
            }
            by_number(numbered)?
        }
    };
    let kpt_shape = match yaml.kpt_shape.as_deref() {
        None => None,
        Some(&[points, values @ 2..=3]) if points < 10_000 => Some([points, values]),
        Some(other) => return Err(format!("`kpt_shape` is {other:?}; it is [number of key points, 2 or 3]")),
    };
    Ok(DataYaml {
        names: names.into_iter().map(|name| name.trim().to_owned()).collect(),
        count: count.and_then(Scalar::text).and_then(|n| n.parse().ok()),
        root: yaml.path.and_then(Scalar::text).filter(|path| !path.is_empty()),
        train: paths(yaml.train),
        val: paths(yaml.val),
        test: paths(yaml.test),
        kpt_shape,
    })
}

/// The names of the classes 0, 1, 2, ...
fn by_number(names: BTreeMap<u64, String>) -> std::result::Result<Vec<String>, String> {
    match names.keys().zip(0..).find(|(number, wanted)| *number != wanted) {
        None => Ok(names.into_values().collect()),
        Some((_, missing)) => Err(format!("`names` has no class {missing}; number them 0, 1, 2, ...")),
    }
}

/// Whether a line of YAML holds one of these keys, in any case of letters.
fn has_key(line: &str, keys: &[&str]) -> bool {
    let key = line.trim_start_matches(|c: char| c.is_whitespace() || "{\"'".contains(c)).split(':').next();
    let key = key.filter(|key| key.len() < line.len()).unwrap_or_default().trim_end_matches(['"', '\'', ' ']);
    keys.iter().any(|name| key.eq_ignore_ascii_case(name))
}

/// Whether a YAML that cannot be read is meant to describe a data set: it has a key of one.
pub(super) fn is_meant(text: &str) -> bool {
    let keys = ["names", "classes", "nc", "train", "val", "valid", "validation", "test"];
    text.trim_start_matches('\u{feff}').lines().any(|line| has_key(line, &keys))
}

/// The text with `/` for `\` on the lines of paths.
fn with_slashes(text: &str) -> String {
    let keys = ["path", "train", "val", "valid", "validation", "test"];
    let is_path = |line: &str| has_key(line, &keys) || line.trim_start().starts_with("- ");
    text.lines().map(|line| if is_path(line) { line.replace('\\', "/") } else { line.to_owned() } + "\n").collect()
}

/// Reads Darknet's `obj.data`: lines `key = value`. The value of `names` is a path.
pub(super) fn obj_data(text: &str) -> (Option<String>, Vec<(Role, String)>) {
    let (mut names, mut parts) = (None, Vec::new());
    for line in text.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim().to_owned());
        if key.eq_ignore_ascii_case("names") {
            names = Some(value);
        } else if let Some(role) = Role::of_word(key) {
            parts.push((role, value));
        }
    }
    (names, parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_tools_write_them() {
        let list = parse_data_yaml(
            "train: ../train/images\nval: [a, b]\nnc: 2\nnames: ['cat', \"dog\"]\nroboflow:\n  project: x\n",
        );
        let list = list.unwrap();
        assert_eq!(list.names, ["cat", "dog"]);
        assert_eq!((list.train.len(), list.val.len(), list.count), (1, 2, Some(2)));
        let numbered = parse_data_yaml(
            "path: ../coco8  # root\ntrain: images/train\nval: images/val\ntest:\nnames:\n  0: person\n  1: big dog\nkpt_shape: [17, 3]\n",
        );
        let numbered = numbered.unwrap();
        assert_eq!(numbered.names, ["person", "big dog"]);
        assert_eq!(
            (numbered.root.as_deref(), numbered.kpt_shape, numbered.test.len()),
            (Some("../coco8"), Some([17, 3]), 0)
        );
        assert_eq!(lines("\u{feff}cat\r\nbig dog\n\n").names, ["cat", "big dog"]);
        assert_eq!(parse_data_yaml("names: [0, 1, y, n, no, off]\n").unwrap().names, ["0", "1", "y", "n", "no", "off"]);
        for text in [
            "names: {'0': a, '1': b}",
            "names: {a: 0, b: 1}",
            "names: \"['a', 'b']\"",
            "names: a, b",
            "{names: [a, b]}",
        ] {
            assert_eq!(parse_data_yaml(text).unwrap().names, ["a", "b"], "{text}");
        }
        assert_eq!(parse_data_yaml("train: x\nnc: 2\n").unwrap().names, Vec::<String>::new());
        for text in ["TRAIN: x\nVal: y\nNames: [a, b]\n", "Train: x\nvalid: y\nval:\nclasses: {0: a, 1: b}\nNC: 2\n"] {
            let yaml = parse_data_yaml(text).unwrap();
            assert_eq!(
                (yaml.train.len(), yaml.val.len(), yaml.names),
                (1, 1, vec!["a".to_owned(), "b".into()]),
                "{text}"
            );
        }
        assert_eq!(parse_data_yaml("classes: 2\nnames: [a, b]\n").unwrap().count, Some(2));
        assert!(is_meant("x: [\nNames : [a\n") && is_meant("{\"train\": x") && !is_meant("services:\n  a: names\n"));
        let windows =
            parse_data_yaml("path: \"C:\\Users\\anna\\parts\"\ntrain: train\\images\nnames: ['a']\n").unwrap();
        assert_eq!(
            (windows.root.as_deref(), windows.train),
            (Some("C:/Users/anna/parts"), vec!["train/images".to_owned()])
        );
        let (names, parts) =
            obj_data("classes = 2\nTrain = data/Train.txt\nvalid = data/v.txt\nnames = data/obj.names\n");
        assert_eq!((names.as_deref(), parts.len()), (Some("data/obj.names"), 2));
    }

    #[test]
    fn what_is_no_list_of_names() {
        for (text, part) in [
            ("names:\n  0: a\n  2: b\n", "no class 1"),
            ("names: [a, [b]]\n", "names"),
            ("names: {", "names"),
            ("train: a\nTrain: b\n", "twice"),
            ("val: a\nvalid: b\n", "second"),
            ("names: [a]\nkpt_shape: [4, 7]\n", "kpt_shape"),
        ] {
            let message = parse_data_yaml(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        // Aliases that would multiply without end are refused, not expanded.
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, before) in ('b'..='j').zip('a'..) {
            bomb += &format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 10].join(", "));
        }
        assert!(parse_data_yaml(&(bomb + "names: [a]\n")).is_err());
    }
}
