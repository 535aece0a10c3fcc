//! PASCAL VOC: a folder of XML files, one an image.
//!
//! The format: M. Everingham, J. Winn, *The PASCAL Visual Object Classes Challenge 2012 Development Kit*.

mod parse;

use crate::box_reading::BoxReading;
use crate::error::{Error, Result};
use crate::open::data_folder::{DataFolder, Plan};
use crate::open::index::IndexedFile;
use crate::open::labelled::{Labelled, LabelledObject, in_use, plan as plan_labelled, read_each};
use crate::open::sniff::{FileFormat, format_of};
use crate::open_options::{Difficult, Format};
use crate::text_file::encoding_named;
pub use parse::{VocFile, VocObject, parse_voc};

/// The XML files of a folder that are VOC's.
pub(crate) fn files<'i>(source: &DataFolder<'i>) -> Vec<&'i IndexedFile> {
    source.annotation_files(&["xml"]).filter(|f| format_of(&f.path) == FileFormat::Of(Format::Voc)).collect()
}

/// Reads all XML files of a folder and plans its split.
///
/// # Errors
/// A folder without XML files; files that cannot be read; an unknown encoding.
pub(crate) fn plan(source: &DataFolder<'_>, notes: &mut Vec<String>) -> Result<Plan> {
    let mut files: Vec<&IndexedFile> = source.annotation_files(&["xml"]).collect();
    // Of XML files of other kinds those that are none of VOC's are passed over; a folder of XML without any is listed file by file.
    let voc = self::files(source);
    if !voc.is_empty() {
        files.retain(|f| voc.iter().any(|v| v.folder() == f.folder()));
    }
    if files.is_empty() {
        return Err(Error::Folder {
            dir: source.index.root.clone(),
            problem: "no PASCAL VOC annotations".to_owned(),
            looked_for: "XML files, in this folder or below it".to_owned(),
            found: crate::open::index::some_of(&source.index.top_names()),
            hint: "name the folder that holds the XML files and the images (VOCdevkit/VOC2012, for one)",
        });
    }
    let encoding = source.options.read.encoding.as_deref().map(encoding_named).transpose()?;
    let difficult = source.options.read.difficult;
    let (files, findings) = read_each(in_use(files, notes), |_, bytes| {
        let VocFile { filename, size, objects } = parse_voc(bytes, encoding)?;
        let kept = objects.into_iter().filter(|o| !(o.difficult && difficult == Difficult::Drop));
        let objects = kept.map(|o| LabelledObject {
            class: o.name,
            numbers: o.corners,
            reading: None,
            crowd: o.difficult && difficult == Difficult::Ignore,
            line: o.line,
        });
        Ok((filename, Some(size).filter(|(w, h)| *w > 0 && *h > 0), objects.collect()))
    })?;
    plan_labelled(source, Labelled { files, findings, reading: BoxReading::Pixels, what: "XML" }, notes)
}
