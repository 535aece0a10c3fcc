//! From the name of an image as annotation tools write it to the one file that is meant.

use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use super::index::{FileIndex, IndexedFile, extension_of, nfc, without_extension};
use super::roles::Role;
use crate::image_reader::IMAGE_EXTENSIONS;

/// What was found for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// One file; `changed` where it was found under another path or extension than the name says.
    Found { path: PathBuf, below: String, changed: bool },
    /// A file outside the data folder, at the absolute or relative path that the name is.
    Elsewhere(PathBuf),
    /// No file fits.
    Missing,
    /// Several files fit equally well.
    Several(Vec<String>),
}

/// Where a name is looked for first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The folder of the annotation file, below the data folder; `None` where that is elsewhere.
    pub beside: Option<&'a str>,
    /// Which part of the data set the annotations are of, as far as their names tell.
    pub role: Option<Role>,
}

/// The images of a data folder.
#[derive(Debug)]
pub(crate) struct ImageFinder<'a> {
    index: &'a FileIndex,
    /// Whether the caller named the folder: then its usual names count for nothing.
    named: bool,
}

impl<'a> ImageFinder<'a> {
    pub fn new(index: &'a FileIndex, named: bool) -> Self {
        Self { index, named }
    }

    /// Where `file_name` of an annotation file in the folder `dir` lies.
    ///
    /// The name is tried as it is; with `/` for `\`; with percent signs decoded and in composed Unicode; then the last parts of its path
    /// alone; then without case and extension; then without the prefix that Label Studio gives to uploads. The first step that
    /// fits a file decides: one file is the answer, several are [`Lookup::Several`].
    pub fn find(&self, file_name: &str, place: Place<'_>, dir: Option<&Path>) -> Lookup {
        let slashed = file_name.replace('\\', "/");
        let decoded = decoded(&slashed);
        let plain = nfc(trimmed(file_name));
        for (variant, changed) in [(&plain, false), (&nfc(trimmed(&slashed)), true), (&nfc(trimmed(&decoded)), true)] {
            let found = self.among(self.index.ending_with(variant), variant, place, changed || plain != file_name);
            if found != Lookup::Missing {
                return found;
            }
        }
        if let Some(path) = self.outside(file_name, dir) {
            return Lookup::Elsewhere(path);
        }
        let decoded = nfc(trimmed(&decoded));
        let unprefixed = without_upload_prefix(&decoded);
        for whole in std::iter::once(decoded.as_str()).chain(unprefixed.as_deref()) {
            for tail in tails(whole) {
                let found = self.among(self.index.ending_with(tail), tail, place, true);
                if found != Lookup::Missing {
                    return found;
                }
            }
            // What follows a dot may be a part of the name: then no image extension is cut off.
            let known = IMAGE_EXTENSIONS.contains(&extension_of(whole).as_str());
            let bare = if known { without_extension(whole) } else { whole };
            for tail in tails(bare) {
                let found = self.among(self.index.images_like(tail), tail, place, true);
                if found != Lookup::Missing {
                    return found;
                }
            }
        }
        Lookup::Missing
    }

    /// The image with this name without extension that belongs to an annotation file of the same name: beside it, or in the folder
    /// that corresponds, or the only one.
    pub fn of_stem(&self, stem: &str, place: Place<'_>) -> Lookup {
        let like = self.index.images_like(stem);
        // Of `X.jpg` and `x.jpg` the one that is written so.
        let exact: Vec<&IndexedFile> = like.iter().filter(|f| f.stem() == stem).copied().collect();
        let found = self.among(exact, stem, place, false);
        if found == Lookup::Missing { self.among(like, stem, place, false) } else { found }
    }

    /// Of the files that fit, those in the best place.
    fn among(&self, files: Vec<&IndexedFile>, tail: &str, place: Place<'_>, changed: bool) -> Lookup {
        let whole = |f: &IndexedFile| f.below.len() == tail.len() || without_extension(&f.below).len() == tail.len();
        let role = |f: &IndexedFile| Role::of_folder(f.folder());
        let other =
            |f: &IndexedFile| matches!((role(f), place.role), (Some(a), Some(b)) if a != b && b != Role::TrainVal);
        let usual = |f: &IndexedFile| {
            let top = f.folder().split('/').next().unwrap_or_default().to_lowercase();
            ["images", "jpegimages", "img", "imgs"].contains(&top.as_str()) || role(f).is_some()
        };
        // An image of another part is no match: its boxes would be another image's.
        let scopes: [&dyn Fn(&IndexedFile) -> bool; 4] = [
            &|f| place.beside.is_some_and(|folder| f.folder() == folder),
            &|f| self.named && whole(f),
            &|f| !self.named && usual(f) && !other(f),
            &|f| !other(f),
        ];
        for scope in scopes {
            let inside: Vec<&&IndexedFile> = files.iter().filter(|f| scope(f)).collect();
            match inside[..] {
                [] => {}
                [one] => return Lookup::Found { path: one.path.clone(), below: one.below.clone(), changed },
                _ => return Lookup::Several(inside.iter().map(|f| f.below.clone()).collect()),
            }
        }
        Lookup::Missing
    }

