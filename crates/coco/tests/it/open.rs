//! Finding splits in a folder, and what is said when they cannot be found.

use std::path::Path;

use docent_coco::{Dataset, Error, OpenOptions, ReadConfig, open_dir, split_by_name};

use crate::support::{category, shared, write_named_images};

/// Writes `n` images to `images` and their annotations to `json`, both below `dir`. Images of different files differ.
fn put(dir: &Path, images: &str, json: &str, n: usize) -> Dataset {
    let set = write_named_images(&dir.join(images), json.trim_end_matches(".json"), n);
    set.save(&dir.join("annotations").join(json)).unwrap();
    set
}

fn open(dir: &Path) -> docent_coco::Result<docent_coco::Splits> {
    open_dir(dir, &OpenOptions::default())
}

#[test]
fn cocos_own_layout() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "train2017", "instances_train2017.json", 4);
    put(dir.path(), "val2017", "instances_val2017.json", 3);
    // Files beside them that are no instances.
    std::fs::write(dir.path().join("annotations/captions_train2017.json"), "{}").unwrap();
    let splits = open(dir.path()).unwrap();
    assert_eq!((splits.train.len(), splits.val.len()), (4, 3));
    assert!(splits.train.image_root().ends_with("train2017"));
    assert!(splits.val.image_root().ends_with("val2017"));
    assert_eq!(splits.val.name(), "instances_val2017");
    splits.val.sample(2).unwrap();
}

#[test]
fn one_folder_of_images_for_both() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "images", "instances_train.json", 4);
    put(dir.path(), "images", "instances_val.json", 3);
    let splits = open(dir.path()).unwrap();
    assert!(splits.train.image_root().ends_with("images"));
    assert!(splits.val.image_root().ends_with("images"));
}

#[test]
fn folders_below_images_and_file_names_with_folders() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "images/train", "instances_train.json", 4);
    put(dir.path(), "images/val", "instances_val.json", 3);
    let splits = open(dir.path()).unwrap();
    assert!(splits.train.image_root().ends_with("images/train"));
    // The annotations may also name the folder themselves.
    for (file, split) in [("instances_train.json", "train"), ("instances_val.json", "val")] {
        let path = dir.path().join("annotations").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace(r#""file_name":""#, &format!(r#""file_name":"images/{split}/"#));
        std::fs::write(&path, text).unwrap();
    }
    let splits = open(dir.path()).unwrap();
    assert!(splits.train.image_root().ends_with("images/train"));
    splits.train.sample(0).unwrap();
}

#[test]
fn one_json_alone_is_split_by_name() {
    for name in ["instances_default.json", "instances_trainval.json", "instances_train.json", "labels.json"] {
        let dir = tempfile::tempdir().unwrap();
        let whole = put(dir.path(), "images", name, 40);
        let splits = open(dir.path()).unwrap();
        assert_eq!(splits.train.len() + splits.val.len(), 40);
        assert!((2..=16).contains(&splits.val.len()), "{}", splits.val.len());
        assert!(splits.val.images().iter().all(|v| splits.train.images().iter().all(|t| t.id != v.id)));
        // Taking an image away moves no other.
        let (_, val) = split_by_name(&whole.subset(&(1..40).collect::<Vec<_>>()), 0.2).unwrap();
        let ids =
            |d: &Dataset| d.images().iter().map(|i| i.id).filter(|&id| id != whole.image(0).id).collect::<Vec<_>>();
        assert_eq!(ids(&val), ids(&splits.val));
        let share = |val_fraction| OpenOptions::default().read(ReadConfig::default().val_fraction(val_fraction));
        assert!(open_dir(dir.path(), &share(0.5)).unwrap().val.len() > splits.val.len());
        for bad in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(open_dir(dir.path(), &share(bad)).is_err());
        }
    }
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "images", "instances_default.json", 1);
    assert!(open(dir.path()).unwrap_err().to_string().contains("too few"));
}

