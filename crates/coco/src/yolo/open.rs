//! From a YOLO folder to its training and validation splits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::classes::{Described, is_yaml, read};
use super::{Entry, load};
use crate::checks::{Finding, FindingKind};
use crate::error::{Error, Result};
use crate::ids::ids_of_names;
use crate::open::{Splits, hold_out, list, split};
use crate::policy::{CheckConfig, Policy};

/// What the caller says about a YOLO folder.
#[derive(Debug, Clone, PartialEq)]
pub struct YoloOptions {
    /// The classes: a text file with one name a line, or a `data.yaml`. Default: found in the folder.
    pub classes: Option<PathBuf>,
    /// Where the folder has one split alone: the share of images, between 0 and 1, that is held out. Default 0.2.
    pub val_fraction: f64,
    /// What is done about faults.
    pub checks: CheckConfig,
}

impl Default for YoloOptions {
    fn default() -> Self {
        Self { classes: None, val_fraction: 0.2, checks: CheckConfig::default() }
    }
}

/// Opens a YOLO folder.
///
/// Classes stand in `data.yaml` (`dataset.yaml`, or the only YAML file there), or in `classes.txt`, `obj.names` or
/// `labels/classes.txt`. The splits' images are those that the YAML names; else `images/train` and `images/val`, `train/images` and
/// `val/images` (`valid` for `val`), or the lists `train.txt` and `val.txt`. Else there is one split (`images/`, `JPEGImages/`, or
/// the folder itself), and a share of it is held out by a hash of the images' ids ([`split_by_id`](crate::split_by_id)).
///
/// The labels of `../images/a.jpg` lie in `../labels/a.txt`, or in `a.txt` beside the image; an image without either has no
/// objects. Class 0 becomes category 1.
///
/// # Errors
/// No classes or images, no label file at all, an image in both splits, faults whose policy is `error`: every line that is no
/// object is listed.
pub fn open_yolo(dir: &Path, options: &YoloOptions) -> Result<Splits> {
    let file = match &options.classes {
        Some(file) => file.clone(),
        None => find_classes(dir)?,
    };
    let described = read(&file)?;
    let base = file.parent().unwrap_or(Path::new("."));
    let (train, val) = match named(dir, base, &described)? {
        Some(splits) => splits,
        None => usual(dir)?,
    };
    // One file may be named in two ways.
    let same = |image: &PathBuf| image.canonicalize().unwrap_or_else(|_| image.clone());
    let held_out: BTreeSet<PathBuf> = val.iter().map(same).collect();
    if let Some(both) = train.iter().find(|image| held_out.contains(&same(image))) {
        return Err(Error::Config(format!(
            "{} is in both splits: what is trained on cannot be held out; take it out of one",
            both.display()
        )));
    }
    let images: Vec<PathBuf> = train.iter().chain(&val).cloned().collect();
    let names: Vec<String> = images.iter().map(|image| stem(image)).collect();
    let entries: Vec<Entry> = ids_of_names(&names)
        .into_iter()
        .zip(images)
        .map(|(id, image)| Entry { id, labels: labels_of(&image), image })
        .collect();
    if !entries.iter().any(|e| e.labels.is_file()) {
        let tried: Vec<String> = entries.iter().take(1).map(|e| e.labels.display().to_string()).collect();
        return Err(folder(
            dir,
            format!("none of the {} images has a label file", entries.len()),
            "for ../images/a.jpg: ../labels/a.txt, or a.txt beside it",
            format!("no {}", tried.join("")),
        ));
    }
    let root = common(&entries).filter(|root| !root.as_os_str().is_empty()).unwrap_or_else(|| dir.to_owned());
    let whole = load(dir, &root, &entries, described.classes, orphans(&entries), &options.checks)?;
    // Names were found, but not looked into; a policy may ask for more.
    let whole = if options.checks.unreadable_image == Policy::Drop {
        whole.with_images_checked(&options.checks)?
    } else {
        whole
    };
    if val.is_empty() {
        return hold_out(&whole, options.val_fraction);
    }
    let held_out: BTreeSet<u64> = entries[train.len()..].iter().map(|e| e.id).collect();
    Ok(split(&whole, "", |i| held_out.contains(&whole.image(i).id)))
}

