//! What people really hand over: files that are cut, empty, huge by their own account, or rubbish. Each message says what, and the
//! hint.

use std::path::Path;
use std::sync::Arc;

use docent_coco::{
    Dataset, Loader, LoaderConfig, MAX_PIXELS, OpenOptions, Resize, Rgb8, decode_file, image_header, open_dir,
    read_results,
};

use crate::support::{annotation, categories, data, image, write_images};

fn says(error: &docent_coco::Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[test]
fn no_such_folder() {
    let error = open_dir(Path::new("/no/such/folder"), &OpenOptions::default()).unwrap_err();
    says(&error, &["/no/such/folder", "no such folder", "spelled correctly"]);
    // A file where a folder belongs.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.zip"), "x").unwrap();
    says(&open_dir(&dir.path().join("a.zip"), &OpenOptions::default()).unwrap_err(), &["a.zip"]);
}

#[test]
fn json_cut_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let set = write_images(&dir.path().join("images"), 30);
    let path = dir.path().join("annotations/instances_all.json");
    set.save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 1, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = open_dir(dir.path(), &OpenOptions::default()).unwrap_err();
        says(&error, &["instances_all.json", "COCO annotation file", "line 1", "was it cut?"]);
    }
}

#[test]
fn images_cut_empty_and_huge_by_their_own_account() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("photo.jpg");
    let whole = std::fs::read(data("rgb.jpg")).unwrap();
    let (half, huge) = (whole[..whole.len() / 2].to_vec(), crate::decode::claim(60_000, 60_000));
    let many = crate::decode::claim(16_000, 16_000);
    let cases: [(&[u8], &[&str]); 4] = [
        (&half, &["cut in the middle"]),
        (b"", &["0 bytes"]),
        (&huge, &["claims 60000x60000", "16384"]),
        (&many, &["claims 16000x16000", &MAX_PIXELS.to_string()]),
    ];
    for (bytes, parts) in cases {
        std::fs::write(&path, bytes).unwrap();
        let error = decode_file(&path, Default::default()).unwrap_err();
        says(&error, parts);
        says(&error, &["photo.jpg", "replace the file"]);
        assert!(image_header(&path).is_err());
        // The same through the loader, where the message has the image's id too.
        let images = vec![image(77, "photo.jpg", 32, 16)];
        let set = Dataset::from_parts("one", dir.path(), images, vec![], categories()).unwrap();
        let loader = Loader::new(Arc::new(set), LoaderConfig::default()).unwrap();
        let error = loader.epoch(0).next().unwrap().unwrap_err();
        says(&error, parts);
        says(&error, &["image id 77", "photo.jpg"]);
    }
}

#[test]
fn images_of_one_pixel_and_of_one_column() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [(1, 1), (1, 4000), (4000, 1)];
    let mut images = Vec::new();
    let mut boxes = Vec::new();
    for (id, (width, height)) in (1..).zip(sizes) {
        let name = format!("{id}.png");
        Rgb8::filled(width as usize, height as usize, [200, 100, 0]).save_png(&dir.path().join(&name)).unwrap();
        images.push(image(id, &name, width, height));
        boxes.push(annotation(id, id, 2, [0.0, 0.0, f64::from(width), f64::from(height)]));
    }
    let set = Arc::new(Dataset::from_parts("thin", dir.path(), images, boxes, categories()).unwrap());
    let resize = Resize::default().shortest(240).longest(320);
    let loader = Loader::new(set, LoaderConfig::default().resize(resize).flip(1.0)).unwrap();
    let items: Vec<_> = loader.epoch(0).map(|batch| batch.unwrap().remove(0)).collect();
    let made: Vec<_> = items.iter().map(|item| (item.planes.width, item.planes.height)).collect();
    assert_eq!(made, [(240, 240), (1, 320), (320, 1)]);
    for item in &items {
        let (w, h) = (item.planes.width as f32, item.planes.height as f32);
        assert_eq!(item.boxes, [[0.0, 0.0, w, h]]);
        assert!(item.planes.data.iter().all(|v| v.is_finite()));
        assert!((item.planes.data[0] - 200.0 / 255.0).abs() < 1e-6);
    }
}

#[test]
fn results_of_rubbish() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("found.json");
    let good = r#"[{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}]"#;
    let cases = [
        "",
        "rubbish",
        "[1, 2, 3]",
        "{}",
        "null",
        r#"{"annotations": 3}"#,
        &good[..40],
        &good.replace("[1, 2, 3, 4]", "[1, 2, 3]"),
        &good.replace("0.5", "\"high\""),
        &good.replace("\"image_id\": 1", "\"image_id\": -1"),
        &good.replace("0.5", "NaN"),
    ];
    for text in cases {
        std::fs::write(&path, text).unwrap();
        says(
            &read_results(&path).unwrap_err(),
            &["found.json", "COCO results file", "image_id, category_id, bbox, score"],
        );
    }
    std::fs::write(&path, good).unwrap();
    assert_eq!(read_results(&path).unwrap().len(), 1);
}
