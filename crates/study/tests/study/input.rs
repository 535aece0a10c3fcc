//! Input that is not as it should be: images of odd sizes, categories in another order, checkpoints that do not fit.

use std::fs;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use docent_coco::Rgb8;
use docent_detect::Registry;
use docent_model::{Predictor, load_checkpoint, save_checkpoint};
use docent_study::data::Data;
use docent_study::recipe::Recipe;
use docent_study::run::{RunFolder, RunState};
use docent_train::events::Event;
use serde_json::{Value, json};

use crate::bench::{Bench, RECIPE, add_image, build, diverged, steps};

#[test]
fn images_of_one_pixel_and_of_one_row_are_trained_on_scored_and_searched() {
    let bench = Bench::new();
    let odd = [(1, 1), (1, 4000), (4000, 1)];
    for (split, first) in [("train", 1000), ("val", 2000)] {
        for (i, size) in odd.into_iter().enumerate() {
            add_image(&bench.path("data"), split, first + i as u64, size);
        }
    }
    // Batches of one: nothing is hidden by the padding beside a bigger image.
    let recipe = bench.recipe(&["train.batch=1", "train.reference_batch=1", "train.lr=0.005", "train.epochs=1"]);
    let summary = bench.study(&recipe, "study", false).0.unwrap();
    assert_eq!(summary.dataset.images, [11, 7]);
    for run in ["teacher", "alone", "distilled"] {
        let records = steps(&bench.path("study").join(run));
        assert_eq!(records.len(), 11);
        assert!(records.iter().all(|s| s.total.is_finite() && s.grad_norm.is_finite()), "{run}");
    }
    let path = RunFolder::new(&bench.path("study"), "distilled").last();
    let predictor = Predictor::load(&path, &Registry::builtin()).unwrap();
    for (width, height) in odd {
        for d in predictor.detect(&Rgb8::filled(width, height, [1, 2, 3])).unwrap() {
            let [x1, y1, x2, y2] = d.bbox;
            let inside = x1 >= 0.0 && y1 >= 0.0 && x2 <= width as f32 + 1e-2 && y2 <= height as f32 + 1e-2;
            assert!(inside && d.score.is_finite(), "{width}x{height}: {:?}", d.bbox);
        }
    }
}

/// The training images of the bench.
fn images(bench: &Bench) -> Vec<PathBuf> {
    let data = Data::open(&bench.recipe(&[]).data).unwrap();
    (0..data.train.len()).map(|i| data.train.image_path(i)).collect()
}

#[test]
fn an_image_that_breaks_ends_a_run_without_losing_a_step() {
    let bench = Bench::new();
    // No state is due before the epoch's end.
    let recipe = bench.alone(&["checkpoint.steps=100", "eval.every=0"]);
    bench.study(&recipe, "whole", false).0.unwrap();
    let mut saved = Vec::new();
    for (i, image) in images(&bench).iter().enumerate() {
        let bytes = fs::read(image).unwrap();
        fs::write(image, &bytes[..bytes.len() / 2]).unwrap();
        let name = format!("broken{i}");
        let (result, events) = bench.study(&recipe, &name, false);
        let message = result.unwrap_err().to_string();
        assert!(message.contains(image.file_name().unwrap().to_str().unwrap()), "{message}");
        assert!(events.iter().any(|e| matches!(e, Event::Warning { text } if text.contains("--resume"))), "{events:?}");
        let folder = RunFolder::new(&bench.path(&name), "alone");
        saved.push(RunState::load(&folder.state()).map_or(0, |state| state.trainer.step));
        assert_eq!(steps(folder.path()).len(), saved[i], "every step made is saved");
        fs::write(image, bytes).unwrap();
        bench.study(&recipe, &name, true).0.unwrap();
        bench.assert_same("whole", &name, &["alone"]);
    }
    // Batches of three, three and two images.
    saved.sort_unstable();
    assert_eq!(saved, [0, 0, 0, 1, 1, 1, 2, 2]);
}

