//! Kinds of input that real tools and people write, each made here: it opens with the correct boxes, or the error names the flag.

use std::path::Path;

use docent_coco::{
    BoxReading, Crowds, Dataset, Error, Exif, FindingKind, OpenOptions, Policy, ReadConfig, Rgb8, Splits, open_dir,
};
use serde_json::{Value, json};

use crate::support::marked;

const SIZE: [u32; 2] = [64, 48];

fn pixels(i: usize) -> Rgb8 {
    let mut image = Rgb8::filled(64, 48, [60 + (i * 37 % 190) as u8, 120 + (i * 53 % 120) as u8, 7]);
    // A dark corner at the upper left, to see a turn.
    for row in 0..8 {
        image.data[row * 64 * 3..][..8 * 3].fill(0);
    }
    image
}

fn name(i: usize) -> String {
    format!("part_{i:03}.jpg")
}

/// The box of object `i`, [x, y, width, height].
fn bbox(i: usize) -> [f64; 4] {
    [20.0 + (i % 24) as f64, 15.0 + (i % 7) as f64, 10.0, 12.0]
}

/// `n` images in `images/`.
fn images(dir: &Path, n: usize) {
    std::fs::create_dir_all(dir.join("images")).unwrap();
    for i in 0..n {
        std::fs::write(dir.join("images").join(name(i)), pixels(i).to_jpeg().unwrap()).unwrap();
    }
}

fn coco(n: usize) -> Value {
    let images: Vec<Value> =
        (0..n).map(|i| json!({"id": i + 1, "file_name": name(i), "width": SIZE[0], "height": SIZE[1]})).collect();
    let annotations: Vec<Value> = (0..n)
        .map(|i| json!({"id": i + 1, "image_id": i + 1, "category_id": 1 + i % 2, "bbox": bbox(i), "iscrowd": 0}))
        .collect();
    json!({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "nut"}, {"id": 2, "name": "bolt"}]})
}

fn put(dir: &Path, json: &Value) {
    std::fs::create_dir_all(dir.join("annotations")).unwrap();
    std::fs::write(dir.join("annotations/instances_all.json"), json.to_string()).unwrap();
}

fn open_with(dir: &Path, read: ReadConfig) -> Result<Splits, Error> {
    open_dir(dir, &OpenOptions::default().read(read))
}

fn open(dir: &Path) -> Splits {
    open_with(dir, ReadConfig::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// Every image's number with its boxes, from both splits.
fn boxes(splits: &Splits) -> Vec<(usize, Vec<[f64; 4]>)> {
    let mut all = Vec::new();
    for set in [&splits.train, &splits.val] {
        for i in 0..set.len() {
            let stem = Path::new(&set.image(i).file_name).file_stem().unwrap().to_string_lossy().into_owned();
            let boxes = set.annotations(i).iter().map(|a| a.bbox.map(|v| (v * 1e6).round() / 1e6)).collect();
            all.push((stem[stem.len() - 3..].parse().unwrap(), boxes));
        }
    }
    all.sort_by_key(|(i, _)| *i);
    all
}

fn correct_boxes(n: usize) -> Vec<(usize, Vec<[f64; 4]>)> {
    (0..n).map(|i| (i, vec![bbox(i)])).collect()
}

fn says(splits: &Splits, parts: &[&str]) {
    assert!(splits.notes.iter().any(|n| parts.iter().all(|p| n.contains(p))), "{parts:?}: {:#?}", splits.notes);
}

/// Opens twelve images whose JSON `change` has changed, and checks that all boxes are correct.
fn opens_right(change: impl FnOnce(&mut Value)) -> Splits {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path(), 12);
    let mut json = coco(12);
    change(&mut json);
    put(dir.path(), &json);
    let splits = open(dir.path());
    assert_eq!(boxes(&splits), correct_boxes(12));
    assert_eq!(splits.train.class_names(), ["nut", "bolt"]);
    splits
}

fn each<'j>(json: &'j mut Value, list: &str) -> impl Iterator<Item = &'j mut Value> {
    json[list].as_array_mut().unwrap().iter_mut()
}

