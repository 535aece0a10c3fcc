//! PASCAL VOC: one file, a folder, its splits, and BCCD's XML against the COCO JSON made from it.

use std::path::Path;

use docent_coco::{
    CheckConfig, Dataset, Difficult, Error, FindingKind, Look, OpenOptions, Policy, Rgb8, VocBoxes, VocConfig,
    open_dir, open_voc, parse_voc,
};

use crate::support::shared;

fn object(name: &str, [x1, y1, x2, y2]: [i32; 4], more: &str) -> String {
    format!(
        "  <object>\n    <name>{name}</name>{more}\n    <part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>\n    \
         <bndbox><xmax>{x2}</xmax><xmin>{x1}</xmin><ymin>{y1}</ymin><ymax>{y2}</ymax></bndbox>\n  </object>\n"
    )
}

fn annotation(file: &str, objects: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<annotation>\n  <filename>{file}</filename>\n  \
         <size><width>32</width><height>20.0</height></size>\n{objects}</annotation>\n"
    )
}

/// A folder in VOC's own layout with `n` images, `img_0000` and so on; image `i` has a cat at its own place, every third a dog.
fn write(dir: &Path, n: usize) {
    std::fs::create_dir_all(dir.join("Annotations")).unwrap();
    std::fs::create_dir_all(dir.join("JPEGImages")).unwrap();
    for i in 0..n {
        Rgb8::filled(32, 20, [i as u8, 0, 0]).save_png(&dir.join(format!("JPEGImages/img_{i:04}.png"))).unwrap();
        let mut objects = object("cat", [1, 1, 4 + i as i32 % 20, 9], "");
        if i % 3 == 0 {
            objects += &object("dog", [5, 5, 9, 9], "<difficult>1</difficult>");
        }
        let text = annotation(&format!("img_{i:04}.png"), &objects);
        std::fs::write(dir.join(format!("Annotations/img_{i:04}.xml")), text).unwrap();
    }
}

fn list(dir: &Path, split: &str, text: &str) {
    let folder = dir.join("ImageSets/Main");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{split}.txt")), text).unwrap();
}

fn open(dir: &Path) -> docent_coco::Result<docent_coco::Splits> {
    open_dir(dir, &OpenOptions::default())
}

#[test]
fn one_file_says_what_it_says() {
    let text = annotation(
        "a.jpg",
        &(object("cat", [2, 3, 10, 12], "<difficult>0</difficult>")
            + &object("dog", [7, 7, 7, 7], "<difficult>1</difficult>")),
    );
    let file = parse_voc(text.as_bytes()).unwrap();
    assert_eq!((file.filename.as_deref(), file.size), (Some("a.jpg"), (32, 20)));
    let objects: Vec<_> = file.objects.iter().map(|o| (o.name.as_str(), o.corners, o.difficult, o.line)).collect();
    // The part's name and box are not the object's.
    assert_eq!(objects, [("cat", [2.0, 3.0, 10.0, 12.0], false, 5), ("dog", [7.0; 4], true, 10)]);
    // Pixels 2 to 10, counted from 1, are the columns 1..10 counted by their edges.
    assert_eq!(file.objects[0].bbox(VocBoxes::Pixels), [1.0, 2.0, 9.0, 10.0]);
    assert_eq!(file.objects[0].bbox(VocBoxes::Edges), [2.0, 3.0, 8.0, 9.0]);
    // A click is no object under either.
    assert_eq!(file.objects[1].bbox(VocBoxes::Pixels), [6.0, 6.0, 0.0, 0.0]);
    assert_eq!(file.objects[1].bbox(VocBoxes::Edges), [7.0, 7.0, 0.0, 0.0]);
    assert_eq!(parse_voc(b"<annotation/>").unwrap().size, (0, 0));
}

