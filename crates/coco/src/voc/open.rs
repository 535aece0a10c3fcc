//! From a PASCAL VOC folder to its training and validation splits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::stem;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::open::{OpenOptions, Split, Splits, WAY_OUT, hold_out, list, place, split};

/// Where the XML files may lie, below the data folder or in it.
const FOLDERS: [&str; 4] = ["Annotations", "annotations", "voc_annotations", ""];

/// Opens a PASCAL VOC folder, whatever else lies in it.
///
/// XML files lie in `Annotations/` (`annotations/`, `voc_annotations/`, or the folder itself), images as [`open_dir`](crate::open_dir)
/// says. `ImageSets/Main/train.txt` and `val.txt` name the images of the splits, one at the start of each line. Where both are
/// absent, all images are split by a hash of their ids ([`split_by_id`](crate::split_by_id)). Both splits have the categories of all
/// files read.
///
/// # Errors
/// As [`open_dir`](crate::open_dir); a list without the other, an image that both name, a name without its XML file.
pub fn open_voc(dir: &Path, options: &OpenOptions) -> Result<Splits> {
    let folder = xml_folder(dir).ok_or_else(|| Error::Folder {
        dir: dir.to_owned(),
        problem: "no PASCAL VOC annotations".to_owned(),
        looked_for: "XML files in Annotations/, annotations/, voc_annotations/ and the folder itself".to_owned(),
        found: if dir.is_dir() { "none there" } else { "no such folder" }.to_owned(),
        way_out: "name the folder that holds Annotations/ and JPEGImages/ (VOCdevkit/VOC2012, for one)",
    })?;
    open(dir, &folder, options)
}

/// The folder below `dir` with XML files in it.
pub(crate) fn xml_folder(dir: &Path) -> Option<PathBuf> {
    FOLDERS.iter().map(|name| dir.join(name)).find(|folder| xml_files(folder).is_ok_and(|files| !files.is_empty()))
}

pub(crate) fn open(dir: &Path, folder: &Path, options: &OpenOptions) -> Result<Splits> {
    let lists = ["train", "val"].map(|name| dir.join("ImageSets/Main").join(format!("{name}.txt")));
    let (train, val) = match [lists[0].is_file(), lists[1].is_file()] {
        [true, true] => (names_in(&lists[0])?, names_in(&lists[1])?),
        [false, false] => {
            let whole = read(dir, folder, xml_files(folder).map_err(|e| Error::file("list", folder, e))?, options)?;
            return hold_out(&whole, options.val_fraction);
        }
        _ => {
            return Err(Error::Folder {
                dir: dir.to_owned(),
                problem: "one split of two".to_owned(),
                looked_for: "ImageSets/Main/train.txt and val.txt, or neither (a share is held out then)".to_owned(),
                found: format!("{} alone", if lists[0].is_file() { "train.txt" } else { "val.txt" }),
                way_out: WAY_OUT,
            });
        }
    };
    if let Some(both) = train.intersection(&val).next() {
        return Err(Error::Config(format!(
            "{} and {} both name {both} ({} images in all): what is trained on cannot be held out; take it out of one list",
            lists[0].display(),
            lists[1].display(),
            train.intersection(&val).count()
        )));
    }
    let files = train.union(&val).map(|name| folder.join(format!("{name}.xml"))).collect();
    let whole = read(dir, folder, files, options)?;
    Ok(split(&whole, "", |i| val.contains(&stem(whole.annotation_file(i)))))
}

fn read(dir: &Path, folder: &Path, xml: Vec<PathBuf>, options: &OpenOptions) -> Result<Dataset> {
    let dataset = Dataset::load_voc(folder, xml, dir, &options.voc, &options.checks)?;
    place(dir, dataset, Split::Both, options)
}

/// The XML files of a folder, in the order of names.
fn xml_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let is_xml = |path: &PathBuf| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("xml"));
    Ok(list(folder)?.into_iter().filter(is_xml).collect())
}

/// The names at the start of a list's lines.
fn names_in(list: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(list).map_err(|e| Error::file("read", list, e))?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}