#[test]
fn numbers_of_any_kind() {
    opens_right(|json| {
        for key in ["images", "categories"] {
            each(json, key).for_each(|v| v["id"] = json!(v["id"].as_f64()));
        }
        each(json, "annotations").for_each(|v| v["image_id"] = json!(v["image_id"].to_string()));
        each(json, "images").for_each(|v| v["width"] = json!("64.0"));
    });
    let splits = opens_right(|json| {
        each(json, "images").for_each(|v| v["id"] = json!(format!("img-{}", v["id"])));
        each(json, "annotations").for_each(|v| v["image_id"] = json!(format!("img-{}", v["image_id"])));
        each(json, "categories").for_each(|v| v["id"] = json!(format!("c{}", v["id"])));
        each(json, "annotations").for_each(|v| v["category_id"] = json!(format!("c{}", v["category_id"])));
    });
    says(&splits, &["12 image ids are texts"]);
    opens_right(|json| each(json, "annotations").for_each(|v| v["iscrowd"] = Value::Null));
}

#[test]
fn annotation_ids_missing_or_repeated() {
    for change in [|v: &mut Value| v["id"] = json!(0), |v: &mut Value| _ = v.as_object_mut().unwrap().remove("id")] {
        let splits = opens_right(|json| each(json, "annotations").for_each(change));
        says(&splits, &["annotation", "numbered anew"]);
    }
}

