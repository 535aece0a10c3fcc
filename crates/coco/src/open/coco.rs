//! COCO's JSON in a data folder: which files, whose images, which split.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::data_folder::{ChangedNames, DataFolder, NAME_THE_FILES, Plan, name_of};
use super::hold_out::held_out;
use super::index::{IndexedFile, below_root, slashed, without_extension};
use super::item::Item;
use super::roles::{Role, assign};
use super::sides::{Sides, sides};
use super::sniff::{FileFormat, format_of};
use crate::box_reading::BoxReading;
use crate::coco_json::{CocoJson, parse};
use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::found::{Found, FoundImage};
use crate::open_options::{Crowds, Format, Unlabeled};
use crate::types::Category;

/// One annotation file with the images it names.
pub(crate) struct Part {
    pub found: Found,
    /// Whether classes have names alone, so that their ids are the reader's.
    pub only_named: bool,
    /// For each image what lists and folders of a split go by.
    pub items: Vec<Item>,
    pub supercategories: HashSet<String>,
}

/// The COCO files of a folder. `instances_*` win over other names.
pub(crate) fn files<'i>(source: &DataFolder<'i>) -> Vec<&'i IndexedFile> {
    let named = |f: &&IndexedFile| f.name().to_lowercase().starts_with("instances_");
    let is_coco = |f: &&IndexedFile| format_of(&f.path) == FileFormat::Of(Format::Coco);
    let all: Vec<&IndexedFile> = source.annotation_files(&["json"]).collect();
    let instances: Vec<&IndexedFile> = all.iter().copied().filter(named).filter(is_coco).collect();
    if instances.is_empty() { all.into_iter().filter(is_coco).collect() } else { instances }
}

/// Plans a folder's COCO files, or those that the caller names.
///
/// # Errors
/// As [`plan_files`].
pub(crate) fn plan(source: &DataFolder<'_>, notes: &mut Vec<String>) -> Result<Plan> {
    plan_files(source, &files(source), read, notes)
}

