//! Reading annotations: ids with gaps, crowds, empty images, faults, and writing them back.

use std::path::Path;

use docent_coco::{CheckConfig, Dataset, Error, FindingKind, ImageCheck, Policy, Rgb8, decode_file};

use crate::support::{annotation, categories, category, image, shared, write_images};

const GAPS: &str = r#"{
  "info": {"year": 2014}, "licenses": [],
  "categories": [{"id": 90, "name": "brush", "supercategory": "x"}, {"id": 1, "name": "person"}, {"id": 17, "name": "cat"}],
  "images": [{"id": 500, "file_name": "b.png", "width": 100, "height": 50, "license": 3},
             {"id": 7, "file_name": "a.png", "width": 30, "height": 40},
             {"id": 8, "file_name": "none.png", "width": 30, "height": 40}],
  "annotations": [
    {"id": 4, "image_id": 7, "category_id": 17, "bbox": [1, 2, 10, 20], "area": 150.5, "iscrowd": 0, "segmentation": [[1, 2, 3, 4, 5, 6]]},
    {"id": 3, "image_id": 500, "category_id": 90, "bbox": [90.5, 40, 20, 30], "iscrowd": 0},
    {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 30, 40], "iscrowd": 1, "segmentation": {"size": [40, 30], "counts": [0, 1200]}},
    {"id": 1, "image_id": 7, "category_id": 1, "bbox": [5, 5, 0, 10], "iscrowd": 0},
    {"id": 9, "image_id": 500, "category_id": 1, "bbox": [200, 10, 5, 5], "iscrowd": 0}
  ]}"#;

fn load(text: &str) -> docent_coco::Result<Dataset> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("instances_x.json");
    std::fs::write(&path, text).unwrap();
    Dataset::load(&path, Path::new("pictures"))
}

#[test]
fn ids_with_gaps_crowds_and_empty_images() {
    let set = load(GAPS).unwrap();
    assert_eq!(set.name(), "instances_x");
    assert_eq!(set.len(), 3);
    assert_eq!(set.class_names(), ["person", "cat", "brush"]);
    assert_eq!([1, 17, 90].map(|id| set.label_of(id)), [Some(1), Some(2), Some(3)]);
    assert_eq!([0, 2, 91].map(|id| set.label_of(id)), [None; 3]);
    assert_eq!([0, 1, 2, 3, 4].map(|l| set.category_of(l)), [None, Some(1), Some(17), Some(90), None]);

    // The order of the file, for images and within an image.
    assert_eq!(set.image(0).id, 500);
    assert_eq!(set.image_path(1), Path::new("pictures/a.png"));
    let ids = |i: usize| set.annotations(i).iter().map(|a| a.id).collect::<Vec<_>>();
    assert_eq!((ids(0), ids(1), ids(2)), (vec![3, 9], vec![4, 2, 1], vec![]));
    assert_eq!(set.annotations(1)[0].area, 150.5);
    assert_eq!(set.annotations(0)[0].area, 600.0); // the box's, where the file has none

    // Ground truth for training: no crowd, no box without area, the rest clipped.
    let ground_truth = set.ground_truth(1);
    assert_eq!((ground_truth.boxes, ground_truth.labels), (vec![[1.0, 2.0, 11.0, 22.0]], vec![2]));
    let ground_truth = set.ground_truth(0);
    assert_eq!((ground_truth.boxes, ground_truth.labels), (vec![[90.5, 40.0, 100.0, 50.0]], vec![3]));
    assert_eq!(set.ground_truth(2), docent_coco::GroundTruth::default());
    assert_eq!(set.dropped_boxes(), 2);

    let kinds: Vec<_> = set.findings().iter().map(|f| (f.kind, f.image_id, f.annotation_id)).collect();
    assert_eq!(
        kinds,
        [
            (FindingKind::OutsideBox, Some(500), Some(3)),
            (FindingKind::DegenerateBox, Some(7), Some(1)),
            (FindingKind::OutsideBox, Some(500), Some(9)),
        ]
    );
    let text = set.findings()[1].to_string();
    assert!(
        text.contains("instances_x.json") && text.contains("image id 7") && text.contains("annotation id 1"),
        "{text}"
    );
}