#[test]
fn what_is_no_annotation_says_where_and_why() {
    let good = annotation("a.jpg", &object("cat", [2, 3, 10, 12], ""));
    assert!(parse_voc(good.as_bytes()).is_ok());
    let cases = [
        (good[..good.len() / 2].to_owned(), ""),
        (String::new(), ""),
        ("{\"images\": []}".to_owned(), ""),
        (good.replace("annotation>", "annotations>"), "<annotations>"),
        (good.replace("<name>cat</name>", ""), "line 5: <object> without <name>"),
        (good.replace("<name>cat</name>", "<name> </name>"), "empty <name>"),
        (good.replace("<xmin>2</xmin>", ""), "line 8: <bndbox> without <xmin>"),
        (good.replace("<xmin>2</xmin>", "<xmin>two</xmin>"), "line 8: <xmin> holds \"two\""),
        (good.replace("<xmin>2</xmin>", "<xmin>NaN</xmin>"), "no finite number"),
        (good.replace("<xmin>2</xmin>", "<xmin>1e999</xmin>"), "no finite number"),
        (good.replace("<width>32</width>", "<width>-3</width>"), "line 4: -3 is no number of pixels"),
        (good.replace("<annotation>", "<!DOCTYPE a [<!ENTITY b \"c\">]><annotation>"), "DTD"),
    ];
    for (text, part) in cases {
        let error = parse_voc(text.as_bytes()).unwrap_err();
        assert!(!error.is_empty() && error.contains(part), "{part}: {error}");
    }
    assert!(parse_voc(b"<annotation>\xE9</annotation>").unwrap_err().contains("UTF-8"));
}

#[test]
fn a_folder_with_lists_has_their_splits() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 9);
    list(dir.path(), "train", "img_0006\nimg_0000  1\n\nimg_0001 -1\n");
    list(dir.path(), "val", "img_0003\nimg_0004\n");
    list(dir.path(), "cat_train", "img_0008 1\n");
    let splits = open(dir.path()).unwrap();
    let ids = |set: &Dataset| set.images().iter().map(|i| i.id).collect::<Vec<_>>();
    assert_eq!((ids(&splits.train), ids(&splits.val)), (vec![0, 1, 6], vec![3, 4]));
    for set in [&splits.train, &splits.val] {
        assert_eq!(set.class_names(), ["cat", "dog"]);
        assert!(set.image_root().ends_with("JPEGImages"));
    }
    assert!(splits.val.annotation_file(0).ends_with("Annotations/img_0003.xml"));
    let sample = splits.train.sample(2).unwrap();
    // The dog is difficult: a crowd, and no target.
    assert_eq!((sample.image_id, sample.boxes, sample.labels), (6, vec![[0.0, 0.0, 10.0, 9.0]], vec![1]));
    assert!(splits.train.annotations(2)[1].iscrowd);

    list(dir.path(), "val", "img_0003\nimg_0000\n");
    let text = open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("both name img_0000") && text.contains("train.txt"), "{text}");
    list(dir.path(), "val", "img_0099\n");
    assert!(open(dir.path()).unwrap_err().to_string().contains("img_0099.xml"));
    std::fs::remove_file(dir.path().join("ImageSets/Main/val.txt")).unwrap();
    let text = open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("train.txt alone"), "{text}");
}

#[test]
fn image_files_at_fault_are_named_with_their_xml() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 9);
    list(dir.path(), "train", &(0..7).map(|i| format!("img_{i:04}\n")).collect::<String>());
    list(dir.path(), "val", "img_0007\nimg_0008\n");
    let image = |i: usize| dir.path().join(format!("JPEGImages/img_{i:04}.png"));
    std::fs::remove_file(image(1)).unwrap();
    Rgb8::filled(9, 9, [0; 3]).save_png(&image(2)).unwrap();
    let whole = std::fs::read(image(3)).unwrap();
    std::fs::write(image(3), &whole[..whole.len() / 2]).unwrap();

    let text = open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("missing image file") && text.contains("img_0001.xml"), "{text}");
    let mut options = OpenOptions::default();
    options.checks.missing_image = Policy::Drop;
    let train = open_dir(dir.path(), &options).unwrap().train;
    assert_eq!(train.images().iter().map(|i| i.id).collect::<Vec<_>>(), [0, 2, 3, 4, 5, 6]);
    let found = train.check_images(Look::Pixels);
    let kinds: Vec<_> = found.iter().map(|f| (f.kind, f.image_id)).collect();
    assert_eq!(kinds, [(FindingKind::SizeMismatch, Some(2)), (FindingKind::UnreadableImage, Some(3))]);
    let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(texts[0].contains("img_0002.xml") && texts[0].contains("9x9, annotated as 32x20"), "{texts:?}");
    assert!(texts[1].contains("img_0003.xml") && texts[1].contains("img_0003.png"), "{texts:?}");
    let checks = &mut options.checks;
    (checks.size_mismatch, checks.unreadable_image) = (Policy::Drop, Policy::Drop);
    // A cut picture's header is whole: what lies behind it shows when it is decoded.
    let train = open_dir(dir.path(), &options).unwrap().train;
    assert!(train.images().iter().all(|i| i.id != 1 && i.id != 2));
}

