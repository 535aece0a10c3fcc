//! The files of a data folder: one walk, and the ways to find a file in it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

use crate::error::{Error, Result};
use crate::image_reader::IMAGE_EXTENSIONS;

/// A folder with more files than this is not taken for a data set.
const MAX_FILES: usize = 20_000_000;

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct IndexedFile {
    /// Where it lies: the data folder's path and what follows.
    pub path: PathBuf,
    /// Its path below the data folder in Unicode's composed form (NFC), with `/` between folders.
    pub below: String,
}

impl IndexedFile {
    /// The file's own name.
    pub fn name(&self) -> &str {
        self.below.rsplit('/').next().unwrap_or_default()
    }

    /// The folder's path below the data folder; empty for the data folder itself.
    pub fn folder(&self) -> &str {
        self.below.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The name without its extension.
    pub fn stem(&self) -> &str {
        stem_of(self.name())
    }

    /// The extension in lower case.
    pub fn extension(&self) -> String {
        extension_of(self.name())
    }

    pub fn is_image(&self) -> bool {
        IMAGE_EXTENSIONS.contains(&self.extension().as_str())
    }
}

/// All files of a folder and of the folders in it, in the order of their paths. Names that start with a dot are passed over.
#[derive(Debug)]
pub(crate) struct FileIndex {
    pub root: PathBuf,
    pub files: Vec<IndexedFile>,
    /// Positions by the file's name.
    by_name: HashMap<String, Vec<u32>>,
    /// Positions of images by the name without extension, in lower case.
    by_stem: HashMap<String, Vec<u32>>,
}

impl FileIndex {
    /// Walks a folder. Links to folders are followed, each folder once.
    ///
    /// # Errors
    /// A folder that is not there, is no folder, or cannot be listed.
    pub fn new(root: &Path) -> Result<Self> {
        if !root.is_dir() {
            return Err(Error::Config(if root.exists() {
                format!("{} is a file; name the folder that holds the data", root.display())
            } else {
                format!("{}: no such folder; is the path spelled correctly?", root.display())
            }));
        }
        let mut files = Vec::new();
        let mut seen = HashSet::new();
        walk(root, "", &mut files, &mut seen)?;
        Ok(Self::of(root, files))
    }

    /// An index of these files, whatever else lies in `root`.
    pub fn of(root: &Path, mut files: Vec<IndexedFile>) -> Self {
        files.sort_by(|a, b| a.below.cmp(&b.below));
        let (mut by_name, mut by_stem): (HashMap<String, Vec<u32>>, HashMap<String, Vec<u32>>) = Default::default();
        for (i, file) in (0u32..).zip(&files) {
            by_name.entry(file.name().to_owned()).or_default().push(i);
            if file.is_image() {
                by_stem.entry(file.stem().to_lowercase()).or_default().push(i);
            }
        }
        Self { root: root.to_owned(), files, by_name, by_stem }
    }

    /// The files with one of these extensions (lower case, without dot).
    pub fn with_extension<'a>(&'a self, extensions: &'a [&str]) -> impl Iterator<Item = &'a IndexedFile> {
        self.files.iter().filter(|f| extensions.contains(&f.extension().as_str()))
    }

    /// The images.
    pub fn images(&self) -> impl Iterator<Item = &IndexedFile> {
        self.files.iter().filter(|f| f.is_image())
    }

    /// The files whose path ends with `tail` (whole folders; NFC).
    pub fn ending_with(&self, tail: &str) -> Vec<&IndexedFile> {
        let name = tail.rsplit('/').next().unwrap_or_default();
        let fits = |f: &&IndexedFile| is_tail(&f.below, tail);
        self.positions(&self.by_name, name).filter(fits).collect()
    }

    /// The images whose path ends with `tail`, whatever the case of letters and the extension. `tail` has no extension.
    pub fn images_like(&self, tail: &str) -> Vec<&IndexedFile> {
        let tail = tail.to_lowercase();
        let name = tail.rsplit('/').next().unwrap_or_default();
        let fits = |f: &&IndexedFile| is_tail(&without_extension(&f.below).to_lowercase(), &tail);
        self.positions(&self.by_stem, name).filter(fits).collect()
    }

    fn positions<'a>(&'a self, map: &'a HashMap<String, Vec<u32>>, key: &str) -> impl Iterator<Item = &'a IndexedFile> {
        map.get(key).into_iter().flatten().map(|&i| &self.files[i as usize])
    }