#[test]
fn boxes_from_outlines_and_entries_without_either() {
    let splits = opens_right(|json| {
        for (i, a) in each(json, "annotations").enumerate() {
            let [x, y, w, h] = bbox(i);
            a["segmentation"] = json!([[x, y, x + w, y, x + w, y + h, x, y + h]]);
            a["bbox"] = if i % 2 == 0 { Value::Null } else { json!([]) };
        }
    });
    says(&splits, &["12 annotations have no box"]);
    // One odd entry is a listed fault, with file and id.
    for bad in [Value::Null, json!([]), json!([1, null, 3, 4])] {
        let dir = tempfile::tempdir().unwrap();
        images(dir.path(), 12);
        let mut json = coco(12);
        json["annotations"][4]["bbox"] = bad;
        put(dir.path(), &json);
        let splits = open(dir.path());
        let found: Vec<_> = splits.train.findings().iter().chain(splits.val.findings()).collect();
        assert_eq!((found.len(), found[0].kind, found[0].annotation_id), (1, FindingKind::DegenerateBox, Some(5)));
        assert!(found[0].to_string().contains("instances_all.json"), "{}", found[0]);
        let mut wanted = correct_boxes(12);
        wanted[4].1.clear();
        assert_eq!(boxes(&splits), wanted);
    }
    let dir = tempfile::tempdir().unwrap();
    images(dir.path(), 12);
    let mut json = coco(12);
    json["annotations"][4]["bbox"] = json!([1, 2, 3]);
    json["annotations"][5]["iscrowd"] = json!(7);
    json["annotations"][6] = json!("odd");
    put(dir.path(), &json);
    let error = open_with(dir.path(), ReadConfig::default()).unwrap_err().to_string();
    for part in
        ["3 fault(s)", "annotation id 5", "annotation id 6", "annotations[6]", "--policy broken_annotation=drop"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    let mut options = OpenOptions::default();
    options.checks.broken_annotation = Policy::Drop;
    assert_eq!(boxes(&open_dir(dir.path(), &options).unwrap()).iter().filter(|(_, b)| b.is_empty()).count(), 3);
}

#[test]
fn json_that_python_writes() {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path(), 12);
    put(dir.path(), &coco(12));
    let path = dir.path().join("annotations/instances_all.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("\u{feff}{}", text.replacen("20.0,15.0", "NaN,15.0", 1))).unwrap();
    let mut wanted = correct_boxes(12);
    wanted[0].1.clear();
    assert_eq!(boxes(&open(dir.path())), wanted);
}

#[test]
fn sizes_that_are_missing_null_or_minus_one() {
    for size in [json!(0), json!(-1), Value::Null] {
        let splits = opens_right(|json| each(json, "images").for_each(|v| v["width"] = size.clone()));
        says(&splits, &["12 images have no width and height"]);
        assert!(splits.train.images().iter().all(|i| [i.width, i.height] == SIZE));
    }
}

#[test]
fn a_category_that_groups_the_others_is_left_out() {
    let splits = opens_right(|json| {
        each(json, "categories").for_each(|v| v["supercategory"] = json!("parts"));
        json["categories"].as_array_mut().unwrap().push(json!({"id": 0, "name": "parts", "supercategory": "none"}));
    });
    says(&splits, &["left out", "supercategory", "parts"]);
}

#[test]
fn names_of_files_as_tools_write_them() {
    for spell in [
        (|n: &str| format!("images\\{n}")) as fn(&str) -> String,
        |n| format!("C:\\Users\\me\\{n}"),
        |n| format!("/data/upload/3/{n}"),
        |n| format!("https://example.org/a%20b/{n}?x=1"),
        |n| n.to_uppercase(),
        |n| n.replace(".jpg", ".png"),
    ] {
        let splits = opens_right(|json| {
            each(json, "images").for_each(|v| v["file_name"] = json!(spell(v["file_name"].as_str().unwrap())));
        });
        says(&splits, &["12 image files were found under another path"]);
    }
}

#[test]
fn one_file_under_two_ids_and_one_image_in_both_splits() {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path(), 12);
    let mut json = coco(12);
    json["images"].as_array_mut().unwrap().push(json!({"id": 99, "file_name": name(0), "width": 64, "height": 48}));
    put(dir.path(), &json);
    let error = open_with(dir.path(), ReadConfig::default()).unwrap_err().to_string();
    assert!(
        error.contains("one image twice") && error.contains("part_000.jpg") && error.contains("image id 99"),
        "{error}"
    );
    // Two files of the author's, with a copy of an image on the other side.
    std::fs::remove_file(dir.path().join("annotations/instances_all.json")).unwrap();
    std::fs::copy(dir.path().join("images").join(name(0)), dir.path().join("images/copy_011.jpg")).unwrap();
    let (mut train, mut val) = (coco(12), coco(12));
    for (json, keep) in [(&mut train, 0..8), (&mut val, 8..12)] {
        for key in ["images", "annotations"] {
            let list: Vec<Value> = keep.clone().map(|i| json[key][i].clone()).collect();
            json[key] = Value::Array(list);
        }
    }
    val["images"][3]["file_name"] = json!("copy_011.jpg");
    for (split, json) in [("train", &train), ("val", &val)] {
        std::fs::write(dir.path().join(format!("annotations/{split}.json")), json.to_string()).unwrap();
    }
    let error = open_with(dir.path(), ReadConfig::default()).unwrap_err().to_string();
    for part in ["one image in both splits", "part_000.jpg", "copy_011.jpg", "--policy shared_image=drop"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let mut options = OpenOptions::default();
    options.checks.shared_image = Policy::Drop;
    let splits = open_dir(dir.path(), &options).unwrap();
    assert_eq!((splits.train.len(), splits.val.len()), (7, 4));
}

#[test]
fn boxes_in_another_convention_are_named_and_not_guessed() {
    let n = 20;
    let of = |reading: BoxReading, i: usize| {
        let [x, y, w, h] = bbox(i);
        let (sx, sy) = (64.0, 48.0);
        match reading {
            BoxReading::Edges => [x, y, x + w, y + h],
            BoxReading::Centers => [x + w / 2.0, y + h / 2.0, w, h],
            BoxReading::XywhShares => [x / sx, y / sy, w / sx, h / sy],
            BoxReading::EdgeShares => [x / sx, y / sy, (x + w) / sx, (y + h) / sy],
            BoxReading::CenterShares => [(x + w / 2.0) / sx, (y + h / 2.0) / sy, w / sx, h / sy],
            _ => [x, y, w, h],
        }
    };
    for reading in [BoxReading::Edges, BoxReading::XywhShares, BoxReading::EdgeShares, BoxReading::CenterShares] {
        let dir = tempfile::tempdir().unwrap();
        images(dir.path(), n);
        let mut json = coco(n);
        each(&mut json, "annotations").enumerate().for_each(|(i, a)| a["bbox"] = json!(of(reading, i)));
        put(dir.path(), &json);
        let error = open_with(dir.path(), ReadConfig::default()).unwrap_err();
        assert!(matches!(error, Error::Undecided { .. }), "{error}");
        let flag = format!("--boxes {}", reading.name());
        assert!(error.to_string().contains(&flag), "{flag}: {error}");
        let read = ReadConfig::default().boxes(reading);
        let splits = open_with(dir.path(), read).unwrap();
        assert_eq!(boxes(&splits), correct_boxes(n), "{reading:?}");
        assert!(splits.train.all_annotations().iter().all(|a| (a.area - 120.0).abs() < 1e-6));
    }
    // Who says that the numbers are correct as they stand is believed, and told all the same.
    let dir = tempfile::tempdir().unwrap();
    images(dir.path(), n);
    let mut json = coco(n);
    each(&mut json, "annotations").enumerate().for_each(|(i, a)| a["bbox"] = json!(of(BoxReading::Edges, i)));
    put(dir.path(), &json);
    let read = ReadConfig::default().boxes(BoxReading::Xywh);
    says(&open_with(dir.path(), read).unwrap(), &["--boxes xywh was given"]);
}

#[test]
fn crowds_alone_are_no_targets() {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path(), 12);
    let mut json = coco(12);
    each(&mut json, "annotations").for_each(|a| a["iscrowd"] = json!(1));
    put(dir.path(), &json);
    let error = open(dir.path()).require_targets().unwrap_err().to_string();
    assert!(error.contains("crowds") && error.contains("--crowds keep"), "{error}");
    let splits = open_with(dir.path(), ReadConfig::default().crowds(Crowds::Keep)).unwrap();
    splits.require_targets().unwrap();
    assert_eq!(boxes(&splits), correct_boxes(12));
}