/// Reads an annotation file: its path, and its path below the data folder where it lies there.
type Read = fn(&DataFolder<'_>, &Path, Option<&str>, &mut Vec<String>) -> Result<Part>;

/// Plans annotation files that name many images each: those that the caller names, or those whose names tell parts, or one alone.
///
/// # Errors
/// Several files of one part; files that cannot be read; splits with different classes.
pub(crate) fn plan_files(
    source: &DataFolder<'_>,
    found: &[&IndexedFile],
    read: Read,
    notes: &mut Vec<String>,
) -> Result<Plan> {
    let options = source.options;
    let mut roles: BTreeMap<Option<Role>, Vec<&IndexedFile>> = BTreeMap::new();
    for file in found {
        let role = Role::of_name(file.stem()).or_else(|| Role::of_folder(file.folder()));
        roles.entry(role).or_default().push(file);
    }
    let given = |path: &Option<PathBuf>| path.as_ref().map(|path| (path.clone(), None));
    let (train, val) = match (given(&options.train_annotations), given(&options.val_annotations)) {
        (Some(train), Some(val)) => (Some(train), Some(val)),
        (train, val) => {
            let mut several = None;
            let mut one = |role: Role| match roles.get(&Some(role)).map(|files| &files[..]) {
                Some([file]) => Some((file.path.clone(), Some(file.below.clone()))),
                Some(files @ [_, _, ..]) => {
                    several = several.take().or(Some((role, files.to_vec())));
                    None
                }
                _ => None,
            };
            let (wanted_train, wanted_val) = (train.is_none(), val.is_none());
            let parts = assign(|role| match role {
                Role::Train | Role::TrainVal if !wanted_train => None,
                Role::Val | Role::Test if !wanted_val => None,
                role => one(role),
            });
            if let Some((role, files)) = several {
                return Err(ambiguous(
                    source,
                    &format!("{} files could be the {role} annotations", files.len()),
                    &files,
                ));
            }
            let (found_train, found_val) = (parts.train, parts.val);
            let (train, val) = (train.or(found_train), val.or(found_val));
            match (train, val) {
                (None, val) => {
                    let alone: Vec<&IndexedFile> = roles.get(&None).cloned().unwrap_or_default();
                    match (&alone[..], val) {
                        // One file, whatever it is called, is the whole data set.
                        ([], Some(only)) if wanted_val => (Some(only), None),
                        ([], Some(_)) => {
                            return Err(ambiguous(source, "no training annotations beside the validation file", found));
                        }
                        ([file], None) => (Some((file.path.clone(), Some(file.below.clone()))), None),
                        ([], None) => return Err(ambiguous(source, "no COCO annotations", found)),
                        ([file], Some(val)) => {
                            notes.extend(parts.notes);
                            (Some((file.path.clone(), Some(file.below.clone()))), Some(val))
                        }
                        _ => {
                            return Err(ambiguous(
                                source,
                                &format!("{} annotation files, and their names tell no part of a split", alone.len()),
                                found,
                            ));
                        }
                    }
                }
                (train, val) => {
                    if wanted_train && val.is_some() {
                        notes.extend(parts.notes);
                    }
                    let is_given = |file: &&&IndexedFile| {
                        let given = [&options.train_annotations, &options.val_annotations].into_iter().flatten();
                        given.filter_map(|path| below_root(path, &source.index.root)).any(|below| below == file.below)
                    };
                    for file in roles.get(&None).into_iter().flatten().filter(|file| !is_given(file)) {
                        notes.push(format!("{} is not used: its name tells no part of a split", file.below));
                    }
                    (train, val)
                }
            }
        }
    };
    let Some((train, train_below)) = train else {
        return Err(ambiguous(source, "no training annotations", found));
    };
    let train = read(source, &train, train_below.as_deref(), notes)?;
    let Some((val, below)) = val else { return alone(source, train, notes) };
    let val = read(source, &val, below.as_deref(), notes)?;
    if val.found.objects.is_empty() && options.val_annotations.is_none() {
        notes.push(format!(
            "{} lists no object, so nothing could be scored on it; it is not used",
            val.found.source.display()
        ));
        return alone(source, train, notes);
    }
    unlisted(source, &[&train, &val], "", notes)?;
    two(train, val, notes)
}

/// Plans a data set that one file describes, with the images that it does not list where the caller asks for them.
fn alone(source: &DataFolder<'_>, mut part: Part, notes: &mut Vec<String>) -> Result<Plan> {
    // A format that lists images by themselves lists those without objects too.
    let flag = if part.only_named { "; --unlabeled as-negatives uses them as images without objects" } else { "" };
    let images = unlisted(source, &[&part], flag, notes)?;
    let first = part.found.images.iter().map(|image| image.id).max().map_or(1, |id| id.saturating_add(1));
    for (id, image) in (first..).zip(images) {
        let file_name = slashed(image.path.strip_prefix(&part.found.image_root).unwrap_or(&image.path));
        part.items.push(Item { paths: vec![without_extension(&image.below).to_owned()] });
        part.found.images.push(FoundImage { id, file_name, size: None, annotation_file: None });
    }
    one(source, part, notes)
}

/// Tells how many images beside the listed ones no annotation file lists, and gives those that are to be used as images without
/// objects. `flag` is what to say of that, and empty where it cannot be done.
///
/// # Errors
/// The caller asks for images without objects where that cannot be done.
fn unlisted<'i>(
    source: &DataFolder<'i>,
    parts: &[&Part],
    flag: &str,
    notes: &mut Vec<String>,
) -> Result<Vec<&'i IndexedFile>> {
    let paths = || parts.iter().flat_map(|part| &part.items).filter_map(|item| item.paths.last());
    let listed: HashSet<&str> = paths().map(String::as_str).collect();
    let folders: HashSet<&str> = paths().map(|path| path.rsplit_once('/').map_or("", |(folder, _)| folder)).collect();
    let is_unlisted =
        |image: &&IndexedFile| folders.contains(image.folder()) && !listed.contains(without_extension(&image.below));
    let images: Vec<&IndexedFile> = source.images.images().filter(is_unlisted).collect();
    let Some(first) = images.first() else { return Ok(images) };
    let found = format!(
        "{} images beside those of the annotations are listed nowhere ({}, for one)",
        images.len(),
        first.below
    );
    match (source.options.read.unlabeled, flag) {
        (Unlabeled::Skip, flag) => {
            notes.push(format!("{found} and are not used{flag}"));
            Ok(Vec::new())
        }
        (Unlabeled::AsNegatives, "") => Err(Error::Config(format!(
            "{found}; --unlabeled as-negatives is for formats that do not list images by themselves, and for one file: list these images \
             in the annotations, or leave the flag out"
        ))),
        (Unlabeled::AsNegatives, _) => {
            notes.push(format!("{found}; they are used as images without objects"));
            Ok(images)
        }
    }
}

