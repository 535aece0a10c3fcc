//! The folder that is opened, as readers of annotations see it.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::find_image::{ImageFinder, Lookup, Place};
use super::index::{FileIndex, IndexedFile, nfc, slashed, without_extension};
use crate::finding::{Finding, FindingKind};
use crate::found::Found;
use crate::open_options::OpenOptions;
use crate::types::Category;

/// What to do where files cannot be found by their names.
pub(crate) const NAME_THE_FILES: &str = "name the files: --train-annotations, --val-annotations and --images (docs/data.md lists the layouts that open as they stand)";

/// A data folder and what the caller says of it.
pub(crate) struct DataFolder<'a> {
    pub index: &'a FileIndex,
    /// The folder of images: the data folder, or the one that the caller names.
    pub images: &'a FileIndex,
    /// The only annotation file to be read, where the caller names one in place of a folder.
    pub only: Option<&'a IndexedFile>,
    pub options: &'a OpenOptions,
}

/// What a reader found, and how it is split.
pub(crate) enum Plan {
    /// The author's two parts.
    Two { train: Box<Found>, val: Box<Found> },
    /// One part, each image's side by its id: held out or trained on. Images without a side are in neither.
    One { whole: Box<Found>, sides: HashMap<u64, bool>, how: &'static str },
}

/// The file of one image name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    /// Below the folder of images, or absolute.
    pub file_name: String,
    /// The path below the folder of images without extension (NFC): what lists and folders of a split go by.
    pub item: String,
    /// Whether the file was found under another path, name or extension.
    pub changed: bool,
}

/// How many names were found under others, with an example.
#[derive(Debug, Default)]
pub(crate) struct ChangedNames {
    count: usize,
    example: Option<(String, String)>,
}

impl ChangedNames {
    pub fn add(&mut self, spelled: &str, located: &Located) {
        if located.changed {
            self.count += 1;
            self.example.get_or_insert_with(|| (spelled.to_owned(), located.file_name.clone()));
        }
    }

    pub fn note(self, notes: &mut Vec<String>) {
        if let Some((spelled, found)) = self.example {
            notes.push(format!(
                "{} image files were found under another path, name or extension than the annotations give ({spelled:?} is {found}, for \
                 one)",
                self.count
            ));
        }
    }
}

impl<'a> DataFolder<'a> {
    /// The annotation files with one of these extensions (lower case, without dot).
    pub fn annotation_files(&self, extensions: &'a [&str]) -> impl Iterator<Item = &'a IndexedFile> {
        let only = self.only;
        self.index.with_extension(extensions).filter(move |file| only.is_none_or(|only| only.below == file.below))
    }

    pub fn finder(&self) -> ImageFinder<'a> {
        ImageFinder::new(self.images, self.options.images.is_some())
    }

    /// Looks an image's name up. `Err` holds the fault: its kind and what to say.
    pub fn locate(&self, lookup: Lookup, spelled: &str) -> Result<Located, (FindingKind, String)> {
        match lookup {
            Lookup::Found { path, below, changed } => {
                Ok(Located { file_name: self.relative(&path), item: without_extension(&below).to_owned(), changed })
            }
            Lookup::Elsewhere(path) => {
                let file_name = path.to_string_lossy().into_owned();
                let item = nfc(without_extension(&file_name.replace('\\', "/")));
                Ok(Located { file_name, item, changed: false })
            }
            Lookup::Missing => {
                let detail = format!("{spelled:?} is not in {}", self.images.root.display());
                Err((FindingKind::MissingImage, detail))
            }
            Lookup::Several(files) => {
                let detail = format!("{spelled:?} fits {} files: {}", files.len(), super::index::some_of(&files));
                Err((FindingKind::AmbiguousImage, detail))
            }
        }
    }

    /// A file's path below the folder of images, as the system spells it, with `/` between folders.
    pub fn relative(&self, path: &Path) -> String {
        slashed(path.strip_prefix(&self.images.root).unwrap_or(path))
    }

    /// Where images of an annotation file are looked for first.
    pub fn place_of<'p>(&self, file: &'p Path, below: Option<&'p str>) -> Place<'p> {
        let beside = match below {
            Some(below) if self.options.images.is_none() => {
                Some(below.rsplit_once('/').map_or("", |(folder, _)| folder))
            }
            _ => None,
        };
        let name = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let role = super::roles::Role::of_name(name).or_else(|| beside.and_then(super::roles::Role::of_folder));
        Place { beside, role }
    }
}

/// Ids for classes that are only named: in the order that the caller gives, or else in byte order.
#[derive(Debug)]
pub(crate) struct Classes {
    pub categories: Vec<Category>,
    /// Names that the caller did not ask for, by ids that no category has.
    pub others: HashMap<u64, String>,
    ids: HashMap<String, u64>,
}

impl Classes {
    pub fn new<'n>(given: &[String], found: impl Iterator<Item = &'n str>) -> Self {
        let found: Vec<String> = found.collect::<BTreeSet<&str>>().into_iter().map(str::to_owned).collect();
        let others = found.iter().filter(|name| !given.is_empty() && !given.contains(name)).cloned().collect();
        let names = if given.is_empty() { found } else { given.to_vec() };
        let categories: Vec<Category> = (1..).zip(names).map(|(id, name)| Category { id, name }).collect();
        let behind = categories.len() as u64 + 1;
        let others: HashMap<u64, String> = (behind..).zip::<Vec<String>>(others).collect();
        let asked = categories.iter().map(|c| (c.name.clone(), c.id));
        let ids = asked.chain(others.iter().map(|(id, name)| (name.clone(), *id))).collect();
        Self { categories, others, ids }
    }

    /// The id of a name: a category's, or one of [`Self::others`].
    pub fn id(&self, name: &str) -> u64 {
        self.ids.get(name).copied().unwrap_or(0)
    }
}

/// A fault of an annotation file as a whole.
pub(crate) fn broken(file: &Path, detail: String) -> Finding {
    let file: PathBuf = file.to_owned();
    Finding { kind: FindingKind::BrokenAnnotation, file, image_id: None, annotation_id: None, detail }
}

/// A file's or folder's own name.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}
