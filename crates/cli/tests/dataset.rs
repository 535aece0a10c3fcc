//! `docent dataset` as a person calls it: reports, exit codes, files.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use docent_coco::{Annotation, Category, Dataset, Image, OpenOptions, Rgb8, open_dir};

/// Exit code, standard output, standard error.
fn docent(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_docent")).args(args).current_dir(dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

/// 30 images with a box each, split by hash.
fn write(dir: &Path) -> Dataset {
    std::fs::create_dir_all(dir.join("images")).unwrap();
    let names: Vec<String> = (1..=30).map(|id| format!("{id:03}.png")).collect();
    let images = (1..).zip(&names).map(|(id, name)| Image { id, file_name: name.clone(), width: 32, height: 20 });
    let boxes = (1..=30).map(|id| Annotation {
        id,
        image_id: id,
        category_id: 1 + id % 2,
        bbox: if id == 9 { [3.0, 3.0, 0.0, 5.0] } else { [3.0, 3.0, 9.0, 5.0] },
        area: 45.0,
        iscrowd: false,
    });
    let categories = ["cat", "dog"].into_iter().zip(1..).map(|(name, id)| Category { id, name: name.into() });
    let set = Dataset::from_parts("made", dir.join("images"), images.collect(), boxes.collect(), categories.collect())
        .unwrap();
    for i in 0..set.len() {
        Rgb8::filled(32, 20, [i as u8; 3]).save_png(&set.image_path(i)).unwrap();
    }
    set.save(&dir.join("annotations/instances_all.json")).unwrap();
    set
}

#[test]
fn a_report_names_what_stops_a_training() {
    let dir = tempfile::tempdir().unwrap();
    let set = write(dir.path());
    let (code, out, _) = docent(dir.path(), &["dataset", "check", "."]);
    contains(&out, &["training: ", "held-out: ", "1 cat", "2 dog", "most often 32x20", "faults: 1"]);
    contains(&out, &["1 x box without area (drop)", "image id 9, annotation id 9", "nothing here stops a training"]);
    assert_eq!(code, 0);
    let (code, out, err) = docent(dir.path(), &["dataset", "check", ".", "--policy", "degenerate=error"]);
    assert_eq!((code, out.contains("1 x box without area (error)")), (1, true), "{out}");
    contains(&err, &["1 fault(s) would stop a training"]);

    std::fs::remove_file(set.image_path(2)).unwrap();
    let whole = std::fs::read(set.image_path(4)).unwrap();
    std::fs::write(set.image_path(4), &whole[..whole.len() - 20]).unwrap();
    Rgb8::filled(20, 32, [0; 3]).save_png(&set.image_path(6)).unwrap();
    let (code, out, err) = docent(dir.path(), &["dataset", "check", "."]);
    assert_eq!(code, 1);
    contains(&err, &["3 fault(s)"]);
    contains(&out, &["faults: 4", "missing image file, image id 3", "003.png", "unreadable image file, image id 5"]);
    contains(&out, &["image id 7", "is 20x32, annotated as 32x20", "--policy missing_image=drop"]);
    let drop = ["missing_image=drop", "size_mismatch=drop", "unreadable_image=drop"];
    let with: Vec<&str> = drop.iter().flat_map(|policy| ["--policy", policy]).collect();
    assert_eq!(docent(dir.path(), &[&["dataset", "check", "."], &with[..]].concat()).0, 0);
    // A header alone does not show that the pixels are cut.
    let (_, out, _) = docent(dir.path(), &["dataset", "check", ".", "--headers"]);
    assert!(out.contains("faults: 3") && !out.contains("unreadable"), "{out}");

    // Contradictions are listed together with the rest; what no policy forgives, alone.
    let json = dir.path().join("annotations/instances_all.json");
    let text = std::fs::read_to_string(&json).unwrap();
    std::fs::write(&json, text.replace(r#""image_id":20,"#, r#""image_id":99,"#)).unwrap();
    let (code, out, _) = docent(dir.path(), &["dataset", "check", ".", "--list", "0"]);
    assert_eq!(code, 1);
    contains(&out, &["faults: 5", "1 x annotation of an unlisted image (error)", "and 1 more"]);
    std::fs::write(&json, text.replace(r#""name":"dog""#, r#""name":"cat""#)).unwrap();
    let (code, out, _) = docent(dir.path(), &["dataset", "check", "."]);
    assert_eq!(code, 1);
    contains(&out, &["1 x duplicate category (error)", "checked once these are gone"]);
}

#[test]
fn what_is_asked_wrongly_is_said_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |args: &[&str], wanted: i32, part: &str| {
        let (code, _, err) = docent(dir.path(), args);
        assert!(code == wanted && err.contains(part), "{args:?}: {code} {err}");
    };
    fails(&["dataset", "check", "nowhere"], 1, "no such folder");
    fails(&["dataset", "check", "."], 1, "PASCAL VOC XML");
    fails(&["dataset", "check", ".", "--policy", "missing=drop"], 2, "unknown field `missing`");
    fails(&["dataset", "check", ".", "--policy", "missing_image"], 2, "KEY=POLICY");
    fails(&["dataset", "check", ".", "--policy", "unknown_category=clip"], 2, "no meaning here");
    fails(&["dataset", "check"], 2, "<DIR>");
    fails(&["dataset", "import-voc", ".", "out"], 1, "no PASCAL VOC annotations");
    fails(&["dataset", "import-voc", ".", "out", "--boxes", "corners"], 2, "edges");
    fails(&["dataset", "import-yolo", ".", "out"], 1, "no image");
    fails(&["dataset", "to-coco", ".", "out"], 1, "no annotations");
    fails(&["dataset", "split", "no.json", "out"], 1, "no.json");
    fails(&["dataset", "stats", ".", "--chart", "a.png"], 1, ".svg");
    fails(&["dataset", "view", ".", "--count", "0"], 1, "--count");
    fails(&["dataset", "view", ".", "--split", "test"], 2, "train");
    fails(&["dataset", "shapes", "out", "--train", "0"], 1, "train = 0 images");
    for command in ["check", "stats", "view", "split", "to-coco", "import-voc", "import-yolo", "shapes"] {
        contains(&docent(dir.path(), &["dataset", command, "--help"]).1, &["Examples:", "docent dataset"]);
    }
    assert!(!dir.path().join("out").exists());
}

#[test]
fn voc_becomes_coco() {
    let dir = tempfile::tempdir().unwrap();
    let set = write(dir.path());
    std::fs::create_dir(dir.path().join("voc_annotations")).unwrap();
    std::fs::remove_dir_all(dir.path().join("annotations")).unwrap();
    for i in 0..set.len() {
        let image = set.image(i);
        let text = format!(
            "<annotation><filename>{}</filename><size><width>32</width><height>20</height></size><object><name>cell</name>\
             <bndbox><xmin>4</xmin><ymin>4</ymin><xmax>12</xmax><ymax>{}</ymax></bndbox></object></annotation>",
            image.file_name,
            if i == 8 { 4 } else { 8 }
        );
        std::fs::write(dir.path().join(format!("voc_annotations/{:03}.xml", image.id)), text).unwrap();
    }
    let (code, out, err) = docent(dir.path(), &["dataset", "import-voc", ".", "made/coco"]);
    assert_eq!(code, 0, "{err}");
    contains(&out, &["1 x box without area (drop)", "009.xml", "instances_train.json", "--data made/coco --images"]);
    let options = OpenOptions::default().images(dir.path().join("images"));
    let coco = open_dir(&dir.path().join("made/coco"), &options).unwrap();
    let voc = open_dir(dir.path(), &OpenOptions::default()).unwrap();
    for (a, b) in [(&coco.train, &voc.train), (&coco.val, &voc.val)] {
        assert_eq!(
            (a.images(), a.all_annotations(), a.categories()),
            (b.images(), b.all_annotations(), b.categories())
        );
        assert!(a.all_annotations().iter().all(|a| a.bbox == [3.0, 3.0, 9.0, 5.0]));
    }
    assert_eq!(coco.train.all_annotations().len() + coco.val.all_annotations().len(), 29);
    // A second time: what is there stays.
    let written = std::fs::read(coco.train.source()).unwrap();
    let (code, _, err) = docent(dir.path(), &["dataset", "import-voc", ".", "made/coco"]);
    assert!(code == 1 && err.contains("is there already"), "{err}");
    assert_eq!(std::fs::read(coco.train.source()).unwrap(), written);
    assert_eq!(docent(dir.path(), &["dataset", "check", "."]).0, 0);
}

#[test]
fn figures_and_pictures_of_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let set = write(dir.path());
    let (code, out, err) = docent(dir.path(), &["dataset", "stats", ".", "--chart", "stats.svg"]);
    assert_eq!(code, 0, "{err}");
    contains(&out, &["training: ", "held-out: ", "1 cat", "2 dog", "32x20", "100% small", "chart: stats.svg"]);
    let svg = std::fs::read_to_string(dir.path().join("stats.svg")).unwrap();
    contains(&svg, &["<svg", "training: ", "cat"]);
    let (_, out, _) = docent(dir.path(), &["dataset", "stats", ".", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let of = |key: &str| ["training", "held-out"].map(|split| json[split][key].as_u64().unwrap()).iter().sum::<u64>();
    assert_eq!((of("images"), of("boxes"), of("degenerate")), (30, 29, 1));

    let view =
        |more: &[&str]| docent(dir.path(), &[&["dataset", "view", ".", "--count", "4", "--size", "64"], more].concat());
    let (code, out, err) = view(&["--out", "a.png"]);
    assert_eq!((code, out.lines().count()), (0, 5), "{err}");
    view(&["--out", "b.png", "--seed", "1"]);
    view(&["--out", "c.png"]);
    let read = |name: &str| docent_coco::decode_file(&dir.path().join(name), Default::default()).unwrap();
    assert_eq!(read("a.png"), read("c.png"), "the same seed, the same sheet");
    assert_ne!(read("a.png"), read("b.png"));
    // Boxes are drawn: the images themselves are grey.
    let coloured = |p: &[u8]| p.iter().max().unwrap() - p.iter().min().unwrap() > 60;
    assert!(read("a.png").data.chunks_exact(3).filter(|p| coloured(p)).count() > 200);
    let (code, out, _) = view(&["--class", "dog", "--no-names"]);
    assert!(code == 0 && dir.path().join("sheet.png").is_file(), "{out}");
    let odd = |line: &str| set.images().iter().any(|i| line.contains(&i.file_name) && i.id % 2 == 1);
    assert!(out.lines().skip(1).all(odd), "dogs are in the odd ones: {out}");
    let (code, _, err) = view(&["--class", "bird"]);
    assert!(code == 1 && err.contains("cat, dog"), "{err}");
}

#[test]
fn one_file_is_split_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let set = write(dir.path());
    let args = ["dataset", "split", "annotations/instances_all.json", "out", "--val", "0.3", "--stratify"];
    let (code, out, err) = docent(dir.path(), &args);
    assert_eq!(code, 0, "{err}");
    contains(&out, &["instances_train.json: 21 images", "instances_val.json: 9 images"]);
    let options = OpenOptions::default().images(set.image_root().to_owned());
    let splits = open_dir(&dir.path().join("out"), &options).unwrap();
    assert_eq!((splits.train.len(), splits.val.len()), (21, 9));
    let (code, _, err) = docent(dir.path(), &args);
    assert!(code == 1 && err.contains("is there already"), "{err}");
    let (code, _, err) =
        docent(dir.path(), &["dataset", "split", "annotations/instances_all.json", "x", "--val", "1.5"]);
    assert!(code == 1 && err.contains("between 0 and 1") && !dir.path().join("x").exists(), "{err}");
}

#[test]
fn yolo_becomes_coco() {
    let dir = tempfile::tempdir().unwrap();
    let set = write(dir.path());
    std::fs::remove_dir_all(dir.path().join("annotations")).unwrap();
    std::fs::create_dir(dir.path().join("labels")).unwrap();
    for i in 0..set.len() {
        let name = set.image(i).file_name.replace("png", "txt");
        std::fs::write(dir.path().join("labels").join(name), format!("{} 0.5 0.5 0.25 0.5\n", i % 2)).unwrap();
    }
    std::fs::write(dir.path().join("data.yaml"), "names: [cat, dog]\n").unwrap();
    let (code, out, err) = docent(dir.path(), &["dataset", "import-yolo", ".", "."]);
    assert_eq!(code, 0, "{err}");
    contains(&out, &["instances_train.json", "instances_val.json", "docent init .\n"]);
    let splits = open_dir(dir.path(), &OpenOptions::default()).unwrap();
    assert_eq!(splits.train.len() + splits.val.len(), 30);
    assert!(splits.train.all_annotations().iter().all(|a| a.bbox == [12.0, 5.0, 8.0, 10.0]));
    let (code, _, err) = docent(dir.path(), &["dataset", "import-yolo", ".", "."]);
    assert!(code == 1 && err.contains("is there already"), "{err}");
    std::fs::write(dir.path().join("labels/004.txt"), "0 0.5\n").unwrap();
    let (code, _, err) = docent(dir.path(), &["dataset", "import-yolo", ".", "other"]);
    assert!(code == 1 && err.contains("004.txt") && err.contains("line 1"), "{err}");
}

#[test]
fn shapes_are_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["dataset", "shapes", "made", "--train", "3", "--val", "2", "--seed", "5"];
    let (code, out, err) = docent(dir.path(), &args);
    assert_eq!(code, 0, "{err}");
    contains(&out, &["training: 3 images", "held-out: 2 images"]);
    assert_eq!(open_dir(&dir.path().join("made"), &OpenOptions::default()).unwrap().val.len(), 2);
}
