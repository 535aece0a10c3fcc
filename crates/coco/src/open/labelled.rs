//! Formats with an annotation file for each image (PASCAL VOC, labelme): whose image each file is, and how they are split.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::coco::{by_hash, plain_root};
use super::data_folder::{ChangedNames, Classes, DataFolder, Located, Plan, broken, name_of};
use super::find_image::Lookup;
use super::index::{IndexedFile, extension_of, stem_of, without_extension};
use super::item::Item;
use super::roles::Role;
use super::sides::{Sides, sides};
use crate::box_reading::BoxReading;
use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::found::{Found, FoundImage, FoundObject};
use crate::ids::ids_of_names;
use crate::image_reader::IMAGE_EXTENSIONS;
use crate::open_options::Unlabeled;

/// One object of an annotation file.
#[derive(Debug, Clone)]
pub(crate) struct LabelledObject {
    pub class: String,
    pub numbers: [f64; 4],
    /// Where the format itself says what the numbers are.
    pub reading: Option<BoxReading>,
    pub crowd: bool,
    /// From 1; 0 where the format has no lines to speak of.
    pub line: u32,
}

/// One annotation file.
#[derive(Debug, Clone)]
pub(crate) struct LabelledFile<'i> {
    pub file: &'i IndexedFile,
    /// The image's name as the file gives it.
    pub image: Option<String>,
    pub size: Option<(u32, u32)>,
    pub objects: Vec<LabelledObject>,
}

/// What is known of a folder's annotation files before their images are found.
pub(crate) struct Labelled<'i> {
    pub files: Vec<LabelledFile<'i>>,
    /// Files that are no annotations.
    pub findings: Vec<Finding>,
    /// The format's own reading of boxes.
    pub reading: BoxReading,
    /// What an annotation file is called in messages: `XML`.
    pub what: &'static str,
}

/// Finds the image of each file and plans the split.
///
/// The image of the annotation file's own name wins over one that is named in it: tools copy files together and leave old names inside.
///
/// # Errors
/// As [`sides`]; too few images to split.
pub(crate) fn plan(source: &DataFolder<'_>, labelled: Labelled<'_>, notes: &mut Vec<String>) -> Result<Plan> {
    let Labelled { mut files, mut findings, reading, what } = labelled;
    let mut disagreeing = Vec::new();
    let mut changed = ChangedNames::default();
    let mut images: Vec<(LabelledFile<'_>, Located)> = Vec::with_capacity(files.len());
    let mut owner: HashMap<String, String> = HashMap::new();
    let spelled: Vec<Option<String>> = files.iter_mut().map(|file| file.image.take()).collect();
    let named = named_images(source, &files, &spelled);
    for ((file, spelled), named) in files.into_iter().zip(spelled).zip(named) {
        match image_of(source, file.file, spelled.as_deref(), named) {
            Ok(located) => {
                let name = spelled.as_deref().unwrap_or(file.file.name());
                let said = stem_of(last(name));
                let real = located.item.rsplit('/').next().unwrap_or_default();
                if spelled.is_some() && !same_stem(said, real) {
                    disagreeing.push(format!("{} says {name:?}, and {} is used", file.file.below, located.file_name));
                } else if spelled.is_some() {
                    changed.add(name, &located);
                }
                if let Some(first) = owner.insert(located.file_name.clone(), file.file.below.clone()) {
                    let detail =
                        format!("{} has two annotation files: {first} and {}", located.file_name, file.file.below);
                    let (kind, file) = (FindingKind::RepeatedImage, file.file.path.clone());
                    findings.push(Finding { kind, file, image_id: None, annotation_id: None, detail });
                    continue;
                }
                images.push((file, located));
            }
            Err((kind, detail)) => {
                findings.push(Finding {
                    kind,
                    file: file.file.path.clone(),
                    image_id: None,
                    annotation_id: None,
                    detail,
                });
            }
        }
    }
    if !disagreeing.is_empty() {
        notes.push(format!(
            "{} {what} files have a filename that disagrees with their own name; the image of the {what} file's own name is used",
            disagreeing.len()
        ));
        const SHOWN: usize = 20;
        notes.extend(disagreeing.iter().take(SHOWN).map(|line| format!("  {line}")));
        if disagreeing.len() > SHOWN {
            notes.push(format!("  and {} more", disagreeing.len() - SHOWN));
        }
    }
    changed.note(notes);
    let negatives = unlabeled(source, &images, what, notes);
    found(source, images, negatives, findings, reading, notes)
}

/// Whether the names mean one image: their letters' case apart, and what a tool puts before or behind.
fn same_stem(said: &str, real: &str) -> bool {
    said.to_lowercase() == real.to_lowercase()
}

/// The images that the annotation files name, `Missing` where one names none.
fn named_images(source: &DataFolder<'_>, files: &[LabelledFile<'_>], spelled: &[Option<String>]) -> Vec<Lookup> {
    source.finder().find_all(files.iter().zip(spelled).map(|(LabelledFile { file, .. }, name)| {
        let place = source.place_of(&file.path, Some(&file.below));
        (name.as_deref().unwrap_or_default(), place, file.path.parent())
    }))
}

