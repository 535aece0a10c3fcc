//! What the files of a YOLO folder say of it: the names of its classes, and where its splits lie.

use super::classes::{is_meant, is_yaml, obj_data, read};
use super::label_files::{LabelFiles, NAME_FILES};
use crate::error::{Error, Result};
use crate::open::data_folder::DataFolder;
use crate::open::index::IndexedFile;
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
    let (mut yamls, mut unreadable) = (Vec::new(), None);
    for file in source.index.files.iter().filter(|f| is_yaml(&f.path)) {
        match read(&file.path, encoding) {
            Ok(yaml) if yaml.names.is_empty() && yaml.train.is_empty() && yaml.val.is_empty() => {}
            Ok(yaml) => yamls.push((file, yaml)),
            // A file of that name is meant; others may be anything.
            Err(e) if usual(file) => return Err(e),
            Err(e) => {
                let is_above = labels.lie_below(file.folder());
                if is_above && read_text(&file.path, encoding).is_ok_and(|text| is_meant(&decoded(&text))) {
                    unreadable.get_or_insert(e);
                }
            }
        }
    }
    // A YAML in a folder beside the images (a checkout of YOLO, say) describes other data, if its paths lead nowhere here.
    yamls.retain(|(file, yaml)| {
        let at = Described { folder: file.folder().to_owned(), root: yaml.root.clone(), ..Described::default() };
        labels.lie_below(file.folder()) || yaml.train.iter().any(|path| place_of_path(source, &at, path).is_some())
    });
    yamls.sort_by_key(|(f, _)| (depth(f), !usual(f)));
    // Where no other file tells the author's split and names, they must not be lost without a word.
    let Some((first, _)) = yamls.first() else { return unreadable.map_or(Ok(None), Err) };
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
