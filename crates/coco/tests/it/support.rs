//! Small data sets for the tests, in memory and on disk.

use std::path::{Path, PathBuf};

use docent_coco::{Annotation, Category, Dataset, Image, Rgb8};

pub fn category(id: u64, name: &str) -> Category {
    Category { id, name: name.to_owned() }
}

pub fn image(id: u64, file_name: &str, width: u32, height: u32) -> Image {
    Image { id, file_name: file_name.to_owned(), width, height }
}

pub fn annotation(id: u64, image_id: u64, category_id: u64, bbox: [f64; 4]) -> Annotation {
    Annotation { id, image_id, category_id, bbox, area: bbox[2] * bbox[3], iscrowd: false }
}

/// The size and colour of the `i`-th generated image; sizes differ, so that resizing and boxes are told apart.
pub fn size_of(i: usize) -> (u32, u32) {
    (24 + 4 * (i as u32 % 5), 20 + 3 * (i as u32 % 7))
}

/// `n` PNG images below `root`, image `i` with id `10 * i + 3` and `i % 3` boxes, categories 2 and 9.
pub fn write_images(root: &Path, n: usize) -> Dataset {
    write_named_images(root, "", n)
}

/// The same with names that begin with `prefix`, and colours that differ between prefixes.
pub fn write_named_images(root: &Path, prefix: &str, n: usize) -> Dataset {
    let tint = prefix.bytes().fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    std::fs::create_dir_all(root).unwrap();
    let mut images = Vec::new();
    let mut annotations = Vec::new();
    for i in 0..n {
        let (width, height) = size_of(i);
        let id = 10 * i as u64 + 3;
        let name = format!("{prefix}{i:03}.png");
        let mut pixels = Rgb8::filled(width as usize, height as usize, [i as u8, tint, 200]);
        // A mark at the left, to see a flip.
        pixels.data[0..3].copy_from_slice(&[255, 255, 255]);
        pixels.save_png(&root.join(&name)).unwrap();
        images.push(image(id, &name, width, height));
        for b in 0..i % 3 {
            let bbox = [2.0, 3.0 + b as f64, 8.0, 9.0];
            let category = [2, 9][b % 2];
            annotations.push(annotation(annotations.len() as u64 + 1, id, category, bbox));
        }
    }
    Dataset::from_parts("made", root, images, annotations, categories()).unwrap()
}

pub fn categories() -> Vec<Category> {
    vec![category(9, "dog"), category(2, "cat")]
}

/// The folder of shared data sets, or `None` (with a line to say so) where it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    if !root.is_dir() {
        println!("skipped: ../shared is absent");
        return None;
    }
    Some(root.join("datasets").join(path))
}

/// A file of `tests/data`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A JPEG with an EXIF block that asks for `orientation`.
pub fn marked(image: &Rgb8, orientation: u8) -> Vec<u8> {
    let jpeg = image.to_jpeg().unwrap();
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let mut out = vec![0xFF, 0xD8, 0xFF, 0xE1];
    out.extend(((exif.len() + 2) as u16).to_be_bytes());
    out.extend(exif);
    out.extend(&jpeg[2..]);
    out
}
