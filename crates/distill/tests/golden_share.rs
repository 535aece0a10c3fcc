//! The other feature sources and directions of proposal sharing, with their gradients, against an independent PyTorch version in float64.
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
use docent_distill::config::{AdaptationLayer, FeatureSource, ProposalSource, TaskAdaptiveConfig};
use docent_distill::methods::TaskAdaptive;
use docent_distill::{Channels, Distiller, ModelView, Needs, Progress, RegionView, StepContext};
use docent_ops::BoxCoder;

const SIZES: [(usize, usize); 5] = [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)];
const CLASSES: usize = 6;

/// RoIs and both heads on them.
struct Set {
    rois: SampledRois,
    student: BoxHeadOutput,
    teacher: BoxHeadOutput,
}

/// Reads the RoIs of `key`; the student's head becomes leaves.
fn set(golden: &Golden, key: &str, leaves: &mut BTreeMap<String, Var>) -> Set {
    let labels: Vec<u32> = golden.counts(&format!("{key}.labels")).iter().map(|&v| v as u32).collect();
    let count = labels.len();
    let mut mine = |what: &str, shape: [usize; 2], scale: f64| {
        let var = leaf(&format!("share.{key}.student.{what}"), &shape, scale, 0.0);
        leaves.insert(format!("{key}.{what}"), var.clone());
        var.as_tensor().clone()
    };
    let deltas = golden.input(&format!("{key}.teacher_deltas"));
    Set {
        student: BoxHeadOutput {
            class_logits: mine("class_logits", [count, CLASSES], 6.0),
            box_deltas: mine("box_deltas", [count, 4 * CLASSES], 1.2),
        },
        teacher: BoxHeadOutput {
            class_logits: filled(&format!("share.{key}.teacher.class_logits"), &[count, CLASSES], 8.0, 0.0),
            box_deltas: Tensor::from_vec(deltas, (count, 4 * CLASSES), &Device::Cpu).unwrap(),
        },
        rois: SampledRois {
            rois: golden
                .counts(&format!("{key}.image"))
                .into_iter()
                .zip(boxes(&golden.input(&format!("{key}.rois"))))
                .collect(),
            positives: (0..count).filter(|&r| labels[r] > 0).collect(),
            matched_gt_boxes: boxes(&golden.input(&format!("{key}.matched"))),
            labels,
        },
    }
}