fn folder(dir: &Path, problem: String, looked_for: &str, found: String) -> Error {
    Error::Folder {
        dir: dir.to_owned(),
        problem,
        looked_for: looked_for.to_owned(),
        found,
        way_out: "name the folder that holds images/ and labels/, and the classes' file",
    }
}

fn find_classes(dir: &Path) -> Result<PathBuf> {
    let entries = list(dir).map_err(|e| Error::file("open the data folder", dir, e))?;
    let yamls: Vec<&PathBuf> = entries.iter().filter(|p| is_yaml(p)).collect();
    let usual = ["data.yaml", "data.yml", "dataset.yaml", "dataset.yml"].map(|name| dir.join(name));
    if let Some(file) = usual.iter().find(|p| p.is_file()) {
        return Ok(file.clone());
    }
    if let [file] = yamls[..] {
        return Ok(file.clone());
    }
    let lists = ["classes.txt", "obj.names", "labels/classes.txt"].map(|name| dir.join(name));
    lists.iter().find(|p| p.is_file()).cloned().ok_or_else(|| {
        let names: Vec<String> = yamls.iter().map(|p| p.display().to_string()).collect();
        folder(
            dir,
            "no file with the names of the classes".to_owned(),
            "data.yaml, dataset.yaml, one YAML file alone, classes.txt, obj.names, labels/classes.txt",
            if names.is_empty() { "none of them".to_owned() } else { names.join(", ") },
        )
    })
}

/// Images of the training and the held-out split.
type Images = (Vec<PathBuf>, Vec<PathBuf>);

/// The splits that the YAML names, if it does.
fn named(dir: &Path, base: &Path, described: &Described) -> Result<Option<Images>> {
    let gather = |paths: &[PathBuf]| -> Result<Vec<PathBuf>> {
        let mut images = Vec::new();
        for path in paths {
            images.append(&mut images_of(&resolve(dir, base, described.root.as_deref(), path)?)?);
        }
        Ok(images)
    };
    match (described.train.as_slice(), described.val.as_slice()) {
        ([], []) => Ok(None),
        (train, val) if val.is_empty() || train.is_empty() => Ok(Some((gather(train)?, gather(val)?))),
        // One folder for both means that nothing is held out.
        (train, val) if train == val => Ok(Some((gather(train)?, Vec::new()))),
        (train, val) => Ok(Some((gather(train)?, gather(val)?))),
    }
}

/// The place that a YAML's path means: below its `path`, beside the file, or in the folder; tools write `../train/images` for
/// `train/images` too.
fn resolve(dir: &Path, base: &Path, root: Option<&Path>, path: &Path) -> Result<PathBuf> {
    let below = path.strip_prefix("..").unwrap_or(path);
    let mut tried: Vec<PathBuf> = Vec::new();
    if let Some(root) = root {
        tried.extend([base.join(root).join(path), root.join(path)]);
    }
    tried.extend([base.join(path), base.join(below), dir.join(path), dir.join(below)]);
    match tried.iter().find(|p| p.exists()) {
        Some(place) => Ok(place.clone()),
        None => Err(folder(
            dir,
            format!("the YAML's {} is not there", path.display()),
            "it below the YAML's `path`, beside the YAML, and in the folder",
            "none of them".to_owned(),
        )),
    }
}

