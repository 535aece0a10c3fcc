//! Policies: each kind of fault stops, is left out or clipped, and is counted and listed with its file and ids.

use std::path::Path;

use docent_coco::{
    CheckConfig, Dataset, Error, FindingKind, ImageCheck, OpenOptions, Policy, Rgb8, open_dir, summarize,
};

use crate::support::{data, write_images};

/// Image 1 has a good box, one without area and one half outside; then each contradiction once.
const FAULTY: &str = r#"{
  "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
  "images": [{"id": 1, "file_name": "1.png", "width": 100, "height": 50}, {"id": 2, "file_name": "2.png", "width": 100, "height": 50},
             {"id": 1, "file_name": "1.png", "width": 100, "height": 50}],
  "annotations": [
    {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]},
    {"id": 2, "image_id": 1, "category_id": 1, "bbox": [10, 10, 0, 20]},
    {"id": 3, "image_id": 1, "category_id": 2, "bbox": [90, 10, 20, 20]},
    {"id": 4, "image_id": 1, "category_id": 2, "bbox": [30, 10, 20, 20]},
    {"id": 5, "image_id": 9, "category_id": 2, "bbox": [30, 10, 20, 20]},
    {"id": 6, "image_id": 2, "category_id": 7, "bbox": [30, 10, 20, 20]}
  ]}"#;

fn load(text: &str, config: &CheckConfig) -> docent_coco::Result<Dataset> {
    Dataset::from_json(text.as_bytes(), Path::new("faulty.json"), Path::new(""), config)
}

fn with(change: impl FnOnce(&mut CheckConfig)) -> CheckConfig {
    let mut config = CheckConfig::lenient();
    change(&mut config);
    config
}

#[test]
fn what_is_dropped_is_gone_and_listed() {
    let set = load(FAULTY, &CheckConfig::lenient()).unwrap();
    let names: Vec<_> = set.images().iter().map(|i| i.file_name.as_str()).collect();
    assert_eq!(names, ["1.png", "2.png"]); // an entry that is there twice counts once
    let left: Vec<_> = set.all_annotations().iter().map(|a| (a.id, a.bbox[0])).collect();
    assert_eq!(left, [(1, 10.0), (2, 10.0), (3, 90.0), (4, 30.0)]);
    assert_eq!(
        set.ground_truth(0).boxes,
        [[10.0, 10.0, 30.0, 30.0], [90.0, 10.0, 100.0, 30.0], [30.0, 10.0, 50.0, 30.0]]
    );
    let found: Vec<_> = set.findings().iter().map(|f| (f.kind, f.image_id, f.annotation_id)).collect();
    assert_eq!(
        found,
        [
            (FindingKind::DegenerateBox, Some(1), Some(2)),
            (FindingKind::OutsideBox, Some(1), Some(3)),
            (FindingKind::UnlistedImage, Some(9), Some(5)),
            (FindingKind::UnknownCategory, Some(2), Some(6)),
        ]
    );
    assert!(set.findings().iter().all(|f| f.file == Path::new("faulty.json")));
    // What a lenient load leaves has nothing to refuse.
    assert!(load(&set.to_json(), &CheckConfig::default()).is_ok());
}

#[test]
fn two_images_of_one_id_always_stop() {
    let text = FAULTY.replace(
        r#"{"id": 1, "file_name": "1.png", "width": 100, "height": 50}],"#,
        r#"{"id": 1, "file_name": "again.png", "width": 70, "height": 70}],"#,
    );
    assert_ne!(text, FAULTY);
    let error = load(&text, &CheckConfig::lenient()).unwrap_err();
    let Error::Annotations { findings, .. } = &error else { panic!("{error}") };
    assert_eq!(findings.iter().map(|f| f.kind).collect::<Vec<_>>(), [FindingKind::DuplicateImage]);
    // No policy is named that would throw one away.
    assert!(error.to_string().contains("again.png") && !error.to_string().contains("--policy"), "{error}");
}