#[test]
fn a_folder_without_lists_is_split_by_hash() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 40);
    let before = open(dir.path()).unwrap();
    assert_eq!(before.train.len() + before.val.len(), 40);
    assert!((2..=16).contains(&before.val.len()));
    // Taking an image away moves no other, since ids come from names.
    let gone = before.train.annotation_file(0).to_owned();
    std::fs::remove_file(&gone).unwrap();
    let after = open(dir.path()).unwrap();
    assert_eq!((after.val.images(), after.train.images()), (before.val.images(), &before.train.images()[1..]));
}

#[test]
fn difficult_objects_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 30);
    for (difficult, crowds, objects) in
        [(Difficult::Ignore, 10, 40), (Difficult::Keep, 0, 40), (Difficult::Drop, 0, 30)]
    {
        let voc = VocConfig { difficult, ..VocConfig::default() };
        let splits = open_voc(dir.path(), &OpenOptions { voc, ..OpenOptions::default() }).unwrap();
        let all: Vec<_> = splits.train.all_annotations().iter().chain(splits.val.all_annotations()).collect();
        assert_eq!((all.iter().filter(|a| a.iscrowd).count(), all.len()), (crowds, objects), "{difficult:?}");
    }
}

#[test]
fn faults_name_the_xml_file_and_the_line() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 20);
    let xml = |i: usize| dir.path().join(format!("Annotations/img_{i:04}.xml"));
    let put =
        |i: usize, objects: &str| std::fs::write(xml(i), annotation(&format!("img_{i:04}.png"), objects)).unwrap();
    put(2, &(object("cat", [1, 1, 5, 5], "") + &object("cat", [9, 9, 9, 9], "")));
    put(3, &object("cat", [20, 5, 50, 9], ""));
    let splits = open(dir.path()).unwrap();
    let found: Vec<_> = splits.train.findings().iter().chain(splits.val.findings()).collect();
    assert_eq!(found.len(), 2);
    let degenerate = found.iter().find(|f| f.kind == FindingKind::DegenerateBox).unwrap();
    let outside = found.iter().find(|f| f.kind == FindingKind::OutsideBox).unwrap();
    assert_eq!((degenerate.file.as_path(), degenerate.image_id), (xml(2).as_path(), Some(2)));
    assert!(degenerate.detail.starts_with("line 10, \"cat\""), "{degenerate}");
    assert_eq!((outside.file.as_path(), outside.image_id), (xml(3).as_path(), Some(3)));

    let strict = |change: fn(&mut OpenOptions)| {
        let mut options = OpenOptions::default();
        change(&mut options);
        open_dir(dir.path(), &options).unwrap_err().to_string()
    };
    assert!(strict(|o| o.checks.degenerate = Policy::Error).contains("img_0002.xml"));
    // A class that is not asked for.
    let text = strict(|o| o.voc.classes = vec!["cat".to_owned()]);
    assert!(
        text.contains("6 fault(s)") && text.contains("\"dog\"") && text.contains("checks.unknown_category"),
        "{text}"
    );
    // Every broken file is listed at once.
    for i in [4, 5] {
        std::fs::write(xml(i), "<annotation><object>").unwrap();
    }
    let error = open(dir.path()).unwrap_err();
    let Error::Annotations { findings, .. } = &error else { panic!("{error}") };
    assert_eq!(
        findings.iter().map(|f| (f.kind, f.image_id)).collect::<Vec<_>>(),
        [4, 5].map(|i| (FindingKind::BrokenAnnotation, Some(i)))
    );
    assert!(error.to_string().contains("img_0004.xml"), "{error}");
}

