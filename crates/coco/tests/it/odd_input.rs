//! Input that is a little odd: it opens with the correct boxes, or the message says what is odd and what to do.

use std::path::Path;

use docent_coco::{BoxReading, Error, FindingKind, OpenOptions, Policy, ReadConfig, Rgb8, Splits, Unlabeled, open_dir};
use serde_json::{Value, json};

const N: usize = 12;

fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// `images/0.png`, `images/1.png`, ... of 64x48 pixels.
fn images(dir: &Path, n: usize) {
    std::fs::create_dir_all(dir.join("images")).unwrap();
    for i in 0..n {
        Rgb8::filled(64, 48, [i as u8, 90, 7]).save_png(&dir.join(format!("images/{i}.png"))).unwrap();
    }
}

/// The corners of image `i`'s object.
fn corners(i: usize) -> [f64; 4] {
    let (x, y) = (20.0 + 2.0 * i as f64, 15.0 + i as f64);
    [x, y, x + 15.0, y + 12.0]
}

fn coco(n: usize) -> Value {
    let images: Vec<_> =
        (0..n).map(|i| json!({"id": i, "file_name": format!("{i}.png"), "width": 64, "height": 48})).collect();
    let bbox = |i: usize| {
        let [x1, y1, x2, y2] = corners(i);
        [x1, y1, x2 - x1, y2 - y1]
    };
    let annotations: Vec<_> =
        (0..n).map(|i| json!({"id": i, "image_id": i, "category_id": 1, "bbox": bbox(i)})).collect();
    json!({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "nut"}]})
}

fn open(dir: &Path) -> docent_coco::Result<Splits> {
    open_dir(dir, &OpenOptions::default())
}

fn with(read: ReadConfig) -> OpenOptions {
    OpenOptions::default().read(read)
}

fn refusal(result: docent_coco::Result<Splits>) -> String {
    match result {
        Err(e) => e.to_string(),
        Ok(splits) => panic!("{} and {} images: {:?}", splits.train.len(), splits.val.len(), splits.notes),
    }
}

/// One line holds all parts.
fn says(splits: &Splits, parts: &[&str]) -> bool {
    splits.notes.iter().any(|note| parts.iter().all(|part| note.contains(part)))
}

/// Each object has the box of its image.
fn check_boxes(splits: &Splits, objects: usize) {
    let mut count = 0;
    for set in [&splits.train, &splits.val] {
        for i in 0..set.len() {
            let stem = Path::new(&set.image(i).file_name).file_stem().unwrap().to_str().unwrap();
            for found in set.ground_truth(i).boxes {
                let wanted = corners(stem.parse().unwrap());
                assert!(found.iter().zip(wanted).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-3), "{stem}: {found:?}");
                count += 1;
            }
        }
    }
    assert_eq!(count, objects);
}

fn yolo_line(i: usize) -> String {
    let [x1, y1, x2, y2] = corners(i);
    format!("0 {} {} {} {}\n", (x1 + x2) / 128.0, (y1 + y2) / 96.0, (x2 - x1) / 64.0, (y2 - y1) / 48.0)
}

fn yolo(dir: &Path) {
    images(dir, N);
    (0..N).for_each(|i| put(&dir.join(format!("labels/{i}.txt")), yolo_line(i)));
}

