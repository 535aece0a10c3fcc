//! Images that a caller names, as one file of annotations lists them: their ids, and which of them are turned.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::data_folder::DataFolder;
use super::fits::fits;
use super::index::{FileIndex, IndexedFile, below_root, nfc, slashed};
use crate::box_reading::BoxReading;
use crate::coco_json::parse;
use crate::error::{Error, Result};
use crate::found::{Found, FoundImage};
use crate::open_options::{Exif, OpenOptions, ReadConfig};
use crate::settle::turns;

/// An image that the annotations list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    /// Its position among the files.
    pub at: usize,
    /// Its id in the annotations.
    pub id: u64,
    /// Its name in the annotations.
    pub file_name: String,
    /// Whether it is turned as its EXIF orientation says, so that boxes count the pixels that the annotations count.
    pub upright: bool,
}

/// What annotations say of some files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The files that are listed, in the order of the files.
    pub images: Vec<ListedImage>,
    /// The name of every image of the annotations, in their order.
    pub names: Vec<String>,
    /// Lines about how the files were found, and how they are turned.
    pub notes: Vec<String>,
}

/// Finds `files` in the COCO annotations `json`. Names are compared and EXIF orientations decided as [`open_dir`](crate::open_dir) does
/// it; `exif` decides where the annotations do not. A file that is not listed is passed over, and faults of boxes do not matter.
///
/// # Errors
/// Annotations that cannot be read; a file that may be several images, or an image that several files fit; files of another size than
/// annotated; orientations that can mean two things. A file that cannot be read is left to whoever reads its pixels.
pub fn listed(json: &Path, files: &[PathBuf], exif: Option<Exif>) -> Result<Listed> {
    let bytes = std::fs::read(json).map_err(|e| Error::file("read", json, e))?;
    let parsed = parse(&bytes, json)?;
    let whole = |path: &Path| std::path::absolute(path).map_err(|e| Error::file("find", path, e));
    let paths: Vec<PathBuf> = files.iter().map(|file| whole(file)).collect::<Result<_>>()?;
    let root = root(&paths, &whole(json)?);
    let below = |path: &Path| slashed(path.strip_prefix(&root).unwrap_or(path));
    let indexed = |path: &PathBuf| IndexedFile { path: path.clone(), below: nfc(&below(path)) };
    let index = FileIndex::of(&root, paths.iter().map(indexed).collect());
    let options = OpenOptions::default().read(ReadConfig::default().exif(exif));
    let source = DataFolder { index: &index, images: &index, options: &options, only: None };
    let json_below = below_root(json, &root);
    let place = source.place_of(json, json_below.as_deref());
    let fits = fits(parsed.images.iter().map(|image| image.file_name.as_str()), &index, place, json.parent());

    let (mut problems, mut claimed, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    let mut files_of: HashMap<usize, Vec<usize>> = HashMap::new();
    for (at, path) in paths.iter().enumerate() {
        match fits.get(&nfc(&below(path))).map_or(&[][..], Vec::as_slice) {
            [] => {}
            [fit] => {
                claimed.push((at, fit.image));
                files_of.entry(fit.image).or_default().push(at);
                if fit.parts == 0 {
                    changed.push(at);
                }
            }
            several => {
                let images = several.iter().map(|fit| &parsed.images[fit.image]);
                let images: Vec<String> = images.map(|image| format!("{} ({})", image.id, image.file_name)).collect();
                problems.push(format!("{} may be image {}", files[at].display(), images.join(" or ")));
            }
        }
    }
    let mut ids = HashSet::new();
    for &(at, image) in &claimed {
        let (of, image) = (&files_of[&image], &parsed.images[image]);
        if let [first, _, ..] = of[..] {
            if first == at {
                let files: Vec<String> = of.iter().map(|&at| files[at].display().to_string()).collect();
                problems.push(format!("image {} ({}) may be {}", image.id, image.file_name, files.join(" or ")));
            }
        } else if !ids.insert(image.id) {
            problems.push(format!("image id {} is that of several images ({}, for one)", image.id, image.file_name));
        }
    }
    refuse(json, &problems, "which is meant cannot be told: leave pictures out, or correct the annotations")?;

    let mut notes = Vec::new();
    if let [at, ..] = changed[..] {
        let spelled = claimed.iter().find(|claim| claim.0 == at).map(|claim| &parsed.images[claim.1].file_name);
        notes.push(format!(
            "{} pictures were found under another path, name or extension than the annotations give ({:?} is {}, for one)",
            changed.len(),
            spelled.map_or("", String::as_str),
            files[at].display()
        ));
    }
    let mut found = Found::new(String::new(), json, &root, BoxReading::Xywh);
    let size_of = |&(at, image): &(usize, usize)| {
        let FoundImage { id, size, .. } = parsed.images[image];
        FoundImage { id, file_name: below(&paths[at]), size, annotation_file: None }
    };
    found.images = claimed.iter().map(size_of).collect();
    found.objects = parsed.objects;
    let (upright, mismatched) = turns(found, &options, &mut notes)?;
    refuse(
        json,
        &mismatched,
        "are these the pictures that were annotated? Boxes count the pixels of the annotated size",
    )?;
    let names: Vec<String> = parsed.images.iter().map(|image| image.file_name.clone()).collect();
    let image = |((at, image), upright): ((usize, usize), bool)| ListedImage {
        at,
        id: parsed.images[image].id,
        file_name: names[image].clone(),
        upright,
    };
    let images = claimed.into_iter().zip(upright).map(image).collect();
    Ok(Listed { images, names, notes })
}

/// The data folder, as far as the paths tell: the folder of the annotations or the one above, where all images lie in that; else the
/// innermost folder that has them all.
fn root(paths: &[PathBuf], json: &Path) -> PathBuf {
    let holds_all = |folder: &&Path| paths.iter().all(|path| path.starts_with(folder));
    let near = json.ancestors().skip(1).take(2).find(holds_all);
    let all = paths.first().and_then(|path| path.ancestors().skip(1).find(holds_all));
    near.or(all).unwrap_or(Path::new("")).to_owned()
}

fn refuse(json: &Path, problems: &[String], hint: &str) -> Result<()> {
    const SHOWN: usize = 5;
    if problems.is_empty() {
        return Ok(());
    }
    let mut problem = problems[..problems.len().min(SHOWN)].join("\n  ");
    if problems.len() > SHOWN {
        problem.push_str(&format!("\n  and {} more", problems.len() - SHOWN));
    }
    let (path, hint) = (json.to_owned(), hint.to_owned());
    Err(Error::Undecided { path, problem: format!("these pictures do not fit it:\n  {problem}"), hint })
}
