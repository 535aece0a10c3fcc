//! YOLO's folders: a text file for each image, one object a line.
//!
//! A line is `class cx cy w h`: the class counted from 0, the box's centre and sides as shares of the image's width and height.
//! Lines of segmentation sets, `class x1 y1 x2 y2 ..`, give the box around their points.

mod classes;
mod files;
mod label_files;
mod rows;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::box_reading::BoxReading;
use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::found::{Found, FoundImage, FoundObject};
use crate::ids::ids_of_names;
use crate::open::coco::{by_hash, plain_root};
use crate::open::data_folder::{DataFolder, Plan, broken, name_of};
use crate::open::index::{IndexedFile, stem_of, without_extension};
use crate::open::item::Item;
use crate::open::list_lines::Names;
use crate::open::roles::Role;
use crate::open::sides::{Sides, by_parts, sides};
use crate::text_file::{decoded, read_text};
use crate::types::Category;
pub use classes::{DataYaml, parse_data_yaml, read_class_names};
use files::{Described, described, place_of_path};
use label_files::LabelFiles;
pub(crate) use label_files::{count_labels, other_text};
use rows::Columns;
pub use rows::{YoloRow, parse_yolo};

/// One image and the file that says what is in it; without that file the image is empty, as YOLO's own tools take it.
struct Entry<'i> {
    image: &'i IndexedFile,
    labels: Option<&'i IndexedFile>,
}

/// Reads a YOLO folder and plans its split.
///
/// Classes stand in `data.yaml` (or another YAML file with `names`), in `obj.names`, `classes.txt` and the like; without any they are
/// numbered. The splits are those that the YAML or `obj.data` names, or those of lists and folders. The labels of `../images/a.jpg` lie in
/// `../labels/a.txt`, or in `a.txt` beside the image, or in the one `a.txt` that there is. Class 0 becomes category 1.
///
/// # Errors
/// A folder without label files; a class file that cannot be read; lines whose columns cannot be told.
pub(crate) fn plan(source: &DataFolder<'_>, notes: &mut Vec<String>) -> Result<Plan> {
    let labels = LabelFiles::new(source);
    let described = described(source, &labels, notes)?;
    let all: Vec<Entry<'_>> = source.images.images().map(|image| Entry { image, labels: labels.of(image) }).collect();
    let entries = with_labels_near(all, &described, source, notes)?;
    let items: Vec<Item> = entries
        .iter()
        .map(|e| {
            let label = e.labels.map(|l| without_extension(&l.below).to_owned());
            let image = without_extension(&e.image.below).to_owned();
            Item { paths: label.into_iter().chain([image]).collect() }
        })
        .collect();
    let sides = match named_parts(&described, &items, source, notes)? {
        Some(sides) => sides,
        None => sides(&items, source, notes)?,
    };
    // Images in neither split are not read.
    let used = |i: usize| match &sides {
        Sides::Author(sides) => sides[i].is_some(),
        Sides::ByHash(used) => used[i],
    };
    let kept: Vec<usize> = (0..entries.len()).filter(|&i| used(i)).collect();
    let entries: Vec<&Entry<'_>> = kept.iter().map(|&i| &entries[i]).collect();
    let found = read_entries(source, &described, &entries, &labels, notes)?;
    match sides {
        Sides::ByHash(_) => by_hash(source, found, &vec![true; kept.len()], notes),
        Sides::Author(sides) => {
            let known = found.images.iter().zip(&kept).filter_map(|(image, &i)| Some((image.id, sides[i]?)));
            Ok(Plan::One { sides: known.collect(), whole: Box::new(found), how: "" })
        }
    }
}