#[test]
fn a_box_over_the_border_by_a_rounding_is_no_finding() {
    let text =
        GAPS.replace("[90.5, 40, 20, 30]", "[90.5, 40, 9.75, 10.5]").replace("[200, 10, 5, 5]", "[95, 45, 5, 5]");
    let set = load(&text).unwrap();
    assert_eq!(set.findings().len(), 1);
    assert_eq!(set.ground_truth(0).boxes[0], [90.5, 40.0, 100.0, 50.0]);
}

#[test]
fn contradictions_stop_the_load_with_every_id() {
    let cases = [
        (r#""image_id": 500, "category_id": 90"#, r#""image_id": 501, "category_id": 90"#, FindingKind::UnlistedImage),
        (
            r#""image_id": 500, "category_id": 90"#,
            r#""image_id": 500, "category_id": 91"#,
            FindingKind::UnknownCategory,
        ),
        (r#"{"id": 8, "file_name""#, r#"{"id": 7, "file_name""#, FindingKind::DuplicateImage),
        (r#"{"id": 90, "name""#, r#"{"id": 17, "name""#, FindingKind::DuplicateCategory),
        (r#""name": "brush""#, r#""name": "cat""#, FindingKind::DuplicateCategory),
        (r#""width": 100, "height": 50"#, r#""width": 100, "height": 0"#, FindingKind::EmptyImage),
    ];
    for (from, to, kind) in cases {
        assert!(GAPS.contains(from), "{from}");
        let error = load(&GAPS.replace(from, to)).unwrap_err();
        let Error::Annotations { findings, path } = &error else {
            panic!("{error}");
        };
        assert!(path.ends_with("instances_x.json"));
        assert!(findings.iter().any(|f| f.kind == kind), "{error}");
        assert!(findings.iter().all(|f| CheckConfig::default().policy(f.kind) == Policy::Error), "{error}");
        let text = error.to_string();
        assert!(text.contains("instances_x.json") && text.contains(kind.name()), "{text}");
    }
    // A long list is counted, not printed.
    let many: Vec<_> = (1..=50).map(|id| annotation(id, 1000 + id, 2, [0.0, 0.0, 5.0, 5.0])).collect();
    let error = Dataset::from_parts("many", "x", vec![], many, categories()).unwrap_err().to_string();
    assert!(error.contains("50 fault(s)") && error.contains("and 45 more"), "{error}");
}

#[test]
fn unreadable_files_are_named() {
    let error = Dataset::load(Path::new("no/such/file.json"), Path::new("")).unwrap_err().to_string();
    assert!(error.contains("no/such/file.json"), "{error}");
    for text in ["", "[]", "{}", &GAPS[..300], r#"{"images": [], "annotations": [], "categories": 3}"#] {
        let error = load(text).unwrap_err();
        assert!(matches!(error, Error::Json { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("instances_x.json") && text.contains("line"), "{text}");
    }
}

#[test]
fn written_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let set = write_images(&dir.path().join("images"), 5);
    let path = dir.path().join("annotations/instances_all.json");
    set.save(&path).unwrap();
    let back = Dataset::load(&path, set.image_root()).unwrap();
    assert_eq!(back.images(), set.images());
    assert_eq!(back.all_annotations(), set.all_annotations());
    assert_eq!(back.categories(), set.categories());
    assert_eq!(back.digest(), set.digest());
    assert_eq!(back.digest().len(), 64);
    assert_eq!(back.to_json(), set.to_json());
    // SHA-256 of the file's bytes, whatever is in them that is not read.
    std::fs::write(&path, format!(" {}", set.to_json())).unwrap();
    assert_ne!(Dataset::load(&path, set.image_root()).unwrap().digest(), set.digest());
    assert!(set.save(Path::new("/proc/no/such.json")).unwrap_err().to_string().contains("/proc/no"));
}

#[test]
fn digest_is_sha256_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.json");
    std::fs::write(&path, r#"{"images":[],"annotations":[],"categories":[]}"#).unwrap();
    let set = Dataset::load(&path, dir.path()).unwrap();
    assert!(set.is_empty());
    assert_eq!(set.digest(), "2cb25d442aab25cf8898cb75025004807875c1a3e6e019000251cf5a06fcb2f5");
}

#[test]
fn subsets_keep_order_and_categories() {
    let dir = tempfile::tempdir().unwrap();
    let set = write_images(dir.path(), 6);
    let part = set.subset(&[5, 2, 2, 0, 99]);
    assert_eq!(part.images().iter().map(|i| i.id).collect::<Vec<_>>(), [53, 23, 3]);
    for (i, whole) in [5, 2, 0].into_iter().enumerate() {
        assert_eq!(part.annotations(i), set.annotations(whole));
        assert_eq!(part.ground_truth(i), set.ground_truth(whole));
    }
    assert_eq!(part.categories(), set.categories());
    assert_ne!(part.digest(), set.digest());
    assert_eq!(part.digest(), set.subset(&[5, 2, 0]).digest());
    assert!(set.subset(&[]).is_empty());
}

#[test]
fn samples_bring_pixels_and_truth_together() {
    let dir = tempfile::tempdir().unwrap();
    let set = write_images(dir.path(), 3);
    let sample = set.sample(2).unwrap();
    assert_eq!(sample.image_id, 23);
    assert_eq!(sample.image, decode_file(&set.image_path(2), Default::default()).unwrap());
    assert_eq!(sample.boxes, set.ground_truth(2).boxes);
    assert_eq!(sample.labels, [1, 2]);
    assert!(set.check_images(ImageCheck::Exists).is_empty());

    // Another size than the annotations say.
    let wrong = Rgb8::filled(32, 27, [0; 3]);
    wrong.save_png(&set.image_path(2)).unwrap();
    let error = set.sample(2).unwrap_err().to_string();
    assert!(
        error.contains("002.png") && error.contains("id 23") && error.contains("32x27") && error.contains("32x26"),
        "{error}"
    );
    // Sides swapped, as an editor that applies EXIF rotation leaves them.
    Rgb8::filled(26, 32, [0; 3]).save_png(&set.image_path(2)).unwrap();
    assert!(set.sample(2).unwrap_err().to_string().contains("swapped"));

    std::fs::remove_file(set.image_path(1)).unwrap();
    let missing = set.check_images(ImageCheck::Exists);
    assert_eq!(missing.len(), 1);
    assert_eq!((missing[0].kind, missing[0].image_id), (FindingKind::MissingImage, Some(13)));
    assert!(set.sample(1).unwrap_err().to_string().contains("001.png"));
}

#[test]
fn parts_are_checked_like_files() {
    let images = vec![image(1, "a.png", 10, 10)];
    let boxes = vec![annotation(1, 1, 5, [1.0, 1.0, 2.0, 2.0])];
    let set = Dataset::from_parts("p", "root", images.clone(), boxes.clone(), vec![category(5, "x")]).unwrap();
    assert_eq!((set.name(), set.len()), ("p", 1));
    assert!(Dataset::from_parts("p", "root", images, boxes, vec![category(6, "x")]).is_err());
}

#[test]
fn bccd_is_read() {
    let Some(root) = shared("bccd") else { return };
    let set = Dataset::load(&root.join("annotations/instances_train.json"), &root.join("images")).unwrap();
    assert_eq!(set.len(), 205);
    assert_eq!(set.all_annotations().len(), 2804);
    assert_eq!(set.class_names(), ["WBC", "RBC", "Platelets"]);
    assert!(set.check_images(ImageCheck::Exists).is_empty());
    assert_eq!(set.dropped_boxes(), 0, "{:?}", set.findings());
    let sample = set.sample(0).unwrap();
    assert_eq!((sample.image.width, sample.image.height), (640, 480));
    assert_eq!(sample.boxes[0], [68.0, 315.0, 286.0, 480.0]);
}
