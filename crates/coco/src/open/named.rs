//! Formats in which one file names many images (VIA, CSV): classes have names alone, and images have no ids.

use std::path::Path;

use super::coco::{Part, below_of, part};
use super::data_folder::{Classes, DataFolder};
use super::labelled::LabelledObject;
use super::roles::Role;
use crate::box_reading::BoxReading;
use crate::coco_json::CocoJson;
use crate::digest::hex_digest;
use crate::finding::Finding;
use crate::found::{FoundImage, FoundObject};
use crate::ids::ids_of_names;
use crate::open::index::stem_of;

/// One image of an annotation file.
#[derive(Debug, Clone)]
pub(crate) struct NamedImage {
    pub name: String,
    pub size: Option<(u32, u32)>,
    /// The part of the split that the file gives.
    pub role: Option<Role>,
    pub objects: Vec<LabelledObject>,
}

/// What one file says.
pub(crate) struct NamedImages {
    pub images: Vec<NamedImage>,
    pub findings: Vec<Finding>,
    pub notes: Vec<String>,
    /// The format's own reading of boxes.
    pub reading: BoxReading,
}

/// Numbers classes, images and objects, and finds the images.
pub(crate) fn numbered(
    source: &DataFolder<'_>,
    file: &Path,
    below: Option<&str>,
    bytes: &[u8],
    read: NamedImages,
    notes: &mut Vec<String>,
) -> Part {
    let NamedImages { images, findings, notes: said, reading } = read;
    let stems: Vec<&str> =
        images.iter().map(|image| stem_of(image.name.rsplit(['/', '\\']).next().unwrap_or_default())).collect();
    let ids = ids_of_names(&stems);
    let names = images.iter().flat_map(|image| &image.objects).map(|o| o.class.as_str());
    let classes = Classes::new(&source.options.read.classes, names);
    let roles: Vec<Option<Role>> = images.iter().map(|image| image.role).collect();
    let (mut found, mut objects) = (Vec::with_capacity(images.len()), Vec::new());
    for (image, image_id) in images.into_iter().zip(ids) {
        for o in image.objects {
            objects.push(FoundObject {
                id: objects.len() as u64 + 1,
                image_id,
                category_id: classes.id(&o.class),
                numbers: o.numbers,
                reading: o.reading,
                area: None,
                crowd: o.crowd,
                line: o.line,
            });
        }
        found.push(FoundImage { id: image_id, file_name: image.name, size: image.size, annotation_file: None });
    }
    let parsed = CocoJson {
        images: found,
        objects,
        categories: classes.categories,
        supercategories: Default::default(),
        digest: hex_digest(bytes),
        findings,
        notes: said,
    };
    let below = below_of(source, file, below);
    let mut part = part(source, file, below.as_deref(), parsed, reading, notes);
    part.only_named = true;
    // A part that the file gives is as good as a folder of that name.
    for (item, role) in part.items.iter_mut().zip(roles) {
        if let (Some(role), Some(path)) = (role, item.paths.last()) {
            let path = format!("{role}/{path}");
            item.paths.insert(0, path);
        }
    }
    part.found.other_classes = classes.others;
    part
}
