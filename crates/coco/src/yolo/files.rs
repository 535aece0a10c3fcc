//! The files of a YOLO folder: which labels belong to which image, where the classes' names and the splits stand.

use std::collections::{HashMap, HashSet};

use super::classes::{is_yaml, obj_data, read};
use crate::error::{Error, Result};
use crate::open::data_folder::DataFolder;
use crate::open::index::{IndexedFile, without_extension};
use crate::open::roles::Role;
use crate::text_file::{decoded, read_text};

/// What a folder's own files say of it.
#[derive(Debug, Default)]
pub(super) struct Described {
    /// The file that says it, for messages.
    pub file: String,
    /// The folder of that file, below the data folder.
    folder: String,
    pub names: Vec<String>,
    /// The path of a list of names.
    names_path: Option<String>,
    pub count: Option<usize>,
    root: Option<String>,
    /// Image folders or lists of the parts.
    pub parts: Vec<(Role, Vec<String>)>,
    pub kpt_shape: Option<[usize; 2]>,
}

/// Files with one class name a line, as tools call them.
const NAME_FILES: [&str; 6] =
    ["classes.txt", "obj.names", "classes.names", "_darknet.labels", "predefined_classes.txt", "names.txt"];

/// How many images have a text file of YOLO labels; 0 where the text files are something else.
pub(crate) fn count_labels(source: &DataFolder<'_>) -> usize {
    let labels = LabelFiles::new(source);
    let files: Vec<&IndexedFile> = source.images.images().filter_map(|image| labels.of(image)).collect();
    let is_label = |file: &IndexedFile| -> Option<bool> {
        let text = read_text(&file.path, source.options.read.encoding.as_deref()).ok()?;
        let text = decoded(&text).into_owned();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
        let (rows, _) = super::parse_yolo(line);
        Some(!rows.is_empty())
    };
    // Empty files are images without objects; the first that is not tells.
    match files.iter().find_map(|file| is_label(file)) {
        Some(false) => 0,
        Some(true) | None => files.len(),
    }
}

/// Reads the YAML, `obj.data` or list of names.
///
/// # Errors
/// Several such files that could be meant; one that cannot be read.
pub(super) fn described(
    source: &DataFolder<'_>,
    labels: &LabelFiles<'_>,
    notes: &mut Vec<String>,
) -> Result<Described> {
    let encoding = source.options.read.encoding.as_deref();
    let mut found = match yaml(source, labels, encoding)? {
        Some(described) => described,
        None => darknet(source, labels)?,
    };
    let names_path = found.names_path.take().and_then(|path| match place_of_path(source, &found, &path) {
        Some(Place::List(file)) => Some(file),
        _ => None,
    });
    let lists = name_lists(source, labels, encoding)?;
    if found.names.is_empty() {
        let list = match names_path {
            Some(file) => Some((file, read(&file.path, encoding)?.names)),
            None => nearest(source, labels, &lists)?.map(|(file, names)| (file, names.to_vec())),
        };
        if let Some((file, names)) = list {
            found.names = names;
            if found.file.is_empty() {
                found.file = file.below.clone();
            }
        }
    }
    for (file, names) in &lists {
        if *names != found.names {
            notes.push(format!("{} names other classes ({}) and is not used", file.below, names.join(", ")));
        }
    }
    Ok(found)
}

/// How many folders down a file lies.
fn depth(file: &IndexedFile) -> usize {
    file.below.matches('/').count()
}

