//! COCO's JSON as people have it: one pass over the file, odd entries listed one by one, ids of any kind made numbers.

use std::collections::{HashMap, HashSet};
use std::panic::resume_unwind;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::box_reading::BoxReading;
use crate::digest::hex_digest;
use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::found::{FoundImage, FoundObject};
use crate::loose::{BoxNumbers, Entry, Loose, plain_json, without_nan};
use crate::outline::box_of_segmentation;
use crate::types::{Annotation, Category};

/// From this size on a file is hashed on a thread of its own while it is parsed.
const PARALLEL_BYTES: usize = 1 << 20;

/// What a COCO file says.
pub(crate) struct CocoJson {
    pub images: Vec<FoundImage>,
    pub objects: Vec<FoundObject>,
    /// In the order of the file.
    pub categories: Vec<Category>,
    /// The names that categories give as their supercategory.
    pub supercategories: HashSet<String>,
    /// SHA-256 of the file's bytes.
    pub digest: String,
    pub findings: Vec<Finding>,
    /// Lines about what was read otherwise than it stands.
    pub notes: Vec<String>,
}

/// The three lists of a COCO file, and nothing else of it.
#[derive(Deserialize)]
struct FileIn<'a> {
    images: Vec<Entry<ImageIn>>,
    #[serde(borrow)]
    annotations: Vec<Entry<AnnotationIn<'a>>>,
    categories: Vec<Entry<CategoryIn>>,
}

#[derive(Deserialize)]
struct ImageIn {
    #[serde(default)]
    id: Loose,
    #[serde(default)]
    file_name: Loose,
    /// LVIS gives this alone.
    #[serde(default)]
    coco_url: Loose,
    #[serde(default)]
    path: Loose,
    #[serde(default)]
    width: Loose,
    #[serde(default)]
    height: Loose,
}

#[derive(Deserialize)]
struct AnnotationIn<'a> {
    #[serde(default)]
    id: Loose,
    #[serde(default)]
    image_id: Loose,
    #[serde(default)]
    category_id: Loose,
    #[serde(default)]
    bbox: BoxNumbers,
    #[serde(default)]
    area: Loose,
    #[serde(default)]
    iscrowd: Loose,
    /// Read where there is no box.
    #[serde(borrow, default)]
    segmentation: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CategoryIn {
    #[serde(default)]
    id: Loose,
    #[serde(default)]
    name: Loose,
    #[serde(default)]
    supercategory: Loose,
}

/// Reads a COCO file's bytes; `path` names them in messages.
///
/// # Errors
/// Bytes that are no JSON object with lists `images`, `annotations` and `categories`.
pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<CocoJson> {
    let plain = plain_json(bytes);
    // Each goes over the whole file, which may have half a gigabyte.
    let (parsed, digest) = if bytes.len() < PARALLEL_BYTES {
        (serde_json::from_slice::<FileIn<'_>>(&plain), hex_digest(bytes))
    } else {
        std::thread::scope(|scope| {
            let digest = scope.spawn(|| hex_digest(bytes));
            (serde_json::from_slice(&plain), digest.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    };
    let fail = |source| Error::Json {
        path: path.to_owned(),
        expected: "a COCO annotation file (an object with images, annotations and categories)",
        source,
    };
    match parsed {
        Ok(file) => Ok(Reading::new(path, digest).read(file)),
        // Python writes NaN, which is no JSON.
        Err(error) if error.is_syntax() => {
            let fixed = without_nan(&plain);
            match serde_json::from_slice(&fixed) {
                Ok(file) => Ok(Reading::new(path, digest).read(file)),
                Err(_) => Err(fail(error)),
            }
        }
        Err(error) => Err(fail(error)),
    }
}

/// An id as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Number(u64),
    Text(String),
}

impl Key {
    /// As messages show it.
    fn quoted(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("{text:?}"),
        }
    }
}

fn key_of(id: &Loose) -> Option<Key> {
    id.whole().map(Key::Number).or_else(|| id.text().map(Key::Text))
}

/// Ids made numbers. Numbers from 0 stay, texts get the numbers behind the largest, in the order in which they come. Where some are
/// negative, all are numbered anew in their order.
#[derive(Default)]
struct Ids {
    mapped: HashMap<Key, u64>,
}

impl Ids {
    fn new<'a>(keys: impl Iterator<Item = &'a Key> + Clone) -> Self {
        let texts = keys.clone().filter(|key| matches!(key, Key::Text(_)));
        let value = |key: &Key| match key {
            Key::Number(number) => Some(*number as f64),
            Key::Text(text) => text.parse::<f64>().ok(),
        };
        let mut mapped = HashMap::new();
        if texts.clone().any(|key| value(key).is_some_and(|v| v < 0.0)) && keys.clone().all(|key| value(key).is_some())
        {
            let mut all: Vec<&Key> = keys.collect();
            all.sort_by(|a, b| value(a).partial_cmp(&value(b)).unwrap_or(std::cmp::Ordering::Equal));
            for key in all {
                let next = mapped.len() as u64 + 1;
                mapped.entry(key.clone()).or_insert(next);
            }
            return Self { mapped };
        }
        let largest = keys.filter_map(|key| if let Key::Number(n) = key { Some(*n) } else { None }).max();
        let first = largest.map_or(1, |n| n.saturating_add(1));
        for key in texts {
            let next = first + mapped.len() as u64;
            mapped.entry(key.clone()).or_insert(next);
        }
        Self { mapped }
    }

    /// The number; `None` for a text that was not listed.
    fn of(&self, key: &Key) -> Option<u64> {
        match key {
            Key::Number(number) => Some(self.mapped.get(key).copied().unwrap_or(*number)),
            Key::Text(_) => self.mapped.get(key).copied(),
        }
    }
}

struct Reading<'a> {
    path: &'a Path,
    out: CocoJson,
}

