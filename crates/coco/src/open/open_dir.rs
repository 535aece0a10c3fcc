//! From a folder to its training and held-out splits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::coco;
use super::data_folder::{DataFolder, NAME_THE_FILES, Plan};
use super::hold_out::split;
use super::index::{FileIndex, below_root, some_of};
use super::shared::separate;
use super::sniff::{FileFormat, format_of};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::image_reader::{FORMATS, NOT_DECODED};
use crate::open_options::{Format, OpenOptions};
use crate::settle::{Settled, settle};
#[cfg(feature = "csv")]
use crate::table;
use crate::table_header::{cells, tells_boxes};
use crate::text_file::decode;
#[cfg(feature = "voc")]
use crate::voc;
#[cfg(feature = "yolo")]
use crate::yolo;
use crate::{labelme, via};

/// A training and a held-out split with the same ordered categories.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Splits {
    /// What is trained on.
    pub train: Dataset,
    /// What is held out.
    pub val: Dataset,
    /// Lines about how the folder was read: what was found under another name, which part is left alone, what was renumbered.
    pub notes: Vec<String>,
}

impl Splits {
    /// Splits that come from elsewhere than a folder.
    pub fn new(train: Dataset, val: Dataset) -> Self {
        Self { train, val, notes: Vec::new() }
    }

    /// Checks that each split has a box to train on, or to score.
    ///
    /// # Errors
    /// A split without one; the message says why, and names the flag that helps where all its objects are crowds.
    pub fn require_targets(&self) -> Result<()> {
        for (name, set) in [("training", &self.train), ("held-out", &self.val)] {
            if (0..set.len()).any(|i| !set.ground_truth(i).boxes.is_empty()) {
                continue;
            }
            let objects = set.all_annotations().len();
            let crowds = set.all_annotations().iter().filter(|a| a.iscrowd).count();
            let (why, hint) = if objects > 0 && crowds == objects {
                let voc = set.has_annotation_files();
                (
                    format!(
                        "all of its {objects} objects are {}",
                        if voc { "marked difficult" } else { "crowds (iscrowd 1)" }
                    ),
                    if voc {
                        "use --difficult keep to take them as objects like others"
                    } else {
                        "use --crowds keep to take them as objects like others (CVAT marks every mask as a crowd)"
                    },
                )
            } else if objects > 0 {
                (
                    format!("none of its {objects} boxes has an area inside its image"),
                    "look at the list of `docent dataset check`",
                )
            } else {
                (
                    "its images have no objects at all".to_owned(),
                    "is this the correct folder, and do the annotations belong to it?",
                )
            };
            return Err(Error::Undecided {
                path: set.source().to_owned(),
                problem: format!("the {name} split has no box to train on or to score: {why}"),
                hint: hint.to_owned(),
            });
        }
        Ok(())
    }
}

/// Opens a data folder: COCO's JSON, PASCAL VOC's XML, YOLO's text, labelme's or VIA's JSON, or CSV, in any of the layouts that tools
/// write. docs/data.md lists them.
///
/// The split is the author's: lists and folders that are there are used. Without them a share of the images is held out by a hash of the
/// file names (see [`split_by_name`](crate::split_by_name)). The headers of all image files are read, so that sizes, EXIF orientations and
/// box readings are settled.
///
/// `dir` may be one annotation file that names many images: then no other is read.
///
/// # Errors
/// Annotations or images that are missing or ambiguous (the message lists what was looked for and what was found); numbers or
/// orientations that can mean two things; splits with different categories; faults whose policy is `error`.
pub fn open_dir(dir: &Path, options: &OpenOptions) -> Result<Splits> {
    let file = is_annotation_file(dir).then_some(dir);
    let index = match file {
        Some(file) => FileIndex::new(folder_of(file, options.images.is_some()))?,
        None => FileIndex::new(dir)?,
    };
    let only = file.and_then(|file| index.at(&below_root(file, &index.root)?));
    let images = options.images.as_deref().map(FileIndex::new).transpose()?;
    let source = DataFolder { index: &index, images: images.as_ref().unwrap_or(&index), only, options };
    let mut notes = Vec::new();
    let plan = match format(&source, &mut notes)? {
        Format::Coco => coco::plan(&source, &mut notes)?,
        #[cfg(feature = "voc")]
        Format::Voc => voc::plan(&source, &mut notes)?,
        #[cfg(feature = "yolo")]
        Format::Yolo => yolo::plan(&source, &mut notes)?,
        Format::Labelme => labelme::plan(&source, &mut notes)?,
        Format::Via => via::plan(&source, &mut notes)?,
        #[cfg(feature = "csv")]
        Format::Csv => table::plan(&source, &mut notes)?,
        #[cfg(not(all(feature = "voc", feature = "yolo", feature = "csv")))]
        format => return Err(without_reader(format)),
    };
    let (train, val, fingerprints, by_author) = match plan {
        Plan::Two { train, val } => {
            let Settled { datasets, fingerprints, notes: settled } = settle(vec![*train, *val], options)?;
            notes.extend(settled);
            let [train, val] =
                <[Dataset; 2]>::try_from(datasets).map_err(|_| Error::Config("a split is lost".to_owned()))?;
            (train, val, fingerprints, true)
        }
        Plan::One { whole, sides, how } => {
            let Settled { datasets, fingerprints, notes: settled } = settle(vec![*whole], options)?;
            notes.extend(settled);
            let [whole] =
                <[Dataset; 1]>::try_from(datasets).map_err(|_| Error::Config("a split is lost".to_owned()))?;
            let (train, val) = split(&whole, how, |i| sides.get(&whole.image(i).id).copied());
            (train, val, fingerprints, how.is_empty())
        }
    };
    let train = separate(train, &val, &fingerprints, by_author, &mut notes)?;
    for (name, set) in [("training", &train), ("held-out", &val)] {
        if set.is_empty() {
            return Err(Error::Config(format!("the {name} split of {} holds no image", dir.display())));
        }
    }
    Ok(Splits { train, val, notes })
}

