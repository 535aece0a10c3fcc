//! YOLO folders: their layouts, what is wrong with them, and what becomes of them.

use std::path::Path;

use docent_coco::{Dataset, Error, FindingKind, OpenOptions, Policy, Rgb8, YoloOptions, open_dir, open_yolo};

fn image(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    Rgb8::filled(40, 20, [7; 3]).save_png(path).unwrap();
}

fn text(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// `n` images from id `from` on in a folder of images and the folder of labels; every third has no label file.
fn write(images: &Path, labels: &Path, from: usize, n: usize) {
    for i in from..from + n {
        image(&images.join(format!("img_{i:03}.png")));
        if i % 3 != 0 {
            text(&labels.join(format!("img_{i:03}.txt")), &format!("{} 0.5 0.5 0.25 0.5\n", i % 2));
        }
    }
}

fn open(dir: &Path) -> docent_coco::Result<docent_coco::Splits> {
    open_yolo(dir, &YoloOptions::default())
}

fn check(splits: &docent_coco::Splits, train: usize, val: usize) {
    assert_eq!((splits.train.len(), splits.val.len()), (train, val));
    for set in [&splits.train, &splits.val] {
        assert_eq!(set.class_names(), ["cat", "dog"]);
        assert_eq!(set.categories()[0].id, 1);
        for i in 0..set.len() {
            let (image, sample) = (set.image(i), set.sample(i).unwrap());
            assert_eq!((image.width, image.height), (40, 20));
            let id = image.id as usize;
            match id % 3 {
                0 => assert!(sample.boxes.is_empty()),
                _ => {
                    assert_eq!((sample.boxes, sample.labels), (vec![[15.0, 5.0, 25.0, 15.0]], vec![id as u32 % 2 + 1]))
                }
            }
        }
    }
}

#[test]
fn the_usual_layouts_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    // Ultralytics' own: images/train, labels/train, a YAML with a path that is not true here.
    write(&at("a/images/train"), &at("a/labels/train"), 1, 6);
    write(&at("a/images/val"), &at("a/labels/val"), 101, 4);
    text(
        &at("a/dataset.yaml"),
        "path: ../elsewhere\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n",
    );
    check(&open(&at("a")).unwrap(), 6, 4);
    // Its file names are relative to one folder for both splits.
    assert_eq!(open(&at("a")).unwrap().val.image(0).file_name, "val/img_101.png");
    // As annotation services export: train/images, valid/images, paths that start one folder too high.
    write(&at("b/train/images"), &at("b/train/labels"), 1, 6);
    write(&at("b/valid/images"), &at("b/valid/labels"), 7, 2);
    text(&at("b/data.yaml"), "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n");
    check(&open(&at("b")).unwrap(), 6, 2);
    // The same without a word about the splits.
    text(&at("b/data.yaml"), "names: ['cat', 'dog']\n");
    check(&open(&at("b")).unwrap(), 6, 2);
    // Darknet's: labels beside the images, lists of both splits.
    write(&at("c/obj"), &at("c/obj"), 1, 5);
    text(&at("c/train.txt"), "obj/img_001.png\n./obj/img_002.png\n\nobj/img_004.png\n");
    text(&at("c/val.txt"), "obj/img_005.png\n");
    text(&at("c/obj.names"), "cat\ndog\n");
    check(&open(&at("c")).unwrap(), 3, 1);
    // One split, held out by hash; ids come from names.
    write(&at("d/images"), &at("d/labels"), 1, 40);
    text(&at("d/classes.txt"), "cat\ndog\n");
    let splits = open(&at("d")).unwrap();
    let held_out = splits.val.len();
    assert!((2..=16).contains(&held_out));
    check(&splits, 40 - held_out, held_out);
    // Names from elsewhere win.
    let options = YoloOptions { classes: Some(at("c/obj.names")), ..YoloOptions::default() };
    check(&open_yolo(&at("b"), &options).unwrap(), 6, 2);
}

#[test]
fn it_becomes_coco() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("images/train"), &dir.path().join("labels/train"), 1, 6);
    write(&dir.path().join("images/val"), &dir.path().join("labels/val"), 11, 3);
    text(&dir.path().join("data.yaml"), "names: [cat, dog]\n");
    let yolo = open(dir.path()).unwrap();
    for (name, set) in [("train", &yolo.train), ("val", &yolo.val)] {
        set.save(&dir.path().join(format!("annotations/instances_{name}.json"))).unwrap();
    }
    let coco = open_dir(dir.path(), &OpenOptions::default()).unwrap();
    for (a, b) in [(&coco.train, &yolo.train), (&coco.val, &yolo.val)] {
        assert_eq!(
            (a.images(), a.all_annotations(), a.categories()),
            (b.images(), b.all_annotations(), b.categories())
        );
    }
}