impl<'a> Reading<'a> {
    fn new(path: &'a Path, digest: String) -> Self {
        let out = CocoJson {
            images: Vec::new(),
            objects: Vec::new(),
            categories: Vec::new(),
            supercategories: HashSet::new(),
            digest,
            findings: Vec::new(),
            notes: Vec::new(),
        };
        Self { path, out }
    }

    fn broken(&mut self, detail: String) {
        let (kind, file) = (FindingKind::BrokenAnnotation, self.path.to_owned());
        self.out.findings.push(Finding { kind, file, image_id: None, annotation_id: None, detail });
    }

    fn read(mut self, file: FileIn<'_>) -> CocoJson {
        let images = self.images(file.images);
        let categories = self.categories(file.categories);
        self.annotations(file.annotations, &images, &categories);
        self.out
    }

    fn images(&mut self, entries: Vec<Entry<ImageIn>>) -> Ids {
        let mut keyed = Vec::with_capacity(entries.len());
        for (i, entry) in entries.into_iter().enumerate() {
            let name = |image: &ImageIn| {
                image.file_name.text().or_else(|| image.path.text()).or_else(|| image.coco_url.text())
            };
            let parts = entry.0.and_then(|image| Some((key_of(&image.id)?, name(&image)?, image)));
            match parts {
                Some((key, file_name, image)) if !file_name.is_empty() => {
                    keyed.push((key, file_name, image.width.pixels().zip(image.height.pixels())));
                }
                _ => self.broken(format!("images[{i}] has no id or no file_name")),
            }
        }
        let ids = Ids::new(keyed.iter().map(|(key, _, _)| key));
        let mut seen: HashMap<u64, String> = HashMap::with_capacity(keyed.len());
        let mut repeated = 0;
        for (key, file_name, size) in keyed {
            let id = ids.of(&key).unwrap_or_default();
            match seen.get(&id) {
                // The same entry again says nothing new.
                Some(before) if *before == file_name => repeated += 1,
                _ => {
                    seen.insert(id, file_name.clone());
                    self.out.images.push(FoundImage { id, file_name, size, annotation_file: None });
                }
            }
        }
        self.mapped("image", &ids);
        if repeated > 0 {
            self.out.notes.push(format!("{}: {repeated} image entries repeat an earlier one", self.path.display()));
        }
        ids
    }

    fn categories(&mut self, entries: Vec<Entry<CategoryIn>>) -> Ids {
        let mut keyed = Vec::with_capacity(entries.len());
        for (i, entry) in entries.into_iter().enumerate() {
            let parts = entry.0.and_then(|c| Some((key_of(&c.id)?, c.name.text()?, c.supercategory.text())));
            match parts {
                Some((key, name, supercategory)) => {
                    self.out.supercategories.extend(supercategory.filter(|s| *s != name));
                    keyed.push((key, name));
                }
                None => self.broken(format!("categories[{i}] has no id or no name")),
            }
        }
        let ids = Ids::new(keyed.iter().map(|(key, _)| key));
        for (key, name) in keyed {
            let category = Category { id: ids.of(&key).unwrap_or_default(), name };
            // The same entry again says nothing new.
            if !self.out.categories.contains(&category) {
                self.out.categories.push(category);
            }
        }
        self.mapped("category", &ids);
        ids
    }

    fn mapped(&mut self, what: &str, ids: &Ids) {
        if !ids.mapped.is_empty() {
            let (file, count) = (self.path.display(), ids.mapped.len());
            self.out.notes.push(format!("{file}: {count} {what} ids are texts or negative; they are numbered"));
        }
    }