#[test]
fn explicit_paths_win() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "images", "instances_train.json", 6);
    put(dir.path(), "images", "instances_train_small.json", 2);
    put(dir.path(), "images", "instances_val.json", 3);
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("2 files could be the train annotations") && error.contains("instances_train_small.json"),
        "{error}"
    );
    let json = |name: &str| Some(dir.path().join("annotations").join(name));
    let mut options = OpenOptions::default().train_annotations(json("instances_train_small.json"));
    let splits = open_dir(dir.path(), &options).unwrap();
    assert_eq!((splits.train.len(), splits.val.len()), (2, 3));
    options.val_annotations = json("instances_train.json");
    options.images = Some(dir.path().join("images"));
    let splits = open_dir(dir.path(), &options).unwrap();
    assert_eq!((splits.train.len(), splits.val.len()), (2, 6));
    // A validation file alone says nothing about what to train on.
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "images", "instances_val.json", 6);
    let options = OpenOptions::default().val_annotations(Some(dir.path().join("annotations/instances_val.json")));
    assert!(open_dir(dir.path(), &options).unwrap_err().to_string().contains("no training annotations"));
    // A training file that is named, with no validation file to be found, is split.
    let options = OpenOptions::default().train_annotations(options.val_annotations);
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "images", "instances_train.json", 30);
    let options = options.train_annotations(Some(dir.path().join("annotations/instances_train.json")));
    assert_eq!(open_dir(dir.path(), &options).map(|s| s.train.len() + s.val.len()).unwrap(), 30);
}

#[test]
fn absence_says_what_was_looked_for_and_found() {
    let error = open(Path::new("/no/such/folder")).unwrap_err().to_string();
    assert!(error.contains("/no/such/folder"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("holiday.jpg"), "x").unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Folder { .. }));
    let text = error.to_string();
    for part in ["no annotations", "COCO JSON", "holiday.jpg", "--train-annotations"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // Annotations without their images.
    put(dir.path(), "pictures", "instances_train.json", 3);
    put(dir.path(), "pictures", "instances_val.json", 3);
    open(dir.path()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::rename(dir.path().join("pictures"), elsewhere.path().join("pictures")).unwrap();
    let text = open(dir.path()).unwrap_err().to_string();
    for part in ["missing image file", "000.png", "6 fault(s)", "--policy missing_image=drop"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let options = OpenOptions::default().images(Some(elsewhere.path().join("pictures")));
    open_dir(dir.path(), &options).unwrap();

    // The same names in two places.
    std::fs::rename(elsewhere.path().join("pictures"), dir.path().join("images")).unwrap();
    std::fs::create_dir(dir.path().join("JPEGImages")).unwrap();
    for name in ["instances_train000.png", "instances_val000.png"] {
        std::fs::copy(dir.path().join("images").join(name), dir.path().join("JPEGImages").join(name)).unwrap();
    }
    let text = open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("fits 2 files") && text.contains("JPEGImages/instances_train000.png"), "{text}");
}

#[test]
fn splits_agree_on_categories_by_name() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "images", "instances_train.json", 4);
    let set = put(dir.path(), "images", "instances_val.json", 3);
    let with = |names: &[(u64, &str)]| {
        let categories = names.iter().map(|(id, name)| category(*id, name)).collect();
        let ids: Vec<u64> = names.iter().map(|(id, _)| *id).collect();
        let objects = set.all_annotations().iter().filter(|a| ids.contains(&a.category_id)).cloned().collect();
        let other = Dataset::from_parts("other", set.image_root(), set.images().to_vec(), objects, categories).unwrap();
        other.save(&dir.path().join("annotations/instances_val.json")).unwrap();
        open(dir.path())
    };
    let classes = |splits: &docent_coco::Splits| {
        let set = &splits.val;
        set.all_annotations()
            .iter()
            .map(|a| set.categories().iter().find(|c| c.id == a.category_id).unwrap().name.clone())
            .collect::<Vec<_>>()
    };
    // The ids stand the other way round: 2 is dog here, and cat there.
    let splits = with(&[(2, "dog"), (9, "cat")]).unwrap();
    assert_eq!(splits.train.categories(), splits.val.categories());
    assert_eq!(classes(&splits), ["dog", "dog", "cat"]);
    assert!(splits.notes.iter().any(|n| n.contains("matched by name")), "{:?}", splits.notes);
    // A class that the held-out images lack.
    let splits = with(&[(2, "cat")]).unwrap();
    assert_eq!((splits.val.categories().len(), classes(&splits)), (2, vec!["cat".to_owned(); 2]));
    // Each has one that the other lacks: a class that is spelled otherwise, maybe.
    let text = with(&[(2, "cat"), (9, "Dog")]).unwrap_err().to_string();
    assert!(text.contains("[2 cat, 9 dog]") && text.contains("[2 cat, 9 Dog]"), "{text}");
}

#[test]
fn shared_folders_open() {
    for (name, train, val) in [("bccd", 205, 87), ("coco-open", 43, 0)] {
        let Some(root) = shared(name) else { return };
        let splits = open(&root).unwrap();
        assert_eq!(splits.train.len(), train);
        assert!(splits.val.len() >= val);
        splits.train.sample(0).unwrap();
        splits.val.sample(0).unwrap();
    }
}
