//! Images that a caller names against annotations: ids by name, turns by size, and what cannot be told.

use std::path::{Path, PathBuf};

use docent_coco::{Exif, Listed, Rgb8, listed};
use serde_json::{Value, json};

use crate::support::marked;

/// An entry of the annotations.
fn image(id: u64, file_name: &str, width: u32, height: u32) -> Value {
    json!({ "id": id, "file_name": file_name, "width": width, "height": height })
}

struct Folder(tempfile::TempDir);

impl Folder {
    /// Upright images of 8x6 pixels.
    fn with(pictures: &[&str]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        pictures.iter().for_each(|name| folder.put(name, 1));
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An image of 8x6 stored pixels with an EXIF orientation.
    fn put(&self, name: &str, orientation: u8) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, marked(&Rgb8::filled(8, 6, [90, 60, 30]), orientation)).unwrap();
    }

    /// What `images`, each with a box, say of pictures.
    fn listed(&self, json: &str, images: &[Value], pictures: &[&str], exif: Option<Exif>) -> Result<Listed, String> {
        let object = |i: &Value| json!({ "id": i["id"], "image_id": i["id"], "category_id": 1, "bbox": [1, 1, 2, 2] });
        let objects: Vec<Value> = images.iter().map(object).collect();
        let whole = json!({ "images": images, "annotations": objects, "categories": [{ "id": 1, "name": "part" }] });
        let json = self.path(json);
        std::fs::create_dir_all(json.parent().unwrap()).unwrap();
        std::fs::write(&json, whole.to_string()).unwrap();
        let pictures: Vec<PathBuf> = pictures.iter().map(|name| self.path(name)).collect();
        listed(&json, &pictures, exif).map_err(|e| e.to_string())
    }
}

fn ids(listed: &Listed) -> Vec<(usize, u64)> {
    listed.images.iter().map(|image| (image.at, image.id)).collect()
}

#[test]
fn names_find_their_pictures_as_in_a_data_folder() {
    let pictures = ["images/one.jpg", "images/a 1.jpg", "images/two.jpg", "images/three.jpg", "images/not.jpg"];
    let folder = Folder::with(&pictures);
    let images = [
        image(11, "ONE.JPG", 8, 6),
        image(12, "https://x.org/images/a%201.jpg?v=2", 8, 6),
        image(13, "0a1b2c3d-two.jpg", 8, 6),
        image(14, "../images/three.jpg", 8, 6),
        image(15, "four.jpg", 8, 6),
    ];
    let found = folder.listed("labels/all.json", &images, &pictures, None).unwrap();
    assert_eq!(ids(&found), [(0, 11), (1, 12), (2, 13), (3, 14)]);
    assert_eq!((found.names.len(), found.images[2].file_name.as_str()), (5, "0a1b2c3d-two.jpg"));
    assert!(found.notes[0].contains("were found under another path, name or extension"), "{:?}", found.notes);
    let elsewhere = [image(11, "C:\\me\\pictures\\one.jpg", 8, 6)];
    assert_eq!(ids(&folder.listed("labels/one.json", &elsewhere, &pictures, None).unwrap()), [(0, 11)]);
}