/// Whether a path is a file that names many images, which is opened alone.
fn is_annotation_file(path: &Path) -> bool {
    path.is_file()
        && matches!(format_of(path), FileFormat::Of(Format::Coco | Format::Via | Format::Csv) | FileFormat::NotRead(_))
}

/// The data folder of an annotation file: its own, or the one above where the file lies in a folder of annotations without images.
fn folder_of(file: &Path, with_images: bool) -> &Path {
    let own = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_of_annotations =
        own.file_name().is_some_and(|name| name.to_string_lossy().to_lowercase().starts_with("annot"));
    let holds_images = || FileIndex::new(own).is_ok_and(|index| index.images().next().is_some());
    let above = own.parent().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    above.filter(|_| is_of_annotations && !with_images && !holds_images()).unwrap_or(own)
}

/// Opens one annotation file of COCO's as one data set with its images, unsplit: to score a detector on it.
///
/// # Errors
/// As [`open_dir`]'s.
pub fn open_annotations(json: &Path, options: &OpenOptions) -> Result<Dataset> {
    let beside = json.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let index = FileIndex::new(options.images.as_deref().unwrap_or(beside))?;
    let source = DataFolder { index: &index, images: &index, only: None, options };
    let mut notes = Vec::new();
    let part = coco::read(&source, json, None, &mut notes)?;
    let mut settled = settle(vec![part.found], options)?;
    settled.datasets.pop().ok_or_else(|| Error::Config(format!("{} lists no image", json.display())))
}

/// The one COCO file of a folder, where that is all of its annotations; `None` where they are of another format, or the author's split.
///
/// # Errors
/// As [`open_dir`]'s, as far as files are concerned.
pub fn annotation_file(dir: &Path, options: &OpenOptions) -> Result<Option<PathBuf>> {
    if let Some(json) = options.train_annotations.as_ref().filter(|_| options.val_annotations.is_none()) {
        return Ok(Some(json.clone()).filter(|json| format_of(json) == FileFormat::Of(Format::Coco)));
    }
    let index = FileIndex::new(dir)?;
    let source = DataFolder { index: &index, images: &index, only: None, options };
    if format(&source, &mut Vec::new())? != Format::Coco {
        return Ok(None);
    }
    match coco::files(&source)[..] {
        [file] => Ok(Some(file.path.clone())),
        _ => Ok(None),
    }
}

/// The error for a format whose reader is not part of this build.
#[cfg(not(all(feature = "voc", feature = "yolo", feature = "csv")))]
fn without_reader(format: Format) -> Error {
    let feature = match format {
        Format::Voc => "voc",
        Format::Yolo => "yolo",
        _ => "csv",
    };
    let name = format.name();
    Error::Config(format!("this build has no reader of {name}: build docent-coco with its feature `{feature}`"))
}