#[test]
fn names_without_extension_and_sizes_that_are_missing() {
    let dir = tempfile::tempdir().unwrap();
    let read = |text: &str| {
        let path = dir.path().join("img_7.xml");
        std::fs::write(&path, text).unwrap();
        Dataset::load_voc(dir.path(), vec![path], dir.path(), &VocConfig::default(), &CheckConfig::default())
    };
    let name = |text: &str| read(text).unwrap().image(0).file_name.clone();
    assert_eq!(name(&annotation("photo.jpeg", "")), "photo.jpeg");
    assert_eq!(name(&annotation("photo", "")), "photo.jpg");
    assert_eq!(name(&annotation("", "")), "img_7.jpg");
    let text = read("<annotation/>").unwrap_err().to_string();
    assert!(text.contains("img_7.xml") && text.contains("image of size 0"), "{text}");
}

#[test]
fn no_voc_folder() {
    let dir = tempfile::tempdir().unwrap();
    for (path, part) in [(dir.path().to_owned(), "none there"), (dir.path().join("no"), "no such folder")] {
        let text = open_voc(&path, &OpenOptions::default()).unwrap_err().to_string();
        assert!(text.contains(part) && text.contains("Annotations/"), "{text}");
    }
}

/// BCCD's JSON took the XML's coordinates as edges and left two boxes without area out; read the same way, nothing differs.
#[test]
fn bccd_xml_is_bccd_json() {
    let Some(root) = shared("bccd") else { return };
    let classes = ["WBC", "RBC", "Platelets"].map(str::to_owned).to_vec();
    let voc = VocConfig { boxes: VocBoxes::Edges, classes, ..VocConfig::default() };
    let options = OpenOptions { voc, ..OpenOptions::default() };
    let xml = open_voc(&root, &options).unwrap();
    let json = open(&root).unwrap();
    let findings: Vec<_> = xml.train.findings().iter().chain(xml.val.findings()).collect();
    let mut files: Vec<_> = findings.iter().map(|f| f.file.file_name().unwrap().to_str().unwrap()).collect();
    files.sort_unstable();
    assert_eq!(files, ["BloodImage_00338.xml", "BloodImage_00343.xml"]);
    assert!(findings.iter().all(|f| f.kind == FindingKind::DegenerateBox && f.annotation_id.is_some()));
    let boxes = |splits: &docent_coco::Splits| {
        let mut all = Vec::new();
        for set in [&splits.train, &splits.val] {
            assert_eq!(set.class_names(), ["WBC", "RBC", "Platelets"]);
            for i in 0..set.len() {
                let name = &set.image(i).file_name;
                all.extend(set.annotations(i).iter().map(|a| (name.clone(), a.category_id, a.bbox.map(|v| v as i64))));
            }
        }
        all.sort_unstable();
        all
    };
    assert_eq!(boxes(&xml).len(), 3941);
    assert_eq!(boxes(&xml), boxes(&json));

    // As VOC's own pixels: one more each way, within the images, and the same two faults.
    let pixels = open_voc(&root, &OpenOptions::default()).unwrap();
    assert_eq!(pixels.train.findings().len() + pixels.val.findings().len(), 2);
    assert_eq!(pixels.train.class_names(), ["Platelets", "RBC", "WBC"]);
    let (one, other) = (boxes_of(&pixels), boxes_of(&xml));
    assert!(one.iter().zip(&other).all(|(p, e)| *p == [e[0] - 1.0, e[1] - 1.0, e[2] + 1.0, e[3] + 1.0]));
}

fn boxes_of(splits: &docent_coco::Splits) -> Vec<[f64; 4]> {
    splits.train.all_annotations().iter().map(|a| a.bbox).collect()
}