fn put_marked(dir: &Path, n: usize, orientation: u8, size: [u32; 2]) {
    images(dir, n);
    for i in 0..n {
        std::fs::write(dir.join("images").join(name(i)), marked(&pixels(i), orientation)).unwrap();
    }
    let mut json = coco(n);
    for image in each(&mut json, "images") {
        (image["width"], image["height"]) = (json!(size[0]), json!(size[1]));
    }
    // Boxes that lie in both shapes of the image.
    each(&mut json, "annotations").enumerate().for_each(|(i, a)| a["bbox"] = json!([5.0 + i as f64, 6.0, 10.0, 12.0]));
    put(dir, &json);
}

#[test]
fn turned_images_are_turned_where_their_sizes_say_so() {
    let dir = tempfile::tempdir().unwrap();
    put_marked(dir.path(), 12, 6, [48, 64]);
    let splits = open(dir.path());
    says(&splits, &["12 images have an EXIF orientation", "12 are turned"]);
    let sample = splits.train.sample(0).unwrap();
    assert_eq!((sample.image.width, sample.image.height), (48, 64));
    // The mark at the upper left of the stored image is at the upper right of the turned one.
    assert!(sample.image.pixel(46, 1)[1] < 60 && splits.train.is_turned(0));
    // The stored size: the annotations count the stored image.
    let dir = tempfile::tempdir().unwrap();
    put_marked(dir.path(), 12, 6, SIZE);
    let splits = open(dir.path());
    says(&splits, &["12 images have an EXIF orientation", "0 are turned"]);
    assert_eq!(splits.train.sample(0).unwrap().image.width, 64);
}