/// The `data.yaml` of the folder: of the YAML files that name classes or parts the one nearest the top, and above the images.
fn yaml(source: &DataFolder<'_>, labels: &LabelFiles<'_>, encoding: Option<&str>) -> Result<Option<Described>> {
    let usual = |f: &IndexedFile| ["data", "dataset"].contains(&f.stem().to_lowercase().as_str());
    let mut yamls = Vec::new();
    for file in source.index.files.iter().filter(|f| is_yaml(&f.path)) {
        match read(&file.path, encoding) {
            Ok(yaml) if yaml.names.is_empty() && yaml.train.is_empty() && yaml.val.is_empty() => {}
            Ok(yaml) => yamls.push((file, yaml)),
            // A file of that name is meant; others may be anything.
            Err(e) if usual(file) => return Err(e),
            Err(_) => {}
        }
    }
    // A YAML in a folder beside the images (a checkout of YOLO, say) describes other data, if its paths lead nowhere here.
    yamls.retain(|(file, yaml)| {
        let at = Described { folder: file.folder().to_owned(), root: yaml.root.clone(), ..Described::default() };
        labels.lie_below(file.folder()) || yaml.train.iter().any(|path| place_of_path(source, &at, path).is_some())
    });
    yamls.sort_by_key(|(f, _)| (depth(f), !usual(f)));
    let Some((first, _)) = yamls.first() else { return Ok(None) };
    let rivals: Vec<String> = yamls
        .iter()
        .filter(|(f, _)| depth(f) == depth(first) && usual(f) == usual(first))
        .map(|(f, _)| f.below.clone())
        .collect();
    if rivals.len() > 1 {
        return Err(Error::Undecided {
            path: source.index.root.clone(),
            problem: format!("{} YAML files could describe the data: {}", rivals.len(), rivals.join(", ")),
            hint: "take all but one away, or call the correct one data.yaml".to_owned(),
        });
    }
    let (file, yaml) = yamls.swap_remove(0);
    // `names: obj.names` is the path of a list.
    let is_path = yaml.names.len() == 1 && [".names", ".txt"].iter().any(|e| yaml.names[0].ends_with(e));
    let (names, names_path) = if is_path { (Vec::new(), yaml.names.into_iter().next()) } else { (yaml.names, None) };
    Ok(Some(Described {
        file: file.below.clone(),
        folder: file.folder().to_owned(),
        names,
        names_path,
        count: yaml.count,
        root: yaml.root,
        parts: [(Role::Train, yaml.train), (Role::Val, yaml.val), (Role::Test, yaml.test)]
            .into_iter()
            .filter(|(_, paths)| !paths.is_empty())
            .collect(),
        kpt_shape: yaml.kpt_shape,
    }))
}

/// What Darknet's `obj.data` says: the one whose lists are there.
fn darknet(source: &DataFolder<'_>, labels: &LabelFiles<'_>) -> Result<Described> {
    let mut files: Vec<&IndexedFile> = source.index.with_extension(&["data"]).collect();
    files.sort_by_key(|f| depth(f));
    for file in files {
        let (names_path, parts) = obj_data(&decoded(&read_text(&file.path, None)?));
        let found = Described {
            file: file.below.clone(),
            folder: file.folder().to_owned(),
            names_path,
            parts: parts.into_iter().map(|(role, path)| (role, vec![path])).collect(),
            ..Described::default()
        };
        let leads_here = |(role, paths): &(Role, Vec<String>)| {
            *role == Role::Train && paths.iter().any(|path| place_of_path(source, &found, path).is_some())
        };
        if found.parts.iter().any(leads_here) || (found.parts.is_empty() && labels.lie_below(&found.folder)) {
            return Ok(found);
        }
    }
    Ok(Described::default())
}

/// The files with one class name a line.
fn name_lists<'i>(
    source: &DataFolder<'i>,
    labels: &LabelFiles<'_>,
    encoding: Option<&str>,
) -> Result<Vec<(&'i IndexedFile, Vec<String>)>> {
    let mut lists = Vec::new();
    for file in &source.index.files {
        let name = file.name().to_lowercase();
        if !NAME_FILES.contains(&name.as_str()) && file.extension() != "names" {
            continue;
        }
        match read(&file.path, encoding) {
            Ok(said) if !said.names.is_empty() => lists.push((file, said.names)),
            Ok(_) => {}
            // A list of something else may lie anywhere.
            Err(e) if labels.lie_below(file.folder()) => return Err(e),
            Err(_) => {}
        }
    }
    Ok(lists)
}

