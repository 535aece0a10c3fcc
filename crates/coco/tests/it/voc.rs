//! PASCAL VOC: a folder, its splits, and BCCD's XML against the COCO JSON made from it.

use std::path::Path;

use docent_coco::{
    BoxReading, Dataset, Difficult, Error, FindingKind, Format, ImageCheck, OpenOptions, Policy, ReadConfig, Rgb8,
    Splits, Unlabeled, open_dir,
};

use crate::support::shared;
use crate::voc_xml::{annotation, object};

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

fn open(dir: &Path) -> docent_coco::Result<Splits> {
    open_dir(dir, &OpenOptions::default())
}

fn reading(read: ReadConfig) -> OpenOptions {
    OpenOptions::default().read(read)
}

fn says(splits: &Splits, parts: &[&str]) {
    let found = splits.notes.iter().any(|note| parts.iter().all(|part| note.contains(part)));
    assert!(found, "{parts:?} is not in {:#?}", splits.notes);
}

/// The ids of a split's images, which are the numbers in their names.
fn ids(set: &Dataset) -> Vec<u64> {
    set.images().iter().map(|i| i.id).collect()
}

#[test]
fn a_folder_with_lists_has_their_splits() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 9);
    list(dir.path(), "train", "img_0006\nimg_0000  1\n\nimg_0001 -1\n");
    list(dir.path(), "val", "img_0003\nimg_0004\n");
    list(dir.path(), "cat_train", "img_0008 1\n");
    let splits = open(dir.path()).unwrap();
    assert_eq!((ids(&splits.train), ids(&splits.val)), (vec![0, 1, 6], vec![3, 4]));
    says(&splits, &["4 images", "no list"]);
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
    assert!(text.contains("img_0000 is in both splits"), "{text}");
    list(dir.path(), "val", "img_0003\nimg_0099\n");
    let text = open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("val.txt") && text.contains("line 2 names \"img_0099\""), "{text}");
}

#[test]
fn which_list_is_which() {
    let names = |range: std::ops::Range<usize>| range.map(|i| format!("img_{i:04}\n")).collect::<String>();
    let with = |lists: &[(&str, std::ops::Range<usize>)]| {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 10);
        for (name, range) in lists {
            list(dir.path(), name, &names(range.clone()));
        }
        open(dir.path()).unwrap()
    };
    // Train and val win, and test is left alone.
    let splits = with(&[("train", 0..4), ("val", 4..6), ("trainval", 0..6), ("test", 6..10)]);
    assert_eq!((ids(&splits.train), ids(&splits.val)), (vec![0, 1, 2, 3], vec![4, 5]));
    says(&splits, &["test", "left alone"]);
    // Without val, test is held out, and trainval trains.
    for lists in [&[("trainval", 0..6), ("test", 6..10)][..], &[("Train", 0..6), ("TEST", 6..10)]] {
        let splits = with(lists);
        assert_eq!((ids(&splits.train), ids(&splits.val)), ((0..6).collect(), (6..10).collect()));
        says(&splits, &["test", "held out"]);
    }
    // A held-out list alone: the rest trains. A training list alone: a share of it is held out.
    let splits = with(&[("val", 7..10)]);
    assert_eq!((ids(&splits.train), ids(&splits.val)), ((0..7).collect(), (7..10).collect()));
    let splits = with(&[("train", 0..8)]);
    assert_eq!(splits.train.len() + splits.val.len(), 8);
    assert!(!splits.val.is_empty() && ids(&splits.val).iter().all(|id| *id < 8));
}

#[test]
fn lines_of_a_list_as_tools_write_them() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("Annotations")).unwrap();
    std::fs::create_dir_all(dir.path().join("JPEGImages")).unwrap();
    // Names that end in what could be a mark, and a name with a dot.
    for (i, name) in ["cam 1", "cam", "cam 16", "shot (2)", "v1.2"].iter().enumerate() {
        Rgb8::filled(32, 20, [i as u8, 9, 0]).save_png(&dir.path().join(format!("JPEGImages/{name}.png"))).unwrap();
        let text = annotation(&format!("{name}.png"), &object("cat", [1, 1, 9, 9], ""));
        std::fs::write(dir.path().join(format!("Annotations/{name}.xml")), text).unwrap();
    }
    list(dir.path(), "train", "\u{feff}cam 1\r\ncam 16 -1\r\n\r\nJPEGImages\\v1.2.png  1 \r\n");
    list(dir.path(), "val", "  cam -1\nshot (2).png\n");
    let splits = open(dir.path()).unwrap();
    let names = |set: &Dataset| set.images().iter().map(|i| i.file_name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&splits.train), ["cam 1.png", "cam 16.png", "v1.2.png"]);
    assert_eq!(names(&splits.val), ["cam.png", "shot (2).png"]);
}

