//! The label files of a YOLO folder: which image each belongs to, and which have none.

use std::collections::{HashMap, HashSet};

use crate::open::data_folder::DataFolder;
use crate::open::index::{IndexedFile, without_extension};
use crate::open::roles::Role;
use crate::text_file::{decoded, read_text};

/// Files with one class name a line, as tools call them.
pub(super) const NAME_FILES: [&str; 6] =
    ["classes.txt", "obj.names", "classes.names", "_darknet.labels", "predefined_classes.txt", "names.txt"];

/// Folders of images that have a folder of labels in the same place.
const IMAGE_FOLDERS: [&str; 5] = ["images", "jpegimages", "image", "imgs", "img"];

/// Folders of labels that have a folder of images in the same place.
const LABEL_FOLDERS: [&str; 4] = ["labels", "label", "annotations", "txt"];

/// How many images have a text file of YOLO labels; 0 where the text files are something else.
pub(crate) fn count_labels(source: &DataFolder<'_>) -> usize {
    /// So many lines tell what a folder's text files are.
    const LOOKED_AT: usize = 1000;
    let labels = LabelFiles::new(source);
    let mut files: Vec<&IndexedFile> = labels.of_image.values().copied().collect();
    files.sort_by(|a, b| a.below.cmp(&b.below));
    let (mut good, mut all) = (0, 0);
    for file in &files {
        let Ok(text) = read_text(&file.path, source.options.read.encoding.as_deref()) else { continue };
        let (rows, broken) = super::parse_yolo(&decoded(&text));
        (good, all) = (good + rows.len(), all + rows.len() + broken.len());
        if all >= LOOKED_AT {
            break;
        }
    }
    // Empty files are images without objects. A header or a few odd lines are faults of labels, not another format.
    if 4 * good >= all { files.len() } else { 0 }
}

/// What the text files of images are, where they are no labels of YOLO's and their lines tell it, with an example.
pub(crate) fn other_text(source: &DataFolder<'_>) -> Option<(&'static str, String)> {
    let labels = LabelFiles::new(source);
    let mut files: Vec<&IndexedFile> = labels.of_image.values().copied().collect();
    files.sort_by(|a, b| a.below.cmp(&b.below));
    files.iter().find_map(|file| {
        let text = read_text(&file.path, source.options.read.encoding.as_deref()).ok()?;
        let kind = decoded(&text).lines().find_map(kind_of_line)?;
        Some((kind, file.below.clone()))
    })
}

/// What a line of another tool's labels is.
fn kind_of_line(line: &str) -> Option<&'static str> {
    let words: Vec<&str> = line.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty()).collect();
    let is_number = |word: &&str| word.parse::<f64>().is_ok();
    let leading = words.iter().take_while(|word| is_number(word)).count();
    let behind = words.iter().rev().take_while(|word| is_number(word)).count();
    match (leading, behind, words.len()) {
        (8, _, 9 | 10) => Some("DOTA's text (four corners, a class and a difficulty on each line)"),
        (0, 14 | 15, 15 | 16) => Some("KITTI's text (a class and 14 numbers on each line)"),
        (0, 4.., _) => Some(
            "YOLO text with names of classes in place of their numbers (write 0, 1, 2, .., and the names into classes.txt)",
        ),
        _ => None,
    }
}

/// The text files of a folder, and whose labels they are.
pub(super) struct LabelFiles<'i> {
    texts: Vec<&'i IndexedFile>,
    /// The labels of each image that has some, by the image's path.
    of_image: HashMap<&'i str, &'i IndexedFile>,
    /// The folders that labels of images lie in.
    pub folders: HashSet<&'i str>,
    /// The images of each name (without extension, in lower case).
    images: HashMap<String, Vec<&'i IndexedFile>>,
    /// The folders that images lie in, and their own names in lower case.
    image_folders: HashSet<&'i str>,
    folder_names: HashSet<String>,
}