#[test]
fn a_turn_that_sizes_do_not_tell_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    put_marked(dir.path(), 12, 3, SIZE);
    let error = open_with(dir.path(), ReadConfig::default()).unwrap_err().to_string();
    assert!(error.contains("12 images") && error.contains("EXIF") && error.contains("--exif apply"), "{error}");
    for (exif, turned) in [(Exif::Apply, true), (Exif::Ignore, false)] {
        let splits = open_with(dir.path(), ReadConfig::default().exif(exif)).unwrap();
        assert_eq!(splits.train.is_turned(0), turned);
        let corner =
            splits.train.sample(0).unwrap().image.pixel(if turned { 62 } else { 1 }, if turned { 46 } else { 1 });
        assert!(corner[1] < 60, "{corner:?}");
    }
    // Without objects nothing can be misplaced.
    let mut json = coco(12);
    json["annotations"].as_array_mut().unwrap().truncate(0);
    put(dir.path(), &json);
    assert_eq!(open(dir.path()).train.len() + open(dir.path()).val.len(), 12);
}

#[test]
fn one_json_with_folders_of_parts_and_other_layouts() {
    let layouts: [(&str, [&str; 2]); 4] = [
        ("result.json", ["train", "valid"]),
        ("labels/whole.json", ["images/Train", "images/Test"]),
        ("annotations/instances_default.json", ["images/training", "images/validation"]),
        ("data.json", ["a/train/images", "a/val/images"]),
    ];
    for (file, folders) in layouts {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..12 {
            let folder = dir.path().join(folders[usize::from(i >= 9)]);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(name(i)), pixels(i).to_jpeg().unwrap()).unwrap();
        }
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, coco(12).to_string()).unwrap();
        let splits = open(dir.path());
        assert_eq!((splits.train.len(), splits.val.len()), (9, 3), "{file}");
        assert_eq!(boxes(&splits), correct_boxes(12), "{file}");
    }
    // A file for each part, beside its images; the test part is left alone.
    let dir = tempfile::tempdir().unwrap();
    for (folder, range) in [("train", 0..7), ("valid", 7..10), ("test", 10..12)] {
        let folder = dir.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let mut json = coco(12);
        for key in ["images", "annotations"] {
            json[key] = Value::Array(range.clone().map(|i| json[key][i].clone()).collect());
        }
        range.for_each(|i| std::fs::write(folder.join(name(i)), pixels(i).to_jpeg().unwrap()).unwrap());
        std::fs::write(folder.join("_annotations.coco.json"), json.to_string()).unwrap();
    }
    let splits = open(dir.path());
    assert_eq!((splits.train.len(), splits.val.len()), (7, 3));
    says(&splits, &["test", "left alone"]);
}

#[test]
fn what_is_not_read_is_called_by_its_name() {
    for (file, content, part) in [
        ("a.json", r#"[{"image": "a.jpg", "annotations": []}]"#, "CreateML"),
        ("a.json", r#"[{"id": 1, "data": {}, "annotations": []}]"#, "Label Studio"),
        ("a.xml", "<annotations><version>1.1</version><image id=\"0\"/></annotations>", "CVAT"),
        ("a.csv", "filename,region_shape_attributes\n", "VIA's CSV"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        images(dir.path(), 2);
        std::fs::write(dir.path().join(file), content).unwrap();
        let error = open_with(dir.path(), ReadConfig::default()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("not read") && error.contains(file), "{error}");
    }
}

#[test]
fn a_side_does_not_move_when_images_are_added() {
    let sides = |n: usize| {
        let dir = tempfile::tempdir().unwrap();
        images(dir.path(), n);
        put(dir.path(), &coco(n));
        let splits = open(dir.path());
        let name = |set: &Dataset| set.images().iter().map(|i| i.file_name.clone()).collect::<Vec<_>>();
        (name(&splits.train), name(&splits.val))
    };
    let (before, after) = (sides(30), sides(40));
    assert!(before.0.iter().all(|name| after.0.contains(name)) && before.1.iter().all(|name| after.1.contains(name)));
}