#[test]
fn folders_of_parts_are_the_split() {
    let dir = tempfile::tempdir().unwrap();
    let put = |folder: &str, range: std::ops::Range<usize>| {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        for i in range {
            let path = dir.path().join(folder).join(format!("img_{i:04}"));
            Rgb8::filled(32, 20, [i as u8, 1, 0]).save_png(&path.with_extension("png")).unwrap();
            let text = annotation(&format!("img_{i:04}.png"), &object("cat", [2, 2, 9, 9], ""));
            std::fs::write(path.with_extension("xml"), text).unwrap();
        }
    };
    put("train", 0..6);
    put("Test", 6..8);
    let splits = open(dir.path()).unwrap();
    assert_eq!((ids(&splits.train), ids(&splits.val)), ((0..6).collect(), vec![6, 7]));
    says(&splits, &["test", "held out"]);
    put("valid", 8..10);
    // A test part that is left alone need not be readable.
    std::fs::write(dir.path().join("Test/img_0006.xml"), "<annotation><object>").unwrap();
    let splits = open(dir.path()).unwrap();
    assert_eq!((ids(&splits.train), ids(&splits.val)), ((0..6).collect(), vec![8, 9]));
    says(&splits, &["test", "left alone"]);
    assert_eq!(splits.train.sample(0).unwrap().boxes, [[1.0, 1.0, 9.0, 9.0]]);
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
    // Another size shows in the header, and stops.
    let text = open_dir(dir.path(), &options).unwrap_err().to_string();
    assert!(text.contains("img_0002.xml") && text.contains("9x9, annotated as 32x20"), "{text}");
    options.checks.size_mismatch = Policy::Drop;
    let train = open_dir(dir.path(), &options).unwrap().train;
    assert_eq!(ids(&train), [0, 3, 4, 5, 6]);
    let kinds: Vec<_> = train.findings().iter().map(|f| (f.kind, f.file.file_stem().unwrap().to_owned())).collect();
    assert_eq!(kinds, [(FindingKind::MissingImage, "img_0001".into()), (FindingKind::SizeMismatch, "img_0002".into())]);
    // A cut image's header is whole: what lies behind it shows when it is decoded.
    let found = train.check_images(ImageCheck::Pixels);
    assert_eq!(
        found.iter().map(|f| (f.kind, f.image_id)).collect::<Vec<_>>(),
        [(FindingKind::UnreadableImage, Some(3))]
    );
    let text = found[0].to_string();
    assert!(text.contains("img_0003.xml") && text.contains("img_0003.png"), "{text}");
    options.checks.unreadable_image = Policy::Drop;
    assert_eq!(ids(&open_dir(dir.path(), &options).unwrap().train), [0, 4, 5, 6]);
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
        let splits = open_dir(dir.path(), &reading(ReadConfig::default().difficult(difficult))).unwrap();
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
    let text = strict(|o| o.read.classes = vec!["cat".to_owned()]);
    assert!(
        text.contains("6 fault(s)") && text.contains("\"dog\"") && text.contains("--policy unknown_category=drop"),
        "{text}"
    );
    // Every broken file is listed at once.
    for i in [4, 5] {
        std::fs::write(xml(i), "<annotation><object>").unwrap();
    }
    let error = open(dir.path()).unwrap_err();
    let Error::Annotations { findings, .. } = &error else { panic!("{error}") };
    assert_eq!(
        findings.iter().map(|f| (f.kind, f.file.clone())).collect::<Vec<_>>(),
        [4, 5].map(|i| (FindingKind::BrokenAnnotation, xml(i)))
    );
    assert!(error.to_string().contains("img_0004.xml"), "{error}");
    // Left out, their images are no images without objects.
    let mut options = OpenOptions::default();
    options.checks.broken_annotation = Policy::Drop;
    let splits = open_dir(dir.path(), &options).unwrap();
    assert_eq!(splits.train.len() + splits.val.len(), 18);
}

#[test]
fn the_image_of_the_xmls_own_name_wins() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 12);
    let rewrite = |i: usize, filename: &str| {
        let text = annotation(filename, &object("cat", [1, 1, 4 + i as i32 % 20, 9], ""));
        std::fs::write(dir.path().join(format!("Annotations/img_{i:04}.xml")), text).unwrap();
    };
    let widths = |splits: &Splits| {
        let mut all = Vec::new();
        for set in [&splits.train, &splits.val] {
            all.extend(
                (0..set.len()).map(|i| (set.image(i).file_name.clone(), set.ground_truth(i).boxes[0][2] as i32)),
            );
        }
        all.sort();
        all
    };
    let correct: Vec<_> = (0..12).map(|i| (format!("img_{i:04}.png"), 4 + i)).collect();
    for filename in ["img_0000.png", "somewhere_else.jpg"] {
        (0..12).for_each(|i| rewrite(i, filename));
        let splits = open(dir.path()).unwrap();
        assert_eq!(widths(&splits), correct, "{filename}");
        says(&splits, &[if filename == "img_0000.png" { "11 XML" } else { "12 XML" }, "filename", "disagrees"]);
    }
    // Another path, case or extension is no disagreement.
    (0..12).for_each(|i| rewrite(i, &format!("C:\\data\\IMG_{i:04}.JPG")));
    let splits = open(dir.path()).unwrap();
    assert_eq!(widths(&splits), correct);
    says(&splits, &["12 image files were found under another path"]);
    // No name, or one without extension.
    (0..12).for_each(|i| rewrite(i, if i % 2 == 0 { "" } else { "img_0001" }));
    assert_eq!(widths(&open(dir.path()).unwrap()), correct);
    // Without an image of its own name the name in it counts; two files for one image are refused.
    std::fs::rename(dir.path().join("Annotations/img_0003.xml"), dir.path().join("Annotations/copy.xml")).unwrap();
    rewrite(5, "img_0005.png");
    let text = annotation("img_0003.png", &object("cat", [1, 1, 7, 9], ""));
    std::fs::write(dir.path().join("Annotations/copy.xml"), &text).unwrap();
    assert_eq!(widths(&open(dir.path()).unwrap()), correct);
    std::fs::write(dir.path().join("Annotations/other.xml"), text).unwrap();
    let text = open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("img_0003.png has two annotation files") && text.contains("other.xml"), "{text}");
}

