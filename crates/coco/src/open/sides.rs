//! The author's split: lists of images, or folders that are named after the parts.

use std::collections::{BTreeMap, HashSet};

use super::data_folder::DataFolder;
use super::index::{FileIndex, IndexedFile, below_root};
use super::item::Item;
use super::list_lines::{Names, last};
use super::roles::{Role, assign};
use crate::error::{Error, Result};

/// Where each item belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sides {
    /// The author decides: held out, trained on, or (`None`) neither.
    Author(Vec<Option<bool>>),
    /// A share of the items whose flag is set is to be held out.
    ByHash(Vec<bool>),
}

/// Splits items by the folders or lists that the caller names, by the lists in the data folder, or by the folders they lie in; without
/// any of these all may be held out.
///
/// # Errors
/// A list that cannot be read; a line that names no image; an image in both splits; a folder that holds no item.
pub(crate) fn sides(items: &[Item], source: &DataFolder<'_>, notes: &mut Vec<String>) -> Result<Sides> {
    let index = source.index;
    if let Some(members) = named_by_caller(items, source, notes)? {
        return by_parts(items, &members, notes);
    }
    let (lists, unused) = lists(index)?;
    for list in unused {
        notes.push(format!(
            "the list {} is not used: it is not one of the parts train, val and test of this data set",
            list.below
        ));
    }
    if !lists.is_empty() {
        let files: Vec<&IndexedFile> = lists.iter().map(|(_, list)| *list).collect();
        let mut members = BTreeMap::new();
        for ((role, list), found) in lists.iter().zip(Names::new(items).members(&files, source, notes)?) {
            if found.is_empty() {
                return Err(Error::Undecided {
                    path: list.path.clone(),
                    problem: format!("the list of the {role} part names no image with annotations"),
                    hint: "take the list away, or put the images' names into it".to_owned(),
                });
            }
            // The lists of single classes make up a part together.
            members.entry(*role).or_insert_with(HashSet::new).extend(found);
        }
        let found = by_parts(items, &members, notes)?;
        let folders = by_folder(items);
        if let Sides::Author(sides) = &found {
            let differs = |i: &usize| {
                matches!(
                    (items[*i].role(), sides[*i]),
                    (Some(Role::Train), Some(true)) | (Some(Role::Val), Some(false))
                )
            };
            let count = (0..items.len()).filter(differs).count();
            if folders.len() > 1 && count > 0 {
                notes.push(format!("the lists are used; the folders would put {count} images on the other side"));
            }
        }
        let listed: HashSet<usize> = members.values().flat_map(|m| m.iter().copied()).collect();
        let is_used = |i: usize| match &found {
            Sides::Author(sides) => sides[i].is_some(),
            Sides::ByHash(used) => used[i],
        };
        let unused = (0..items.len()).filter(|&i| !listed.contains(&i) && !is_used(i)).count();
        if unused > 0 {
            notes.push(format!("{unused} images are in no list and are not used"));
        }
        return Ok(found);
    }
    let members = by_folder(items);
    let without = items.len() - members.values().map(HashSet::len).sum::<usize>();
    // One folder alone, whatever its name, is the whole data set.
    let splits = members.len() > 1 || (members.contains_key(&Role::Val) && without > 0);
    if !splits {
        return Ok(Sides::ByHash(vec![true; items.len()]));
    }
    if without > 0 && members.contains_key(&Role::Train) {
        notes.push(format!("{without} images lie in no folder of a part (train, val, test) and are not used"));
    }
    by_parts(items, &members, notes)
}

/// The items of each part, by the folders they lie in.
fn by_folder(items: &[Item]) -> BTreeMap<Role, HashSet<usize>> {
    let mut members: BTreeMap<Role, HashSet<usize>> = BTreeMap::new();
    for (i, item) in items.iter().enumerate() {
        if let Some(role) = item.role() {
            members.entry(role).or_default().insert(i);
        }
    }
    members
}

/// The items that lie in the folders, or stand in the lists, that the caller names for each part.
fn named_by_caller(
    items: &[Item],
    source: &DataFolder<'_>,
    notes: &mut Vec<String>,
) -> Result<Option<BTreeMap<Role, HashSet<usize>>>> {
    let options = source.options;
    let mut members = BTreeMap::new();
    for (role, path) in [(Role::Train, &options.train_annotations), (Role::Val, &options.val_annotations)] {
        let Some(path) = path else { continue };
        // A file of annotations, which was chosen by whoever read it.
        if path.is_file() && !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt")) {
            continue;
        }
        let inside = [&source.index.root, &source.images.root].into_iter().find_map(|root| below_root(path, root));
        let Some(below) = inside else {
            return Err(Error::Config(format!(
                "{} does not lie in {}; open the folder that holds both, or name the images with --images",
                path.display(),
                source.index.root.display()
            )));
        };
        let found: HashSet<usize> = match source.index.at(&below) {
            Some(list) => Names::new(items).members(&[list], source, notes)?.into_iter().flatten().collect(),
            None => {
                let in_it =
                    |p: &String| below.is_empty() || p.strip_prefix(&below).is_some_and(|rest| rest.starts_with('/'));
                (0..items.len()).filter(|&i| items[i].paths.iter().any(in_it)).collect()
            }
        };
        if found.is_empty() {
            return Err(Error::Config(format!(
                "{} holds no annotations of the format that is read here",
                path.display()
            )));
        }
        members.insert(role, found);
    }
    Ok(Some(members).filter(|m| !m.is_empty()))
}

