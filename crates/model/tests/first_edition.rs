//! Checkpoints of the first edition (revision b094fc3): settings arrive under today's keys, and detections are the same.
//!
//! `tests/data/first_edition.*.safetensors` were written by that revision, with random weights and with settings that are nowhere
//! the defaults: a ResNet-50 of BatchNorm in f32, and a MobileNetV2 of frozen BatchNorm whose weights are f16.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use docent_model::coco::{Resize, ResizeRule, Rgb8};
use docent_model::detect::{Detection, DetectorConfig, Registry};
use docent_model::import::Content;
use docent_model::{CheckpointMeta, Predictor, read_weights};
use serde_json::{Value, json};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/first_edition.{name}.safetensors"))
}

/// What the files were written with, under today's keys.
fn settings(backbone: Value) -> DetectorConfig {
    let settings = json!({
        "architecture": "faster_rcnn",
        "classes": 4,
        "backbone": backbone,
        "fpn_channels": 6,
        "anchors": { "sizes": [8.0, 12.0, 24.0, 40.0, 72.0], "ratios": [0.4, 1.0, 2.2] },
        "rpn": {
            "pre_nms_top_n_train": 130,
            "pre_nms_top_n_test": 110,
            "post_nms_top_n_train": 90,
            "post_nms_top_n_test": 70,
            "nms_threshold": 0.65,
            "fg_iou_threshold": 0.6,
            "bg_iou_threshold": 0.25,
            "batch_size_per_image": 60,
            "positive_fraction": 0.4,
            "score_threshold": 0.01,
            "min_size": 0.5,
            "smooth_l1_beta": 0.2,
        },
        "roi": {
            "batch_size_per_image": 40,
            "positive_fraction": 0.3,
            "fg_iou_threshold": 0.55,
            "bg_iou_threshold": 0.45,
            "pooler_resolution": 3,
            "sampling_ratio": 1,
            "aligned": true,
            "canonical_box_size": 48.0,
            "canonical_level": 3,
            "smooth_l1_beta": 0.15,
            "box_weights": [9.0, 8.0, 4.0, 3.0],
            "score_threshold": 0.1,
            "nms_threshold": 0.35,
            "detections_per_image": 7,
            "representation_size": 10,
        },
        "normalize": { "mean": [0.5, 0.45, 0.4], "std": [0.25, 0.3, 0.2] },
    });
    serde_json::from_value(settings).unwrap()
}

fn resnet() -> DetectorConfig {
    settings(json!({
        "architecture": "resnet",
        "depth": 50,
        "width_multiplier": 0.03125,
        "norm": "batch_norm",
        "norm_eps": 0.001,
        "stride_in_1x1": true,
    }))
}

fn mobilenet() -> DetectorConfig {
    settings(json!({
        "architecture": "mobilenet_v2",
        "width_multiplier": 0.05,
        "norm": "frozen_batch_norm",
        "norm_eps": 0.002,
    }))
}

/// The image that revision b094fc3 was given.
fn image() -> Rgb8 {
    let (height, width) = (75, 100);
    let value = |i: usize| {
        let (channel, y, x) = (i % 3, i / 3 / width, i / 3 % width);
        ((77 * channel + 3 * y + 5 * x) ^ (y / 8 * 37)) as u8
    };
    Rgb8 { width, height, data: (0..3 * height * width).map(value).collect() }
}

/// Label, score and box of each detection.
type Expected = [(u32, f32, [f32; 4])];

fn compare(found: &[Detection], expected: &Expected) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, (label, score, bbox)) in found.iter().zip(expected) {
        assert_eq!(found.label, *label, "{found:?}");
        // Other processors have other kernels; nothing else may differ.
        assert!((found.score - score).abs() < 1e-5, "{found:?}, not {score}");
        assert!(found.bbox.iter().zip(bbox).all(|(a, b)| (a - b).abs() < 1e-3), "{found:?}, not {bbox:?}");
    }
}

#[test]
fn settings_arrive_under_todays_keys() {
    for (name, expected) in [("resnet", resnet()), ("mobilenet", mobilenet())] {
        let path = file(name);
        let read = read_weights(&path).unwrap();
        // The file itself has the old keys: this test would show nothing otherwise.
        for old in ["\"nms\":0.35", "\"samples\":40", "\"hidden\":10", "\"width\":0.0"] {
            assert!(read.metadata["model"].contains(old), "{}", read.metadata["model"]);
        }
        let Content::Checkpoint(meta) = Content::of(&path, &read).unwrap() else { panic!("{name} is no checkpoint") };
        assert_eq!(meta.detector(&path).unwrap(), expected, "{name}");
        meta.check_model(&path, &expected).unwrap();
        let resize = Resize::default().shortest(96).longest(140).rule(ResizeRule::Antialias);
        assert_eq!(meta.resizing(&path).unwrap(), resize);
        let named: Vec<_> = meta.categories.iter().map(|c| (c.id, c.name.as_str())).collect();
        assert_eq!(named, [(3, "cat"), (7, "dog"), (20, "Zähler")]);
        assert_eq!((meta.recipe.as_str(), meta.step), ("first", 42));
        // Written again, it is a checkpoint of today.
        let again = CheckpointMeta::from_map(&path, &meta.to_map().unwrap()).unwrap();
        assert_eq!(again, *meta);
    }
}

#[test]
fn detections_are_those_of_the_first_edition() {
    let resnet = [
        (2, 0.70907503, [83.35455, 20.302942, 95.356766, 31.031523]),
        (2, 0.62885034, [83.08861, 26.029406, 95.01746, 37.09654]),
        (2, 0.62814444, [32.56236, 54.690468, 43.620354, 66.667496]),
        (2, 0.61872953, [92.91953, 56.997932, 100.0, 64.70615]),
        (2, 0.61412746, [76.34105, 58.94025, 87.43593, 70.779915]),
        (2, 0.6071661, [83.37072, 33.324383, 94.336006, 44.80477]),
        (2, 0.59441763, [41.61301, 39.501457, 100.0, 49.924286]),
    ];
    let mobilenet = [
        (2, 0.9344162, [85.453514, 54.601807, 91.24414, 70.3062]),
        (2, 0.92212003, [52.56731, 43.654972, 81.43963, 56.109905]),
        (2, 0.91853315, [64.59361, 31.22091, 94.64692, 42.967815]),
        (2, 0.91708666, [68.42081, 38.29734, 87.56852, 59.672535]),
        (2, 0.91279817, [43.488873, 38.69734, 62.14285, 60.02709]),
        (2, 0.91016877, [30.870584, 25.875103, 49.90066, 47.18013]),
        (2, 0.9097785, [43.3584, 25.964876, 62.359535, 47.20007]),
    ];
    for (name, expected) in [("resnet", resnet), ("mobilenet", mobilenet)] {
        let predictor = Predictor::load(&file(name), &Registry::builtin()).unwrap();
        compare(&predictor.detect(&image()).unwrap(), &expected);
    }
}