#[test]
fn what_may_be_two_things_is_refused_with_both() {
    let folder = Folder::with(&["a/1.jpg", "b/1.jpg", "train/1.jpg", "val/1.jpg"]);
    let bare = [image(7, "1.jpg", 8, 6)];
    let said = |json: &str, images: &[Value], pictures: &[&str]| folder.listed(json, images, pictures, None);
    let both = said("all.json", &bare, &["a/1.jpg", "b/1.jpg"]).unwrap_err();
    let [a, b] = ["a/1.jpg", "b/1.jpg"].map(|name| folder.path(name).display().to_string());
    assert!(both.contains(&format!("image 7 (1.jpg) may be {a} or {b}")), "{both}");
    assert_eq!(ids(&said("all.json", &bare, &["b/1.jpg"]).unwrap()), [(0, 7)]);
    // One image for two images.
    let twice = [image(1, "x/1.jpg", 8, 6), image(2, "y/1.jpg", 8, 6)];
    let message = said("all.json", &twice, &["a/1.jpg"]).unwrap_err();
    assert!(message.contains(&format!("{a} may be image 1 (x/1.jpg) or 2 (y/1.jpg)")), "{message}");
    let same = [image(1, "a/1.jpg", 8, 6), image(1, "b/1.jpg", 8, 6)];
    let message = said("all.json", &same, &["a/1.jpg", "b/1.jpg"]).unwrap_err();
    assert!(message.contains("image id 1 is that of several images"), "{message}");
    // Folders tell them apart, whatever else is listed.
    let parts = [image(1, "train/1.jpg", 8, 6), image(2, "val/1.jpg", 8, 6), image(3, "1.jpg", 8, 6)];
    assert_eq!(ids(&said("all.json", &parts, &["val/1.jpg"]).unwrap()), [(0, 2)]);
    assert_eq!(ids(&said("all.json", &parts, &["val/1.jpg", "train/1.jpg"]).unwrap()), [(0, 2), (1, 1)]);
    assert_eq!(ids(&said("all.json", &parts, &["a/1.jpg"]).unwrap()), [(0, 3)]);
    // Annotations of one part are not those of another's images.
    assert_eq!(ids(&said("labels/instances_val.json", &bare, &["train/1.jpg", "val/1.jpg"]).unwrap()), [(1, 7)]);
}

#[test]
fn pictures_are_turned_as_their_annotations_count() {
    let folder = Folder::with(&["plain.jpg"]);
    folder.put("turned.jpg", 6);
    folder.put("stored.jpg", 6);
    folder.put("half.jpg", 3);
    let sizes = |half: Option<Exif>, pictures: &[&str]| {
        let images = [
            image(1, "plain.jpg", 8, 6),
            image(2, "turned.jpg", 6, 8),
            image(3, "stored.jpg", 8, 6),
            image(4, "half.jpg", 8, 6),
        ];
        let found = folder.listed("all.json", &images, pictures, half)?;
        Ok::<_, String>(found.images.iter().map(|image| image.upright).collect::<Vec<_>>())
    };
    let told = ["plain.jpg", "turned.jpg", "stored.jpg"];
    // What the sizes say stands over what the caller says, as in a data folder.
    for exif in [None, Some(Exif::Apply), Some(Exif::Ignore)] {
        assert_eq!(sizes(exif, &told).unwrap(), [false, true, false], "{exif:?}");
    }
    let message = sizes(None, &["half.jpg"]).unwrap_err();
    assert!(message.contains("half.jpg") && message.contains("--exif apply"), "{message}");
    assert_eq!(sizes(Some(Exif::Apply), &["half.jpg"]).unwrap(), [true]);
    assert_eq!(sizes(Some(Exif::Ignore), &["half.jpg"]).unwrap(), [false]);
}

#[test]
fn a_picture_of_another_size_is_another_picture() {
    let folder = Folder::with(&["a.jpg", "b.jpg"]);
    let images = [image(1, "a.jpg", 80, 60), image(2, "b.jpg", 8, 6)];
    let message = folder.listed("all.json", &images, &["a.jpg", "b.jpg"], None).unwrap_err();
    assert!(message.contains("a.jpg is 8x6, annotated as 80x60") && !message.contains("b.jpg"), "{message}");
    assert_eq!(ids(&folder.listed("all.json", &images, &["b.jpg"], None).unwrap()), [(0, 2)]);
    // What cannot be read is left to whoever reads the pixels.
    std::fs::write(folder.path("a.jpg"), "no picture").unwrap();
    assert_eq!(ids(&folder.listed("all.json", &images, &["a.jpg"], None).unwrap()), [(0, 1)]);
    assert!(listed(Path::new("none.json"), &[], None).unwrap_err().to_string().contains("none.json"));
}