    /// The file at this path below the data folder.
    pub fn at(&self, below: &str) -> Option<&IndexedFile> {
        let found = self.files.binary_search_by(|f| f.below.as_str().cmp(below)).ok()?;
        Some(&self.files[found])
    }

    /// The names in the data folder itself, files and folders, for messages.
    pub fn top_names(&self) -> Vec<String> {
        let names: BTreeSet<String> =
            self.files.iter().map(|f| f.below.split('/').next().unwrap_or_default().to_owned()).collect();
        names.into_iter().collect()
    }
}

/// The first names of a list and how many more there are, for messages.
pub(crate) fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 20;
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let mut text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

/// A path below a folder as an index spells it, however both are written; `None` for a path that lies elsewhere.
pub(crate) fn below_root(path: &Path, root: &Path) -> Option<String> {
    let (path, root) = (path.canonicalize().ok()?, root.canonicalize().ok()?);
    Some(nfc(&slashed(path.strip_prefix(root).ok()?)))
}

/// A path with `/` between folders, as COCO's files have it.
pub(crate) fn slashed(path: &Path) -> String {
    path.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Whether `path` is `tail`, or ends with it after a `/`.
pub(crate) fn is_tail(path: &str, tail: &str) -> bool {
    path.strip_suffix(tail).is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

/// Where each part of a path starts.
pub(crate) fn starts(path: &str) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(path.match_indices('/').map(|(i, _)| i + 1))
}

/// A name or path in Unicode's composed form.
pub(crate) fn nfc(text: &str) -> String {
    text.nfc().collect()
}

/// A file name without its extension. A name that only starts with a dot, or ends with one, has none.
pub(crate) fn stem_of(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && !extension.is_empty() => stem,
        _ => name,
    }
}

/// A file name's extension in lower case, or nothing.
pub(crate) fn extension_of(name: &str) -> String {
    name[stem_of(name).len()..].trim_start_matches('.').to_lowercase()
}

/// A path whose last name lacks its extension.
pub(crate) fn without_extension(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or_default();
    &path[..path.len() - name.len() + stem_of(name).len()]
}

fn walk(dir: &Path, below: &str, files: &mut Vec<IndexedFile>, seen: &mut HashSet<PathBuf>) -> Result<()> {
    let fail = |e| Error::file("open the data folder", dir, e);
    // A link to a folder could lead back here.
    if !seen.insert(dir.canonicalize().map_err(fail)?) {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let kind = entry.file_type().map_err(fail)?;
        let path = entry.path();
        let name = nfc(&name);
        let below = if below.is_empty() { name } else { format!("{below}/{name}") };
        if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
            walk(&path, &below, files, seen)?;
        } else {
            files.push(IndexedFile { path, below });
        }
        if files.len() > MAX_FILES {
            return Err(Error::Config(format!(
                "{} holds more than {MAX_FILES} files; name the folder of the data set itself",
                dir.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_their_extensions() {
        for (name, stem, extension) in [
            ("a.jpg", "a", "jpg"),
            ("cam 1", "cam 1", ""),
            ("a.b.PNG", "a.b", "png"),
            (".hidden", ".hidden", ""),
            ("end.", "end.", ""),
        ] {
            assert_eq!((stem_of(name), extension_of(name).as_str()), (stem, extension), "{name}");
        }
        assert_eq!(without_extension("a.b/c.jpg"), "a.b/c");
        assert!(is_tail("a/b/c.jpg", "b/c.jpg") && is_tail("c.jpg", "c.jpg") && !is_tail("ab/c.jpg", "b/c.jpg"));
    }

    #[test]
    fn hidden_names_and_loops_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/x.jpg", "a/.hidden.jpg", ".dot/y.jpg", "b/X.PNG"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/loop")).unwrap();
        let index = FileIndex::new(dir.path()).unwrap();
        let all: Vec<_> = index.files.iter().map(|f| f.below.as_str()).collect();
        assert_eq!(all, ["a/x.jpg", "b/X.PNG"]);
        assert_eq!(index.images_like("x").len(), 2);
        assert_eq!(index.ending_with("x.jpg").len(), 1);
        assert!(index.at("b/X.PNG").is_some() && index.at("b").is_none());
        assert!(FileIndex::new(&dir.path().join("no")).is_err());
    }
}
