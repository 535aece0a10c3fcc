//! A missing image is missing: no image of another folder, camera or part that has the same name takes its boxes.

use std::path::Path;

use docent_coco::{Error, FindingKind, OpenOptions, Policy, Splits, open_dir};
use serde_json::json;

const FOLDERS: [&str; 2] = ["camA", "camB"];

fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn image(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = path.to_string_lossy().into_owned();
    let [a, b] = text.bytes().fold([7u8, 3], |[a, b], c| [a.wrapping_mul(31).wrapping_add(c), b.wrapping_add(a ^ c)]);
    docent_coco::Rgb8::filled(40, 20, [a, b, 9]).save_png(path).unwrap();
}

/// `images/camA/0000.png` to `0005.png`, the same for `camB`, without `camA/0003.png`.
fn images(dir: &Path) {
    for folder in FOLDERS {
        (0..6).for_each(|i| image(&dir.join(format!("images/{folder}/{i:04}.png"))));
    }
    std::fs::remove_file(dir.join("images/camA/0003.png")).unwrap();
}

/// The names of all images, `camA/0003.png` among them and without `camB/0003.png`: nobody else asks for that file.
fn names() -> Vec<String> {
    let all = FOLDERS.iter().flat_map(|folder| (0..6).map(move |i| format!("{folder}/{i:04}.png")));
    all.filter(|name| name != "camB/0003.png").collect()
}

fn open(dir: &Path) -> docent_coco::Result<Splits> {
    open_dir(dir, &OpenOptions::default())
}

/// The folder is refused for one missing image, named by `part`; without it the other images open.
fn lacks_one(dir: &Path, part: &str, others: usize) {
    match open(dir) {
        Err(Error::Annotations { findings, .. }) => {
            let all: Vec<String> = findings.iter().map(|f| format!("{:?} {f}", f.kind)).collect();
            assert_eq!(findings.len(), 1, "{all:#?}");
            assert!(findings[0].kind == FindingKind::MissingImage && all[0].contains(part), "{all:#?}");
        }
        Err(other) => panic!("{other}"),
        Ok(splits) => panic!("{} and {} images: {:?}", splits.train.len(), splits.val.len(), splits.notes),
    }
    let mut options = OpenOptions::default();
    options.checks.missing_image = Policy::Drop;
    let splits = open_dir(dir, &options).unwrap();
    assert_eq!(splits.train.len() + splits.val.len(), others);
}

fn yolo_label(dir: &Path, path: &str) {
    put(&dir.join(path), "0 0.5 0.5 0.25 0.5\n");
}

#[test]
fn of_a_file_that_names_many() {
    let boxes = [2, 3, 10, 8];
    let coco = |prefix: &str| {
        let all = names();
        let images: Vec<_> = (1..)
            .zip(&all)
            .map(|(id, n)| json!({"id": id, "file_name": format!("{prefix}{n}"), "width": 40, "height": 20}))
            .collect();
        let annotations: Vec<_> =
            (1..=all.len()).map(|id| json!({"id": id, "image_id": id, "category_id": 1, "bbox": boxes})).collect();
        json!({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "nut"}]}).to_string()
    };
    let csv =
        names().iter().fold("filename,class,xmin,ymin,xmax,ymax\n".to_owned(), |text, n| text + n + ",nut,2,3,12,11\n");
    let region = json!({"shape_attributes": {"name": "rect", "x": 2, "y": 3, "width": 10, "height": 8},
        "region_attributes": {"class": "nut"}});
    let via: serde_json::Map<_, _> =
        names().into_iter().map(|n| (n.clone(), json!({"filename": n, "regions": [region]}))).collect();
    for (file, text) in [
        ("whole.json", coco("")),
        ("whole.json", coco("/home/me/parts/images/")),
        ("whole.json", coco("C:\\parts\\images\\")),
        ("whole.json", coco("https://example.org/parts/images/")),
        ("whole.csv", csv),
        ("via.json", json!({"_via_img_metadata": via}).to_string()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        images(dir.path());
        put(&dir.path().join(file), text);
        lacks_one(dir.path(), "camA/0003.png", 10);
    }
}

