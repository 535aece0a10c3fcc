//! A suggested recipe loads, costs what it says, and trains; on drawn data and, where it is there, on photographs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use docent_coco::shapes::{ShapesConfig, generate};
use docent_coco::{Annotation, BoxReading, Category, Dataset, Image, OpenOptions, ReadConfig, Rgb8};
use docent_detect::{AnchorConfig, DetectorConfig};
use docent_distill::config::TaskAdaptiveConfig;
use docent_distill::methods::DistillerConfig;
use docent_study::Registry;
use docent_study::dry_run::dry_run;
use docent_study::recipe::Recipe;
use docent_study::suggest::{SuggestOptions, suggest};

fn anchors_of(model: &DetectorConfig) -> &AnchorConfig {
    &model.faster_rcnn().unwrap().anchors
}

fn shapes(dir: &Path) -> PathBuf {
    let root = dir.join("few shapes");
    generate(&root, &ShapesConfig::default().train(40).val(8).seed(3)).unwrap();
    root
}

#[test]
fn a_suggestion_loads_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let root = shapes(dir.path());
    let options = SuggestOptions { measure: false, ..SuggestOptions::new(&root) };
    let suggestion = suggest(&options).unwrap();
    let recipe = Recipe::parse(&suggestion.toml, &[]).unwrap();
    assert_eq!(recipe, suggestion.recipe);
    assert_eq!((recipe.name.as_str(), recipe.data.dir.as_deref()), ("few-shapes", Some(root.as_path())));
    let about: Vec<&str> = suggestion.reasons.iter().map(|r| r.about).collect();
    assert_eq!(about, ["classes", "input size", "anchors", "models", "schedule"]);
    // Every reason stands in the text, whatever its lines.
    let words = |text: &str| text.split_whitespace().filter(|w| *w != "#").map(str::to_owned).collect::<Vec<_>>();
    let comments =
        words(&suggestion.toml.lines().filter(|l| l.starts_with('#')).collect::<Vec<_>>().join(" ")).join(" ");
    for reason in &suggestion.reasons {
        assert!(comments.contains(&words(&reason.text).join(" ")), "{}: {}", reason.about, reason.text);
    }
    assert!(suggestion.toml.lines().all(|l| !l.starts_with('#') || l.chars().count() <= 120));
    let Some(DistillerConfig::TaskAdaptive(distill)) = &recipe.distill else { panic!("{:?}", recipe.distill) };
    assert_eq!(distill, &TaskAdaptiveConfig::default().w_feat(2.88));
    assert!(suggestion.anchors.after.share > suggestion.anchors.before.share, "{:?}", suggestion.anchors);
    assert!(suggestion.anchors.after.share > 0.9, "{:?}", suggestion.anchors);
    let anchors = anchors_of(&recipe.student.model);
    assert_eq!(anchors, anchors_of(&recipe.teacher.as_ref().unwrap().model));
    assert_eq!(anchors, &suggestion.anchors.config);
    assert_eq!(suggest(&options).unwrap(), suggestion, "the same data, the same suggestion");
}

#[test]
fn a_measured_suggestion_fits_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let root = shapes(dir.path());
    let suggest_for =
        |time| suggest(&SuggestOptions { time: Duration::from_millis(time), ..SuggestOptions::new(&root) });
    // Too little for one epoch of all images: a shorter study, which says that it is short.
    let shortest = suggest_for(10).unwrap();
    assert_eq!(shortest.recipe.train.epochs, 1);
    assert!(shortest.recipe.data.limit.is_some_and(|limit| limit < 40), "{:?}", shortest.recipe.data.limit);
    let schedule = &shortest.reasons.iter().find(|r| r.about == "schedule").unwrap().text;
    assert!(schedule.contains("The time is short") && schedule.contains("--for"), "{schedule}");
    // Enough for a machine that is busy with other things.
    let short = suggest_for(600_000).unwrap();
    let models = &short.reasons.iter().find(|r| r.about == "models").unwrap().text;
    // The small pair where the big one has too little time on this machine, and then that is said.
    assert_eq!(models.contains("width 0.25"), models.contains("bigger pair"), "{models}");
    let measured = short.measured.as_ref().unwrap();
    assert!(measured.runs.len() == 3 && short.recipe.train.epochs == measured.epochs.min(60), "{measured:?}");
    let long = suggest_for(1_000_000_000).unwrap();
    assert!(long.recipe.train.epochs > 2 && long.measured.as_ref().unwrap().runs.len() == 3);
    assert!(!long.recipe.to_toml().unwrap().contains("width_multiplier = 0.25"));
    // It can be trained: data, models and one step of each run.
    let dry = dry_run(&short.recipe, &Registry::builtin()).unwrap();
    assert_eq!(dry.runs.len(), 3);
    let batch = short.recipe.train.batch;
    assert_eq!(dry.runs[1].steps, short.recipe.train.epochs * 40usize.div_ceil(batch));
}

