//! Makes the images and annotation files of the data set, and their digests.

use std::fs;
use std::path::{Path, PathBuf};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::{ShapesConfig, Split, VERSION};
use super::object::{Class, Object};
use super::scene::render;
use crate::error::{Error, Result};
use crate::parallel::in_order;
use crate::rgb8::Rgb8;

/// What the marker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    pub(super) version: u32,
    pub(super) seed: u64,
    pub(super) train: usize,
    pub(super) val: usize,
    /// Digest of pixels and annotations: the data set's identity.
    pub(super) sha256: String,
    /// Digest of the files as they lie on disk: how damage is found.
    pub(super) files: String,
}

/// Where [`make`] puts the files.
pub(super) enum Target<'a> {
    /// Only the digests are wanted.
    Nowhere,
    /// Into this folder, which exists.
    Folder(&'a Path),
}

/// One image's share of the data set.
struct Made {
    size: (usize, usize),
    objects: Vec<Object>,
    pixels: [u8; 32],
    file: [u8; 32],
}

/// Makes all images and both annotation files.
pub(super) fn make(config: &ShapesConfig, threads: usize, target: Target<'_>) -> Result<Marker> {
    let (mut content, mut files) = (Sha256::new(), Sha256::new());
    for split in Split::ALL {
        if let Target::Folder(folder) = target {
            for sub in [Path::new("annotations"), Path::new(split.name())] {
                let sub = folder.join(sub);
                fs::create_dir_all(&sub).map_err(|source| Error::io(&sub, source))?;
            }
        }
        let images = in_order(config.images(split), threads, |index| make_image(config, split, index, &target))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        for image in &images {
            content.update(image.pixels);
            files.update(image.file);
        }
        let json = annotations(split, &images)?;
        content.update(Sha256::digest(&json));
        files.update(Sha256::digest(&json));
        if let Target::Folder(folder) = target {
            write(&folder.join(json_path(split)), &json)?;
        }
    }
    Ok(Marker {
        version: VERSION,
        seed: config.seed,
        train: config.train,
        val: config.val,
        sha256: hex(content),
        files: hex(files),
    })
}

fn make_image(config: &ShapesConfig, split: Split, index: usize, target: &Target<'_>) -> Result<Made> {
    let (image, objects) = render(config, split, index);
    let mut pixels = Sha256::new();
    pixels.update((image.width as u32).to_le_bytes());
    pixels.update((image.height as u32).to_le_bytes());
    pixels.update(&image.data);
    let mut file = [0; 32];
    if let Target::Folder(folder) = target {
        let path = folder.join(image_path(split, index));
        let png = encode(&image, &path)?;
        file = Sha256::digest(&png).into();
        write(&path, &png)?;
    }
    Ok(Made { size: (image.width, image.height), objects, pixels: pixels.finalize().into(), file })
}

fn encode(image: &Rgb8, path: &Path) -> Result<Vec<u8>> {
    let mut png = Vec::new();
    // The noise leaves little to compress: the fast setting loses a few per cent.
    PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive)
        .write_image(&image.data, image.width as u32, image.height as u32, ExtendedColorType::Rgb8)
        .map_err(|source| Error::Shapes(format!("{}: cannot encode: {source}", path.display())))?;
    Ok(png)
}

/// Path of an image below the root.
pub(super) fn image_path(split: Split, index: usize) -> PathBuf {
    Path::new(split.name()).join(file_name(split, index))
}

fn file_name(split: Split, index: usize) -> String {
    format!("{:06}.png", split.image_id(index))
}

/// Path of an annotation file below the root.
pub(super) fn json_path(split: Split) -> PathBuf {
    Path::new("annotations").join(format!("instances_{}.json", split.name()))
}

/// The annotation file. It is spelled here and not by the general writer, so that no change of that one changes the digest.
fn annotations(split: Split, images: &[Made]) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct File {
        info: Info,
        images: Vec<Image>,
        annotations: Vec<Annotation>,
        categories: Vec<Category>,
    }
    #[derive(Serialize)]
    struct Info {
        description: &'static str,
        version: String,
    }
    #[derive(Serialize)]
    struct Image {
        id: u64,
        file_name: String,
        width: usize,
        height: usize,
    }
    #[derive(Serialize)]
    struct Annotation {
        id: u64,
        image_id: u64,
        category_id: u64,
        bbox: [f64; 4],
        area: f64,
        iscrowd: u8,
    }
    #[derive(Serialize)]
    struct Category {
        id: u64,
        name: &'static str,
    }
    let mut file = File {
        info: Info { description: "docent shapes", version: VERSION.to_string() },
        images: Vec::new(),
        annotations: Vec::new(),
        categories: Class::ALL.map(|class| Category { id: class.id(), name: class.name() }).into(),
    };
    for (index, made) in images.iter().enumerate() {
        let image_id = split.image_id(index);
        let (width, height) = made.size;
        file.images.push(Image { id: image_id, file_name: file_name(split, index), width, height });
        for object in &made.objects {
            file.annotations.push(Annotation {
                id: file.annotations.len() as u64 + 1,
                image_id,
                category_id: object.class.id(),
                bbox: object.bbox,
                area: object.area(),
                iscrowd: 0,
            });
        }
    }
    json_line(&file)
}

pub(super) fn json_line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut json =
        serde_json::to_vec(value).map_err(|source| Error::Shapes(format!("cannot be written as JSON: {source}")))?;
    json.push(b'\n');
    Ok(json)
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|source| Error::io(path, source))
}

pub(super) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