#[test]
fn a_broken_yaml_hides_no_split() {
    let dir = tempfile::tempdir().unwrap();
    yolo(dir.path());
    put(&dir.path().join("a.txt"), (0..9).map(|i| format!("images/{i}.png\n")).collect::<String>());
    put(&dir.path().join("b.txt"), (9..N).map(|i| format!("images/{i}.png\n")).collect::<String>());
    let yaml = dir.path().join("parts.yaml");
    put(&yaml, "train: a.txt\nval: b.txt\nnames: [nut\n");
    assert!(refusal(open(dir.path())).contains("parts.yaml"));
    // Keys in any case, and the other name of the list of names.
    put(&yaml, "TRAIN: a.txt\nVal: b.txt\nclasses: [nut]\n");
    let splits = open(dir.path()).unwrap();
    assert_eq!((splits.train.len(), splits.val.len(), splits.train.class_names()), (9, 3, vec!["nut".to_owned()]));
    check_boxes(&splits, N);
    // Where another file tells the split, or it is no description of data, a broken file is no matter.
    put(&dir.path().join("broken.yaml"), "train: [a.txt\n");
    assert_eq!(open(dir.path()).unwrap().val.len(), 3);
    std::fs::remove_file(dir.path().join("broken.yaml")).unwrap();
    put(&yaml, "services: [\n");
    open(dir.path()).unwrap();
}

#[test]
fn an_odd_first_line_is_a_fault_of_that_line() {
    let dir = tempfile::tempdir().unwrap();
    yolo(dir.path());
    put(&dir.path().join("labels/0.txt"), format!("class cx cy w h\n{}", yolo_line(0)));
    let Err(Error::Annotations { findings, .. }) = open(dir.path()) else { panic!("it opens") };
    assert_eq!((findings.len(), findings[0].kind), (1, FindingKind::BrokenAnnotation));
    let mut options = OpenOptions::default();
    options.checks.broken_annotation = Policy::Drop;
    check_boxes(&open_dir(dir.path(), &options).unwrap(), N);
}

#[test]
fn an_unnamed_class_is_called_by_its_number_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    yolo(dir.path());
    put(&dir.path().join("classes.txt"), "nut\n");
    put(&dir.path().join("labels/3.txt"), yolo_line(3).replacen('0', "7", 1));
    let error = refusal(open(dir.path()));
    assert!(error.contains("class \"7\"") && !error.contains('8'), "{error}");
}

#[test]
fn text_of_other_tools_is_called_by_its_name() {
    for (line, part) in [
        ("1.0 2 9.0 2 9 7 1 7 plane 0", "DOTA"),
        ("Car 0.00 0 -1.58 587.0 173.3 614.1 200.1 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59", "KITTI"),
        ("nut 0.5 0.5 0.25 0.5", "names of classes"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        images(dir.path(), N);
        (0..N).for_each(|i| put(&dir.path().join(format!("labels/{i}.txt")), line));
        let error = refusal(open(dir.path()));
        assert!(error.contains(part) && error.contains("labels/0.txt") && error.contains("not read"), "{error}");
    }
}

#[test]
fn images_that_are_not_read_are_no_missing_annotations() {
    let dir = tempfile::tempdir().unwrap();
    (0..3).for_each(|i| put(&dir.path().join(format!("images/{i}.gif")), "GIF89a"));
    (0..3).for_each(|i| put(&dir.path().join(format!("labels/{i}.txt")), yolo_line(i)));
    let error = refusal(open(dir.path()));
    assert!(
        error.contains("images/0.gif") && error.contains("convert") && !error.contains("no annotations"),
        "{error}"
    );
}

#[test]
fn some_boxes_that_are_corners_are_said() {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path(), 25);
    let mut json = coco(N);
    let all: Vec<Value> =
        (0..25).map(|i| json!({"id": i, "file_name": format!("{i}.png"), "width": 64, "height": 48})).collect();
    json["images"] = json!(all);
    let boxes = (0..25).map(|i| {
        let [x1, y1, x2, y2] = corners(i % 5);
        let bbox = if i < 3 { [x1 + 20.0, y1 + 10.0, x2 + 20.0, y2 + 10.0] } else { [x1, y1, x2 - x1, y2 - y1] };
        json!({"id": i, "image_id": i, "category_id": 1, "bbox": bbox})
    });
    json["annotations"] = Value::Array(boxes.collect());
    put(&dir.path().join("whole.json"), json.to_string());
    let splits = open(dir.path()).unwrap();
    assert!(says(&splits, &["3 of 25 boxes", "corners"]), "{:?}", splits.notes);
    let findings = || splits.train.findings().iter().chain(splits.val.findings());
    let outside: Vec<_> = findings().filter(|f| f.kind == FindingKind::OutsideBox).collect();
    assert!(outside.len() == 3 && outside.iter().all(|f| f.detail.contains("as corners")), "{outside:?}");
}