/// Sides from the members of the parts.
pub(crate) fn by_parts(
    items: &[Item],
    members: &BTreeMap<Role, HashSet<usize>>,
    notes: &mut Vec<String>,
) -> Result<Sides> {
    let count = items.len();
    let parts = assign(|role| members.get(&role));
    notes.extend(parts.notes);
    // Without a train part of its own, trainval without val trains.
    let rest = match (members.get(&Role::Train), members.get(&Role::TrainVal), members.get(&Role::Val)) {
        (None, Some(both), Some(val)) => Some(both - val),
        _ => None,
    };
    let train = rest.as_ref().or(parts.train);
    if let (Some(train), Some(val)) = (train, parts.val) {
        let both: Vec<usize> = train.intersection(val).copied().collect();
        if let Some(first) = both.iter().min() {
            return Err(Error::Config(format!(
                "{} is in both splits, as are {} images in all: what is trained on cannot be held out; take them out of one list",
                items[*first].paths.last().map_or("", |path| last(path)),
                both.len()
            )));
        }
    }
    let val: Option<HashSet<usize>> = match (parts.val, members.get(&Role::TrainVal), train) {
        (Some(val), _, _) => Some(val.clone()),
        (None, Some(both), Some(train)) if both != train => Some(both - train).filter(|rest| !rest.is_empty()),
        _ => None,
    };
    let Some(val) = val else {
        let used = |i| train.is_none_or(|train| train.contains(&i));
        return Ok(Sides::ByHash((0..count).map(used).collect()));
    };
    let tested = members.get(&Role::Test).filter(|test| **test != val);
    let side = |i: usize| match train {
        _ if val.contains(&i) => Some(true),
        Some(train) => train.contains(&i).then_some(false),
        // What the author sets aside for tests is no training data.
        None => (!tested.is_some_and(|test| test.contains(&i))).then_some(false),
    };
    Ok(Sides::Author((0..count).map(side).collect()))
}

/// Lists of the parts, and lists that are none of this data set's.
type Lists<'a> = (Vec<(Role, &'a IndexedFile)>, Vec<&'a IndexedFile>);

/// The lists of images in a data folder: `ImageSets/Main/train.txt`, `train.txt`, `val_list.txt` and the like. Where VOC's folder has the
/// lists of single classes alone (`cat_train.txt`), a part is what they name together.
///
/// # Errors
/// Two lists of one part.
fn lists(index: &FileIndex) -> Result<Lists<'_>> {
    let mut found: BTreeMap<Role, Vec<&IndexedFile>> = BTreeMap::new();
    let mut of_classes: BTreeMap<Role, Vec<&IndexedFile>> = BTreeMap::new();
    let mut unused = Vec::new();
    for file in index.with_extension(&["txt"]) {
        let folder = file.folder().to_lowercase();
        let is_in = |names: &[&str]| folder.split('/').any(|f| names.contains(&f));
        let in_sets = is_in(&["imagesets", "image_sets", "splits", "split", "lists"]);
        // A label file beside an image called `train`.
        let is_label =
            is_in(&["labels", "label"]) || index.images_like(file.stem()).iter().any(|i| i.stem() == file.stem());
        if is_label && !in_sets {
            continue;
        }
        // VOC's lists for segmentation, actions and body parts name other images than those for boxes.
        let other_task = is_in(&["segmentation", "action", "layout"]);
        match (Role::of_list(file.stem()), Role::of_name(file.stem())) {
            (Some(_), _) if other_task => unused.push(file),
            (Some(role), _) => found.entry(role).or_default().push(file),
            (None, Some(role)) if in_sets && !other_task => of_classes.entry(role).or_default().push(file),
            (None, None) if in_sets => unused.push(file),
            _ => {}
        }
    }
    if found.is_empty() {
        let all = of_classes.into_iter().flat_map(|(role, files)| files.into_iter().map(move |file| (role, file)));
        return Ok((all.collect(), unused));
    }
    let mut lists = Vec::new();
    for (role, mut files) in found {
        let in_main = |f: &&IndexedFile| f.folder().to_lowercase().ends_with("main");
        let depth = |f: &IndexedFile| f.below.matches('/').count();
        if files.iter().any(in_main) {
            files.retain(in_main);
        } else {
            let least = files.iter().map(|f| depth(f)).min().unwrap_or(0);
            files.retain(|f| depth(f) == least);
        }
        if let [first, second, ..] = files[..] {
            return Err(Error::Undecided {
                path: index.root.clone(),
                problem: format!(
                    "there are {} lists of the {role} part: {}, {}",
                    files.len(),
                    first.below,
                    second.below
                ),
                hint: "take all but one away, or name the correct ones with --train-annotations and --val-annotations"
                    .to_owned(),
            });
        }
        lists.extend(files.first().map(|file| (role, *file)));
    }
    Ok((lists, unused))
}