#[test]
fn of_xml_that_names_its_folder() {
    for (own_name, folders) in [(false, false), (true, false), (true, true)] {
        let dir = tempfile::tempdir().unwrap();
        images(dir.path());
        for (i, name) in names().iter().enumerate() {
            let stem = name.trim_end_matches(".png");
            let stem = match (own_name, folders) {
                (_, true) => stem.to_owned(),
                (true, _) => stem.rsplit('/').next().unwrap().to_owned(),
                (false, _) => format!("frame{i}"),
            };
            if own_name && !folders && name.starts_with("camB") {
                continue;
            }
            let said = if folders { name.rsplit('/').next().unwrap() } else { name };
            put(
                &dir.path().join(format!("Annotations/{stem}.xml")),
                format!(
                    "<annotation><filename>{said}</filename><size><width>40</width><height>20</height></size><object><name>nut</name>\
                     <bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>11</ymax></bndbox></object></annotation>"
                ),
            );
        }
        lacks_one(dir.path(), "0003", if own_name && !folders { 5 } else { 10 });
    }
}

#[test]
fn of_yolo_labels() {
    // The folder of labels corresponds to a folder of images.
    let dir = tempfile::tempdir().unwrap();
    images(dir.path());
    names().iter().for_each(|name| yolo_label(dir.path(), &format!("labels/{}", name.replace("png", "txt"))));
    lacks_one(dir.path(), "labels/camA/0003.txt", 11);
    // No image of that folder is there at all.
    std::fs::remove_dir_all(dir.path().join("images/camA")).unwrap();
    (0..6)
        .filter(|i| *i != 3)
        .for_each(|i| std::fs::remove_file(dir.path().join(format!("labels/camA/{i:04}.txt"))).unwrap());
    lacks_one(dir.path(), "labels/camA/0003.txt", 6);
    // Labels beside the images.
    let dir = tempfile::tempdir().unwrap();
    for name in names() {
        image(&dir.path().join(&name));
        yolo_label(dir.path(), &name.replace("png", "txt"));
    }
    image(&dir.path().join("camB/0003.png"));
    std::fs::remove_file(dir.path().join("camA/0003.png")).unwrap();
    let splits = open(dir.path()).unwrap();
    for set in [&splits.train, &splits.val] {
        for i in 0..set.len() {
            let empty = set.image(i).file_name == "camB/0003.png";
            assert_eq!(set.ground_truth(i).boxes.is_empty(), empty, "{}", set.image(i).file_name);
        }
    }
    // Folders whose names tell no part.
    let dir = tempfile::tempdir().unwrap();
    for (folder, names) in [("lot1", ["a", "b", "x"]), ("lot2", ["c", "d", "e"])] {
        for name in names {
            image(&dir.path().join(format!("{folder}/images/{name}.png")));
            yolo_label(dir.path(), &format!("{folder}/labels/{name}.txt"));
        }
    }
    std::fs::rename(dir.path().join("lot1/images/x.png"), dir.path().join("lot2/images/x.png")).unwrap();
    lacks_one(dir.path(), "lot1/labels/x.txt", 6);
}

#[test]
fn of_yolo_labels_of_another_part() {
    for [images, labels] in [["{}/images", "{}/labels"], ["images/{}", "labels/{}"]] {
        let at = |pattern: &str, part: &str, name: &str| format!("{}/{name}", pattern.replace("{}", part));
        let dir = tempfile::tempdir().unwrap();
        for (part, names) in [("train", ["a", "b", "c"]), ("val", ["d", "e", "f"])] {
            for name in names {
                image(&dir.path().join(at(images, part, &format!("{name}.png"))));
                yolo_label(dir.path(), &at(labels, part, &format!("{name}.txt")));
            }
        }
        yolo_label(dir.path(), &at(labels, "train", "x.txt"));
        image(&dir.path().join(at(images, "val", "x.png")));
        lacks_one(dir.path(), &at(labels, "train", "x.txt"), 7);
        // The held-out image is one without objects.
        let mut options = OpenOptions::default();
        options.checks.missing_image = Policy::Drop;
        let val = open_dir(dir.path(), &options).unwrap().val;
        let x = (0..val.len()).find(|&i| val.image(i).file_name.ends_with("x.png")).unwrap();
        assert!(val.len() == 4 && val.ground_truth(x).boxes.is_empty());
        // Training images that were not fetched are no reason to split the held-out ones.
        for name in ["a", "b", "c"] {
            std::fs::remove_file(dir.path().join(at(images, "train", &format!("{name}.png")))).unwrap();
        }
        assert!(matches!(open(dir.path()), Err(Error::Annotations { findings, .. }) if findings.len() == 4));
    }
}