    fn annotations(&mut self, entries: Vec<Entry<AnnotationIn<'_>>>, images: &Ids, categories: &Ids) {
        let numbers: Option<HashSet<u64>> =
            entries.iter().map(|e| e.0.as_ref().map_or(Some(u64::MAX), |a| a.id.whole())).collect();
        // Entries that are no objects share one placeholder, which is no repetition.
        let entire = entries.iter().filter(|e| e.0.is_some()).count();
        let distinct = numbers.is_some_and(|n| n.len() >= entire);
        if !distinct && entire > 0 {
            let file = self.path.display();
            self.out.notes.push(format!(
                "{file}: annotation ids are missing, repeat or are texts; {entire} annotations are numbered anew"
            ));
        }
        let sizes: HashMap<u64, Option<(u32, u32)>> = self.out.images.iter().map(|i| (i.id, i.size)).collect();
        let (mut from_outlines, mut next) = (0usize, 0u64);
        self.out.objects.reserve(entries.len());
        for (i, entry) in entries.into_iter().enumerate() {
            let Some(a) = entry.0 else {
                self.broken(format!("annotations[{i}] is no object"));
                continue;
            };
            next += 1;
            let id = if distinct { a.id.whole().unwrap_or(next) } else { next };
            let own = a.id.text().map_or_else(|| format!("annotations[{i}]"), |id| format!("annotation id {id}"));
            let ids = key_of(&a.image_id).zip(key_of(&a.category_id));
            let (Some((image, category)), Some(crowd)) = (ids, a.iscrowd.flag()) else {
                let detail = if a.iscrowd.flag().is_none() {
                    format!("{own}: iscrowd is {:?}; it must be 0 or 1", a.iscrowd)
                } else {
                    format!("{own} has no image_id or no category_id")
                };
                self.broken(detail);
                continue;
            };
            let by_name = |key: &Key| match key {
                Key::Text(name) => self.out.categories.iter().find(|c| c.name == *name).map(|c| c.id),
                Key::Number(_) => None,
            };
            let category_id = categories.of(&category).or_else(|| by_name(&category));
            // Texts that no list has are no numbers that another check could name.
            let (Some(image_id), Some(category_id)) = (images.of(&image), category_id) else {
                let (kind, detail) = match images.of(&image) {
                    None => (FindingKind::UnlistedImage, format!("{own} has image_id {}", image.quoted())),
                    Some(_) => (FindingKind::UnknownCategory, format!("{own} has category_id {}", category.quoted())),
                };
                let (file, annotation_id) = (self.path.to_owned(), Some(id));
                self.out.findings.push(Finding { kind, file, image_id: None, annotation_id, detail });
                continue;
            };
            let size = sizes.get(&image_id).copied().flatten();
            let outline = |a: &AnnotationIn<'_>| a.segmentation.and_then(|raw| box_of_segmentation(raw.get(), size));
            let has_outline = |a: &AnnotationIn<'_>| {
                a.segmentation.is_some_and(|raw| !["null", "[]", "{}", "\"\""].contains(&raw.get()))
            };
            // Some tools write zeros where they have an outline.
            let has_area = |n: &[f64; 4]| n.iter().all(|v| v.is_finite()) && n[2] != 0.0 && n[3] != 0.0;
            let (numbers, reading) = match a.bbox {
                BoxNumbers::Four(numbers) if has_area(&numbers) => (numbers, None),
                BoxNumbers::Odd if outline(&a).is_none() => {
                    self.broken(format!("{own}: its bbox is no list of four numbers"));
                    continue;
                }
                BoxNumbers::Missing if has_outline(&a) && outline(&a).is_none() => {
                    self.broken(format!(
                        "{own}: it has no box, and its segmentation cannot be read, or is of another image size"
                    ));
                    continue;
                }
                given => match outline(&a) {
                    Some(numbers) => {
                        from_outlines += 1;
                        (numbers, Some(BoxReading::Xywh))
                    }
                    None => (if let BoxNumbers::Four(numbers) = given { numbers } else { [f64::NAN; 4] }, None),
                },
            };
            let area = a.area.number().filter(|area| *area >= 0.0);
            self.out.objects.push(FoundObject { id, image_id, category_id, numbers, reading, area, crowd, line: 0 });
        }
        if from_outlines > 0 {
            let file = self.path.display();
            self.out
                .notes
                .push(format!("{file}: {from_outlines} annotations have no box; theirs is the one around the outline"));
        }
    }
}

impl FoundObject {
    /// The object of a COCO file, its numbers read as COCO has them.
    pub(crate) fn annotation(self) -> Annotation {
        let bbox = self.numbers;
        Annotation {
            id: self.id,
            image_id: self.image_id,
            category_id: self.category_id,
            bbox,
            area: self.area.unwrap_or(bbox[2] * bbox[3]),
            iscrowd: self.crowd,
        }
    }

    /// The fault of an object without a box.
    pub(crate) fn degenerate(&self, file: &Path) -> Finding {
        Finding {
            kind: FindingKind::DegenerateBox,
            file: file.to_owned(),
            image_id: Some(self.image_id),
            annotation_id: Some(self.id),
            detail: format!("the box is {:?}", self.numbers),
        }
    }
}