/// The list of names that belongs to the labels: among them, or above them; the list that comes with labelImg last.
///
/// # Errors
/// Lists among the labels that say different things.
fn nearest<'l, 'i>(
    source: &DataFolder<'_>,
    labels: &LabelFiles<'_>,
    lists: &'l [(&'i IndexedFile, Vec<String>)],
) -> Result<Option<(&'i IndexedFile, &'l [String])>> {
    let among: Vec<_> = lists.iter().filter(|(file, _)| labels.folders.contains(file.folder())).collect();
    if let Some((first, names)) = among.first()
        && let Some((other, _)) = among.iter().find(|(_, others)| others != names)
    {
        return Err(Error::Undecided {
            path: source.index.root.clone(),
            problem: format!("{} and {} name different classes, or in another order", first.below, other.below),
            hint: "give the classes with --classes (a file, or names in the order of their numbers)".to_owned(),
        });
    }
    let predefined = |f: &IndexedFile| f.stem().eq_ignore_ascii_case("predefined_classes");
    let above = lists.iter().filter(|(file, _)| labels.lie_below(file.folder()));
    let best = among.first().copied().or_else(|| above.min_by_key(|(f, _)| (predefined(f), usize::MAX - depth(f))));
    let best = best.or_else(|| lists.iter().min_by_key(|(f, _)| (predefined(f), depth(f))));
    Ok(best.map(|(file, names)| (*file, &names[..])))
}

/// What a path of `data.yaml` means here.
pub(super) enum Place<'i> {
    /// A folder, below the data folder.
    Folder(String),
    /// A file.
    List(&'i IndexedFile),
}

/// Finds a path that a file of the data set gives: below its `path`, beside it, in the data folder; then without its first folders,
/// as it was on the machine where it was written.
pub(super) fn place_of_path<'i>(source: &DataFolder<'i>, described: &Described, path: &str) -> Option<Place<'i>> {
    let plain = |path: &str| {
        let parts: Vec<&str> = path.split(['/', '\\']).filter(|p| !p.is_empty() && *p != "." && *p != "..").collect();
        crate::open::index::nfc(&parts.join("/"))
    };
    let join = |parts: &[&str]| parts.iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join("/");
    let (path, root) = (plain(path), plain(described.root.as_deref().unwrap_or_default()));
    let folder = described.folder.as_str();
    let mut tried = vec![join(&[folder, &root, &path]), join(&[&root, &path]), join(&[folder, &path]), path.clone()];
    for (at, _) in path.match_indices('/') {
        let tail = &path[at + 1..];
        tried.extend([join(&[folder, tail]), tail.to_owned()]);
    }
    tried.iter().find_map(|below| place_at(source, below))
}

/// The file or folder at a path below the data folder, in any case of letters.
fn place_at<'i>(source: &DataFolder<'i>, below: &str) -> Option<Place<'i>> {
    if below.is_empty() {
        return None;
    }
    let lower = below.to_lowercase();
    let mut folder = None;
    for file in &source.index.files {
        let of_file = file.below.to_lowercase();
        if of_file == lower {
            return Some(Place::List(file));
        }
        if folder.is_none() && of_file.strip_prefix(&lower).is_some_and(|rest| rest.starts_with('/')) {
            // As the folder is really written.
            let parts = below.matches('/').count() + 1;
            folder = Some(file.below.split('/').take(parts).collect::<Vec<_>>().join("/"));
        }
    }
    folder.map(Place::Folder)
}

/// The folder above a file's own.
fn parent(file: &IndexedFile) -> String {
    file.folder().rsplit_once('/').map_or(String::new(), |(parent, _)| parent.to_owned())
}

/// The text files of a folder, and whose labels they are.
pub(super) struct LabelFiles<'i> {
    /// By path without extension, as it is written and in lower case.
    texts: HashMap<String, &'i IndexedFile>,
    lower: HashMap<String, &'i IndexedFile>,
    by_stem: HashMap<String, Vec<&'i IndexedFile>>,
    /// How many images have a name, and how many have it in folders with one parent.
    images: HashMap<String, usize>,
    by_parent: HashMap<(String, String), usize>,
    /// The folders that labels lie in, and those among them that hold no images.
    pub folders: HashSet<String>,
    without_images: HashSet<String>,
}

