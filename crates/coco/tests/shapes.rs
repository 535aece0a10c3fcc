//! The embedded data set: the locked bits, the folder's life, and what every scene promises.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use docent_coco::shapes::{Class, Object, ShapesConfig, Split, digest, generate, generate_with, locked, render};
use docent_coco::{Dataset, Rgb8, Splits};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

fn small() -> ShapesConfig {
    ShapesConfig::default().train(7).val(3).seed(5)
}

/// Every file below `root`, by its path.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

fn check_boxes(image: &Rgb8, objects: &[Object]) {
    let (width, height) = (image.width as f64, image.height as f64);
    assert!(image.width <= 160 && image.height <= 160);
    assert_eq!(image.data.len(), 3 * image.width * image.height);
    for object in objects {
        let [x, y, w, h] = object.bbox;
        assert!(x >= 0.0 && y >= 0.0 && x + w <= width && y + h <= height, "{object:?}");
        assert!(w >= 1.0 && h >= 1.0 && object.area() >= 1.0, "{object:?}");
        assert!((0.25..=1.0).contains(&object.visible), "{object:?}");
    }
}

/// The whole default data set, through the path that users take. `generate` compares its digest with the lock file.
#[test]
fn the_default_data_set_is_the_locked_one_and_worth_detecting() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("shapes");
    let config = ShapesConfig::default();
    let Splits { train, val, .. } = generate(&root, &config)
        .expect("a change of the generator is a new version: raise VERSION and renew shapes.lock");
    let marker = fs::read_to_string(root.join("shapes.json")).unwrap();
    assert!(marker.contains(&locked().unwrap().sha256));
    assert_eq!((train.len(), val.len()), (800, 200));
    for split in [&train, &val] {
        assert_eq!(split.class_names(), Class::ALL.map(Class::name));
        let boxes: usize = (0..split.len()).map(|i| split.annotations(i).len()).sum();
        let an_image = boxes as f64 / split.len() as f64;
        assert!((3.5..6.0).contains(&an_image), "{an_image} objects an image");
        let empty = (0..split.len()).filter(|&i| split.annotations(i).is_empty()).count();
        assert!(empty > 0 && empty * 10 < split.len(), "{empty} empty images");
        let (mut classes, mut bins) = ([0usize; 6], [0usize; 3]);
        for annotation in (0..split.len()).flat_map(|i| split.annotations(i)) {
            classes[annotation.category_id as usize - 1] += 1;
            assert_eq!(annotation.area, annotation.bbox[2] * annotation.bbox[3]);
            bins[usize::from(annotation.area >= 1024.0) + usize::from(annotation.area >= 9216.0)] += 1;
        }
        // Evenly drawn, so each class is within four deviations of a sixth.
        let (mean, deviation) = (boxes as f64 / 6.0, (boxes as f64 * 5.0 / 36.0).sqrt());
        assert!(classes.iter().all(|&n| (n as f64 - mean).abs() < 4.0 * deviation), "{classes:?}");
        assert!(bins[0] * 10 > boxes * 4 && bins[1] * 10 > boxes * 2 && bins[2] > 5, "{bins:?}");
    }
    let ids = |split: &Dataset| (0..split.len()).map(|i| split.image(i).id).collect::<BTreeSet<_>>();
    assert!(ids(&train).is_disjoint(&ids(&val)));
}

#[test]
fn what_is_read_back_is_what_was_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let Splits { train, val, .. } = generate(&folder.path().join("shapes"), &small()).unwrap();
    for (set, split) in [(&train, Split::Train), (&val, Split::Val)] {
        assert_eq!(set.len(), small().images(split));
        for index in 0..set.len() {
            let (image, objects) = render(&small(), split, index);
            let sample = set.sample(index).unwrap();
            assert_eq!(sample.image_id, split.image_id(index));
            assert_eq!((sample.image.width, sample.image.height), (image.width, image.height));
            assert_eq!(sample.image.data, image.data);
            let boxes: Vec<[f32; 4]> = objects
                .iter()
                .map(|o| [o.bbox[0], o.bbox[1], o.bbox[0] + o.bbox[2], o.bbox[1] + o.bbox[3]].map(|v| v as f32))
                .collect();
            assert_eq!(sample.boxes, boxes);
            let labels: Vec<u32> = objects.iter().map(|o| o.class.id() as u32).collect();
            assert_eq!(sample.labels, labels);
        }
    }
}