fn ambiguous(source: &DataFolder<'_>, problem: &str, files: &[&IndexedFile]) -> Error {
    let names: Vec<String> = files.iter().map(|f| f.below.clone()).collect();
    Error::Folder {
        dir: source.index.root.clone(),
        problem: problem.to_owned(),
        looked_for: "COCO JSON whose names tell train, val or test (annotations/instances_train.json, train.json, \
                     train/_annotations.coco.json), or one file alone"
            .to_owned(),
        found: super::index::some_of(&names),
        hint: NAME_THE_FILES,
    }
}

/// Reads one file and finds its images.
pub(crate) fn read(source: &DataFolder<'_>, json: &Path, below: Option<&str>, notes: &mut Vec<String>) -> Result<Part> {
    let bytes = std::fs::read(json).map_err(|e| Error::file("read", json, e))?;
    let parsed = parse(&bytes, json)?;
    drop(bytes);
    let below = below_of(source, json, below);
    Ok(part(source, json, below.as_deref(), parsed, BoxReading::Xywh, notes))
}

/// The path below the data folder of a file, also of one that the caller names and that lies there.
pub(crate) fn below_of(source: &DataFolder<'_>, file: &Path, below: Option<&str>) -> Option<String> {
    below.map(str::to_owned).or_else(|| below_root(file, &source.index.root))
}

/// Finds the images that an annotation file names.
pub(crate) fn part(
    source: &DataFolder<'_>,
    file: &Path,
    below: Option<&str>,
    parsed: CocoJson,
    reading: BoxReading,
    notes: &mut Vec<String>,
) -> Part {
    let CocoJson { images, mut objects, categories, supercategories, digest, findings, notes: read } = parsed;
    notes.extend(read);
    let name = file.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    let mut found = Found::new(name, file, &source.images.root, reading);
    found.digest = Some(digest);
    found.findings = findings;
    found.categories = categories;
    let place = source.place_of(file, below);
    let names = images.iter().map(|image| (image.file_name.as_str(), place, file.parent()));
    let lookups = source.finder().find_all(names);
    let mut changed = ChangedNames::default();
    let mut items = Vec::with_capacity(images.len());
    let mut ids_of_file: HashMap<String, u64> = HashMap::with_capacity(images.len());
    for (mut image, lookup) in images.into_iter().zip(lookups) {
        let spelled = std::mem::take(&mut image.file_name);
        let fault = |kind, detail| Finding {
            kind,
            file: file.to_owned(),
            image_id: Some(image.id),
            annotation_id: None,
            detail,
        };
        match source.locate(lookup, &spelled) {
            Ok(located) => {
                changed.add(&spelled, &located);
                if let Some(first) = ids_of_file.insert(located.file_name.clone(), image.id) {
                    let detail = format!("{} is image id {first} and image id {}", located.file_name, image.id);
                    found.findings.push(fault(FindingKind::RepeatedImage, detail));
                }
                items.push(Item { paths: vec![located.item] });
                image.file_name = located.file_name;
            }
            Err((kind, detail)) => {
                found.findings.push(fault(kind, detail));
                items.push(Item { paths: vec![spelled.clone()] });
                image.file_name = spelled;
            }
        }
        found.images.push(image);
    }
    changed.note(notes);
    if source.options.read.crowds == Crowds::Keep {
        objects.iter_mut().for_each(|o| o.crowd = false);
    }
    found.objects = objects;
    plain_root(&mut found);
    Part { found, only_named: false, items, supercategories }
}

