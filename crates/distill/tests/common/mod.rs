//! One small scene for the tests: batch 2, odd sizes, two levels, seven RoIs of four classes.
#![allow(dead_code)] // each test file takes what it needs

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use docent_detect::{BoxHeadOutput, DenseHeadOutput, FeaturePyramid, SampledRois, Size, Target};
use docent_distill::mask::{LevelMask, MaskRule, level_mask};
use docent_distill::{Channels, ModelView, Progress, RegionView, StepContext};
use docent_ops::testing::random;
use docent_ops::{BoxCoder, BoxXyxy};

pub const STUDENT: usize = 3;
pub const TEACHER: usize = 5;
pub const CLASSES: usize = 4;
pub const LEVELS: [(Size, usize); 2] = [(Size::new(10, 13), 4), (Size::new(5, 7), 8)];
pub const SIZES: [Size; 2] = [Size::new(40, 52), Size::new(36, 50)];
pub const CODER: BoxCoder = BoxCoder::new([10.0, 10.0, 5.0, 5.0]);

pub fn noise(seed: u64, shape: &[usize], scale: f64) -> Tensor {
    (random(seed, shape).unwrap() * scale).unwrap()
}

pub fn numbers(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

pub fn scalar(t: &Tensor) -> f32 {
    t.to_scalar().unwrap()
}

#[track_caller]
pub fn close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((f64::from(*g) - w).abs() <= tolerance * w.abs().max(1.0), "{got:?} is not {want:?}");
    }
}

pub fn targets() -> Vec<Target> {
    // The third box is thinner than a cell of either level.
    vec![
        Target {
            boxes: vec![[3.0, 5.0, 25.0, 31.0], [20.0, 10.0, 50.0, 22.0], [30.5, 30.0, 31.5, 39.0]],
            labels: vec![1, 3, 2],
        },
        Target { boxes: vec![[10.0, 4.0, 28.0, 34.0]], labels: vec![1] },
    ]
}

pub fn masks() -> Vec<LevelMask> {
    let targets = targets();
    let boxes: Vec<&[BoxXyxy]> = targets.iter().map(|t| t.boxes.as_slice()).collect();
    let level =
        |(l, (size, stride)): (usize, (Size, usize))| level_mask(&MaskRule::default(), &boxes, l, 2, size, stride);
    LEVELS.into_iter().enumerate().map(level).collect()
}

pub fn features(seed: u64, channels: usize) -> FeaturePyramid {
    let map =
        |(l, (size, _)): (usize, (Size, usize))| noise(seed + l as u64, &[2, channels, size.height, size.width], 1.0);
    FeaturePyramid { levels: LEVELS.into_iter().enumerate().map(map).collect(), strides: vec![4, 8] }
}

pub fn rois() -> SampledRois {
    let rois: Vec<(usize, BoxXyxy)> = vec![
        (0, [5.0, 3.0, 27.0, 30.0]),
        (0, [18.0, 12.0, 46.0, 25.0]),
        (0, [30.5, 30.0, 31.5, 39.0]),
        (0, [1.0, 1.0, 9.0, 9.0]),
        (1, [12.0, 6.0, 30.0, 30.0]),
        (1, [40.0, 3.0, 48.0, 12.0]),
        (1, [8.0, 2.0, 24.0, 40.0]),
    ];
    let t = targets();
    let matched_gt_boxes =
        vec![t[0].boxes[0], t[0].boxes[1], t[0].boxes[2], rois[3].1, t[1].boxes[0], rois[5].1, t[1].boxes[0]];
    SampledRois { rois, labels: vec![1, 3, 2, 0, 1, 0, 2], matched_gt_boxes, positives: vec![0, 1, 2, 4, 6] }
}

pub fn student_logits() -> Tensor {
    noise(41, &[7, CLASSES], 4.0)
}

pub fn teacher_logits() -> Tensor {
    let mut z = numbers(&noise(42, &[7, CLASSES], 4.0));
    for (row, label, raise) in [(0, 1, 4.0), (4, 1, 6.0), (6, 2, 0.5)] {
        z[row * CLASSES + label] += raise;
    }
    Tensor::from_vec(z, (7, CLASSES), &Device::Cpu).unwrap()
}

pub fn student_deltas() -> Tensor {
    noise(51, &[7, 4 * CLASSES], 2.0)
}

