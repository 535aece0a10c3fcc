//! The terms of task-adaptive distillation and their gradients, against an independent PyTorch version in float64.
// Clippy knows only `#[test]` functions as tests; helpers may fail the same way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "../../ops/tests/common/mod.rs"]
mod common;
mod golden_notes;

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use common::{Golden, boxes, filled, leaf};
use docent_detect::{BoxHeadOutput, FeaturePyramid, SampledRois, Size, Target};
use docent_distill::config::{AdaptationLayer, RegGate, TaskAdaptiveConfig};
use docent_distill::methods::TaskAdaptive;
use docent_distill::{Channels, Distiller, ModelView, Progress, RegionView, StepContext};
use docent_ops::BoxCoder;

const LEVELS: [(usize, usize); 5] = [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)];
const SIZES: [Size; 2] = [Size::new(90, 120), Size::new(96, 101)];
const STUDENT: usize = 5;
const TEACHER: usize = 7;
const CLASSES: usize = 6;

fn open() -> Golden {
    Golden::open(env!("CARGO_MANIFEST_DIR"), "terms.safetensors")
}

fn labels(golden: &Golden, name: &str) -> Vec<u32> {
    golden.counts(name).iter().map(|&v| v as u32).collect()
}

/// The student's leaves by the generator's names: its maps, its head's outputs, and the adapters if there are any.
fn leaves(rois: usize, adaptation_layer: AdaptationLayer) -> BTreeMap<String, Var> {
    let kernel = if adaptation_layer == AdaptationLayer::Conv1x1 { 1 } else { 3 };
    let mut leaves = BTreeMap::new();
    for (level, (h, w)) in LEVELS.into_iter().enumerate() {
        let key = format!("p{}", level + 2);
        leaves.insert(
            key.clone(),
            leaf(&format!("distill.student.{key}"), &[2, student_channels(adaptation_layer), h, w], 1.0, 0.0),
        );
        if adaptation_layer == AdaptationLayer::None {
            continue;
        }
        let weight = format!("adapt.{level}.weight");
        let scale = (3.0 / (STUDENT * kernel * kernel) as f64).sqrt();
        let shape = [TEACHER, STUDENT, kernel, kernel];
        leaves.insert(weight.clone(), leaf(&format!("distill.{weight}"), &shape, scale, 0.0));
        let bias = format!("adapt.{level}.bias");
        leaves.insert(bias.clone(), leaf(&format!("distill.{bias}"), &[TEACHER], 0.1, 0.0));
    }
    leaves.insert("class_logits".into(), leaf("distill.student.class_logits", &[rois, CLASSES], 6.0, 0.0));
    leaves.insert("box_deltas".into(), leaf("distill.student.box_deltas", &[rois, 4 * CLASSES], 1.2, 0.0));
    leaves
}

/// Without an adapter the maps must be as deep as the teacher's.
fn student_channels(adaptation_layer: AdaptationLayer) -> usize {
    if adaptation_layer == AdaptationLayer::None { TEACHER } else { STUDENT }
}

fn channels(fpn: usize) -> Channels {
    Channels { fpn: vec![fpn; LEVELS.len()], stages: Vec::new() }
}

