//! YOLO folders: their layouts, what is wrong with them, and what becomes of them.

use std::path::Path;

use docent_coco::{
    BoxReading, Dataset, Error, FindingKind, Format, OpenOptions, Policy, ReadConfig, Rgb8, open_dir, read_class_names,
};

/// An image whose colour follows from its name.
fn image(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap().to_string_lossy();
    let [a, b] = name.bytes().fold([7u8, 3], |[a, b], c| [a.wrapping_mul(31).wrapping_add(c), b.wrapping_add(a ^ c)]);
    Rgb8::filled(40, 20, [a, b, name.len() as u8]).save_png(path).unwrap();
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
    open_dir(dir, &yolo())
}

fn yolo() -> OpenOptions {
    let read = ReadConfig::default().format(Format::Yolo);
    OpenOptions::default().read(read)
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
    assert_eq!(open(&at("a")).unwrap().val.image(0).file_name, "images/val/img_101.png");
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
    let mut options = yolo();
    options.read.classes = read_class_names(&at("c/obj.names")).unwrap();
    check(&open_dir(&at("b"), &options).unwrap(), 6, 2);
}

#[test]
fn it_becomes_coco() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("images/train"), &dir.path().join("labels/train"), 1, 6);
    write(&dir.path().join("images/val"), &dir.path().join("labels/val"), 11, 3);
    text(&dir.path().join("data.yaml"), "names: [cat, dog]\n");
    let yolo = open(dir.path()).unwrap();
    for (name, set) in [("train", &yolo.train), ("val", &yolo.val)] {
        set.clone().below(dir.path()).save(&dir.path().join(format!("annotations/instances_{name}.json"))).unwrap();
    }
    let coco = open_dir(dir.path(), &OpenOptions::default()).unwrap();
    for (a, b) in [(&coco.train, &yolo.train), (&coco.val, &yolo.val)] {
        assert_eq!((a.all_annotations(), a.categories()), (b.all_annotations(), b.categories()));
        assert!((0..a.len()).all(|i| a.image_path(i) == b.image_path(i) && a.image(i).id == b.image(i).id));
    }
}

#[test]
fn every_fault_names_its_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    write(&at("images"), &at("labels"), 1, 30);
    text(&at("classes.txt"), "cat\ndog\n");
    let label = |i: usize| at(&format!("labels/img_{i:03}.txt"));
    let findings = |change: fn(&mut OpenOptions)| {
        let mut options = yolo();
        change(&mut options);
        match open_dir(dir.path(), &options) {
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
    std::fs::write(at("images/img_008.png"), "no image").unwrap();
    let found = findings(|_| ());
    let all: Vec<_> = found.iter().map(|f| (f.kind, f.file.clone())).collect();
    assert_eq!(all, [(FindingKind::MissingImage, label(99)), (FindingKind::UnreadableImage, label(8))]);
    let mut options = yolo();
    (options.checks.missing_image, options.checks.unreadable_image) = (Policy::Drop, Policy::Drop);
    let splits = open_dir(dir.path(), &options).unwrap();
    let ids = |set: &Dataset| set.images().iter().map(|i| i.id).collect::<Vec<_>>();
    let all = [ids(&splits.train), ids(&splits.val)].concat();
    assert!(all.len() == 29 && !all.contains(&8));
}

fn says(splits: &docent_coco::Splits, parts: &[&str]) {
    let found = splits.notes.iter().any(|note| parts.iter().all(|part| note.contains(part)));
    assert!(found, "{parts:?} is not in {:#?}", splits.notes);
}

#[test]
fn paths_that_were_true_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    write(&at("train/images"), &at("train/labels"), 1, 6);
    write(&at("valid/images"), &at("valid/labels"), 7, 3);
    for head in [
        "train: parts-1/train/images\nval: parts-1/valid/images\n",
        "train: /content/drive/parts/train/images\nval: /content/drive/parts/valid/images\n",
        "path: C:\\Users\\anna\\parts\ntrain: train\\images\nval: valid\\images\n",
        "path: \"C:\\Users\\anna\\parts\"\ntrain: train/images\nval: valid/images\n",
        "path: /nowhere\ntrain: [train/images]\nval: [Valid/Images]\ntest: ../test/images\n",
    ] {
        text(&at("data.yaml"), &format!("{head}names: [cat, dog]\n"));
        let splits = open(dir.path()).unwrap_or_else(|e| panic!("{head}: {e}"));
        check(&splits, 6, 3);
    }
    // A held-out part that is named and not there: the folders tell it, or a share is held out.
    text(&at("data.yaml"), "train: ../train/images\nval: ../held_out/images\nnames: [cat, dog]\n");
    let splits = open(dir.path()).unwrap();
    check(&splits, 6, 3);
    says(&splits, &["held_out/images", "no such folder"]);
    std::fs::rename(at("valid"), at("elsewhere")).unwrap();
    std::fs::remove_dir_all(at("elsewhere")).unwrap();
    let splits = open(dir.path()).unwrap();
    assert_eq!(splits.train.len() + splits.val.len(), 6);
    says(&splits, &["held_out/images", "no such folder"]);
    // Train and val the same: nothing would be held out.
    text(&at("data.yaml"), "train: train/images\nval: train/images\nnames: [cat, dog]\n");
    let splits = open(dir.path()).unwrap();
    assert_eq!(splits.train.len() + splits.val.len(), 6);
    says(&splits, &["same images"]);
}

