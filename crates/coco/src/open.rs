//! From a folder to its training and validation splits: found by COCO's names, or named by the caller.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checks::Finding;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::files::is_there;
use crate::policy::CheckConfig;
use crate::types::Category;
use crate::voc::{self, VocConfig};

/// A training and a validation split with the same ordered categories.
#[derive(Debug, Clone)]
pub struct Splits {
    /// What is trained on.
    pub train: Dataset,
    /// What is held out.
    pub val: Dataset,
}

/// What the caller says about a data folder; whatever is given wins over what would be found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenOptions {
    /// The annotation file of the training split.
    pub train_json: Option<PathBuf>,
    /// The annotation file of the validation split.
    pub val_json: Option<PathBuf>,
    /// The image folder of the training split (and of the validation split, where that has none of its own).
    pub train_images: Option<PathBuf>,
    /// The image folder of the validation split (and of the training split, where that has none of its own).
    pub val_images: Option<PathBuf>,
    /// Where one annotation file serves both splits: the share of images, between 0 and 1, that is held out. Default 0.2.
    pub val_fraction: f64,
    /// What is done about faults.
    pub checks: CheckConfig,
    /// How PASCAL VOC's annotations are read.
    pub voc: VocConfig,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            train_json: None,
            val_json: None,
            train_images: None,
            val_images: None,
            val_fraction: 0.2,
            checks: CheckConfig::default(),
            voc: VocConfig::default(),
        }
    }
}

pub(crate) const WAY_OUT: &str = "name the files: training and validation JSON, and their image folders";

/// Opens a data folder.
///
/// Annotations are `annotations/instances_*train*.json` and `annotations/instances_*val*.json`. Where there is one such file
/// alone (whatever follows `instances_`; or one JSON file alone in `annotations/`), its images are split by a hash of their ids
/// (see [`split_by_id`]). Where there is no JSON but PASCAL VOC's XML, see [`open_voc`](crate::open_voc).
///
/// Images lie in `images/`, `JPEGImages/`, in a folder whose name starts with `train` or `val`, in such a folder below `images/`, or
/// in the folder itself; the one that holds the files that the annotations name is taken. Then image files are checked
/// ([`Dataset::with_images_checked`]).
///
/// # Errors
/// Annotations or images that are missing or ambiguous (the message lists what was looked for and what was found), unreadable
/// annotations, splits with different categories, faults whose policy is `error`.
pub fn open_dir(dir: &Path, options: &OpenOptions) -> Result<Splits> {
    let splits = match find_annotations(dir, options)? {
        Found::Two { train, val } => {
            Splits { train: load(dir, &train, Split::Train, options)?, val: load(dir, &val, Split::Val, options)? }
        }
        Found::One(json) => hold_out(&load(dir, &json, Split::Both, options)?, options.val_fraction)?,
        Found::Xml(folder) => return voc::open(dir, &folder, options),
    };
    same_categories(&splits.train, &splits.val)?;
    Ok(splits)
}

/// Splits one data set in two by its images' ids.
pub(crate) fn hold_out(whole: &Dataset, val_fraction: f64) -> Result<Splits> {
    if !(val_fraction > 0.0 && val_fraction < 1.0) {
        return Err(Error::Config(format!(
            "val_fraction is {val_fraction}; it must lie between 0 and 1, both excluded"
        )));
    }
    let (train, val) = split_by_id(whole, val_fraction);
    if train.is_empty() || val.is_empty() {
        return Err(Error::Config(format!(
            "{} has {} images, too few to hold out a share of {val_fraction} (the hash of their ids puts {} in training and {} in \
             validation); give a validation file of its own",
            whole.source().display(),
            whole.len(),
            train.len(),
            val.len()
        )));
    }
    Ok(Splits { train, val })
}

/// Splits a data set in two, the second with about `val_fraction` of its images.
///
/// An image is held out if the first 8 bytes of SHA-256 of its id, as a fraction of 2^64, lie below `val_fraction`: an image
/// stays on its side whatever is added to or removed from the data set.
pub fn split_by_id(whole: &Dataset, val_fraction: f64) -> (Dataset, Dataset) {
    let Splits { train, val } = split(whole, " by hash of id", |i| place_of(whole.image(i).id) < val_fraction);
    (train, val)
}