/// Where all images lie in one folder, file names are given below that folder.
pub(crate) fn plain_root(found: &mut Found) {
    let folder_of = |name: &str| name.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let Some(folder) = found.images.first().and_then(|image| folder_of(&image.file_name)) else { return };
    if Path::new(&folder).is_absolute()
        || found.images.iter().any(|i| folder_of(&i.file_name).as_ref() != Some(&folder))
    {
        return;
    }
    found.image_root = found.image_root.join(&folder);
    for image in &mut found.images {
        image.file_name.replace_range(..=folder.len(), "");
    }
}

/// Plans a data set that one file describes: by the author's lists and folders, or by a hash of the file names.
pub(crate) fn one(source: &DataFolder<'_>, part: Part, notes: &mut Vec<String>) -> Result<Plan> {
    let Part { mut found, items, supercategories, .. } = part;
    leave_out_supercategories(&mut [&mut found], &supercategories, notes);
    let sides = match sides(&items, source, notes)? {
        Sides::Author(sides) => {
            let side = |(image, side): (_, &Option<bool>)| side.map(|side| (image, side));
            let ids = found.images.iter().map(|image| image.id);
            return Ok(Plan::One {
                sides: ids.zip(&sides).filter_map(side).collect(),
                whole: Box::new(found),
                how: "",
            });
        }
        Sides::ByHash(used) => used,
    };
    by_hash(source, found, &sides, notes)
}

/// Plans to hold out a share of the images that are used.
pub(crate) fn by_hash(source: &DataFolder<'_>, found: Found, used: &[bool], notes: &mut Vec<String>) -> Result<Plan> {
    if found.images.is_empty() {
        let Found { source: path, findings, .. } = found;
        return Err(if findings.is_empty() {
            Error::Config(format!("{} lists no image", path.display()))
        } else {
            Error::Annotations { path, findings }
        });
    }
    let positions: Vec<usize> = (0..found.images.len()).filter(|&i| used.get(i).copied().unwrap_or(true)).collect();
    let names: Vec<&str> = positions.iter().map(|&i| found.images[i].file_name.as_str()).collect();
    let held = held_out(&names, source.options.read.val_fraction)
        .map_err(|e| Error::Config(format!("{}: {e}", found.source.display())))?;
    notes.push(format!(
        "there is no val part: a share of the images ({} of {}) is held out, by a hash of the file name",
        held.len(),
        positions.len()
    ));
    let sides = positions.iter().enumerate().map(|(at, &i)| (found.images[i].id, held.contains(&at))).collect();
    Ok(Plan::One { whole: Box::new(found), sides, how: " by hash of name" })
}

/// Plans the author's two files.
fn two(train: Part, val: Part, notes: &mut Vec<String>) -> Result<Plan> {
    let (mut first, mut second) = (train.found, val.found);
    let supercategories = train.supercategories.union(&val.supercategories).cloned().collect();
    leave_out_supercategories(&mut [&mut first, &mut second], &supercategories, notes);
    if train.only_named && val.only_named {
        number_by_name(&mut first, &mut second);
    } else {
        unify_categories(&mut first, &mut second, notes)?;
    }
    Ok(Plan::Two { train: Box::new(first), val: Box::new(second) })
}