#[test]
fn copies_of_labels_are_no_labels_of_missing_images() {
    let dir = tempfile::tempdir().unwrap();
    for (part, names) in [("train", ["a", "b", "c"]), ("val", ["d", "e", "f"])] {
        for name in names {
            image(&dir.path().join(format!("images/{part}/{name}.png")));
            yolo_label(dir.path(), &format!("labels/{part}/{name}.txt"));
            yolo_label(dir.path(), &format!("labels/{part}_old/{name}.txt"));
            yolo_label(dir.path(), &format!("runs/{part}/labels/{name}.txt"));
        }
    }
    let splits = open(dir.path()).unwrap();
    assert_eq!((splits.train.len(), splits.val.len()), (3, 3));
    // Folders whose names are not the usual ones correspond by their own names.
    let dir = tempfile::tempdir().unwrap();
    for (camera, names) in [("cam1", ["a", "b", "x"]), ("cam2", ["c", "d", "x"])] {
        for name in names {
            image(&dir.path().join(format!("shots/{camera}/{name}.png")));
            yolo_label(dir.path(), &format!("boxes/{camera}/{name}.txt"));
        }
    }
    let splits = open(dir.path()).unwrap();
    let objects = splits.train.all_annotations().len() + splits.val.all_annotations().len();
    assert_eq!((splits.train.len() + splits.val.len(), objects), (6, 6));
}

/// A line of a list that names no image is an error with the file and the line.
fn refuses_line(dir: &Path, list: &str, line: usize, name: &str) {
    let error = open(dir).map(|s| s.notes).unwrap_err().to_string();
    let line = format!("line {line} names {name:?}, and there is no such image");
    assert!(error.contains(list) && error.contains(&line), "{error}");
}

#[test]
fn of_a_line_in_a_list() {
    // VOC: without annotations for camA/0003, and with annotations for camB/0003.
    let dir = tempfile::tempdir().unwrap();
    images(dir.path());
    let voc = |name: &str| {
        let stem = name.trim_end_matches(".png");
        put(
            &dir.path().join(format!("Annotations/{stem}.xml")),
            "<annotation><object><name>nut</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>11</ymax></bndbox></object>\
             </annotation>",
        );
    };
    names().iter().filter(|name| *name != "camA/0003.png").for_each(|name| voc(name));
    let lists = |train: &str| {
        put(&dir.path().join("ImageSets/Main/train.txt"), train);
        put(&dir.path().join("ImageSets/Main/val.txt"), "camB/0001\ncamB/0002\n");
    };
    lists("camA/0000\ncamA/0001\ncamA/0003\n");
    refuses_line(dir.path(), "train.txt", 3, "camA/0003");
    voc("camB/0003.png");
    refuses_line(dir.path(), "train.txt", 3, "camA/0003");
    // The list with the missing image has no other line with its folder.
    lists("camA/0003\n");
    refuses_line(dir.path(), "train.txt", 1, "camA/0003");
    // Folders that nobody has here, and another case of letters.
    lists("/home/me/camA/0000.png\n/home/me/CamA/0001.PNG\n");
    assert_eq!(open(dir.path()).unwrap().train.len(), 2);
    // YOLO: lists that data.yaml names.
    let dir = tempfile::tempdir().unwrap();
    images(dir.path());
    names()
        .iter()
        .filter(|n| *n != "camA/0003.png")
        .for_each(|n| yolo_label(dir.path(), &format!("labels/{}", n.replace("png", "txt"))));
    put(&dir.path().join("data.yaml"), "train: train.txt\nval: val.txt\nnames: [nut]\n");
    put(&dir.path().join("train.txt"), "./images/camA/0000.png\n./images/camA/0003.png\n");
    put(&dir.path().join("val.txt"), "./images/camB/0001.png\n");
    refuses_line(dir.path(), "train.txt", 2, "./images/camA/0003.png");
}