#[test]
fn what_was_said_about_the_data_stands_in_the_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let images_dir = dir.path().join("photos");
    std::fs::create_dir_all(&images_dir).unwrap();
    for (split, ids) in [("train", 1..=6u64), ("val", 7..=8)] {
        let image = |id| Image { id, file_name: format!("{id}.png"), width: 64, height: 48 };
        let object = |id| Annotation {
            id,
            image_id: id,
            category_id: 4,
            bbox: [9.0, 9.0, 20.0, 10.0],
            area: 200.0,
            iscrowd: false,
        };
        let categories = vec![Category { id: 4, name: "turn \"left\"".into() }];
        ids.clone().for_each(|id| {
            Rgb8::filled(64, 48, [id as u8; 3]).save_png(&images_dir.join(format!("{id}.png"))).unwrap()
        });
        let (images, objects) = (ids.clone().map(image).collect(), ids.map(object).collect());
        Dataset::from_parts(split, &images_dir, images, objects, categories)
            .unwrap()
            .save(&dir.path().join(format!("data/annotations/instances_{split}.json")))
            .unwrap();
    }
    let read = ReadConfig::default().boxes(BoxReading::Xywh);
    let options = SuggestOptions {
        open: OpenOptions::default().images(images_dir.clone()).read(read),
        measure: false,
        ..SuggestOptions::new(dir.path().join("data"))
    };
    let recipe = suggest(&options).unwrap().recipe;
    assert_eq!((recipe.data.images, recipe.data.read.boxes), (Some(images_dir.clone()), Some(BoxReading::Xywh)));
    assert_eq!(recipe.data.flip, 0.0, "left is not right");
    assert_eq!(anchors_of(&recipe.student.model).ratios, [0.5]);
    assert!(recipe.train.batch <= 2);
    // Weights that are none.
    let weights = Some(images_dir.join("1.png"));
    let message = suggest(&SuggestOptions { weights, ..options }).unwrap_err().to_string();
    assert!(message.contains("1.png"), "{message}");
}

#[test]
fn data_without_a_box_has_no_recipe() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("images")).unwrap();
    let mut grey = 0;
    for split in ["train", "val"] {
        // As many as a split by hash needs: a held-out part without a label is not used.
        let image = |id| Image { id, file_name: format!("{split}{id}.png"), width: 8, height: 8 };
        let images: Vec<Image> = (1..=4).map(image).collect();
        for image in &images {
            Rgb8::filled(8, 8, [grey; 3]).save_png(&dir.path().join("images").join(&image.file_name)).unwrap();
            grey += 30;
        }
        let categories = vec![Category { id: 1, name: "x".into() }];
        let json = dir.path().join(format!("annotations/instances_{split}.json"));
        Dataset::from_parts(split, "x", images, vec![], categories).unwrap().save(&json).unwrap();
    }
    let message = suggest(&SuggestOptions::new(dir.path())).unwrap_err().to_string();
    assert!(message.contains("has no box to train on"), "{message}");
}

/// Blood cells: the shipped recipe's settings are what people chose; the suggestion comes near to them.
#[test]
fn bccd_gets_much_the_recipe_that_it_has() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    if !shared.is_dir() {
        println!("skipped: ../shared is absent");
        return;
    }
    let options = SuggestOptions {
        weights: Some(shared.join("weights/resnet50-imagenet.safetensors")),
        measure: false,
        ..SuggestOptions::new(shared.join("datasets/bccd"))
    };
    let suggestion = suggest(&options).unwrap();
    println!("{}", suggestion.toml);
    let recipe = &suggestion.recipe;
    assert!((160..=288).contains(&recipe.data.resize.shortest), "{:?}", recipe.data.resize);
    assert_eq!(recipe.train.batch, 4);
    let (before, after) = (suggestion.anchors.before, suggestion.anchors.after);
    assert!(after.share > before.share && after.mean_iou > before.mean_iou + 0.1, "{:?}", suggestion.anchors);
    let teacher = recipe.teacher.as_ref().unwrap();
    assert!(teacher.init.required && teacher.init.freeze_at == 3 && teacher.init.backbone.is_some());
}