fn variant(golden: &Golden, name: &str) {
    let config: TaskAdaptiveConfig = golden_notes::settings(golden, name);
    let (feature_source, student, teacher) = match config.feature_source {
        FeatureSource::Fpn => ("fpn", vec![5; 5], vec![7; 5]),
        FeatureSource::Stages => ("stages", vec![2, 3, 5, 6], vec![4, 5, 6, 7]),
    };
    let kernel = if config.adaptation_layer == AdaptationLayer::Conv1x1 { 1 } else { 3 };
    let mut leaves = BTreeMap::new();
    let mut adapters = HashMap::new();
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for (level, (&s, &t)) in student.iter().zip(&teacher).enumerate() {
        let (h, w) = SIZES[level];
        let map = leaf(&format!("share.{feature_source}.student.{level}"), &[2, s, h, w], 1.0, 0.0);
        own.push(map.as_tensor().clone());
        leaves.insert(format!("map.{level}"), map);
        theirs.push(filled(&format!("share.{feature_source}.teacher.{level}"), &[2, t, h, w], 1.0, 0.0));
        let scale = (3.0 / (s * kernel * kernel) as f64).sqrt();
        let weight = leaf(&format!("share.{feature_source}.weight.{level}"), &[t, s, kernel, kernel], scale, 0.0);
        let bias = leaf(&format!("share.{feature_source}.bias.{level}"), &[t], 0.1, 0.0);
        for (part, var) in [("weight", weight), ("bias", bias)] {
            adapters.insert(format!("adapt.{level}.{part}"), var.as_tensor().clone());
            leaves.insert(format!("adapt.{level}.{part}"), var);
        }
    }
    let strides: Vec<usize> = (0..student.len()).map(|level| 4 << level).collect();
    let own = FeaturePyramid { levels: own, strides: strides.clone() };
    let theirs = FeaturePyramid { levels: theirs, strides };
    let mut set = |key| set(golden, key, &mut leaves);
    // A set that the variant does not name is given all the same: it must not count.
    let (mine, shared) = (set("own"), set("shared"));
    let truth = |i| Target { boxes: boxes(&golden.input(&format!("truth{i}.boxes"))), labels: vec![1; 3] };
    let coder = BoxCoder::new([10.0, 10.0, 5.0, 5.0]);
    let stages = config.feature_source == FeatureSource::Stages;
    let region = |rois, head| RegionView { rois, head, coder };
    let mut student_view = ModelView::default()
        .with_regions(region(&mine.rois, &mine.student))
        .with_teacher_regions(region(&shared.rois, &shared.student));
    let mut teacher_view = ModelView::default()
        .with_regions(region(&mine.rois, &mine.teacher))
        .with_teacher_regions(region(&shared.rois, &shared.teacher));
    if stages {
        (student_view, teacher_view) = (student_view.with_stages(&own), teacher_view.with_stages(&theirs));
    } else {
        (student_view, teacher_view) = (student_view.with_pyramid(&own), teacher_view.with_pyramid(&theirs));
    }
    let targets = [truth(0), truth(1)];
    let sizes = [Size::new(90, 120), Size::new(96, 101)];
    let progress = Progress { epoch: 3, epochs: 12, iteration: 21, iterations: 120, milestones: &[] };
    let step = StepContext::new(student_view, teacher_view, &targets, &sizes, progress);
    let vb = VarBuilder::from_tensors(adapters, DType::F32, &Device::Cpu);
    let channels = |of: &[usize]| match config.feature_source {
        FeatureSource::Fpn => Channels { fpn: of.to_vec(), stages: Vec::new() },
        FeatureSource::Stages => Channels { fpn: Vec::new(), stages: of.to_vec() },
    };
    let method = TaskAdaptive::new(&config, &channels(&student), &channels(&teacher), vb).unwrap();
    let needs = Needs {
        stages,
        pyramid: !stages,
        regions: config.proposal_source != ProposalSource::TeacherToStudent,
        teacher_regions: config.proposal_source != ProposalSource::StudentToTeacher,
        ..Needs::default()
    };
    assert_eq!(method.needs(), needs);

    let out = method.loss(&step).unwrap();
    for term in &out.terms {
        golden.tensor(&format!("{name}.{}", term.name), &term.raw);
    }
    let gate = golden.counts(&format!("{name}.gate"));
    assert_eq!(out.stat("positives").unwrap() as usize, gate.len(), "{name}");
    assert_eq!(out.stat("gated").unwrap() as usize, gate.iter().sum::<usize>(), "{name}");
    let total = out.total().unwrap();
    golden.tensor(&format!("{name}.total"), &total);
    let grads = total.backward().unwrap();
    for (leaf, var) in &leaves {
        let key = format!("{name}.grad.{leaf}");
        match grads.get(var) {
            Some(grad) if golden.has(&format!("{key}|norm")) => golden.summary(&key, grad, 6),
            Some(_) => golden.fault(format!("{key}: there is a gradient, and should be none")),
            None => assert!(!golden.has(&format!("{key}|norm")), "{key}: no gradient"),
        }
    }

    // The error names the part of `needs()` that is missing.
    let message = |step: StepContext<'_>| method.loss(&step).unwrap_err().to_string();
    let mut missing = step;
    (missing.teacher.pyramid, missing.teacher.stages) = (None, None);
    assert!(message(missing).contains(if stages { "needs().stages" } else { "needs().pyramid" }), "{name}");
    let mut missing = step;
    (missing.teacher.regions, missing.teacher.teacher_regions) = (None, None);
    let part = if needs.regions { "needs().regions" } else { "needs().teacher_regions" };
    assert!(message(missing).contains(part), "{name}");
}

#[test]
fn other_sources_and_directions() {
    let golden = Golden::open(env!("CARGO_MANIFEST_DIR"), "share.safetensors");
    let names: Vec<&str> = golden.notes("config ").map(|(name, _)| name).collect();
    assert_eq!(names.len(), 5);
    names.iter().for_each(|name| variant(&golden, name));
    golden.finish(&[""]);
}