fn csv(dir: &Path, header: &str, row: impl Fn(usize) -> String) {
    images(dir, N);
    let rows: String = (0..N).map(|i| format!("{i}.png,nut,{}\n", row(i))).collect();
    put(&dir.join("boxes.csv"), format!("filename,class,{header}\n{rows}"));
}

fn joined(numbers: [f64; 4]) -> String {
    numbers.map(|n| n.to_string()).join(",")
}

#[test]
fn corners_that_are_swapped_in_most_boxes_are_put_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let swapped = |i: usize| {
        let [x1, y1, x2, y2] = corners(i);
        joined(if i.is_multiple_of(4) { [x1, y1, x2, y2] } else { [x2, y1, x1, y2] })
    };
    csv(dir.path(), "xmin,ymin,xmax,ymax", swapped);
    let splits = open(dir.path()).unwrap();
    check_boxes(&splits, N);
    let findings = splits.train.findings().iter().chain(splits.val.findings());
    assert_eq!(findings.filter(|f| f.kind == FindingKind::SwappedCorners).count(), 9);
}

#[test]
fn tables_with_other_columns() {
    let sides = |i: usize| {
        let [x1, y1, x2, y2] = corners(i);
        [x1, y1, x2 - x1, y2 - y1]
    };
    let dir = tempfile::tempdir().unwrap();
    csv(dir.path(), "left,top,width,height", |i| joined(sides(i)));
    check_boxes(&open(dir.path()).unwrap(), N);
    // A corner or the centre: the caller says which.
    let as_read = |boxes| with(ReadConfig::default().boxes(boxes));
    for header in ["x,y,width,height", "bbox"] {
        let quote = if header == "bbox" { "\"" } else { "" };
        csv(dir.path(), header, |i| format!("{quote}{}{quote}", joined(sides(i))));
        let error = refusal(open(dir.path()));
        assert!(error.contains("boxes.csv") && error.contains("--boxes xywh"), "{error}");
        check_boxes(&open_dir(dir.path(), &as_read(BoxReading::Xywh)).unwrap(), N);
    }
}

#[test]
fn a_table_that_lacks_a_column_names_it() {
    let dir = tempfile::tempdir().unwrap();
    csv(dir.path(), "width,height,xmin,ymin,xmax", |_| "64,48,1,2,9".to_owned());
    let error = refusal(open(dir.path()));
    assert!(error.contains("boxes.csv") && error.contains("no column ymax"), "{error}");
    put(&dir.path().join("boxes.csv"), "images/0.png,1,2,9,7,nut\n");
    let error = refusal(open(dir.path()));
    assert!(error.contains("boxes.csv") && error.contains("without a header"), "{error}");
}

#[test]
fn images_that_nothing_lists_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    csv(dir.path(), "xmin,ymin,xmax,ymax", |i| joined(corners(i)));
    images(dir.path(), N + 3);
    let splits = open(dir.path()).unwrap();
    assert_eq!(splits.train.len() + splits.val.len(), N);
    assert!(says(&splits, &["3 images", "listed nowhere", "--unlabeled as-negatives"]), "{:?}", splits.notes);
    let negatives = with(ReadConfig::default().unlabeled(Unlabeled::AsNegatives));
    let splits = open_dir(dir.path(), &negatives).unwrap();
    assert_eq!(splits.train.len() + splits.val.len(), N + 3);
    check_boxes(&splits, N);
    // COCO lists its images itself.
    std::fs::remove_file(dir.path().join("boxes.csv")).unwrap();
    put(&dir.path().join("whole.json"), coco(N).to_string());
    assert!(says(&open(dir.path()).unwrap(), &["3 images", "listed nowhere", "not used"]));
    assert!(refusal(open_dir(dir.path(), &negatives)).contains("--unlabeled as-negatives"));
}

