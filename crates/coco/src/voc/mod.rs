//! PASCAL VOC: a folder of XML files, one an image, read into the same [`Dataset`] as COCO's JSON.
//!
//! The format: M. Everingham, J. Winn, *The PASCAL Visual Object Classes Challenge 2012 Development Kit*.

mod open;
mod parse;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checks::{Finding, FindingKind, checks, locate};
use crate::dataset::{Dataset, Parts};
use crate::error::{Error, Result};
use crate::ids::ids_of_names;
use crate::policy::{CheckConfig, Policy};
use crate::types::{Annotation, Category, Image};
pub use open::open_voc;
pub(crate) use open::{open, xml_folder};
pub use parse::{VocFile, VocObject, parse_voc};

/// What the four numbers of a `<bndbox>` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VocBoxes {
    /// The development kit's own: the first and the last pixel that belong to the object, counted from 1. Ours is then
    /// `x1 = xmin - 1`, `x2 = xmax`, so that a box of `1..=width` covers the whole image.
    #[default]
    Pixels,
    /// Edges counted from 0, as many annotation tools write them: taken as they stand, `x1 = xmin`, `x2 = xmax`.
    Edges,
}

/// What becomes of objects marked `<difficult>1</difficult>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difficult {
    /// They become crowds: never a training target, and detections of them are neither right nor wrong, as in VOC's own scoring.
    /// (Unlike VOC, several detections of one may be passed over, and overlap is measured over the detection's area.)
    #[default]
    Ignore,
    /// They are objects like others.
    Keep,
    /// They are left out, as though nobody had marked them.
    Drop,
}

/// How a VOC folder is read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VocConfig {
    /// Default `pixels`.
    pub boxes: VocBoxes,
    /// Default `ignore`.
    pub difficult: Difficult,
    /// The classes in the order of their ids 1, 2, ...; an object of another is an annotation of an unknown category. Default
    /// empty: all names that occur, in byte order.
    pub classes: Vec<String>,
}

impl Dataset {
    /// Reads the XML files `xml` (in this order), whose image files lie below `image_root`. Image files are not touched.
    ///
    /// An image's name is its `<filename>`; where there is none, the XML file's with `.jpg`; `.jpg` is added to a name without an
    /// extension. Image ids come from the XML files' names ([`ids_of_names`]), annotation ids count from 1 over all files. Under
    /// the policy `drop`, a box without area is left out altogether: no tool of VOC's scores with it.
    ///
    /// # Errors
    /// A file that cannot be read, and faults whose policy is `error`; all files that are no VOC annotations are listed.
    pub fn load_voc(
        folder: &Path,
        xml: Vec<PathBuf>,
        image_root: &Path,
        config: &VocConfig,
        policies: &CheckConfig,
    ) -> Result<Self> {
        let names: Vec<String> = xml.iter().map(|path| stem(path)).collect();
        let (mut files, mut findings) = (Vec::with_capacity(xml.len()), Vec::new());
        for (path, id) in xml.into_iter().zip(ids_of_names(&names)) {
            let bytes = std::fs::read(&path).map_err(|e| Error::file("read", &path, e))?;
            match parse_voc(&bytes) {
                Ok(content) => files.push(File { id, path, content }),
                Err(detail) => {
                    let kind = FindingKind::BrokenAnnotation;
                    findings.push(Finding { kind, file: path, image_id: Some(id), annotation_id: None, detail });
                }
            }
        }
        let categories = categories(config, &files);
        // Ids start at 1: 0 is no category's.
        let id_of = |name: &str| categories.iter().find(|c| c.name == name).map_or(0, |c| c.id);
        let kept = |o: &&VocObject| !(o.difficult && config.difficult == Difficult::Drop);
        let objects = files.iter().flat_map(|file| file.content.objects.iter().filter(kept).map(move |o| (file, o)));
        let objects: Vec<(&File, &VocObject)> = objects.collect();
        let annotation = |(id, (file, object)): (u64, &(&File, &VocObject))| {
            let bbox = object.bbox(config.boxes);
            Annotation {
                id,
                image_id: file.id,
                category_id: id_of(&object.name),
                bbox,
                area: bbox[2] * bbox[3],
                iscrowd: object.difficult && config.difficult == Difficult::Ignore,
            }
        };
        let mut annotations: Vec<Annotation> = (1..).zip(&objects).map(annotation).collect();
        let images: Vec<Image> = files.iter().map(File::image).collect();
        let mut found = checks(folder, &images, &annotations, &categories);
        let paths = files.iter().map(|file| (file.id, file.path.as_path())).collect();
        let places: Vec<(u32, &str)> = objects.iter().map(|(_, o)| (o.line, o.name.as_str())).collect();
        locate(&mut found, &paths, &places);
        findings.extend(found);
        if policies.degenerate == Policy::Drop {
            annotations.retain(|a| !a.is_degenerate());
        }
        let parts = Parts {
            name: folder.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            source: folder.to_owned(),
            image_root: image_root.to_owned(),
            images,
            annotations,
            categories,
            annotation_files: files.into_iter().map(|file| file.path).collect(),
        };
        Self::build_with(parts, findings, policies)
    }
}

/// One file of a folder.
struct File {
    id: u64,
    path: PathBuf,
    content: VocFile,
}

impl File {
    fn image(&self) -> Image {
        let file_name = match &self.content.filename {
            Some(name) if Path::new(name).extension().is_some() => name.clone(),
            Some(name) => format!("{name}.jpg"),
            None => format!("{}.jpg", stem(&self.path)),
        };
        let (width, height) = self.content.size;
        Image { id: self.id, file_name, width, height }
    }
}

fn categories(config: &VocConfig, files: &[File]) -> Vec<Category> {
    let mut names = config.classes.clone();
    if names.is_empty() {
        let all: BTreeSet<&str> = files.iter().flat_map(|f| &f.content.objects).map(|o| o.name.as_str()).collect();
        names = all.into_iter().map(str::to_owned).collect();
    }
    (1..).zip(names).map(|(id, name)| Category { id, name }).collect()
}

/// A file's name without its extension.
fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