#[test]
fn what_was_wrong_with_the_data_is_counted_and_listed_before_the_first_step() {
    let bench = Bench::new();
    let path = bench.path("data/annotations/instances_train.json");
    let mut value: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let mut flat = value["annotations"][0].clone();
    (flat["id"], flat["bbox"]) = (json!(9000), json!([1, 1, 0, 5]));
    value["annotations"].as_array_mut().unwrap().push(flat);
    fs::write(&path, value.to_string()).unwrap();
    let (result, events) = bench.study(&bench.alone(&["train.epochs=1"]), "study", false);
    result.unwrap();
    let begun = events.iter().position(|e| matches!(e, Event::RunStarted { .. })).unwrap();
    let said = |parts: &[&str]| {
        let all = |e: &Event| matches!(e, Event::Note { text } if parts.iter().all(|part| text.contains(part)));
        events[..begun].iter().any(all)
    };
    assert!(said(&["training data", "1 x box without area (drop)"]), "{events:?}");
    assert!(said(&["instances_train.json", "annotation id 9000"]), "{events:?}");
}

#[test]
fn a_teacher_of_the_same_categories_in_another_order_is_refused_with_both_lists() {
    let bench = Bench::new();
    bench.study(&bench.recipe(&["train.epochs=1"]), "trained", false).0.unwrap();
    let mut recipe = bench.recipe(&["train.epochs=1"]);
    recipe.teacher.as_mut().unwrap().checkpoint = Some(RunFolder::new(&bench.path("trained"), "teacher").last());
    for split in ["train", "val"] {
        let path = bench.path(&format!("data/annotations/instances_{split}.json"));
        let text = fs::read_to_string(&path).unwrap();
        let swapped = text.replace("\"disc\"", "\"?\"").replace("\"ring\"", "\"disc\"").replace("\"?\"", "\"ring\"");
        assert_ne!(text, swapped);
        fs::write(&path, swapped).unwrap();
    }
    let message = bench.study(&recipe, "swapped", false).0.unwrap_err().to_string();
    assert!(message.contains("1 disc, 2 ring") && message.contains("1 ring, 2 disc"), "{message}");
    assert!(message.contains("another order") && message.contains("teacher/checkpoints/last.safetensors"), "{message}");
    assert!(!bench.path("swapped/alone").exists(), "before a student is trained");
}

#[test]
fn a_teacher_s_checkpoint_that_does_not_fit_says_where() {
    let bench = Bench::new();
    bench.study(&bench.recipe(&["train.epochs=1"]), "trained", false).0.unwrap();
    let good = load_checkpoint(&RunFolder::new(&bench.path("trained"), "teacher").last()).unwrap();
    let path = bench.path("teacher.safetensors");
    let mut recipe = bench.recipe(&["train.epochs=1"]);
    recipe.teacher.as_mut().unwrap().checkpoint = Some(path.clone());
    let refused = |what: &str, name: &str| {
        let message = bench.study(&recipe, name, false).0.unwrap_err().to_string();
        assert!(message.contains("teacher.safetensors"), "{what}: {message}");
        assert!(!bench.path(name).join("alone").exists());
        message
    };
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let fc6 = "roi_heads.box_head.fc6.weight";
    let meta = good.meta.to_map().unwrap();

    // The tensors of another architecture under this one's metadata.
    let deeper = build(&bench.alone(&["student.model.backbone.depth=50"]).student, 0);
    save_checkpoint(&path, &deeper.store.snapshot().unwrap(), &meta).unwrap();
    let message = refused("another architecture", "a");
    assert!(message.contains("unexpected") && message.contains("layer1.0.conv3.weight"), "{message}");
    assert!(message.contains("wrongly shaped"), "{message}");

    let mut tensors = good.tensors.clone();
    tensors.insert(fc6.into(), zeros(&[2, 3]));
    save_checkpoint(&path, &tensors, &meta).unwrap();
    let message = refused("a wrongly shaped tensor", "b");
    assert!(message.contains("wrongly shaped (1)") && message.contains(fc6) && message.contains("[2, 3]"), "{message}");

    tensors.remove(fc6);
    tensors.insert("surplus".into(), zeros(&[1]));
    save_checkpoint(&path, &tensors, &meta).unwrap();
    let message = refused("one missing, one too many", "c");
    assert!(
        message.contains(&format!("missing (1): {fc6}")) && message.contains("unexpected (1): surplus"),
        "{message}"
    );

    // The stride's place, changed by hand: every shape fits, the features would be others.
    save_checkpoint(&path, &good.tensors, &meta).unwrap();
    let bytes = fs::read(&path).unwrap();
    let key = br#"stride_in_1x1\":"#;
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap() + key.len();
    let mut changed = bytes.clone();
    assert_eq!(&changed[at..at + 5], b"false");
    changed[at..at + 5].copy_from_slice(b"true ");
    fs::write(&path, &changed).unwrap();
    assert!(refused("another stride place", "d").contains("content_sha256"));

    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(refused("cut", "e").contains("cut"));
    fs::write(&path, &bytes).unwrap();
    bench.study(&recipe, "f", false).0.unwrap();
}