#[test]
fn names_that_are_numbers_missing_or_twice() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    write(&at("images"), &at("labels"), 1, 12);
    let names = |yaml: Option<&str>| {
        let _ = std::fs::remove_file(at("data.yaml"));
        if let Some(yaml) = yaml {
            text(&at("data.yaml"), yaml);
        }
        open(dir.path()).map(|splits| splits.train.class_names()).map_err(|e| e.to_string())
    };
    assert_eq!(names(Some("names: [0, 1]\n")).unwrap(), ["0", "1"]);
    assert_eq!(names(Some("names: {0: 7, 1: cat}\n")).unwrap(), ["7", "cat"]);
    // Nothing names them: they are numbered, and a line says so.
    assert_eq!(names(None).unwrap(), ["0", "1"]);
    says(&open(dir.path()).unwrap(), &["--classes"]);
    assert_eq!(names(Some("names: [cat, cat]\n")).unwrap(), ["cat", "cat 1"]);
    assert!(names(Some("names: [cat]\n")).unwrap_err().contains("unknown category"));
    assert!(names(Some("names: [cat, '']\n")).unwrap_err().contains("class 1 has no name"));
}

#[test]
fn other_readings_are_named_and_not_guessed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    // Corners as shares, in place of centre and sides.
    for i in 0..12 {
        image(&at(&format!("images/{i}.png")));
        let (x, y) = (0.05 * i as f64, 0.04 * i as f64);
        text(&at(&format!("labels/{i}.txt")), &format!("0 {x} {y} {} {}\n", x + 0.3, y + 0.4));
    }
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("corners") && error.contains("--boxes edge_shares") && error.contains("12 of 12 fit"),
        "{error}"
    );
    let mut options = yolo();
    options.read.boxes = Some(BoxReading::EdgeShares);
    let splits = open_dir(dir.path(), &options).unwrap();
    let sample = splits.train.ground_truth(0).boxes[0];
    assert!((sample[2] - sample[0] - 12.0).abs() < 1e-4 && (sample[3] - sample[1] - 8.0).abs() < 1e-4, "{sample:?}");
    // Pixels in place of shares.
    for i in 0..12 {
        text(&at(&format!("labels/{i}.txt")), &format!("0 {} 10 10 8\n", 10 + i));
    }
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("--boxes centers"), "{error}");
    // What fits no other reading is a fault of its lines.
    text(&at("labels/3.txt"), "0 320 240 64 48\n");
    (0..12).filter(|i| *i != 3).for_each(|i| text(&at(&format!("labels/{i}.txt")), "0 0.5 0.5 0.25 0.5\n"));
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("3.txt") && error.contains("no share"), "{error}");
}

#[test]
fn the_same_line_twice_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("images"), &dir.path().join("labels"), 1, 12);
    for i in [1, 2, 4] {
        text(
            &dir.path().join(format!("labels/img_{i:03}.txt")),
            "0 0.5 0.5 0.25 0.5\n0 0.5 0.5 0.25 0.5\n1 0.5 0.5 0.25 0.5\n",
        );
    }
    let splits = open(dir.path()).unwrap();
    let all = splits.train.all_annotations().len() + splits.val.all_annotations().len();
    let found = splits.train.findings().iter().chain(splits.val.findings());
    assert_eq!((all, found.filter(|f| f.kind == FindingKind::RepeatedObject).count()), (3 * 2 + 5, 3));
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
    fails("a", "no image");
    image(&at("a/images/1.png"));
    text(&at("a/classes.txt"), "cat\n");
    fails("a", "none of the 1 images has a label file");
    text(&at("a/labels/1.txt"), "");
    image(&at("a/images/2.png"));
    text(&at("a/classes.txt"), "cat\n\ndog\n");
    fails("a", "class 1 has no name");
    text(&at("a/classes.txt"), "cat\n");
    open(&at("a")).unwrap();
}