#[test]
fn one_thread_and_four_write_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (one, four) = (folder.path().join("one"), folder.path().join("four"));
    generate_with(&one, &small(), 1).unwrap();
    generate_with(&four, &small(), 4).unwrap();
    let (one, four) = (files(&one), files(&four));
    assert_eq!(one.len(), 7 + 3 + 2 + 1);
    assert!(one == four, "files differ");
    assert_eq!(digest(&small(), 1).unwrap(), digest(&small(), 4).unwrap());
    assert!(String::from_utf8_lossy(&one["shapes.json"]).contains(&digest(&small(), 2).unwrap()));
}

#[test]
fn a_complete_folder_is_kept_and_a_damaged_one_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("shapes");
    generate(&root, &small()).unwrap();
    let whole = files(&root);
    // A file that is none of ours lives as long as the folder does.
    let witness = root.join("witness");
    fs::write(&witness, "").unwrap();
    generate(&root, &small()).unwrap();
    assert!(witness.exists(), "a complete folder was made again");

    let damages: [&dyn Fn(); 4] = [
        &|| fs::remove_file(root.join("train/000003.png")).unwrap(),
        &|| fs::write(root.join("val/100001.png"), b"cut").unwrap(),
        &|| fs::write(root.join("annotations/instances_val.json"), b"{}").unwrap(),
        &|| fs::write(root.join("shapes.json"), b"{}").unwrap(),
    ];
    for damage in damages {
        fs::write(&witness, "").unwrap();
        damage();
        generate(&root, &small()).unwrap();
        assert!(files(&root) == whole && !witness.exists());
    }
    // Another configuration takes its place; the images both have are the same.
    let fewer = small().train(4);
    generate(&root, &fewer).unwrap();
    let now = files(&root);
    assert_eq!(now.len(), whole.len() - 3);
    assert!(now.iter().filter(|(name, _)| name.ends_with(".png")).all(|(name, bytes)| whole[name] == *bytes));
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_of_somebody_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.tex"), "years of work").unwrap();
    let error = generate(folder.path(), &small()).unwrap_err().to_string();
    assert!(error.contains("no shapes data set") && error.contains("name another folder"), "{error}");
    assert_eq!(files(folder.path()).len(), 1);
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(generate(&empty, &small()).unwrap().train.len(), 7);
    let file = folder.path().join("thesis.tex");
    assert!(generate(&file, &small()).is_err());
    assert_eq!(fs::read_to_string(&file).unwrap(), "years of work");
}

#[test]
fn a_split_without_images_is_refused() {
    for config in [small().train(0), small().val(100_000)] {
        let error = generate(Path::new("never made"), &config).err().unwrap().to_string();
        assert!(error.contains("images; give 1 to 99999"), "{error}");
        assert!(digest(&config, 1).is_err());
    }
    assert!(!Path::new("never made").exists());
}

#[test]
fn splits_and_seeds_share_no_scene() {
    let mut seen = BTreeSet::new();
    for seed in [0, 1] {
        let config = small().seed(seed);
        for split in Split::ALL {
            for index in 0..25 {
                assert!(seen.insert(render(&config, split, index).0.data), "{seed} {split:?} {index}");
            }
        }
    }
    let ids = |split: Split| [split.image_id(0), split.image_id(99_998)];
    assert_eq!(ids(Split::Train), [1, 99_999]);
    assert!(ids(Split::Val)[0] > ids(Split::Train)[1]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn boxes_lie_in_their_image_whatever_the_seed(seed: u64, index in 0usize..99_999, val: bool) {
        let split = if val { Split::Val } else { Split::Train };
        let config = small().seed(seed);
        let (image, objects) = render(&config, split, index);
        check_boxes(&image, &objects);
        let again = render(&config, split, index);
        prop_assert!(again.0.data == image.data && again.1 == objects);
    }
}