#[test]
fn a_loss_beyond_all_numbers_stops_before_anything_is_overwritten() {
    let bench = Bench::new();
    // Finite at first; the rate then throws the weights so far that a loss is infinite or no number.
    let recipe = bench.alone(&["train.lr=1e18", "train.max_grad_norm=0.0", "checkpoint.steps=1"]);
    let error = bench.study(&recipe, "study", false).0.unwrap_err();
    let (step, images) = diverged(&error);
    assert!(!images.is_empty() && error.to_string().contains("Lower the learning rate (train.lr)"), "{error}");
    let folder = RunFolder::new(&bench.path("study"), "alone");
    assert_eq!(RunState::load(&folder.state()).unwrap().trainer.step, step - 1);
    assert_eq!(load_checkpoint(&folder.last()).unwrap().meta.step, step - 1);
    assert!(!folder.result().exists());
}

#[test]
fn a_recipe_that_is_wrong_says_where() {
    Recipe::parse(RECIPE, &[]).unwrap();
    for (was, is, parts) in [
        ("batch = 3\nlr", "batsch = 3\nlr", ["unknown field `batsch`", "did you mean 'batch'"]),
        ("[student.model]", "[student.modell]", ["unknown field `modell`", "did you mean 'model'"]),
        ("rule = \"antialias\"", "rule = \"antialiased\"", ["unknown variant", "did you mean 'antialias'"]),
        ("batch = 3\nlr", "lr", ["missing field `batch`", "train"]),
        ("batch = 3\nlr", "batch = \"three\"\nlr", ["invalid type: string \"three\"", "train.batch"]),
        ("batch = 3\nlr", "batch = 0\nlr", ["train.batch", "at least 1"]),
        ("lr = 0.02", "lr = -0.02", ["train.lr = -0.02", "not negative"]),
        ("lr = 0.02", "lr = inf", ["train.lr = inf", "finite"]),
        ("lr = 0.02", "lr = ", ["not TOML", "lr"]),
        ("steps = 2", "steps = 0", ["checkpoint.steps", "at least 1"]),
    ] {
        assert!(RECIPE.contains(was), "{was}");
        let message = Recipe::parse(&RECIPE.replacen(was, is, 1), &[]).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{is}: {message}");
    }
    for (set, part) in [
        ("train.speed=1", "unknown field `speed`"),
        ("trai.lr=1", "did you mean"),
        ("train.lr.more=1", "not a table"),
        ("=1", "key is empty"),
    ] {
        let message = Recipe::parse(RECIPE, &[set.to_owned()]).unwrap_err().to_string();
        assert!(message.contains(part), "{set}: {message}");
    }
}

#[test]
fn a_name_that_the_registry_lacks_ends_a_study_before_it_begins_and_lists_the_known_ones() {
    let bench = Bench::new();
    for (set, unknown, known) in [
        ("student.model={ architecture = 'yolo' }", "student.model: unknown detector `yolo`", "known are faster_rcnn"),
        ("teacher.model={ architecture = 'yolo' }", "teacher.model: unknown detector `yolo`", "known are faster_rcnn"),
        (
            "student.model.backbone={ architecture = 'vgg' }",
            "student.model: unknown backbone `vgg`",
            "known are mobilenet_v2, resnet",
        ),
        (
            "distill={ method = 'magic' }",
            "unknown distillation method `magic`",
            "known are defeat, fgfi, fitnets, pkd, task_adaptive",
        ),
    ] {
        let (result, events) = bench.study(&bench.recipe(&[set]), "study", false);
        let message = result.unwrap_err().to_string();
        assert!(message.contains(unknown) && message.contains(known), "{set}: {message}");
        assert!(events.is_empty() && !bench.path("study").exists(), "{set}: {events:?}");
    }
}