#[test]
fn annotation_ids_that_repeat_are_numbered_anew() {
    let text = FAULTY.replace(r#"{"id": 4, "#, r#"{"id": 1, "#);
    let set = load(&text, &CheckConfig::lenient()).unwrap();
    let left: Vec<_> = set.all_annotations().iter().map(|a| (a.id, a.bbox[0])).collect();
    assert_eq!(left, [(1, 10.0), (2, 10.0), (3, 90.0), (4, 30.0)]);
}

#[test]
fn each_policy_decides_about_its_kind_alone() {
    type Set = fn(&mut CheckConfig, Policy);
    let keys: [(Set, &str, &[FindingKind]); 4] = [
        (|c, p| c.degenerate = p, "degenerate", &[FindingKind::DegenerateBox]),
        (|c, p| c.outside = p, "outside", &[FindingKind::OutsideBox]),
        (|c, p| c.unlisted_image = p, "unlisted_image", &[FindingKind::UnlistedImage]),
        (|c, p| c.unknown_category = p, "unknown_category", &[FindingKind::UnknownCategory]),
    ];
    for (set, key, kinds) in keys {
        let error = load(FAULTY, &with(|c| set(c, Policy::Error))).unwrap_err();
        let Error::Annotations { findings, .. } = &error else { panic!("{error}") };
        assert_eq!(findings.iter().map(|f| f.kind).collect::<Vec<_>>(), kinds);
        assert!(kinds.iter().all(|kind| kind.key() == Some(key)));
        let text = error.to_string();
        assert!(text.contains("faulty.json") && text.contains(kinds[0].remedy().unwrap()), "{text}");

        let clip = load(FAULTY, &with(|c| set(c, Policy::Clip)));
        if key == "outside" {
            assert!(clip.is_ok());
        } else {
            let text = clip.unwrap_err().to_string();
            assert!(text.contains(&format!("{key} = clip")) && text.contains("error or drop"), "{text}");
        }
    }
    let dropped = load(FAULTY, &with(|c| c.outside = Policy::Drop)).unwrap();
    assert_eq!(dropped.ground_truth(0).boxes, [[10.0, 10.0, 30.0, 30.0], [30.0, 10.0, 50.0, 30.0]]);
    // Scoring takes the ground truth as the file has it.
    assert_eq!(dropped.annotations(0).len(), 4);
}

#[test]
fn every_kind_has_a_policy_and_a_name() {
    let config = CheckConfig::default();
    let mut names: Vec<_> = FindingKind::ALL.iter().map(|kind| kind.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FindingKind::ALL.len());
    let text = serde_json::to_value(&config).unwrap();
    for kind in FindingKind::ALL {
        let spelled = kind.key().map_or("error", |key| text[key].as_str().unwrap());
        assert_eq!(spelled, config.policy(kind).name());
    }
    let unknown = serde_json::from_str::<CheckConfig>(r#"{"degenrate": "drop"}"#).unwrap_err().to_string();
    assert!(unknown.contains("degenrate") && unknown.contains("degenerate"), "{unknown}");
    assert!(serde_json::from_str::<CheckConfig>(r#"{"degenerate": "ignore"}"#).is_err());
}

#[test]
fn a_summary_counts_and_names_the_first() {
    let set = load(FAULTY, &CheckConfig::lenient()).unwrap();
    let many: Vec<_> = set.findings().iter().cycle().take(60).cloned().collect();
    let lines = summarize(&many, set.checks(), 3);
    assert_eq!(lines.len(), 4 * 5);
    assert_eq!(lines[0], "15 x box without area (drop)");
    assert!(lines[1].contains("faulty.json") && lines[1].contains("annotation id 2"), "{}", lines[1]);
    assert_eq!(lines[4], "  and 12 more");
    assert!(summarize(&[], set.checks(), 3).is_empty());
}

/// A folder of 40 images in which one is missing, one of another size, one cut and one empty.
fn damaged() -> (tempfile::TempDir, Dataset) {
    let dir = tempfile::tempdir().unwrap();
    let set = write_images(&dir.path().join("images"), 40);
    set.save(&dir.path().join("annotations/instances_all.json")).unwrap();
    std::fs::remove_file(set.image_path(3)).unwrap();
    Rgb8::filled(9, 9, [0; 3]).save_png(&set.image_path(5)).unwrap();
    let whole = std::fs::read(set.image_path(7)).unwrap();
    std::fs::write(set.image_path(7), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(set.image_path(8), b"").unwrap();
    (dir, set)
}

#[test]
fn image_files_are_looked_at_as_closely_as_asked() {
    let (_dir, set) = damaged();
    let found = |look| set.check_images(look).iter().map(|f| (f.kind, f.image_id.unwrap())).collect::<Vec<_>>();
    let missing = (FindingKind::MissingImage, 33);
    let other_size = (FindingKind::SizeMismatch, 53);
    let (cut, empty) = ((FindingKind::UnreadableImage, 73), (FindingKind::UnreadableImage, 83));
    assert_eq!(found(ImageCheck::Exists), [missing]);
    assert_eq!(found(ImageCheck::Header), [missing, other_size, empty]);
    assert_eq!(found(ImageCheck::Pixels), [missing, other_size, cut, empty]);
    let texts: Vec<_> = set.check_images(ImageCheck::Pixels).iter().map(ToString::to_string).collect();
    for (text, part) in texts.iter().zip(["003.png", "005.png is 9x9, annotated as 24x35", "007.png", "0 bytes"]) {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn policies_for_image_files() {
    let (dir, _) = damaged();
    let open = |change: fn(&mut CheckConfig)| {
        let mut options = OpenOptions::default();
        change(&mut options.checks);
        open_dir(dir.path(), &options)
    };
    let text = open(|_| {}).unwrap_err().to_string();
    // Headers are read in any case; a cut image shows when it is decoded.
    for part in [
        "3 fault(s)",
        "missing image file, image id 33",
        "003.png",
        "005.png is 9x9, annotated as 24x35",
        "unreadable image file, image id 83",
        "--policy missing_image=drop",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let count = |splits: &docent_coco::Splits| splits.train.len() + splits.val.len();
    let findings = |splits: &docent_coco::Splits| splits.train.findings().len() + splits.val.findings().len();
    // A header that cannot be read stops, as its policy says.
    let sizes = |c: &mut CheckConfig| (c.missing_image, c.size_mismatch) = (Policy::Drop, Policy::Drop);
    let text = open(sizes).unwrap_err().to_string();
    assert!(text.contains("unreadable image file, image id 83") && !text.contains("id 73"), "{text}");
    let splits = open(|c| {
        (c.missing_image, c.size_mismatch, c.unreadable_image) = (Policy::Drop, Policy::Drop, Policy::Drop);
    })
    .unwrap();
    assert_eq!((count(&splits), findings(&splits)), (36, 4));
    for set in [&splits.train, &splits.val] {
        assert!((0..set.len()).all(|i| set.sample(i).is_ok()));
    }
}

fn size_of(path: &Path) -> (usize, usize) {
    let header = docent_coco::image_header(path).unwrap();
    (header.width as usize, header.height as usize)
}

#[test]
fn sizes_come_from_the_header_alone() {
    for name in ["rgb.jpg", "progressive.jpg", "grey16.png", "palette.png", "cmyk.jpg"] {
        let image = docent_coco::decode_file(&data(name), Default::default()).unwrap();
        assert_eq!(size_of(&data(name)), (image.width, image.height), "{name}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.jpg");
    let whole = std::fs::read(data("rgb.jpg")).unwrap();
    // The header is whole; with a comment of 100,000 bytes before it, more than the first read is needed.
    std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    let size = size_of(&path);
    let mut long = whole[..2].to_vec();
    for _ in 0..2 {
        long.extend_from_slice(&[0xFF, 0xFE, 0xC3, 0x52]);
        long.extend(std::iter::repeat_n(b'x', 0xC350));
    }
    long.extend_from_slice(&whole[2..]);
    std::fs::write(&path, long).unwrap();
    assert_eq!(size_of(&path), size);
    std::fs::write(&path, b"nothing").unwrap();
    assert!(docent_coco::image_header(&path).unwrap_err().to_string().contains("cut.jpg"));
}