/// The images of a folder (and of the folders in it), or those that a list names, in the order of names.
fn images_of(place: &Path) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    if place.is_dir() {
        walk(place, &mut images)?;
    } else {
        let text = std::fs::read_to_string(place).map_err(|e| Error::file("read", place, e))?;
        let base = place.parent().unwrap_or(Path::new("."));
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let beside = base.join(line);
            images.push(if beside.exists() { beside } else { base.join(line.trim_start_matches("./")) });
        }
        images.sort();
        images.dedup();
    }
    if images.is_empty() {
        return Err(folder(place, "no image".to_owned(), ".jpg, .jpeg and .png", "none".to_owned()));
    }
    Ok(images)
}

fn walk(dir: &Path, images: &mut Vec<PathBuf>) -> Result<()> {
    for path in list(dir).map_err(|e| Error::file("list", dir, e))? {
        // A link to a folder could lead back here.
        if path.is_dir() && !path.is_symlink() {
            walk(&path, images)?;
        } else if is_image(&path) {
            images.push(path);
        }
    }
    Ok(())
}

fn is_image(path: &Path) -> bool {
    let known = |e: &std::ffi::OsStr| ["jpg", "jpeg", "png"].iter().any(|k| e.eq_ignore_ascii_case(k));
    path.is_file() && path.extension().is_some_and(known)
}

/// The splits by the usual names of folders and lists.
fn usual(dir: &Path) -> Result<Images> {
    let pairs = [
        ("images/train", ["images/val", "images/valid"]),
        ("train/images", ["val/images", "valid/images"]),
        ("train.txt", ["val.txt", "valid.txt"]),
    ];
    for (train, vals) in pairs {
        let val = vals.iter().map(|name| dir.join(name)).find(|p| p.exists());
        if let (true, Some(val)) = (dir.join(train).exists(), val) {
            return Ok((images_of(&dir.join(train))?, images_of(&val)?));
        }
    }
    let one = ["images", "JPEGImages"].iter().map(|name| dir.join(name)).find(|p| p.is_dir());
    Ok((images_of(&one.unwrap_or_else(|| dir.to_owned()))?, Vec::new()))
}

/// The label file of an image: the last `images` of its path becomes `labels`; beside the image where that is not there.
fn labels_of(image: &Path) -> PathBuf {
    let beside = image.with_extension("txt");
    let parts: Vec<_> = image.components().collect();
    let Some(at) = parts.iter().rposition(|part| part.as_os_str() == "images" || part.as_os_str() == "JPEGImages")
    else {
        return beside;
    };
    let mut path: PathBuf = parts[..at].iter().collect();
    path.push("labels");
    path.extend(&parts[at + 1..]);
    let path = path.with_extension("txt");
    if !path.exists() && beside.exists() { beside } else { path }
}

/// Label files in the images' label folders that no image has.
fn orphans(entries: &[Entry]) -> Vec<Finding> {
    let mut folders: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for entry in entries {
        // Beside images lie texts of all kinds.
        if let (Some(folder), true) = (entry.labels.parent(), entry.labels.parent() != entry.image.parent()) {
            folders.entry(folder).or_default().insert(&entry.labels);
        }
    }
    let mut findings = Vec::new();
    for (folder, known) in folders {
        for file in list(folder).unwrap_or_default() {
            let is_label =
                file.extension().is_some_and(|e| e == "txt") && file.file_name() != Some("classes.txt".as_ref());
            if is_label && !known.contains(file.as_path()) {
                let detail = format!("no .jpg, .jpeg or .png named {}", stem(&file));
                let kind = FindingKind::MissingImage;
                findings.push(Finding { kind, file, image_id: None, annotation_id: None, detail });
            }
        }
    }
    findings
}

/// The deepest folder that holds all images.
fn common(entries: &[Entry]) -> Option<PathBuf> {
    let mut folders = entries.iter().filter_map(|e| e.image.parent());
    let first = folders.next()?.to_owned();
    let root = folders.fold(first, |root, folder| {
        root.components().zip(folder.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    });
    Some(root)
}

/// A file's name without its extension.
fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
