//! From the name of an image as annotation tools write it to the one file that is meant.

use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use super::index::{FileIndex, IndexedFile, extension_of, nfc, starts, without_extension};
use super::kept_folders::KeptFolders;
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

/// One name's file, and how many of the name's first folders it was found without.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    lookup: Lookup,
    dropped: usize,
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

    /// Where the names of one annotation file lie, each with its place and the folder of the annotation file.
    ///
    /// A name is tried as it is; with `/` for `\`; with percent signs decoded and in composed Unicode; then the last parts of its path
    /// alone, the longest first, each also without case and extension; then without the prefix that Label Studio gives to uploads. The
    /// first step that fits a file decides: one file is the answer, several are [`Lookup::Several`]. A name does not lose a folder
    /// where another name of the file keeps one (see [`KeptFolders`]).
    pub fn find_all<'n>(
        &self,
        names: impl Iterator<Item = (&'n str, Place<'n>, Option<&'n Path>)> + Clone,
    ) -> Vec<Lookup> {
        let found: Vec<Step> = names.clone().map(|(name, place, dir)| self.find(name, place, dir)).collect();
        if found.iter().all(|step| step.dropped == 0) {
            return found.into_iter().map(|step| step.lookup).collect();
        }
        let mut kept = KeptFolders::default();
        for ((name, ..), step) in names.clone().zip(&found) {
            if step.lookup != Lookup::Missing {
                kept.add(&path_of(name), step.dropped);
            }
        }
        let allowed = |name: &str, step: &Step| step.dropped == 0 || kept.allow(&path_of(name), step.dropped);
        names
            .zip(found)
            .map(|((name, ..), step)| if allowed(name, &step) { step.lookup } else { Lookup::Missing })
            .collect()
    }

    /// Where one name lies, whatever the others say.
    fn find(&self, file_name: &str, place: Place<'_>, dir: Option<&Path>) -> Step {
        let slashed = file_name.replace('\\', "/");
        let decoded = decoded(&slashed);
        let plain = nfc(trimmed(file_name));
        for (variant, changed) in [(&plain, false), (&nfc(trimmed(&slashed)), true), (&nfc(trimmed(&decoded)), true)] {
            let lookup = self.among(self.index.ending_with(variant), variant, place, changed || plain != file_name);
            if lookup != Lookup::Missing {
                return Step { lookup, dropped: 0 };
            }
        }
        if let Some(path) = self.outside(file_name, dir) {
            return Step { lookup: Lookup::Elsewhere(path), dropped: 0 };
        }
        let decoded = nfc(trimmed(&decoded));
        let unprefixed = without_upload_prefix(&decoded);
        let folders = decoded.matches('/').count();
        let wholes = std::iter::once((decoded.as_str(), 0)).chain(unprefixed.as_deref().map(|name| (name, folders)));
        for (whole, before) in wholes {
            // What follows a dot may be a part of the name: then no image extension is cut off.
            let known = IMAGE_EXTENSIONS.contains(&extension_of(whole).as_str());
            let bare = if known { without_extension(whole) } else { whole };
            for (dropped, start) in starts(whole).enumerate() {
                let (tail, bare) = (&whole[start..], &bare[start..]);
                if bare.is_empty() {
                    continue;
                }
                let mut lookup = self.among(self.index.ending_with(tail), tail, place, true);
                if lookup == Lookup::Missing {
                    lookup = self.among(self.index.images_like(bare), bare, place, true);
                }
                if lookup != Lookup::Missing {
                    return Step { lookup, dropped: before + dropped };
                }
            }
        }
        Step { lookup: Lookup::Missing, dropped: 0 }
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
    let is_image = |path: &str| IMAGE_EXTENSIONS.contains(&extension_of(path).as_str());
    let path = match path.split_once('?') {
        // Storage services sign their URLs: what follows is no name.
        Some((before, _)) if is_image(before) => before,
        Some((before, query)) if path.len() != name.len() || name.starts_with("/data/") => {
            query.split('&').find_map(|pair| pair.strip_prefix("d=")).unwrap_or(before)
        }
        _ => path,
    };
    percent_decode_str(path).decode_utf8().map_or_else(|_| path.to_owned(), |text| text.replace('\\', "/"))
}

/// A name with `/` between folders, absolute where it is a path or URL of another machine's root.
fn path_of(name: &str) -> String {
    let slashed = name.replace('\\', "/");
    // As `C:/parts`.
    let drive = slashed.as_bytes().get(1..3) == Some(b":/");
    let root = if slashed.starts_with('/') || slashed.contains("://") || drive { "/" } else { "" };
    format!("{root}{}", nfc(trimmed(&decoded(&slashed))))
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
        let find = |name: &str| match finder.find(name, ANYWHERE, None).lookup {
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
            ("https://example.org/x/images/b.jpg?d=20240101&sig=ab%2Fc", "images/b.jpg", true),
            ("images/b.jpg?token=7", "images/b.jpg", true),
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
            assert_eq!(finder.find(name, ANYWHERE, None).lookup, Lookup::Missing, "{name}");
        }
    }

    #[test]
    fn several_files_are_no_answer_but_places_decide() {
        let (_dir, index) = folder(&["train/x.jpg", "val/x.jpg", "a/y.jpg", "b/y.jpg", "images/z.jpg", "old/z.jpg"]);
        let finder = ImageFinder::new(&index, false);
        let several = |lookup: Lookup| matches!(lookup, Lookup::Several(files) if files.len() == 2);
        assert!(several(finder.find("C:\\x.jpg", ANYWHERE, None).lookup));
        assert!(several(finder.find("y.jpg", ANYWHERE, None).lookup));
        let below = |name: &str, place| match finder.find(name, place, None).lookup {
            Lookup::Found { below, .. } => below,
            other => panic!("{other:?}"),
        };
        assert_eq!(below("x.jpg", Place { beside: None, role: Some(Role::Val) }), "val/x.jpg");
        assert_eq!(below("y.jpg", Place { beside: Some("b"), role: None }), "b/y.jpg");
        assert_eq!(below("z.jpg", ANYWHERE), "images/z.jpg");
    }

    #[test]
    fn a_missing_image_is_no_image_of_another_folder() {
        let (_dir, index) =
            folder(&["images/camA/1.jpg", "images/camB/1.jpg", "images/camB/2.JPG", "images/camC/1.jpg"]);
        let finder = ImageFinder::new(&index, false);
        let find = |names: &[&'static str]| {
            let names = names.iter().map(|name| (*name, ANYWHERE, None));
            let below = |lookup| match lookup {
                Lookup::Found { below, .. } => below,
                Lookup::Missing => "missing".to_owned(),
                other => panic!("{other:?}"),
            };
            finder.find_all(names).into_iter().map(below).collect::<Vec<_>>()
        };
        assert_eq!(find(&["camA/1.jpg", "camA/2.jpg"]), ["images/camA/1.jpg", "missing"]);
        let absolute = ["/home/me/images/camA/1.jpg", "/home/me/images/camA/2.jpg", "/home/me/images/gone/1.jpg"];
        assert_eq!(find(&absolute), ["images/camA/1.jpg", "missing", "missing"]);
        assert_eq!(find(&["C:\\p\\camA\\1.jpg", "C:\\p\\camA\\2.jpg"]), ["images/camA/1.jpg", "missing"]);
        // The folder says more than case and extension.
        assert_eq!(find(&["CAMB/1.png"]), ["images/camB/1.jpg"]);
        // Without a name that has its folder here, folders are another machine's.
        assert_eq!(find(&["x/2.jpg", "2.jpg"]), ["images/camB/2.JPG"; 2]);
    }
}