impl<'i> LabelFiles<'i> {
    pub fn new(source: &DataFolder<'i>) -> Self {
        let is_list = |f: &&IndexedFile| NAME_FILES.contains(&f.name().to_lowercase().as_str());
        let texts: Vec<&IndexedFile> = source.index.with_extension(&["txt"]).filter(|f| !is_list(f)).collect();
        let mut images: HashMap<String, Vec<&IndexedFile>> = HashMap::new();
        for image in source.images.images() {
            images.entry(image.stem().to_lowercase()).or_default().push(image);
        }
        let image_folders: HashSet<&str> = source.images.images().map(|image| image.folder()).collect();
        let folder_names = image_folders.iter().map(|folder| last(folder)).collect();
        let (of_image, folders) = (HashMap::new(), HashSet::new());
        let mut found = Self { texts, of_image, folders, images, image_folders, folder_names };
        let by_path = ByPath::new(&found.texts);
        let all: Vec<&IndexedFile> = source.images.images().collect();
        // Which folders belong together is seen from the labels that lie where an image's labels are looked for.
        let mut pairs = Pairs::default();
        for image in &all {
            if let Some(file) = by_path.of(image) {
                found.of_image.insert(&image.below, file);
                pairs.add(image.folder(), file.folder());
            }
        }
        let mut by_stem: HashMap<String, Vec<&IndexedFile>> = HashMap::new();
        for file in &found.texts {
            by_stem.entry(file.stem().to_lowercase()).or_default().push(file);
        }
        for image in all {
            if !found.of_image.contains_key(image.below.as_str())
                && let Some(file) = found.elsewhere(image, &by_stem, &pairs)
            {
                found.of_image.insert(&image.below, file);
            }
        }
        found.folders = found.of_image.values().map(|file| file.folder()).collect();
        found
    }

    /// The labels of an image: where its folder `images` is `labels`, beside it, in a folder beside its own, or the one file of its name.
    pub fn of(&self, image: &IndexedFile) -> Option<&'i IndexedFile> {
        self.of_image.get(image.below.as_str()).copied()
    }

    /// Whether labels lie in this folder or below it.
    pub fn lie_below(&self, folder: &str) -> bool {
        let is_in = |f: &&str| f.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        folder.is_empty() || self.folders.iter().any(is_in)
    }

    /// The labels of an image that lie in a folder beside its own, or the one file of its name.
    fn elsewhere(
        &self,
        image: &IndexedFile,
        by_stem: &HashMap<String, Vec<&'i IndexedFile>>,
        pairs: &Pairs<'_>,
    ) -> Option<&'i IndexedFile> {
        let stem = image.stem().to_lowercase();
        let same: Vec<&&IndexedFile> =
            by_stem.get(&stem)?.iter().filter(|file| self.may_belong(image, file, pairs)).collect();
        let images = self.images.get(&stem).map_or(&[][..], |images| images);
        // Masks of the same name beside the images leave open whose labels they are.
        let alone = images.iter().filter(|other| parent(other) == parent(image)).count() == 1;
        let beside: Vec<&&&IndexedFile> = same.iter().filter(|f| alone && parent(f) == parent(image)).collect();
        match (&same[..], &beside[..]) {
            (_, [file]) => Some(file),
            ([file], []) if images.len() == 1 || last(image.folder()) == last(file.folder()) => Some(file),
            _ => None,
        }
    }

    /// Whether a label file in another folder may be an image's: not where it is of another part, where its own folder of images is
    /// there, or where the image's own folder of labels is there under the same name or beside it.
    fn may_belong(&self, image: &IndexedFile, file: &IndexedFile, pairs: &Pairs<'_>) -> bool {
        let (images, labels) = (image.folder(), file.folder());
        let part = Role::of_folder(labels);
        if part.is_some() && part != Role::of_folder(images) {
            return false;
        }
        let has_namesake = last(images) != last(labels) && self.folder_names.contains(&last(labels));
        if has_namesake || pairs.has_images(labels, images) {
            return false;
        }
        !pairs.labels_of(images).any(|own| own != labels && (last(own) == last(labels) || are_siblings(own, labels)))
    }

    /// Label files whose image is missing, in folders that hold no images, each with the images of its name that have other labels or
    /// lie elsewhere. A text that is no label (a `README.txt`) is none of them, and neither is a test part that is left alone.
    pub fn orphans(&self) -> Vec<(&'i IndexedFile, Vec<&'i IndexedFile>)> {
        let used: HashSet<&str> = self.of_image.values().map(|file| file.below.as_str()).collect();
        let parts: HashSet<Option<Role>> = self.folders.iter().map(|folder| Role::of_folder(folder)).collect();
        let tests_alone = parts.contains(&Some(Role::Train)) && parts.contains(&Some(Role::Val));
        let is_orphan = |file: &&&IndexedFile| {
            let folder = file.folder();
            let is_test = tests_alone && Role::of_folder(folder) == Some(Role::Test);
            let named = self.images.get(&file.stem().to_lowercase()).map_or(&[][..], |images| images);
            let labelled = named.iter().filter(|image| self.of(image).is_some()).count();
            // A folder beside may be a copy, if all its names have labels.
            let is_beside = || self.folders.iter().any(|other| are_siblings(other, folder));
            !used.contains(file.below.as_str())
                && !is_test
                && !self.image_folders.contains(folder)
                && (self.holds_labels(folder) || labelled < named.len() || (labelled == 0 && is_beside()))
                && is_label(file)
        };
        let named = |file: &IndexedFile| self.images.get(&file.stem().to_lowercase()).cloned().unwrap_or_default();
        self.texts.iter().filter(is_orphan).map(|file| (*file, named(file))).collect()
    }

    /// Whether labels of images lie in a folder, or in that of another part.
    fn holds_labels(&self, folder: &str) -> bool {
        let are_roles = |a: &str, b: &str| Role::of_list(a).is_some() && Role::of_list(b).is_some();
        let differ_in_part = |other: &str| {
            let count = folder.split('/').count() == other.split('/').count();
            count && folder.split('/').zip(other.split('/')).all(|(a, b)| a == b || are_roles(a, b))
        };
        self.folders.iter().any(|other| differ_in_part(other))
    }
}