fn variant(golden: &Golden, name: &str) {
    let config: TaskAdaptiveConfig = golden_notes::settings(golden, name);
    let weights: [f32; 4] = serde_json::from_value(golden.note(&format!("weights {name}")).clone()).unwrap();
    let milestones: Vec<usize> = serde_json::from_value(golden.note(&format!("milestones {name}")).clone()).unwrap();
    let (student_coder, teacher_coder) = (BoxCoder::new([10.0, 10.0, 5.0, 5.0]), BoxCoder::new(weights));

    let image = golden.counts("image");
    let labels_of_rois = labels(golden, "labels");
    let positives = (0..image.len()).filter(|&r| labels_of_rois[r] > 0 && name != "no_positives");
    let rois = SampledRois {
        rois: image.iter().copied().zip(boxes(&golden.input("rois"))).collect(),
        positives: positives.collect(),
        matched_gt_boxes: boxes(&golden.input("matched")),
        labels: labels_of_rois,
    };
    let truth = |i| Target {
        boxes: boxes(&golden.input(&format!("truth{i}.boxes"))),
        labels: labels(golden, &format!("truth{i}.labels")),
    };
    let count = rois.rois.len();
    let leaves = leaves(count, config.adaptation_layer);
    let student = |name: &str| leaves[name].as_tensor().clone();
    let map = |level: usize| {
        let (h, w) = LEVELS[level];
        filled(&format!("distill.teacher.p{}", level + 2), &[2, TEACHER, h, w], 1.0, 0.0)
    };
    let deltas = golden.input(&format!("{name}.teacher_deltas"));
    let strides = vec![4, 8, 16, 32, 64];
    let student_maps =
        FeaturePyramid { levels: (0..5).map(|l| student(&format!("p{}", l + 2))).collect(), strides: strides.clone() };
    let teacher_maps = FeaturePyramid { levels: (0..5).map(map).collect(), strides };
    let student_head = BoxHeadOutput { class_logits: student("class_logits"), box_deltas: student("box_deltas") };
    let teacher_head = BoxHeadOutput {
        class_logits: filled("distill.teacher.class_logits", &[count, CLASSES], 12.0, 0.0),
        box_deltas: Tensor::from_vec(deltas, (count, 4 * CLASSES), &Device::Cpu).unwrap(),
    };
    let view = |pyramid, head, coder| {
        ModelView::default().with_pyramid(pyramid).with_regions(RegionView { rois: &rois, head, coder })
    };
    let progress = Progress { epoch: 3, epochs: 12, iteration: 21, iterations: 120, milestones: &milestones };
    let targets = [truth(0), truth(1)];
    let step = StepContext::new(
        view(&student_maps, &student_head, student_coder),
        view(&teacher_maps, &teacher_head, teacher_coder),
        &targets,
        &SIZES,
        progress,
    );
    let adapters: HashMap<String, Tensor> = leaves
        .iter()
        .filter(|(n, _)| n.starts_with("adapt"))
        .map(|(n, v)| (n.clone(), v.as_tensor().clone()))
        .collect();
    let vb = VarBuilder::from_tensors(adapters, DType::F32, &Device::Cpu);
    let method =
        TaskAdaptive::new(&config, &channels(student_channels(config.adaptation_layer)), &channels(TEACHER), vb)
            .unwrap();

    if name == "default" || name == "int_box" {
        let grid = if name == "default" { "cell_center" } else { "int_box" };
        for (level, mask) in method.masks(&step).unwrap().iter().enumerate() {
            golden.compare_f32(&format!("mask.{grid}.p{}", level + 2), &mask.values);
        }
    }
    let out = method.loss(&step).unwrap();
    for term in &out.terms {
        golden.tensor(&format!("{name}.{}", term.name), &term.raw);
    }
    let total = out.total().unwrap();
    golden.tensor(&format!("{name}.total"), &total);
    let open = golden.counts(&format!("{name}.gate"));
    if config.reg_gate != RegGate::None {
        assert!(name == "no_positives" || (open.contains(&0) && open.contains(&1)), "{name}: the gate decides nothing");
    }
    assert_eq!(out.stat("gated").unwrap() as usize, open.iter().sum::<usize>(), "{name}: gates open");

    let grads = total.backward().unwrap();
    for (leaf, var) in &leaves {
        let none = var.zeros_like().unwrap();
        let samples = if name == "default" { 24 } else { 6 };
        golden.summary(&format!("{name}.grad.{leaf}"), grads.get(var).unwrap_or(&none), samples);
    }
}

#[test]
fn the_defaults() {
    let golden = open();
    for name in ["default", "other_coder", "no_positives"] {
        variant(&golden, name);
    }
    golden.finish(&[
        "default.",
        "other_coder.",
        "no_positives.",
        "mask.cell_center",
        "rois",
        "labels",
        "matched",
        "image",
        "truth",
    ]);
}

#[test]
fn the_other_settings() {
    let golden = open();
    let defaults = ["default", "other_coder", "no_positives"];
    let names: Vec<&str> = golden.notes("config ").map(|(name, _)| name).filter(|n| !defaults.contains(n)).collect();
    for name in &names {
        variant(&golden, name);
    }
    let prefixes: Vec<String> = names.iter().map(|name| format!("{name}.")).collect();
    golden.finish(&prefixes.iter().map(String::as_str).chain(["mask.int_box"]).collect::<Vec<_>>());
}