#[test]
fn every_fault_names_its_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    write(&at("images"), &at("labels"), 1, 30);
    text(&at("classes.txt"), "cat\ndog\n");
    let label = |i: usize| at(&format!("labels/img_{i:03}.txt"));
    let findings = |change: fn(&mut YoloOptions)| {
        let mut options = YoloOptions::default();
        change(&mut options);
        match open_yolo(dir.path(), &options) {
            Err(Error::Annotations { findings, .. }) => findings,
            Err(e) => panic!("{e}"),
            Ok(splits) => splits.train.findings().iter().chain(splits.val.findings()).cloned().collect(),
        }
    };
    assert_eq!(findings(|_| ()), []);
    text(&label(2), "0 0.5 0.5 0.25 0.5\n0 0.5 0.5 0 0.5\n1 0.9 0.5 0.6 0.5\n");
    let found = findings(|_| ());
    let all: Vec<_> = found.iter().map(|f| (f.kind, f.file.clone(), f.image_id)).collect();
    let wanted = [FindingKind::DegenerateBox, FindingKind::OutsideBox].map(|kind| (kind, label(2), Some(2)));
    assert_eq!(all, wanted);
    assert!(
        found[0].detail.starts_with("line 2, \"cat\"") && found[1].detail.starts_with("line 3, \"dog\""),
        "{found:?}"
    );

    text(&label(4), "5 0.5 0.5 0.1 0.1\n");
    let found = findings(|_| ());
    assert_eq!((found.len(), found[0].kind, found[0].file.clone()), (1, FindingKind::UnknownCategory, label(4)));
    assert_eq!(findings(|o| o.checks.unknown_category = Policy::Drop).len(), 3);
    text(&label(5), "0 0.5 0.5\ncat 1 2 3 4\n");
    text(&label(7), "0 320 240 60 40\n");
    let found = findings(|o| o.checks.unknown_category = Policy::Drop);
    assert!(found.iter().all(|f| f.kind == FindingKind::BrokenAnnotation), "{found:?}");
    let all: Vec<_> = found.iter().map(|f| (f.file.clone(), f.detail[..6].to_owned())).collect();
    assert_eq!(all, [(label(5), "line 1".to_owned()), (label(5), "line 2".into()), (label(7), "line 1".into())]);
    for i in [4, 5, 7] {
        text(&label(i), "");
    }

    // A label without an image, an image that cannot be read.
    text(&label(99), "0 0.5 0.5 0.1 0.1\n");
    std::fs::write(at("images/img_008.png"), "no picture").unwrap();
    let found = findings(|_| ());
    let all: Vec<_> = found.iter().map(|f| (f.kind, f.file.clone())).collect();
    assert_eq!(all, [(FindingKind::MissingImage, label(99)), (FindingKind::UnreadableImage, label(8))]);
    let options = YoloOptions {
        checks: docent_coco::CheckConfig {
            missing_image: Policy::Drop,
            unreadable_image: Policy::Drop,
            ..Default::default()
        },
        ..YoloOptions::default()
    };
    let splits = open_yolo(dir.path(), &options).unwrap();
    let ids = |set: &Dataset| set.images().iter().map(|i| i.id).collect::<Vec<_>>();
    let all = [ids(&splits.train), ids(&splits.val)].concat();
    assert!(all.len() == 29 && !all.contains(&8));
}

#[test]
fn no_yolo_folder() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    let fails = |path: &str, part: &str| {
        let message = open(&at(path)).unwrap_err().to_string();
        assert!(message.contains(part), "{path}: {message}");
    };
    fails("no", "no");
    text(&at("a/readme.txt"), "");
    fails("a", "classes.txt");
    text(&at("a/classes.txt"), "cat\n\ndog\n");
    fails("a", "class 1 has no name");
    text(&at("a/classes.txt"), "cat\n");
    fails("a", "no image");
    image(&at("a/images/1.png"));
    fails("a", "labels/1.txt");
    text(&at("a/data.yaml"), "names: [cat]\ntrain: images/train\nval: images/val\n");
    fails("a", "images/train is not there");
    text(&at("a/data.yaml"), "names: [cat]\ntrain: images\nval: images/../images\n");
    text(&at("a/labels/1.txt"), "");
    // One folder under two names.
    fails("a", "in both splits");
}