    /// The file at the path that the name is, where that leads out of the data folder. Without `dir` there are names alone.
    fn outside(&self, file_name: &str, dir: Option<&Path>) -> Option<PathBuf> {
        let path = Path::new(file_name);
        let tried = dir?.join(path);
        let leaves = path.is_absolute() || path.components().any(|c| c == std::path::Component::ParentDir);
        (leaves && tried.is_file()).then_some(tried)
    }
}

/// Without what stands for "here" or "the top".
pub(crate) fn trimmed(name: &str) -> &str {
    let mut name = name.trim();
    while let Some(rest) = name.strip_prefix("./").or_else(|| name.strip_prefix('/')) {
        name = rest;
    }
    name
}

/// A URL's path, or the path that is its `d` (Label Studio's local files), with percent signs decoded.
pub(super) fn decoded(name: &str) -> String {
    let path = match name.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => name,
    };
    let is_url = path.len() != name.len() || name.starts_with("/data/");
    let path = match path.split_once('?') {
        Some((before, query)) if is_url => query.split('&').find_map(|pair| pair.strip_prefix("d=")).unwrap_or(before),
        _ => path,
    };
    percent_decode_str(path).decode_utf8().map_or_else(|_| path.to_owned(), |text| text.replace('\\', "/"))
}

/// `a/b/c`, `b/c`, `c`. A drive letter is no folder.
fn tails(path: &str) -> impl Iterator<Item = &str> {
    let starts = std::iter::once(0).chain(path.match_indices('/').map(|(i, _)| i + 1));
    starts.map(|i| &path[i..]).filter(|tail| !tail.is_empty())
}

/// `3f2a9c1b-name.jpg` is `name.jpg`: Label Studio puts eight hexadecimal digits before an upload's name.
fn without_upload_prefix(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let (prefix, rest) = name.split_once('-')?;
    let is_prefix = prefix.len() == 8 && prefix.bytes().all(|b| b.is_ascii_hexdigit());
    (is_prefix && !rest.is_empty()).then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> (tempfile::TempDir, FileIndex) {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let index = FileIndex::new(dir.path()).unwrap();
        (dir, index)
    }

    const ANYWHERE: Place<'_> = Place { beside: None, role: None };

    #[test]
    fn names_as_tools_write_them() {
        let (_dir, index) = folder(&["images/a 1.jpg", "images/b.jpg", "other/é.jpg", "images/c.d.jpg"]);
        let finder = ImageFinder::new(&index, false);
        let find = |name: &str| match finder.find(name, ANYWHERE, None) {
            Lookup::Found { below, changed, .. } => (below, changed),
            other => panic!("{name}: {other:?}"),
        };
        for (name, below, changed) in [
            ("b.jpg", "images/b.jpg", false),
            ("images/b.jpg", "images/b.jpg", false),
            ("./images/b.jpg", "images/b.jpg", true),
            ("images\\b.jpg", "images/b.jpg", true),
            ("C:\\Users\\me\\images\\b.jpg", "images/b.jpg", true),
            ("/data/upload/3/b.jpg", "images/b.jpg", true),
            ("/data/local-files/?d=images/b.jpg", "images/b.jpg", true),
            ("https://example.org/x/images/a%201.jpg?v=2", "images/a 1.jpg", true),
            ("a%201.jpg", "images/a 1.jpg", true),
            ("B.JPG", "images/b.jpg", true),
            ("b.png", "images/b.jpg", true),
            ("b", "images/b.jpg", true),
            ("c.d", "images/c.d.jpg", true),
            ("e\u{301}.jpg", "other/é.jpg", true),
            ("0a1b2c3d-b.jpg", "images/b.jpg", true),
        ] {
            assert_eq!(find(name), (below.to_owned(), changed), "{name}");
        }
        for name in ["d.jpg", "", "images/", "c.jpg"] {
            assert_eq!(finder.find(name, ANYWHERE, None), Lookup::Missing, "{name}");
        }
    }

    #[test]
    fn several_files_are_no_answer_but_places_decide() {
        let (_dir, index) = folder(&["train/x.jpg", "val/x.jpg", "a/y.jpg", "b/y.jpg", "images/z.jpg", "old/z.jpg"]);
        let finder = ImageFinder::new(&index, false);
        let several = |lookup: Lookup| matches!(lookup, Lookup::Several(files) if files.len() == 2);
        assert!(several(finder.find("C:\\x.jpg", ANYWHERE, None)));
        assert!(several(finder.find("y.jpg", ANYWHERE, None)));
        let below = |name: &str, place| match finder.find(name, place, None) {
            Lookup::Found { below, .. } => below,
            other => panic!("{other:?}"),
        };
        assert_eq!(below("x.jpg", Place { beside: None, role: Some(Role::Val) }), "val/x.jpg");
        assert_eq!(below("y.jpg", Place { beside: Some("b"), role: None }), "b/y.jpg");
        assert_eq!(below("z.jpg", ANYWHERE), "images/z.jpg");
    }
}
