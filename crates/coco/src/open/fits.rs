//! Files against the names that annotations have, where a file may be none of theirs and an image may have no file.
//!
//! The names are looked up as readers of a data folder look them up ([`ImageFinder`]).

use std::collections::HashMap;
use std::path::Path;

use super::find_image::{ImageFinder, Lookup, Place, decoded};
use super::index::{FileIndex, below_root, nfc};

/// An annotated image that a file fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fit {
    /// The image's position.
    pub image: usize,
    /// How many parts of both names agree, from the end; 0 where the file was found under another path, name or extension.
    pub parts: usize,
}

/// For each file of `index` that fits one of `names`, by its path below the root: the images that it fits best. Of several that it
/// fits equally well, none is meant more than another. `dir` is the folder of the annotations, where they may name files outside.
pub(crate) fn fits<'n>(
    names: impl IntoIterator<Item = &'n str>,
    index: &FileIndex,
    place: Place<'_>,
    dir: Option<&Path>,
) -> HashMap<String, Vec<Fit>> {
    let names: Vec<&str> = names.into_iter().collect();
    let lookups = ImageFinder::new(index, false).find_all(names.iter().map(|name| (*name, place, dir)));
    let mut fits: HashMap<String, Vec<Fit>> = HashMap::new();
    for (image, (name, lookup)) in names.into_iter().zip(lookups).enumerate() {
        let files = match lookup {
            Lookup::Found { below, .. } => vec![below],
            Lookup::Several(files) => files,
            Lookup::Elsewhere(path) => below_root(&path, &index.root).into_iter().collect(),
            Lookup::Missing => Vec::new(),
        };
        for below in files {
            let Some(file) = index.at(&below) else { continue };
            let parts = common_parts(name, &file.path.to_string_lossy());
            fits.entry(below).or_default().push(Fit { image, parts });
        }
    }
    for fits in fits.values_mut() {
        let most = fits.iter().map(|fit| fit.parts).max();
        fits.retain(|fit| Some(fit.parts) == most);
    }
    fits
}

/// How many parts the name in the annotations and a file's have in common, from the end, if one is the end of the other: 2 for
/// `a/b.jpg` and `x/a/b.jpg`, 0 for `a/b.jpg` and `c/b.jpg`.
fn common_parts(name: &str, file: &str) -> usize {
    let file = nfc(file);
    let common = |name: &str| {
        let name = nfc(name);
        let same = parts(&name).zip(parts(&file)).all(|(a, b)| a == b);
        if same { parts(&name).count().min(parts(&file).count()) } else { 0 }
    };
    match common(name) {
        0 => common(&decoded(&name.replace('\\', "/"))),
        parts => parts,
    }
}

/// A name's parts from the last to the first.
pub(crate) fn parts(name: &str) -> impl Iterator<Item = &str> {
    name.rsplit(['/', '\\']).filter(|part| !matches!(*part, "" | "."))
}

#[cfg(test)]
mod tests {
    use super::super::index::IndexedFile;
    use super::*;

    #[test]
    fn names_have_parts_in_common_as_far_as_both_have_folders() {
        for (name, file, common) in [
            ("a.jpg", "a.jpg", 1),
            ("a.jpg", "images/a.jpg", 1),
            ("images\\a.jpg", "/data/images/a.jpg", 2),
            ("./a.jpg", "images//a.jpg", 1),
            ("images/e%CC%81%201.jpg", "images/é 1.jpg", 2),
            ("a.jpg", "b.jpg", 0),
            ("train/a.jpg", "val/a.jpg", 0),
            ("a.jpg", "a.png", 0),
            ("xa.jpg", "a.jpg", 0),
        ] {
            assert_eq!(common_parts(name, file), common, "{name} {file}");
        }
    }

    #[test]
    fn a_file_is_the_image_of_the_longest_name() {
        let names = ["one/a.jpg", "two/a.jpg", "a.jpg", "b.jpg", "b.jpg", "C:\\x\\C%201.PNG", "c"];
        let found = |files: &[&str]| {
            let files = files.iter().map(|f| IndexedFile { path: f.into(), below: (*f).to_owned() }).collect();
            let place = Place { beside: None, role: None };
            let mut found: Vec<(String, Vec<usize>)> = fits(names, &FileIndex::of("".as_ref(), files), place, None)
                .into_iter()
                .map(|(file, fits)| (file, fits.iter().map(|fit| fit.image).collect()))
                .collect();
            found.sort();
            found
        };
        let file = |name: &str, images: &[usize]| (name.to_owned(), images.to_vec());
        assert_eq!(found(&["x/two/a.jpg", "x/other/a.jpg"]), [file("x/other/a.jpg", &[2]), file("x/two/a.jpg", &[1])]);
        assert_eq!(found(&["a.jpg"]), [file("a.jpg", &[0, 1, 2])]);
        assert_eq!(found(&["x/b.jpg", "y/b.jpg"]), [file("x/b.jpg", &[3, 4]), file("y/b.jpg", &[3, 4])]);
        assert_eq!(found(&["here/c 1.jpg", "d.jpg"]), [file("here/c 1.jpg", &[5])]);
    }
}