/// The image of an annotation file: of the same name, or else the one that it names.
fn image_of(
    source: &DataFolder<'_>,
    file: &IndexedFile,
    spelled: Option<&str>,
    named: Lookup,
) -> std::result::Result<Located, (FindingKind, String)> {
    let finder = source.finder();
    let place = source.place_of(&file.path, Some(&file.below));
    // `a.jpg.xml` belongs to `a.jpg`.
    let stem = file.stem();
    let stem = if IMAGE_EXTENSIONS.contains(&extension_of(stem).as_str()) { stem_of(stem) } else { stem };
    // `images/lotA/x.jpg` belongs to `annotations/lotA/x.xml`: of several images of one name the one whose folders fit best.
    let own = match in_its_folder(source, file, finder.of_stem(stem, place)) {
        Lookup::Several(files) => best_folder(&files, file).map_or(Lookup::Several(files), |below| {
            let path = source.images.at(&below).map_or_else(|| source.images.root.join(&below), |f| f.path.clone());
            Lookup::Found { path, below, changed: false }
        }),
        other => other,
    };
    let Some(name) = spelled else { return source.locate(own, file.stem()) };
    match (own, named) {
        (Lookup::Missing, named) => source.locate(in_its_folder(source, file, named), name),
        // The name's extension tells two images of one stem apart.
        (Lookup::Several(_), named @ Lookup::Found { .. }) => source.locate(named, name),
        // `<filename>` has a folder of the data in which this image is missing: the one of that name is another folder's.
        (Lookup::Found { .. }, Lookup::Missing) if same_stem(stem_of(last(name)), stem) && last(name) != name => {
            source.locate(Lookup::Missing, name)
        }
        (Lookup::Found { path, below, .. }, _) => {
            let changed = !super::index::is_tail(&below, &super::index::nfc(name));
            source.locate(Lookup::Found { path, below, changed }, file.stem())
        }
        (own, _) => source.locate(own, file.stem()),
    }
}

/// A name without the folders before it, however they are separated.
fn last(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or_default()
}

/// What was found, if it lies in the folder that belongs to the annotation file: where images lie in folders of the same name as the
/// annotation file's own, an image elsewhere that has the same name is another image.
fn in_its_folder(source: &DataFolder<'_>, file: &IndexedFile, found: Lookup) -> Lookup {
    let last = |folder: &str| folder.rsplit('/').next().unwrap_or_default().to_lowercase();
    let Lookup::Found { below, .. } = &found else { return found };
    let (own, other) = (last(file.folder()), last(below.rsplit_once('/').map_or("", |(folder, _)| folder)));
    let corresponds = own == other || !source.images.images().any(|image| last(image.folder()) == own);
    if corresponds { found } else { Lookup::Missing }
}

/// Of several images the one whose path ends with the most folders of the annotation file's path.
fn best_folder(files: &[String], file: &IndexedFile) -> Option<String> {
    let common = |below: &str| {
        let (a, b) = (below.rsplit('/').skip(1), file.below.rsplit('/').skip(1));
        a.zip(b).take_while(|(a, b)| a.to_lowercase() == b.to_lowercase()).count()
    };
    let most = files.iter().map(|below| common(below)).max().filter(|n| *n > 0)?;
    let mut best = files.iter().filter(|below| common(below) == most);
    match (best.next(), best.next()) {
        (Some(one), None) => Some(one.clone()),
        _ => None,
    }
}