/// The images in folders where some image has labels. Others (plots of a training, a preview) are no images without objects.
fn with_labels_near<'i>(
    all: Vec<Entry<'i>>,
    described: &Described,
    source: &DataFolder<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<Entry<'i>>> {
    let folders: HashSet<&str> = all.iter().filter(|e| e.labels.is_some()).map(|e| e.image.folder()).collect();
    let total = all.len();
    // In the folders that data.yaml names, every image counts.
    let named: Vec<String> = described
        .parts
        .iter()
        .flat_map(|(_, paths)| paths)
        .filter_map(|path| match place_of_path(source, described, path) {
            Some(files::Place::Folder(folder)) => Some(folder + "/"),
            _ => None,
        })
        .collect();
    let is_named = |e: &Entry<'_>| named.iter().any(|folder| e.image.below.starts_with(folder));
    let none = folders.is_empty();
    let near: Vec<Entry<'i>> = all.into_iter().filter(|e| folders.contains(e.image.folder()) || is_named(e)).collect();
    if none {
        let problem = match total {
            0 => "no image".to_owned(),
            _ => format!("none of the {total} images has a label file"),
        };
        return Err(Error::Folder {
            dir: source.images.root.clone(),
            problem,
            looked_for: "for images/a.jpg: labels/a.txt, a.txt beside it, or one a.txt elsewhere".to_owned(),
            found: crate::open::index::some_of(&source.index.top_names()),
            hint: "name the folder that holds the images and the label files",
        });
    }
    if near.len() < total {
        notes.push(format!("{} images lie in folders without any label file and are not used", total - near.len()));
    }
    Ok(near)
}