/// An image's place between 0 and 1, by the hash of its id: the one number that splitting by a share goes by.
pub(crate) fn place_of(id: u64) -> f64 {
    let mut hash = Sha256::new();
    hash.update(b"docent split 1");
    hash.update(id.to_le_bytes());
    let mut first = [0u8; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    u64::from_le_bytes(first) as f64 / 2f64.powi(64)
}

/// The images that `held_out` names and the others. Faults of images that are in neither (left out, or never listed) stay with the
/// training split, so that none is lost.
pub(crate) fn split(whole: &Dataset, how: &str, held_out: impl Fn(usize) -> bool) -> Splits {
    let (val, train): (Vec<usize>, Vec<usize>) = (0..whole.len()).partition(|&i| held_out(i));
    let part =
        |what: &str, positions: &[usize]| whole.subset(positions).with_name(format!("{} ({what}{how})", whole.name()));
    let (train, val) = (part("train", &train), part("val", &val));
    let held_out: HashSet<u64> = val.images().iter().map(|image| image.id).collect();
    let others = |f: &&Finding| f.image_id.is_none_or(|id| !held_out.contains(&id));
    let findings = whole.findings().iter().filter(others).cloned().collect();
    Splits { train: train.with_findings(findings), val }
}

/// Checks that two splits have the same categories, ids and names, in the same order.
///
/// # Errors
/// A difference; the message holds both lists.
pub fn same_categories(first: &Dataset, second: &Dataset) -> Result<()> {
    if first.categories() == second.categories() {
        return Ok(());
    }
    let list = |categories: &[Category]| {
        let each: Vec<String> = categories.iter().map(|c| format!("{} {}", c.id, c.name)).collect();
        format!("[{}]", each.join(", "))
    };
    Err(Error::Categories {
        first_name: first.source().display().to_string(),
        first: list(first.categories()),
        second_name: second.source().display().to_string(),
        second: list(second.categories()),
    })
}

enum Found {
    Two { train: PathBuf, val: PathBuf },
    One(PathBuf),
    Xml(PathBuf),
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Split {
    Train,
    Val,
    Both,
}

fn find_annotations(dir: &Path, options: &OpenOptions) -> Result<Found> {
    if let (Some(train), Some(val)) = (&options.train_json, &options.val_json) {
        return Ok(Found::Two { train: train.clone(), val: val.clone() });
    }
    let folder = dir.join("annotations");
    let all: Vec<PathBuf> = match list(&folder) {
        Ok(paths) => paths.into_iter().filter(|p| p.is_file() && name_of(p).ends_with(".json")).collect(),
        // A folder without `annotations` is answered below, with what it holds instead.
        Err(_) if dir.is_dir() => Vec::new(),
        Err(_) => {
            use std::io::ErrorKind::{NotADirectory, NotFound};
            let source = if dir.exists() {
                std::io::Error::new(NotADirectory, "this is a file; name the folder that holds annotations and images")
            } else {
                std::io::Error::new(NotFound, "no such folder; is the path spelled right?")
            };
            return Err(Error::file("open the data folder", dir, source));
        }
    };
    let instances: Vec<PathBuf> = all.iter().filter(|p| name_of(p).starts_with("instances_")).cloned().collect();
    let named = |word: &str, other: &str| -> Vec<PathBuf> {
        let fits = |p: &&PathBuf| {
            let name = name_of(p);
            name.contains(word) && !name.contains(other)
        };
        instances.iter().filter(fits).cloned().collect()
    };
    let (mut trains, mut vals) = (named("train", "val"), named("val", "train"));
    if let Some(json) = &options.train_json {
        // Without a validation file, a training file that the caller names is split.
        if vals.is_empty() {
            return Ok(Found::One(json.clone()));
        }
        trains = vec![json.clone()];
    }
    if let Some(json) = &options.val_json {
        vals = vec![json.clone()];
    }
    let explicit = options.train_json.is_some() || options.val_json.is_some();
    match (&trains[..], &vals[..]) {
        ([train], [val]) => {
            return Ok(Found::Two { train: train.clone(), val: val.clone() });
        }
        _ if explicit => {}
        _ if instances.len() == 1 => return Ok(Found::One(instances[0].clone())),
        _ if instances.is_empty() && all.len() == 1 => return Ok(Found::One(all[0].clone())),
        _ if all.is_empty() => {
            if let Some(folder) = voc::xml_folder(dir) {
                return Ok(Found::Xml(folder));
            }
        }
        _ => {}
    }
    let count = |what: &str, paths: &[PathBuf]| match paths.len() {
        0 => format!("no {what} annotations"),
        1 => format!("one file of {what} annotations"),
        n => format!("{n} files that could be the {what} annotations"),
    };
    let found = if all.is_empty() {
        let here = list(dir).map_err(|e| Error::file("list", dir, e))?;
        format!("no JSON file in {}; the folder itself holds {}", folder.display(), names(&here))
    } else {
        names(&all)
    };
    Err(Error::Folder {
        dir: dir.to_owned(),
        problem: format!("{} and {}", count("training", &trains), count("validation", &vals)),
        looked_for: "annotations/instances_*train*.json and annotations/instances_*val*.json, one JSON file alone, or \
                     PASCAL VOC's Annotations/*.xml"
            .to_owned(),
        found,
        way_out: WAY_OUT,
    })
}

fn load(dir: &Path, json: &Path, split: Split, options: &OpenOptions) -> Result<Dataset> {
    place(dir, Dataset::load_with(json, dir, &options.checks)?, split, options)
}

/// Gives a data set its image folder, and checks the files there.
pub(crate) fn place(dir: &Path, dataset: Dataset, split: Split, options: &OpenOptions) -> Result<Dataset> {
    let explicit = match split {
        Split::Val => options.val_images.as_ref().or(options.train_images.as_ref()),
        _ => options.train_images.as_ref().or(options.val_images.as_ref()),
    };
    let root = match explicit {
        Some(images) => images.clone(),
        None => find_images(dir, &dataset, split)?,
    };
    dataset.with_image_root(root).with_images_checked(&options.checks)
}

/// The folder that holds the images: of the candidates, the one with every file of a sample; else the one that alone has most, and
/// more than half (the missing ones are a matter for the checks).
fn find_images(dir: &Path, dataset: &Dataset, split: Split) -> Result<PathBuf> {
    const SAMPLE: usize = 16;
    if dataset.is_empty() {
        return Err(Error::Config(format!("{} lists no image", dataset.source().display())));
    }
    let step = dataset.len().div_ceil(SAMPLE);
    let sample: Vec<&str> = dataset.images().iter().step_by(step).map(|image| image.file_name.as_str()).collect();
    let fits = |p: &Path| {
        let name = name_of(p);
        match split {
            Split::Train => name.starts_with("train"),
            Split::Val => name.starts_with("val"),
            Split::Both => name.starts_with("train") || name.starts_with("val"),
        }
    };
    let mut candidates = vec![dir.join("images"), dir.join("JPEGImages")];
    for parent in [dir.to_owned(), dir.join("images")] {
        let below = list(&parent).unwrap_or_default();
        candidates.extend(below.into_iter().filter(|p| p.is_dir() && fits(p)));
    }
    candidates.push(dir.to_owned());
    let counts: Vec<(PathBuf, usize)> = candidates
        .into_iter()
        .filter(|c| c.is_dir())
        .map(|c| {
            let there = sample.iter().filter(|name| is_there(&c.join(name))).count();
            (c, there)
        })
        .collect();
    let whole: Vec<&PathBuf> = counts.iter().filter(|(_, n)| *n == sample.len()).map(|(c, _)| c).collect();
    if let [root] = whole[..] {
        return Ok(root.clone());
    }
    let best = counts.iter().map(|(_, n)| *n).max().unwrap_or(0);
    let most: Vec<&PathBuf> = counts.iter().filter(|(_, n)| *n == best).map(|(c, _)| c).collect();
    if let ([root], true) = (&most[..], best < sample.len() && 2 * best > sample.len()) {
        return Ok((*root).clone());
    }
    let missing =
        counts.iter().find(|(_, n)| *n == best).and_then(|(c, _)| sample.iter().find(|name| !is_there(&c.join(name))));
    let problem = match (whole.len(), missing) {
        (0, Some(name)) => {
            format!("no folder holds the images of {} (for one, {name} is missing)", dataset.source().display())
        }
        (0, None) => format!("no folder holds the images of {}", dataset.source().display()),
        (n, _) => format!("{n} folders hold the images of {}", dataset.source().display()),
    };
    let found: Vec<String> =
        counts.iter().map(|(c, n)| format!("{} ({n} of {} files tried)", c.display(), sample.len())).collect();
    let prefix = match split {
        Split::Train => "train*/",
        Split::Val => "val*/",
        Split::Both => "train*/, val*/",
    };
    Err(Error::Folder {
        dir: dir.to_owned(),
        problem,
        looked_for: format!(
            "the files that the annotations name, in images/, JPEGImages/, {prefix}, the same below images/, and the folder itself"
        ),
        found: if found.is_empty() { "none of these folders".to_owned() } else { found.join(", ") },
        way_out: WAY_OUT,
    })
}

/// What is in a folder, in the order of names.
pub(crate) fn list(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths =
        std::fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

fn names(paths: &[PathBuf]) -> String {
    const SHOWN: usize = 20;
    if paths.is_empty() {
        return "nothing".to_owned();
    }
    let mut text = paths.iter().take(SHOWN).map(|p| name_of(p)).collect::<Vec<_>>().join(", ");
    if paths.len() > SHOWN {
        text.push_str(&format!(" and {} more", paths.len() - SHOWN));
    }
    text
}