/// The format of a folder's annotations: the caller's, or the first that is found.
fn format(source: &DataFolder<'_>, notes: &mut Vec<String>) -> Result<Format> {
    if let Some(format) = source.options.read.format {
        return Ok(format);
    }
    let given = [&source.options.train_annotations, &source.options.val_annotations];
    for path in given.into_iter().flatten().filter(|path| path.is_file()) {
        match format_of(path) {
            FileFormat::Of(format) => return Ok(format),
            FileFormat::NotRead(name) => return Err(not_read(source, &[(name, path.display().to_string())])),
            // A list of images says nothing about the format.
            FileFormat::Other if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt")) => {}
            // Whoever reads it says what is wrong with it.
            FileFormat::Other => return Ok(Format::Coco),
        }
    }
    // Images that each format tells of, as far as a glance shows.
    let mut covered: BTreeMap<Format, usize> = BTreeMap::new();
    let mut others = Vec::new();
    for file in source.annotation_files(&["json", "xml", "csv"]) {
        match format_of(&file.path) {
            FileFormat::Of(format) => *covered.entry(format).or_default() += images_of(format, &file.path),
            FileFormat::NotRead(name) => others.push((name, file.below.clone())),
            FileFormat::Other => {}
        }
    }
    #[cfg(feature = "yolo")]
    if source.only.is_none() {
        let labels = yolo::count_labels(source);
        if labels > 0 {
            covered.insert(Format::Yolo, labels);
        }
    }
    // The first of those that tell of half as many images as the one that tells of most: a stray file hides no data set.
    let most = covered.values().max().copied().unwrap_or(0);
    let Some(format) = covered.iter().find(|(_, count)| 2 * **count >= most).map(|(format, _)| *format) else {
        return Err(if others.is_empty() { nothing(source) } else { not_read(source, &others) });
    };
    let rest: Vec<&str> = covered.keys().filter(|f| **f != format).map(|f| f.name()).collect();
    if !rest.is_empty() {
        notes.push(format!(
            "the annotations are read from {}; {} lies there too and is not read (--format chooses)",
            format.name(),
            rest.join(" and ")
        ));
    }
    Ok(format)
}

/// How many images an annotation file tells of, for a comparison of formats.
fn images_of(format: Format, path: &Path) -> usize {
    /// A bigger file is the data set.
    const MOST_BYTES: u64 = 1 << 26;
    let word: &[u8] = match format {
        Format::Voc | Format::Labelme | Format::Yolo => return 1,
        Format::Coco => b"\"file_name\"",
        Format::Via => b"\"filename\"",
        Format::Csv => b"\n",
    };
    if std::fs::metadata(path).is_ok_and(|m| m.len() > MOST_BYTES) {
        return usize::MAX / 16;
    }
    let bytes = std::fs::read(path).unwrap_or_default();
    let header = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    // A table that may be something else hides no data set.
    if format == Format::Csv && tells_boxes(&cells(&decode(header, None))) != Some(true) {
        return 1;
    }
    // A file that is cut, or lists none, is read all the same, and says so.
    bytes.windows(word.len()).filter(|w| *w == word).count().max(1)
}

fn not_read(source: &DataFolder<'_>, files: &[(&str, String)]) -> Error {
    let (name, file) = &files[0];
    Error::Folder {
        dir: source.index.root.clone(),
        problem: format!("this looks like {name}, which is not read ({file})"),
        looked_for: looked_for(),
        found: some_of(&files.iter().map(|(_, file)| file.clone()).collect::<Vec<_>>()),
        hint: "export the annotations in one of these formats",
    }
}

/// The formats that [`format()`] tries.
fn looked_for() -> String {
    let yolo = if cfg!(feature = "yolo") { "YOLO text files (labels/*.txt), " } else { "" };
    format!(
        "COCO JSON, PASCAL VOC XML, {yolo}labelme JSON, VIA JSON, or CSV with the columns filename, class, xmin, ymin, xmax, ymax"
    )
}

fn nothing(source: &DataFolder<'_>) -> Error {
    #[cfg(feature = "yolo")]
    if let Some((name, file)) = yolo::other_text(source) {
        return not_read(source, &[(name, file)]);
    }
    let undecoded: Vec<String> = source.images.with_extension(&NOT_DECODED).map(|file| file.below.clone()).collect();
    if source.images.images().next().is_none() && !undecoded.is_empty() {
        return Error::Folder {
            dir: source.images.root.clone(),
            problem: format!("no image of a format that is read, and {} of formats that are not", undecoded.len()),
            looked_for: format!("{FORMATS} images"),
            found: some_of(&undecoded),
            hint: "convert the images to JPEG or PNG, under the same names",
        };
    }
    let broken: Vec<String> = source.index.with_extension(&["json", "xml"]).map(|f| f.below.clone()).collect();
    let problem = match broken.len() {
        0 => "no annotations".to_owned(),
        n => format!("no annotations that are known among {n} JSON and XML files ({})", some_of(&broken)),
    };
    Error::Folder {
        dir: source.index.root.clone(),
        problem,
        looked_for: looked_for(),
        found: some_of(&source.index.top_names()),
        hint: NAME_THE_FILES,
    }
}