/// Label files by their paths without extension, as they are written and in lower case.
struct ByPath<'i> {
    exact: HashMap<&'i str, &'i IndexedFile>,
    lower: HashMap<String, &'i IndexedFile>,
}

impl<'i> ByPath<'i> {
    fn new(texts: &[&'i IndexedFile]) -> Self {
        let exact = texts.iter().map(|file| (without_extension(&file.below), *file)).collect();
        let lower = texts.iter().map(|file| (without_extension(&file.below).to_lowercase(), *file)).collect();
        Self { exact, lower }
    }

    fn at(&self, path: &str) -> Option<&'i IndexedFile> {
        self.exact.get(path).or_else(|| self.lower.get(&path.to_lowercase())).copied()
    }

    /// The labels of an image in the folder that corresponds to its own, or beside it.
    fn of(&self, image: &IndexedFile) -> Option<&'i IndexedFile> {
        let path = without_extension(&image.below);
        let parts: Vec<&str> = path.split('/').collect();
        let folders = &parts[..parts.len() - 1];
        let at = folders.iter().rposition(|folder| IMAGE_FOLDERS.contains(&folder.to_lowercase().as_str()));
        let corresponding = at.into_iter().flat_map(|at| LABEL_FOLDERS.map(|labels| (at, labels)));
        let mut paths = corresponding.map(|(at, labels)| {
            let mut parts = parts.clone();
            parts[at] = labels;
            parts.join("/")
        });
        paths.find_map(|path| self.at(&path)).or_else(|| self.at(path))
    }
}

/// Folders of images and the folders of their labels.
#[derive(Default)]
struct Pairs<'i>(HashSet<(&'i str, &'i str)>);

impl<'i> Pairs<'i> {
    fn add(&mut self, images: &'i str, labels: &'i str) {
        self.0.insert((images, labels));
    }

    /// Whether a folder of labels belongs to other images than those in `but`.
    fn has_images(&self, labels: &str, but: &str) -> bool {
        self.0.iter().any(|(images, own)| *own == labels && *images != but)
    }

    fn labels_of(&self, images: &str) -> impl Iterator<Item = &'i str> {
        self.0.iter().filter(move |(of, _)| *of == images).map(|(_, labels)| *labels)
    }
}

/// Whether two folders lie beside each other in a folder of labels: `labels/camA` and `labels/camB`.
fn are_siblings(one: &str, other: &str) -> bool {
    let above = |folder: &'_ str| folder.rsplit_once('/').map(|(above, _)| above.to_owned());
    let is_of_labels =
        |f: &String| LABEL_FOLDERS.iter().any(|labels| f.split('/').any(|f| f.eq_ignore_ascii_case(labels)));
    above(one).is_some_and(|above_one| is_of_labels(&above_one) && above(other) == Some(above_one))
}

/// A folder's own name in lower case.
fn last(folder: &str) -> String {
    folder.rsplit('/').next().unwrap_or_default().to_lowercase()
}

/// The folder above a file's own.
fn parent(file: &IndexedFile) -> &str {
    file.folder().rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn is_label(file: &IndexedFile) -> bool {
    read_text(&file.path, None).is_ok_and(|text| {
        let (rows, broken) = super::parse_yolo(&decoded(&text));
        broken.is_empty() && !rows.is_empty()
    })
}