/// Images without an annotation file, in the folders of those with one.
fn unlabeled(
    source: &DataFolder<'_>,
    images: &[(LabelledFile<'_>, Located)],
    what: &str,
    notes: &mut Vec<String>,
) -> Vec<Located> {
    let folder = |path: &str| path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
    let folders: HashSet<String> = images.iter().map(|(_, located)| folder(&located.item)).collect();
    let known: HashSet<&str> = images.iter().map(|(_, located)| located.file_name.as_str()).collect();
    let mut without = Vec::new();
    for image in source.images.images().filter(|image| folders.contains(image.folder())) {
        let file_name = source.relative(&image.path);
        if !known.contains(file_name.as_str()) {
            let item = without_extension(&image.below).to_owned();
            without.push(Located { file_name, item, changed: false });
        }
    }
    if without.is_empty() {
        return without;
    }
    let count = without.len();
    if source.options.read.unlabeled == Unlabeled::AsNegatives {
        notes.push(format!("{count} image(s) without {what} are used as images without objects"));
        return without;
    }
    notes.push(format!(
        "{count} image(s) without {what} are not used ({}, for one); --unlabeled as-negatives uses them as images without objects",
        without[0].file_name
    ));
    Vec::new()
}

fn found(
    source: &DataFolder<'_>,
    images: Vec<(LabelledFile<'_>, Located)>,
    negatives: Vec<Located>,
    mut findings: Vec<Finding>,
    reading: BoxReading,
    notes: &mut Vec<String>,
) -> Result<Plan> {
    let names: Vec<String> = images
        .iter()
        .map(|(file, _)| file.file.stem().to_owned())
        .chain(negatives.iter().map(|l| l.item.rsplit('/').next().unwrap_or_default().to_owned()))
        .collect();
    let ids = ids_of_names(&names);
    let items: Vec<Item> = images
        .iter()
        .map(|(file, located)| Item {
            paths: vec![without_extension(&file.file.below).to_owned(), located.item.clone()],
        })
        .chain(negatives.iter().map(|located| Item { paths: vec![located.item.clone()] }))
        .collect();
    let sides = sides(&items, source, notes)?;
    let all_objects = images.iter().flat_map(|(file, _)| &file.objects).map(|o| o.class.as_str());
    let classes = Classes::new(&source.options.read.classes, all_objects);
    let folder = common_folder(&images, source);
    let mut found = Found::new(name_of(&folder), &folder, &source.images.root, reading);
    let mut labelled = ids.iter();
    for ((file, located), &id) in images.into_iter().zip(labelled.by_ref()) {
        for object in file.objects {
            found.objects.push(FoundObject {
                id: found.objects.len() as u64 + 1,
                image_id: id,
                category_id: classes.id(&object.class),
                numbers: object.numbers,
                reading: object.reading,
                area: None,
                crowd: object.crowd,
                line: object.line,
            });
        }
        found.images.push(FoundImage {
            id,
            file_name: located.file_name,
            size: file.size,
            annotation_file: Some(file.file.path.clone()),
        });
    }
    for (located, &id) in negatives.into_iter().zip(labelled) {
        let file = source.images.root.join(&located.file_name);
        found.images.push(FoundImage { id, file_name: located.file_name, size: None, annotation_file: Some(file) });
    }
    found.categories = classes.categories;
    found.other_classes = classes.others;
    found.findings.append(&mut findings);
    plain_root(&mut found);
    match sides {
        Sides::ByHash(used) => by_hash(source, found, &used, notes),
        Sides::Author(sides) => {
            let known = found.images.iter().zip(&sides).filter_map(|(image, side)| Some((image.id, (*side)?)));
            Ok(Plan::One { sides: known.collect(), whole: Box::new(found), how: "" })
        }
    }
}

/// The folder that holds all annotation files: the one that most lie in, or the data folder.
fn common_folder(images: &[(LabelledFile<'_>, Located)], source: &DataFolder<'_>) -> std::path::PathBuf {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (file, _) in images {
        *counts.entry(file.file.folder()).or_default() += 1;
    }
    match counts.len() {
        1 => counts.keys().next().map_or_else(|| source.index.root.clone(), |folder| source.index.root.join(folder)),
        _ => source.index.root.clone(),
    }
}

/// The annotation files that are read: those of the parts in use. Files of a test part that is left alone need not be readable.
pub(crate) fn in_use<'i>(files: Vec<&'i IndexedFile>, notes: &mut Vec<String>) -> Vec<&'i IndexedFile> {
    let role = |f: &IndexedFile| Role::of_folder(f.folder());
    let has = |wanted: Role| files.iter().any(|f| role(f) == Some(wanted));
    if has(Role::Train) && has(Role::Val) && has(Role::Test) {
        notes.push("the test part is left alone: the val part is held out".to_owned());
        files.into_iter().filter(|f| role(f) != Some(Role::Test)).collect()
    } else {
        files
    }
}

/// Reads files, the broken ones apart.
pub(crate) fn read_each<'i>(
    files: Vec<&'i IndexedFile>,
    read: impl Fn(
        &IndexedFile,
        &[u8],
    ) -> std::result::Result<(Option<String>, Option<(u32, u32)>, Vec<LabelledObject>), String>
    + Sync,
) -> Result<(Vec<LabelledFile<'i>>, Vec<Finding>)> {
    let (mut good, mut findings) = (Vec::with_capacity(files.len()), Vec::new());
    let parsed = crate::parallel::in_order(files.len(), 0, |i| {
        let bytes = std::fs::read(&files[i].path).map_err(|e| Error::file("read", &files[i].path, e))?;
        Ok::<_, Error>(read(files[i], &bytes))
    });
    for (file, parsed) in files.into_iter().zip(parsed) {
        match parsed? {
            Ok((image, size, objects)) => good.push(LabelledFile { file, image, size, objects }),
            Err(detail) => findings.push(broken(&file.path, detail)),
        }
    }
    Ok((good, findings))
}