/// The split that `data.yaml` or `obj.data` names, if it does and the places are there.
fn named_parts(
    described: &Described,
    items: &[Item],
    source: &DataFolder<'_>,
    notes: &mut Vec<String>,
) -> Result<Option<Sides>> {
    let options = source.options;
    if options.train_annotations.is_some() || options.val_annotations.is_some() {
        return Ok(None);
    }
    let mut members: BTreeMap<Role, HashSet<usize>> = BTreeMap::new();
    let mut absent = Vec::new();
    let places: Vec<(Role, &String, Option<files::Place<'_>>)> = described
        .parts
        .iter()
        .flat_map(|(role, paths)| paths.iter().map(|path| (*role, path, place_of_path(source, described, path))))
        .collect();
    let lists: Vec<&IndexedFile> = places
        .iter()
        .filter_map(|(_, _, p)| if let Some(files::Place::List(l)) = p { Some(*l) } else { None })
        .collect();
    let mut listed = Names::new(items).members(&lists, source, notes)?.into_iter();
    for (role, path, place) in &places {
        let found: HashSet<usize> = match place {
            Some(files::Place::Folder(folder)) => {
                let inside = |item: &Item| {
                    item.paths
                        .iter()
                        .any(|p| folder.is_empty() || p.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
                };
                (0..items.len()).filter(|&i| inside(&items[i])).collect()
            }
            Some(files::Place::List(_)) => listed.next().unwrap_or_default(),
            None => HashSet::new(),
        };
        if found.is_empty() {
            absent.push((*role, *path));
        } else {
            members.entry(*role).or_default().extend(found);
        }
    }
    let has = |role: Role| members.contains_key(&role);
    for (role, path) in &absent {
        // A test part that is not there is no matter where there are others.
        if *role != Role::Test || !(has(Role::Train) && has(Role::Val)) {
            notes.push(format!(
                "{} names {path:?} for {role}, and there is no such folder or list with images",
                described.file
            ));
        }
    }
    // One folder for both means that nothing is held out.
    if let (Some(train), Some(val)) = (members.get(&Role::Train), members.get(&Role::Val))
        && train == val
    {
        notes.push("train and val are the same images, so nothing would be held out".to_owned());
        let train = train.clone();
        return Ok(Some(Sides::ByHash((0..items.len()).map(|i| train.contains(&i)).collect())));
    }
    // Without a held-out part that is there, or with a training part that is not, folders and lists tell more.
    let named = |role: Role| described.parts.iter().any(|(r, _)| *r == role);
    let held_out = has(Role::Val) || has(Role::Test);
    if members.is_empty() || (!has(Role::Train) && !held_out) || (!held_out && named(Role::Val)) {
        return Ok(None);
    }
    by_parts(items, &members, notes).map(Some)
}

/// Reads the label files of images.
fn read_entries(
    source: &DataFolder<'_>,
    described: &Described,
    entries: &[&Entry<'_>],
    labels: &LabelFiles<'_>,
    notes: &mut Vec<String>,
) -> Result<Found> {
    let encoding = source.options.read.encoding.as_deref();
    let texts = crate::parallel::in_order(entries.len(), 0, |i| match entries[i].labels {
        Some(file) => read_text(&file.path, encoding).map(|text| parse_yolo(&decoded(&text))),
        None => Ok((Vec::new(), Vec::new())),
    });
    let stems: Vec<&str> = entries.iter().map(|e| stem_of(e.image.name())).collect();
    let ids = ids_of_names(&stems);
    let root = &source.images.root;
    let mut found = Found::new(name_of(&source.index.root), &source.index.root, root, BoxReading::CenterShares);
    let mut all_rows = Vec::new();
    for ((entry, text), &id) in entries.iter().zip(texts).zip(&ids) {
        let (rows, bad) = text?;
        // Where an image has no label file, messages name the one that it would have.
        let file = entry.labels.map_or_else(|| entry.image.path.with_extension("txt"), |l| l.path.clone());
        for (line, what) in bad {
            let finding = Finding { image_id: Some(id), ..broken(&file, format!("line {line}: {what}")) };
            found.findings.push(finding);
        }
        found.images.push(FoundImage {
            id,
            file_name: source.relative(&entry.image.path),
            size: None,
            annotation_file: Some(file),
        });
        all_rows.push(rows);
    }
    let flat: Vec<&YoloRow> = all_rows.iter().flatten().collect();
    let columns = Columns::of(&flat, described.kpt_shape).map_err(|(problem, hint)| Error::Undecided {
        path: source.index.root.clone(),
        problem,
        hint,
    })?;
    let with_more = flat.iter().filter(|row| row.numbers.len() > 4).count();
    notes.extend(columns.note(with_more));
    let most = flat.iter().map(|row| row.class + 1).max().unwrap_or(0);
    found.categories = categories(described, source, most, notes);
    // Messages name a class by its number in the file.
    let unnamed = flat.iter().filter(|row| row.class >= found.categories.len() as u64);
    found.other_classes = unnamed.map(|row| (row.class + 1, row.class.to_string())).collect();
    for (i, rows) in all_rows.iter().enumerate() {
        for row in rows {
            match columns.object(row) {
                Ok((numbers, reading)) => found.objects.push(FoundObject {
                    id: found.objects.len() as u64 + 1,
                    image_id: ids[i],
                    category_id: row.class + 1,
                    numbers,
                    reading,
                    area: None,
                    crowd: false,
                    line: row.line,
                }),
                Err(what) => found.fault(FindingKind::BrokenAnnotation, i, format!("line {}: {what}", row.line)),
            }
        }
    }
    for (file, namesakes) in labels.orphans() {
        let mut detail = format!("no image belongs to {}", file.below);
        if let [image, ..] = namesakes[..] {
            detail.push_str(&format!(" ({} lies in another folder)", image.below));
        }
        found.findings.push(Finding {
            kind: FindingKind::MissingImage,
            file: file.path.clone(),
            image_id: None,
            annotation_id: None,
            detail,
        });
    }
    plain_root(&mut found);
    Ok(found)
}

/// Categories 1, 2, ... for the classes 0, 1, ...; a class without a name is its number where no class has one.
fn categories(described: &Described, source: &DataFolder<'_>, most: u64, notes: &mut Vec<String>) -> Vec<Category> {
    let given = &source.options.read.classes;
    let mut names = if given.is_empty() { described.names.clone() } else { given.clone() };
    if names.is_empty() {
        // A stray number must not make a list of billions.
        names = (0..most.min(10_000)).map(|class| class.to_string()).collect();
        notes.push(format!(
            "no file names the classes (data.yaml, classes.txt, obj.names): they are called {}; --classes names them",
            names.join(", ")
        ));
    } else if let Some(count) = described.count.filter(|count| given.is_empty() && *count != names.len()) {
        notes.push(format!(
            "{}: nc is {count}, and names lists {} classes; the names count",
            described.file,
            names.len()
        ));
    }
    // Two classes of one name would be told apart by nothing.
    let mut seen = BTreeSet::new();
    for (i, name) in names.iter_mut().enumerate() {
        if !seen.insert(name.clone()) {
            notes.push(format!("two classes are called {name}: the second is {name} {i}"));
            *name = format!("{name} {i}");
        }
    }
    (1..).zip(names).map(|(id, name)| Category { id, name }).collect()
}