/// Noise, but good on RoIs 0 and 4, and off the mark on RoI 6.
pub fn teacher_deltas() -> Tensor {
    let mut d = numbers(&noise(52, &[7, 4 * CLASSES], 1.5));
    let set: [(usize, usize, [f32; 4]); 3] = [
        (0, 1, [-0.609_090_9, 0.355_555_56, 0.1, 0.061_298_36]),
        (4, 1, [-0.811_111_1, 0.216_666_67, 0.1, 1.365_717_8]),
        (6, 2, [4.375, 0.973_684_2, -0.211_084_83, -0.281_943_92]),
    ];
    for (row, label, values) in set {
        d[4 * (row * CLASSES + label)..][..4].copy_from_slice(&values);
    }
    Tensor::from_vec(d, (7, 4 * CLASSES), &Device::Cpu).unwrap()
}

/// Adapters' weights as the reference draws them, each a `Var`.
pub fn adapter_vars(kernel: usize) -> HashMap<String, Tensor> {
    let mut all = HashMap::new();
    for l in 0..2 {
        let weight = noise(21 + l, &[TEACHER, STUDENT, kernel, kernel], 0.25);
        let bias = noise(31 + l, &[TEACHER], 0.25);
        for (name, value) in [("weight", weight), ("bias", bias)] {
            all.insert(format!("adapt.{l}.{name}"), Var::from_tensor(&value).unwrap().as_tensor().clone());
        }
    }
    all
}

pub fn builder(vars: &HashMap<String, Tensor>) -> VarBuilder<'static> {
    VarBuilder::from_tensors(vars.clone(), DType::F32, &Device::Cpu)
}

/// Channels of a pyramid with `levels` levels; the stages' play no part.
pub fn channels(fpn: usize, levels: usize) -> Channels {
    Channels { fpn: vec![fpn; levels], stages: Vec::new() }
}

/// The tensors of a pyramid as `Var`s: what a gradient is asked for.
pub fn tracked(f: &FeaturePyramid) -> FeaturePyramid {
    FeaturePyramid { levels: f.levels.iter().map(var).collect(), strides: f.strides.clone() }
}

pub fn var(t: &Tensor) -> Tensor {
    Var::from_tensor(t).unwrap().as_tensor().clone()
}

/// Everything a step borrows.
pub struct Scene {
    pub student_features: FeaturePyramid,
    pub teacher_features: FeaturePyramid,
    pub student_head: BoxHeadOutput,
    pub teacher_head: BoxHeadOutput,
    pub rois: SampledRois,
    pub targets: Vec<Target>,
    pub sizes: Vec<Size>,
    pub dense: Option<DenseHeadOutput>,
    pub iteration: usize,
    pub epoch: usize,
    pub teacher_coder: BoxCoder,
}

impl Scene {
    /// The scene; every tensor of both models is a `Var`.
    pub fn new() -> Self {
        Self {
            student_features: tracked(&features(1, STUDENT)),
            teacher_features: tracked(&features(11, TEACHER)),
            student_head: BoxHeadOutput { class_logits: var(&student_logits()), box_deltas: var(&student_deltas()) },
            teacher_head: BoxHeadOutput { class_logits: var(&teacher_logits()), box_deltas: var(&teacher_deltas()) },
            rois: rois(),
            targets: targets(),
            sizes: SIZES.to_vec(),
            dense: None,
            iteration: 1,
            epoch: 1,
            teacher_coder: CODER,
        }
    }

    /// The scene without a box and without a positive.
    pub fn empty() -> Self {
        let mut scene = Self::new();
        scene.targets.iter_mut().for_each(|t| *t = Target::default());
        scene.rois.matched_gt_boxes = scene.rois.rois.iter().map(|r| r.1).collect();
        scene.rois.labels.fill(0);
        scene.rois.positives.clear();
        scene
    }

    /// The scene's step of an epoch of 12.
    pub fn step(&self) -> StepContext<'_> {
        let view = |pyramid, head, coder| {
            ModelView::default().with_pyramid(pyramid).with_regions(RegionView { rois: &self.rois, head, coder })
        };
        let mut student = view(&self.student_features, &self.student_head, CODER);
        if let Some(dense) = &self.dense {
            student = student.with_dense(dense);
        }
        let teacher = view(&self.teacher_features, &self.teacher_head, self.teacher_coder);
        let (epoch, iteration) = (self.epoch, self.iteration);
        let progress = Progress { epoch, epochs: 12, iteration, iterations: 120, milestones: &[80, 110] };
        StepContext::new(student, teacher, &self.targets, &self.sizes, progress)
    }

    /// What the student is made of here, in a fixed order.
    pub fn student(&self) -> Vec<Tensor> {
        let mut all = self.student_features.levels.clone();
        all.extend([self.student_head.class_logits.clone(), self.student_head.box_deltas.clone()]);
        all
    }

    /// The same of the teacher.
    pub fn teacher(&self) -> Vec<Tensor> {
        let mut all = self.teacher_features.levels.clone();
        all.extend([self.teacher_head.class_logits.clone(), self.teacher_head.box_deltas.clone()]);
        all
    }
}
