//! The other methods and their gradients, against an independent PyTorch version in float64.
// Clippy knows only `#[test]` functions as tests; helpers may fail the same way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "../../ops/tests/common/mod.rs"]
mod common;
mod golden_notes;

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Var};
use candle_nn::VarBuilder;
use common::{Golden, boxes, filled, leaf};
use docent_detect::{BoxHeadOutput, DenseHeadOutput, FeaturePyramid, SampledRois, Size, Target};
use docent_distill::methods::{DistillerConfig, imitation_mask};
use docent_distill::{Channels, DistillerRegistry, ModelView, Needs, Progress, RegionView, StepContext};
use docent_ops::BoxCoder;

const SIZES: [(usize, usize); 3] = [(24, 32), (12, 16), (6, 8)];
const TEACHER: usize = 7;
const CLASSES: usize = 6;

fn variant(golden: &Golden, name: &str) {
    let note = golden.note(&format!("config {name}"));
    let config: DistillerConfig = golden_notes::settings(golden, name);
    let method = config.method();
    let adapt = note.get("adapt").and_then(|a| a.as_str()).unwrap_or(if method == "pkd" { "none" } else { "conv3x3" });
    let own = if adapt == "none" { TEACHER } else { 5 };
    let kernel = if adapt == "conv1x1" { 1 } else { 3 };
    let mut leaves: BTreeMap<String, Var> = BTreeMap::new();
    for (level, (h, w)) in SIZES.into_iter().enumerate() {
        let map = leaf(&format!("rivals.student.{own}.{level}"), &[2, own, h, w], 1.0, 0.0);
        leaves.insert(format!("map.{level}"), map);
        if adapt != "none" {
            let scale = (3.0 / (own * kernel * kernel) as f64).sqrt();
            let weight = leaf(&format!("rivals.weight.{level}"), &[TEACHER, own, kernel, kernel], scale, 0.0);
            leaves.insert(format!("adapt.{level}.weight"), weight);
            leaves.insert(format!("adapt.{level}.bias"), leaf(&format!("rivals.bias.{level}"), &[TEACHER], 0.1, 0.0));
        }
    }
    let labels: Vec<u32> = golden.counts("labels").iter().map(|&v| v as u32).collect();
    let count = labels.len();
    let rois = SampledRois {
        rois: golden.counts("image").into_iter().zip(boxes(&golden.input("rois"))).collect(),
        positives: (0..count).filter(|&r| labels[r] > 0).collect(),
        matched_gt_boxes: boxes(&golden.input("matched")),
        labels,
    };
    let logits = leaf("rivals.student.class_logits", &[count, CLASSES], 6.0, 0.0);
    let head = |class_logits| BoxHeadOutput {
        class_logits,
        box_deltas: filled("rivals.deltas", &[count, 4 * CLASSES], 1.0, 0.0),
    };
    let student_head = head(logits.as_tensor().clone());
    let teacher_head = head(filled("rivals.teacher.class_logits", &[count, CLASSES], 8.0, 0.0));
    if method == "defeat" {
        leaves.insert("class_logits".into(), logits);
    }
    let strides = vec![4, 8, 16];
    let maps = (0..3).map(|level| leaves[&format!("map.{level}")].as_tensor().clone());
    let student = FeaturePyramid { levels: maps.collect(), strides: strides.clone() };
    let teacher = |level: usize| {
        let (h, w) = SIZES[level];
        filled(&format!("rivals.teacher.{level}"), &[2, TEACHER, h, w], 0.7, 0.2)
    };
    let teacher = FeaturePyramid { levels: (0..3).map(teacher).collect(), strides };
    let anchors: Vec<_> = (0..3).map(|level| boxes(&golden.input(&format!("anchors.{level}")))).collect();
    let truth = |i| Target { boxes: boxes(&golden.input(&format!("truth{i}.boxes"))), labels: vec![1; 3] };
    let coder = BoxCoder::new([10.0, 10.0, 5.0, 5.0]);

    let adapters: HashMap<_, _> = leaves
        .iter()
        .filter(|(n, _)| n.starts_with("adapt"))
        .map(|(n, v)| (n.clone(), v.as_tensor().clone()))
        .collect();
    let vb = VarBuilder::from_tensors(adapters, DType::F32, &Device::Cpu);
    let channels = |of: usize| Channels { fpn: vec![of; 3], stages: Vec::new() };
    let distiller = DistillerRegistry::builtin().distiller(&config, &channels(own), &channels(TEACHER), vb).unwrap();
    assert_eq!(distiller.name(), method);
    let needs = Needs { pyramid: true, regions: method == "defeat", ..Needs::default() };
    assert_eq!(distiller.needs(), needs);
    // The step holds what is needed, and no more.
    let targets = [truth(0), truth(1)];
    let sizes = [Size::new(90, 120), Size::new(96, 101)];
    let dense = DenseHeadOutput { logits: Vec::new(), deltas: Vec::new(), anchors };
    let view = |pyramid, head| {
        ModelView::default().with_pyramid(pyramid).with_regions(RegionView { rois: &rois, head, coder })
    };
    let mut teacher_view = view(&teacher, &teacher_head);
    if !needs.regions {
        teacher_view.regions = None;
    }
    let progress = Progress { epoch: 3, epochs: 12, iteration: 21, iterations: 120, milestones: &[] };
    let student_view = view(&student, &student_head).with_dense(&dense);
    let step = StepContext::new(student_view, teacher_view, &targets, &sizes, progress);
    let out = distiller.loss(&step).unwrap();
    assert_eq!(out.decay, 1.0);
    for term in &out.terms {
        golden.tensor(&format!("{name}.{}", term.name), &term.raw);
    }
    let total = out.total().unwrap();
    golden.tensor(&format!("{name}.total"), &total);
    let grads = total.backward().unwrap();
    for (leaf, var) in &leaves {
        golden.summary(&format!("{name}.grad.{leaf}"), grads.get(var).unwrap(), 6);
    }
    let message = |step: StepContext<'_>| distiller.loss(&step).unwrap_err().to_string();
    if needs.regions {
        let mut missing = step;
        missing.teacher.regions = None;
        assert!(message(missing).contains("needs().regions"));
    }
    if method == "fgfi" {
        let mut missing = step;
        missing.student.dense = None;
        assert!(message(missing).contains("anchors"));
    }
}

#[test]
fn values_and_gradients_of_every_method() {
    let golden = Golden::open(env!("CARGO_MANIFEST_DIR"), "rivals.safetensors");
    for (level, (h, w)) in SIZES.into_iter().enumerate() {
        let anchors = boxes(&golden.input(&format!("anchors.{level}")));
        for psi in ["0.5", "0.8"] {
            let of = |i| boxes(&golden.input(&format!("truth{i}.boxes")));
            let mask: Vec<f32> =
                (0..2).flat_map(|i| imitation_mask(&anchors, h * w, &of(i), psi.parse().unwrap())).collect();
            assert!(mask.contains(&0.0) && mask.contains(&1.0));
            golden.compare_f32(&format!("mask.{psi}.{level}"), &mask);
        }
    }
    let names: Vec<&str> = golden.notes("config ").map(|(name, _)| name).collect();
    assert_eq!(names.len(), 8);
    names.iter().for_each(|name| variant(&golden, name));
    golden.finish(&[""]);
}