#[test]
fn one_file_opens_alone() {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path(), N);
    let file = dir.path().join("annotations/batch1.json");
    put(&file, coco(N).to_string());
    put(&dir.path().join("annotations/val.json"), coco(2).to_string());
    put(&dir.path().join("labels/0.txt"), yolo_line(0));
    let splits = open(&file).unwrap();
    assert_eq!(splits.train.len() + splits.val.len(), N);
    check_boxes(&splits, N);
    // A file that is named is used, and nothing says otherwise.
    let options = OpenOptions::default().train_annotations(file);
    let mut json = coco(N);
    json["images"] = json!([]);
    json["annotations"] = json!([]);
    put(&dir.path().join("annotations/val.json"), json.to_string());
    let splits = open_dir(dir.path(), &options).unwrap();
    assert!(!says(&splits, &["batch1.json is not used"]), "{:?}", splits.notes);
    put(&dir.path().join("notes.txt"), "x");
    assert!(refusal(open(&dir.path().join("notes.txt"))).contains("name the folder"));
}

#[test]
fn ids_that_are_texts_are_shown_as_texts() {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path(), N);
    let mut json = coco(N);
    json["annotations"][4]["image_id"] = json!("frame-4");
    json["annotations"][5]["category_id"] = json!("washer");
    put(&dir.path().join("whole.json"), json.to_string());
    let error = refusal(open(dir.path()));
    assert!(error.contains("image_id \"frame-4\"") && error.contains("category_id \"washer\""), "{error}");
    assert!(!error.contains(&u64::MAX.to_string()), "{error}");
    json.as_object_mut().unwrap().remove("categories");
    put(&dir.path().join("whole.json"), json.to_string());
    let error = refusal(open(dir.path()));
    assert!(error.contains("without `categories`") && error.contains("whole.json"), "{error}");
}

fn xml(i: usize, size: [u32; 2]) -> String {
    let [x1, y1, x2, y2] = corners(i);
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-16\"?>\n<annotation><size><width>{}</width><height>{}</height></size><object>\
         <name>nut</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object></annotation>",
        size[0],
        size[1],
        x1 + 1.0,
        y1 + 1.0
    )
}

#[test]
fn xml_in_utf_16_without_its_mark() {
    for big in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        images(dir.path(), N);
        for i in 0..N {
            let units = xml(i, [64, 48]).encode_utf16().collect::<Vec<u16>>();
            let bytes: Vec<u8> =
                units.iter().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect();
            put(&dir.path().join(format!("Annotations/{i}.xml")), bytes);
        }
        check_boxes(&open(dir.path()).unwrap(), N);
    }
}

#[test]
fn exchanged_width_and_height_are_called_so() {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path(), N);
    (0..N).for_each(|i| put(&dir.path().join(format!("Annotations/{i}.xml")), xml(i, [48, 64])));
    let error = refusal(open(dir.path()));
    assert!(error.contains("exchanged") && error.contains("12 fault(s)") && !error.contains("--boxes"), "{error}");
}

#[test]
fn the_attribute_of_vias_classes_is_said() {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path(), N);
    let region = |i: usize| {
        let [x1, y1, x2, y2] = corners(i);
        json!({"shape_attributes": {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1},
            "region_attributes": {"name": "nut", "type": "unknown"}})
    };
    let file: serde_json::Map<_, _> =
        (0..N).map(|i| (format!("{i}"), json!({"filename": format!("{i}.png"), "regions": [region(i)]}))).collect();
    put(&dir.path().join("via.json"), json!({"_via_img_metadata": file}).to_string());
    let splits = open(dir.path()).unwrap();
    assert_eq!(splits.train.class_names(), ["nut"]);
    assert!(says(&splits, &["via.json", "attribute \"name\" (12 regions)"]), "{:?}", splits.notes);
    check_boxes(&splits, N);
}