impl<'i> LabelFiles<'i> {
    pub fn new(source: &DataFolder<'i>) -> Self {
        let (mut texts, mut lower, mut by_stem): (HashMap<_, _>, HashMap<_, _>, HashMap<String, Vec<_>>) =
            Default::default();
        for file in
            source.index.with_extension(&["txt"]).filter(|f| !NAME_FILES.contains(&f.name().to_lowercase().as_str()))
        {
            let path = without_extension(&file.below);
            lower.insert(path.to_lowercase(), file);
            texts.insert(path.to_owned(), file);
            by_stem.entry(file.stem().to_lowercase()).or_default().push(file);
        }
        let mut images: HashMap<String, usize> = HashMap::new();
        let mut image_folders = HashSet::new();
        let mut by_parent: HashMap<(String, String), usize> = HashMap::new();
        for image in source.images.images() {
            *by_parent.entry((parent(image), image.stem().to_lowercase())).or_default() += 1;
            *images.entry(image.stem().to_lowercase()).or_default() += 1;
            image_folders.insert(image.folder());
        }
        let mut found =
            Self { texts, lower, by_stem, images, by_parent, folders: HashSet::new(), without_images: HashSet::new() };
        let folders = source.images.images().filter_map(|image| found.of(image).map(|l| l.folder().to_owned()));
        found.folders = folders.collect::<HashSet<_>>();
        found.without_images = found.folders.iter().filter(|f| !image_folders.contains(f.as_str())).cloned().collect();
        found
    }

    /// Whether labels lie in this folder or below it.
    pub fn lie_below(&self, folder: &str) -> bool {
        folder.is_empty()
            || self
                .folders
                .iter()
                .any(|f| f == folder || f.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    }

    fn at(&self, path: &str) -> Option<&'i IndexedFile> {
        self.texts.get(path).or_else(|| self.lower.get(&path.to_lowercase())).copied()
    }

    /// The labels of an image: where its folder `images` is `labels`, beside it, in a folder beside its own, or the one file of its name.
    pub fn of(&self, image: &IndexedFile) -> Option<&'i IndexedFile> {
        let path = without_extension(&image.below);
        let parts: Vec<&str> = path.split('/').collect();
        let folder = |p: &&str| ["images", "jpegimages", "image", "imgs", "img"].contains(&p.to_lowercase().as_str());
        let folders = &parts[..parts.len() - 1];
        if let Some(at) = folders.iter().rposition(folder) {
            for labels in ["labels", "label", "annotations", "txt"] {
                let mut parts = parts.clone();
                parts[at] = labels;
                if let Some(file) = self.at(&parts.join("/")) {
                    return Some(file);
                }
            }
        }
        if let Some(file) = self.at(path) {
            return Some(file);
        }
        let stem = image.stem().to_lowercase();
        // Masks of the same name beside the images leave open whose labels they are.
        let alone = self.by_parent.get(&(parent(image), stem.clone())) == Some(&1);
        let same: Vec<&&IndexedFile> = self.by_stem.get(&stem)?.iter().collect();
        let beside: Vec<&&&IndexedFile> = same.iter().filter(|f| alone && parent(f) == parent(image)).collect();
        let role = |f: &IndexedFile| Role::of_folder(f.folder());
        match (&same[..], &beside[..]) {
            (_, [file]) => Some(file),
            ([file], [])
                if self.images.get(&stem) == Some(&1) && (role(file).is_none() || role(file) == role(image)) =>
            {
                Some(file)
            }
            _ => None,
        }
    }

    /// Label files that no image has, in folders that hold labels alone. A text that is no label (a `README.txt`) is none of them.
    pub fn orphans(&self) -> Vec<&'i IndexedFile> {
        let is_label = |f: &IndexedFile| {
            read_text(&f.path, None).is_ok_and(|text| {
                let (rows, broken) = super::parse_yolo(&decoded(&text));
                broken.is_empty() && !rows.is_empty()
            })
        };
        let is_orphan = |f: &&&IndexedFile| {
            self.without_images.contains(f.folder())
                && !self.images.contains_key(&f.stem().to_lowercase())
                && is_label(f)
        };
        let mut orphans: Vec<&IndexedFile> = self.texts.values().filter(is_orphan).copied().collect();
        orphans.sort_by(|a, b| a.below.cmp(&b.below));
        orphans
    }
}