/// Roboflow lists the group of all classes as a class without objects.
fn leave_out_supercategories(parts: &mut [&mut Found], supercategories: &HashSet<String>, notes: &mut Vec<String>) {
    let mut used: HashSet<&str> = HashSet::new();
    for part in parts.iter() {
        let ids: HashSet<u64> = part.objects.iter().map(|o| o.category_id).collect();
        used.extend(part.categories.iter().filter(|c| ids.contains(&c.id)).map(|c| c.name.as_str()));
    }
    let all = parts.iter().flat_map(|part| &part.categories);
    let gone: BTreeSet<String> = all
        .filter(|c| supercategories.contains(&c.name) && !used.contains(c.name.as_str()))
        .map(|c| c.name.clone())
        .collect();
    // A class that is its own supercategory and the only one is a class.
    if gone.is_empty() || parts.iter().any(|part| part.categories.iter().all(|c| gone.contains(&c.name))) {
        return;
    }
    for part in parts {
        part.categories.retain(|c| !gone.contains(&c.name));
    }
    let names: Vec<String> = gone.into_iter().collect();
    notes.push(format!("left out, since it has no boxes and is the supercategory of others: {}", names.join(", ")));
}

/// Numbers the classes of two files whose classes have names alone: all names, in byte order, or in the order that both have.
fn number_by_name(train: &mut Found, val: &mut Found) {
    if train.categories == val.categories {
        return;
    }
    let names: BTreeSet<String> = train.categories.iter().chain(&val.categories).map(|c| c.name.clone()).collect();
    let all: Vec<Category> = (1..).zip(names).map(|(id, name)| Category { id, name }).collect();
    for part in [train, val] {
        renumber(part, &all);
    }
}

/// Gives a file's classes and objects the ids that `categories` have for their names. An object of a class that the file does not list
/// stays one of an unknown class.
fn renumber(part: &mut Found, categories: &[Category]) {
    let id_of = |c: &Category| categories.iter().find(|d| d.name == c.name).map(|d| (c.id, d.id));
    let new_id: HashMap<u64, u64> = part.categories.iter().filter_map(id_of).collect();
    for object in &mut part.objects {
        object.category_id = new_id.get(&object.category_id).copied().unwrap_or(u64::MAX);
    }
    part.categories = categories.to_vec();
}

/// Gives both files one list of classes, by name.
///
/// # Errors
/// Each lists a class that the other does not.
fn unify_categories(train: &mut Found, val: &mut Found, notes: &mut Vec<String>) -> Result<()> {
    let sorted = |found: &Found| {
        let mut categories = found.categories.clone();
        categories.sort_by_key(|c| c.id);
        categories
    };
    let (first, second) = (sorted(train), sorted(val));
    if first == second {
        return Ok(());
    }
    let lacks = |a: &[Category], b: &[Category]| -> Vec<String> {
        a.iter().filter(|c| !b.iter().any(|d| d.name == c.name)).map(|c| c.name.clone()).collect()
    };
    let (only_train, only_val) = (lacks(&first, &second), lacks(&second, &first));
    if !only_train.is_empty() && !only_val.is_empty() {
        let list = |categories: &[Category]| {
            let each: Vec<String> = categories.iter().map(|c| format!("{} {}", c.id, c.name)).collect();
            format!("[{}]", each.join(", "))
        };
        return Err(Error::Categories {
            first_name: train.source.display().to_string(),
            first: list(&first),
            second_name: val.source.display().to_string(),
            second: list(&second),
        });
    }
    // The longer list's ids stand; the other's objects are renumbered by name.
    let (part, to, name) = if only_val.is_empty() {
        (val, &first, name_of(&train.source))
    } else {
        let name = name_of(&val.source);
        (train, &second, name)
    };
    renumber(part, to);
    let lacking = if only_val.is_empty() { only_train } else { only_val };
    notes.push(if lacking.is_empty() {
        format!(
            "the two files number the classes differently; they are matched by name, and the ids are those of {name}"
        )
    } else {
        format!("one file lists no class {}; the classes are those of {name}, matched by name", lacking.join(", "))
    });
    Ok(())
}
