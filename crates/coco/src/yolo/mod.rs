//! YOLO's folders: a text file beside each image, one object a line, read into the same [`Dataset`] as COCO's JSON.
//!
//! A line is `class cx cy w h`: the class counted from 0, the box's centre and sides as shares of the image's width and height.
//! Lines of segmentation sets, `class x1 y1 x2 y2 ..`, give the box around their points.

mod classes;
mod open;
mod parse;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::checks::{Finding, FindingKind, checks, locate};
use crate::dataset::{Dataset, Parts};
use crate::decode::image_size;
use crate::error::{Error, Result};
use crate::files::is_there;
use crate::parallel::in_order;
use crate::policy::{CheckConfig, Policy};
use crate::types::{Annotation, Category, Image};
pub use open::{YoloOptions, open_yolo};
pub use parse::{YoloObject, parse_yolo};

/// One image and the file that says what is in it; without that file the image is empty, as YOLO's own tools take it.
struct Entry {
    id: u64,
    image: PathBuf,
    labels: PathBuf,
}

/// One label file's lines.
struct Labels {
    /// Position in the list of entries.
    entry: usize,
    objects: Vec<YoloObject>,
    /// Line and what is wrong with it.
    broken: Vec<(u32, String)>,
}

/// Reads `entries`, whose images lie below `root`, with categories 1, 2, ... for the classes 0, 1, ...
///
/// The findings in `before` are kept with those made here.
fn load(
    dir: &Path,
    root: &Path,
    entries: &[Entry],
    classes: Vec<String>,
    before: Vec<Finding>,
    policies: &CheckConfig,
) -> Result<Dataset> {
    let mut findings = before;
    let mut add = |kind, entry: &Entry, file: &Path, detail| {
        findings.push(Finding { kind, file: file.to_owned(), image_id: Some(entry.id), annotation_id: None, detail });
    };
    let sizes = in_order(entries.len(), 0, |i| image_size(&entries[i].image));
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    let mut kept: Vec<&Entry> = Vec::new();
    for (i, (entry, size)) in entries.iter().zip(sizes).enumerate() {
        match size {
            Ok((width, height)) => {
                kept.push(entry);
                images.push(Image {
                    id: entry.id,
                    file_name: below(root, &entry.image),
                    width: width as u32,
                    height: height as u32,
                });
            }
            Err(e) => {
                let kind =
                    if is_there(&entry.image) { FindingKind::UnreadableImage } else { FindingKind::MissingImage };
                add(kind, entry, &entry.labels, e.to_string());
                continue;
            }
        }
        let text = match std::fs::read(&entry.labels) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::file("read", &entry.labels, e)),
        };
        let (objects, broken) = parse_yolo(&text);
        labels.push(Labels { entry: i, objects, broken });
    }
    for file in &labels {
        let entry = &entries[file.entry];
        for (line, what) in &file.broken {
            add(FindingKind::BrokenAnnotation, entry, &entry.labels, format!("line {line}: {what}"));
        }
    }
    let categories: Vec<Category> = (1..).zip(classes).map(|(id, name)| Category { id, name }).collect();
    let mut places: Vec<(u32, &str)> = Vec::new();
    let mut annotations: Vec<Annotation> = Vec::new();
    for (image, file) in images.iter().zip(&labels) {
        for object in &file.objects {
            let name = categories.get(object.class as usize).map_or("?", |c| c.name.as_str());
            places.push((object.line, name));
            let bbox = object.bbox(image.width, image.height);
            annotations.push(Annotation {
                id: annotations.len() as u64 + 1,
                image_id: image.id,
                category_id: object.class + 1,
                bbox,
                area: bbox[2] * bbox[3],
                iscrowd: false,
            });
        }
    }
    let mut found = checks(dir, &images, &annotations, &categories);
    let files: HashMap<u64, &Path> = kept.iter().map(|e| (e.id, e.labels.as_path())).collect();
    locate(&mut found, &files, &places);
    findings.extend(found);
    if policies.degenerate == Policy::Drop {
        annotations.retain(|a| !a.is_degenerate());
    }
    let parts = Parts {
        name: dir.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
        source: dir.to_owned(),
        image_root: root.to_owned(),
        images,
        annotations,
        categories,
        annotation_files: kept.iter().map(|e| e.labels.clone()).collect(),
    };
    Dataset::build_with(parts, findings, policies)
}

/// A file's path below `root`, with `/` between folders as COCO's files have it.
fn below(root: &Path, file: &Path) -> String {
    let path = file.strip_prefix(root).unwrap_or(file);
    path.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}