#[test]
fn sizes_that_are_missing_come_from_the_files() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 10);
    for i in 0..10 {
        let path = dir.path().join(format!("Annotations/img_{i:04}.xml"));
        let text = std::fs::read_to_string(&path).unwrap().replace("<width>32</width>", "<width>0</width>");
        std::fs::write(path, text).unwrap();
    }
    let splits = open(dir.path()).unwrap();
    assert!(splits.train.images().iter().all(|i| (i.width, i.height) == (32, 20)));
    says(&splits, &["10 images have no width and height"]);
}

#[test]
fn images_without_xml_are_counted_and_used_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 10);
    std::fs::remove_file(dir.path().join("Annotations/img_0004.xml")).unwrap();
    let splits = open(dir.path()).unwrap();
    assert_eq!(splits.train.len() + splits.val.len(), 9);
    says(&splits, &["1 image(s) without XML", "--unlabeled as-negatives"]);
    let options = reading(ReadConfig::default().unlabeled(Unlabeled::AsNegatives));
    let splits = open_dir(dir.path(), &options).unwrap();
    let all = [ids(&splits.train), ids(&splits.val)].concat();
    assert!(all.len() == 10 && all.contains(&4));
    for set in [&splits.train, &splits.val] {
        for i in 0..set.len() {
            assert_eq!(set.ground_truth(i).boxes.is_empty(), set.image(i).id == 4);
        }
    }
}

#[test]
fn folders_of_xml_correspond_to_folders_of_images() {
    let dir = tempfile::tempdir().unwrap();
    for (lot, shade) in [("lotA", 10), ("lotB", 200)] {
        for i in 0..4 {
            for folder in ["annotations", "images"] {
                std::fs::create_dir_all(dir.path().join(folder).join(lot)).unwrap();
            }
            let image = dir.path().join(format!("images/{lot}/part_{i}.png"));
            Rgb8::filled(32, 20, [shade, i, 0]).save_png(&image).unwrap();
            let width = if shade == 10 { 9 } else { 19 };
            let text = annotation(&format!("part_{i}.png"), &object("cat", [2, 2, width, 9], ""));
            std::fs::write(dir.path().join(format!("annotations/{lot}/part_{i}.xml")), text).unwrap();
        }
    }
    let splits = open(dir.path()).unwrap();
    let mut count = 0;
    for set in [&splits.train, &splits.val] {
        for i in 0..set.len() {
            let sample = set.sample(i).unwrap();
            assert_eq!(sample.boxes[0][2], if sample.image.pixel(0, 0)[0] == 10 { 9.0 } else { 19.0 });
            count += 1;
        }
    }
    assert_eq!(count, 8);
}

#[test]
fn no_voc_folder() {
    let dir = tempfile::tempdir().unwrap();
    let options = reading(ReadConfig::default().format(Format::Voc));
    let text = open_dir(dir.path(), &options).unwrap_err().to_string();
    assert!(text.contains("no PASCAL VOC annotations") && text.contains("XML files"), "{text}");
    assert!(open_dir(&dir.path().join("no"), &options).unwrap_err().to_string().contains("no"));
}

/// BCCD's JSON took the XML's coordinates as edges and left two boxes without area out; read the same way, nothing differs.
#[test]
fn bccd_xml_is_bccd_json() {
    let Some(root) = shared("bccd") else { return };
    let classes = ["WBC", "RBC", "Platelets"].map(str::to_owned).to_vec();
    let voc = ReadConfig::default().format(Format::Voc);
    let options = reading(voc.clone().boxes(BoxReading::Edges).classes(classes));
    let xml = open_dir(&root, &options).unwrap();
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
    let pixels = open_dir(&root, &reading(voc)).unwrap();
    assert_eq!(pixels.train.findings().len() + pixels.val.findings().len(), 2);
    assert_eq!(pixels.train.class_names(), ["Platelets", "RBC", "WBC"]);
    let (one, other) = (boxes_of(&pixels), boxes_of(&xml));
    assert!(one.iter().zip(&other).all(|(p, e)| *p == [e[0] - 1.0, e[1] - 1.0, e[2] + 1.0, e[3] + 1.0]));
}

fn boxes_of(splits: &docent_coco::Splits) -> Vec<[f64; 4]> {
    splits.train.all_annotations().iter().map(|a| a.bbox).collect()
}
