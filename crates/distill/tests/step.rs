//! The whole method on one step: its limits, its promises to the loop, and its errors.

#![allow(clippy::unwrap_used)] // helpers of tests, which clippy.toml does not see as tests

mod common;

use candle_core::{Tensor, backprop::GradStore};
use common::*;
use docent_detect::{BoxHeadOutput, FeaturePyramid, Size};
use docent_distill::config::{
    AdaptationLayer, ClsLoss, DecayKind, FeatureSource, LevelRule, MaskKind, RegGate, RegLoss, TaskAdaptiveConfig,
};
use docent_distill::methods::TaskAdaptive;
use docent_distill::{Channels, DistillOutput, Distiller, Needs};
use docent_ops::BoxCoder;
use proptest::prelude::*;

fn method(config: &TaskAdaptiveConfig) -> TaskAdaptive {
    let kernel = if config.adaptation_layer == AdaptationLayer::Conv1x1 { 1 } else { 3 };
    TaskAdaptive::new(config, &channels(STUDENT, 2), &channels(TEACHER, 2), builder(&adapter_vars(kernel))).unwrap()
}

fn raw(out: &DistillOutput) -> Vec<f32> {
    out.terms.iter().map(|t| scalar(&t.raw)).collect()
}

fn bits(gradients: &GradStore, of: &[Tensor]) -> Vec<Option<Vec<u32>>> {
    of.iter().map(|t| gradients.get(t).map(|g| numbers(g).iter().map(|v| v.to_bits()).collect())).collect()
}

#[test]
fn needs_params_and_name() {
    let method = method(&TaskAdaptiveConfig::default());
    assert_eq!(method.name(), "task_adaptive");
    assert_eq!(method.needs(), Needs { pyramid: true, regions: true, ..Needs::default() });
    let params: Vec<_> = method.params().into_iter().map(|(n, t)| (n, t.dims().to_vec())).collect();
    let want = [
        ("adapt.0.weight", vec![TEACHER, STUDENT, 3, 3]),
        ("adapt.0.bias", vec![TEACHER]),
        ("adapt.1.weight", vec![TEACHER, STUDENT, 3, 3]),
        ("adapt.1.bias", vec![TEACHER]),
    ];
    assert_eq!(params, want.map(|(n, d)| (n.to_string(), d)));
}

#[test]
fn a_teacher_like_the_student_asks_for_nothing() {
    let mut scene = Scene::new();
    scene.student_features = tracked(&features(11, TEACHER));
    let teacher = &scene.teacher_head;
    scene.student_head =
        BoxHeadOutput { class_logits: var(&teacher.class_logits), box_deltas: var(&teacher.box_deltas) };
    let config = TaskAdaptiveConfig::default().adaptation_layer(AdaptationLayer::None);
    let method =
        TaskAdaptive::new(&config, &channels(TEACHER, 2), &channels(TEACHER, 2), builder(&Default::default())).unwrap();
    assert!(method.params().is_empty());
    let out = method.loss(&scene.step()).unwrap();
    let values = raw(&out);
    assert_eq!((values[0], values[2]), (0.0, 0.0));
    assert!(values[1] > 0.0);
    assert_eq!(out.stat("cls_excess"), Some(0.0), "at the floor, to the bit");
    assert!(out.stat("gated").unwrap() > 0.0, "the box term's zero is not an empty sum");
    let gradients = out.total().unwrap().backward().unwrap();
    for t in scene.student() {
        assert!(numbers(gradients.get(&t).unwrap()).iter().all(|g| *g == 0.0));
    }
}

#[test]
fn no_gradient_reaches_the_teacher() {
    let scene = Scene::new();
    for config in [
        TaskAdaptiveConfig::default(),
        TaskAdaptiveConfig::default().reg_loss(RegLoss::Giou).cls_loss(ClsLoss::Kl).temperature(2.0),
    ] {
        let method = method(&config);
        let gradients = method.loss(&scene.step()).unwrap().total().unwrap().backward().unwrap();
        assert!(scene.teacher().iter().all(|t| gradients.get(t).is_none()));
        let adapters = method.params();
        for t in scene.student().iter().chain(adapters.iter().map(|(_, t)| t)) {
            assert!(numbers(gradients.get(t).unwrap()).iter().any(|g| *g != 0.0));
        }
    }
}

#[test]
fn without_positives_and_boxes_all_is_zero() {
    let scene = Scene::empty();
    let out = method(&TaskAdaptiveConfig::default()).loss(&scene.step()).unwrap();
    assert_eq!(raw(&out), [0.0; 3]);
    assert_eq!(scalar(&out.total().unwrap()), 0.0);
    assert!(out.report().unwrap().iter().all(|(_, v)| v.is_finite()));
    for name in ["mask_sum", "teacher_entropy", "cls_excess", "positives", "gated", "gated_share"] {
        assert_eq!(out.stat(name), Some(0.0), "{name}");
    }
    let gradients = out.total().unwrap().backward().unwrap();
    for t in scene.student() {
        if let Some(g) = gradients.get(&t) {
            assert!(numbers(g).iter().all(|g| *g == 0.0));
        }
    }
    // The whole map needs no box.
    let ones = TaskAdaptiveConfig::default().mask(MaskKind::Ones);
    assert!(raw(&method(&ones).loss(&scene.step()).unwrap())[0] > 0.0);
}

#[test]
fn no_roi_at_all() {
    let mut scene = Scene::empty();
    scene.rois = Default::default();
    let none = |width| Tensor::zeros((0, width), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    let head = || BoxHeadOutput { class_logits: none(CLASSES), box_deltas: none(4 * CLASSES) };
    (scene.student_head, scene.teacher_head) = (head(), head());
    let out = method(&TaskAdaptiveConfig::default()).loss(&scene.step()).unwrap();
    assert_eq!(raw(&out), [0.0; 3]);
}

/// Stands for the detection loss: something of every student tensor.
fn detection(scene: &Scene) -> Tensor {
    let parts = scene.student().into_iter().map(|t| t.sqr().unwrap().sum_all().unwrap());
    parts.reduce(|a, b| (a + b).unwrap()).unwrap()
}

#[test]
fn weight_zero_is_plain_training_to_the_bit() {
    let scene = Scene::new();
    let alone = detection(&scene);
    let want = bits(&alone.backward().unwrap(), &scene.student());
    let config = TaskAdaptiveConfig::default().w_feat(0.0).w_cls(0.0).w_reg(0.0);
    let method = method(&config);
    let out = method.loss(&scene.step()).unwrap();
    assert!(raw(&out).iter().all(|v| *v > 0.0), "computed and logged all the same");
    let with = (detection(&scene) + out.total().unwrap()).unwrap();
    assert_eq!(scalar(&alone).to_bits(), scalar(&with).to_bits());
    let gradients = with.backward().unwrap();
    assert_eq!(bits(&gradients, &scene.student()), want);
    assert!(method.params().iter().all(|(_, t)| gradients.get(t).is_none()));
}

#[test]
fn one_weight_zero_leaves_the_others_their_bits() {
    let scene = Scene::new();
    let full = method(&TaskAdaptiveConfig::default()).loss(&scene.step()).unwrap();
    for off in 0..3 {
        let mut config = TaskAdaptiveConfig::default();
        *[&mut config.w_feat, &mut config.w_cls, &mut config.w_reg][off] = 0.0;
        let out = method(&config).loss(&scene.step()).unwrap();
        assert_eq!(raw(&out), raw(&full));
        let by_hand = full.terms.iter().enumerate().filter(|(i, _)| *i != off);
        let by_hand = by_hand.map(|(_, t)| (&t.raw * t.weight).unwrap()).reduce(|a, b| (a + b).unwrap()).unwrap();
        let of = |extra: &Tensor| {
            let gradients = (detection(&scene) + extra).unwrap().backward().unwrap();
            bits(&gradients, &scene.student())
        };
        assert_eq!(of(&out.total().unwrap()), of(&by_hand), "term {off} off");
    }
}

#[test]
fn an_infinite_term_at_weight_zero_spoils_nothing() {
    let mut scene = Scene::new();
    let broken = |t: &Tensor| (t * f64::INFINITY).unwrap();
    scene.teacher_features.levels = scene.teacher_features.levels.iter().map(broken).collect();
    let config = TaskAdaptiveConfig::default().w_feat(0.0);
    let out = method(&config).loss(&scene.step()).unwrap();
    assert!(!raw(&out)[0].is_finite());
    assert!(scalar(&out.total().unwrap()).is_finite());
    let report = out.report().unwrap();
    assert_eq!(report.iter().find(|(n, _)| n == "weighted_feat").unwrap().1, 0.0);
}

#[test]
fn the_factor_is_decay_times_warm_up() {
    let scene = Scene::new();
    let config = TaskAdaptiveConfig::default().warmup_iters(10);
    let method = method(&config);
    let full = method.loss(&{
        let mut step = scene.step();
        step.progress.iteration = 10;
        step
    });
    let full = scalar(&full.unwrap().total().unwrap());
    for (epoch, iteration, want) in [(1, 5, 0.5), (1, 10, 1.0), (12, 115, 1.0 / 12.0), (7, 61, 0.5)] {
        let mut step = scene.step();
        (step.progress.epoch, step.progress.iteration) = (epoch, iteration);
        let out = method.loss(&step).unwrap();
        assert!((out.decay - want).abs() < 1e-12);
        close(&[scalar(&out.total().unwrap())], &[f64::from(full) * want], 1e-6);
        assert_eq!(out.stat("warmup"), Some((iteration as f64 / 10.0).min(1.0)));
    }
}

#[test]
fn the_step_decay_reads_the_milestones() {
    let scene = Scene::new();
    let method = method(&TaskAdaptiveConfig::default().decay(DecayKind::Step));
    for (iteration, want) in [(80, 1.0), (81, 0.1), (111, 0.01)] {
        let mut step = scene.step();
        step.progress.iteration = iteration;
        assert!((method.loss(&step).unwrap().decay - want).abs() < 1e-12);
    }
}

#[test]
fn the_report_has_every_number() {
    let scene = Scene::new();
    let out = method(&TaskAdaptiveConfig::default()).loss(&scene.step()).unwrap();
    let report = out.report().unwrap();
    let names: Vec<_> = report.iter().map(|(n, _)| n.as_str()).collect();
    let want = [
        "raw_feat",
        "weighted_feat",
        "raw_cls",
        "weighted_cls",
        "raw_reg",
        "weighted_reg",
        "decay",
        "mask_sum",
        "teacher_entropy",
        "cls_excess",
        "positives",
        "gated",
        "gated_share",
        "warmup",
    ];
    assert_eq!(names, want);
    let weighted: f64 = report.iter().filter(|(n, _)| n.starts_with("weighted_")).map(|(_, v)| v).sum();
    close(&[scalar(&out.total().unwrap())], &[weighted], 1e-6);
    assert_eq!((out.stat("positives"), out.stat("gated")), (Some(5.0), Some(3.0)));
}

#[test]
fn normalisers_are_chosen_by_the_config() {
    use docent_distill::config::{ClsNorm, ClsSelect, RegNorm};
    let scene = Scene::new();
    let of = |config: TaskAdaptiveConfig| raw(&method(&config).loss(&scene.step()).unwrap());
    let plain = of(TaskAdaptiveConfig::default());
    let sampled = of(TaskAdaptiveConfig::default().cls_norm(ClsNorm::Sampled).reg_norm(RegNorm::Sampled));
    // 7 RoIs, 5 positives, 3 gated.
    close(&[sampled[1], sampled[2]], &[f64::from(plain[1]) * 5.0 / 7.0, f64::from(plain[2]) * 3.0 / 7.0], 1e-6);
    let all = of(TaskAdaptiveConfig::default().cls_select(ClsSelect::All));
    close(&[all[1]], &[3.61724823], 1e-6);
}

#[test]
fn a_teacher_with_other_box_weights_says_the_same() {
    let mut scene = Scene::new();
    let plain = raw(&method(&TaskAdaptiveConfig::default()).loss(&scene.step()).unwrap());
    scene.teacher_coder = BoxCoder::new([1.0, 1.0, 1.0, 1.0]);
    let scale: Vec<f32> = [0.1f32, 0.1, 0.2, 0.2].repeat(7 * CLASSES);
    let deltas = numbers(&teacher_deltas()).iter().zip(&scale).map(|(d, s)| d * s).collect();
    scene.teacher_head.box_deltas = Tensor::from_vec(deltas, (7, 4 * CLASSES), &candle_core::Device::Cpu).unwrap();
    let recoded = raw(&method(&TaskAdaptiveConfig::default()).loss(&scene.step()).unwrap());
    close(&[recoded[2]], &[f64::from(plain[2])], 1e-5);
}

#[test]
fn by_scale_paints_one_level_a_box() {
    let scene = Scene::new();
    let method = method(&TaskAdaptiveConfig::default().levels(LevelRule::ByScale).base(10.0));
    let masks = method.masks(&scene.step()).unwrap();
    // Sides of about 24, 19, 3 and 23 pixels: the first and the last on level 1.
    let at = |mask: &[f32], level: usize, image: usize, x: f32, y: f32| {
        let (Size { height: h, width: w }, stride) = LEVELS[level];
        mask[(image * h + (y / stride as f32) as usize) * w + (x / stride as f32) as usize]
    };
    let centres = [(0, 14.0, 18.0), (0, 35.0, 16.0), (0, 31.0, 34.5), (1, 19.0, 19.0)];
    let on = |level: usize| centres.map(|(image, x, y)| at(&masks[level].values, level, image, x, y) == 1.0);
    assert_eq!(on(0), [false, true, true, false]);
    assert_eq!(on(1), [true, false, false, true]);
}

#[test]
fn misfits_are_named() {
    let check = |change: &dyn Fn(&mut Scene), wanted: &str| {
        let mut scene = Scene::new();
        change(&mut scene);
        let message = method(&TaskAdaptiveConfig::default()).loss(&scene.step()).unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
    };
    check(&|s| s.targets.truncate(1), "targets of 1 images");
    check(&|s| s.rois.labels.truncate(6), "6 labels for 7 RoIs");
    check(&|s| s.rois.positives.push(7), "RoI 7");
    check(&|s| s.rois.labels[1] = 9, "labels");
    check(&|s| s.teacher_features.levels.truncate(1), "levels");
    check(&|s| s.sizes.truncate(1), "image 1");
    check(
        &|s| {
            let level = noise(9, &[2, TEACHER, 9, 13], 1.0);
            s.teacher_features =
                FeaturePyramid { levels: vec![level, s.teacher_features.levels[1].clone()], strides: vec![4, 8] };
        },
        "level 0",
    );
    check(&|s| s.teacher_head.class_logits = noise(9, &[7, 5], 1.0), "[7, 5]");
    check(&|s| s.teacher_head.box_deltas = noise(9, &[7, 20], 1.0), "[7, 20]");
}

#[test]
fn channels_must_fit_the_adaptation_layer() {
    let build = |config: &TaskAdaptiveConfig, student: &Channels, teacher: &Channels| {
        TaskAdaptive::new(config, student, teacher, builder(&adapter_vars(3))).map(|_| ()).map_err(|e| e.to_string())
    };
    let of = |fpn: usize, stage: usize| Channels { fpn: vec![fpn; 2], stages: vec![stage; 2] };
    let none = TaskAdaptiveConfig::default().adaptation_layer(AdaptationLayer::None);
    build(&none, &of(4, 1), &of(4, 2)).unwrap();
    let message = build(&none, &of(4, 1), &of(6, 1)).unwrap_err();
    assert!(message.contains("[4, 4]") && message.contains("[6, 6]") && message.contains("conv3x3"), "{message}");
    build(&TaskAdaptiveConfig::default(), &of(STUDENT, 1), &of(TEACHER, 2)).unwrap();
    // The feature term reads the backbone's maps here.
    let none = none.feature_source(FeatureSource::Stages);
    assert!(build(&none, &of(4, 1), &of(4, 2)).is_err());
    build(&none, &of(4, 2), &of(6, 2)).unwrap();
    // Three levels, but the parameters are of two.
    assert!(build(&TaskAdaptiveConfig::default(), &channels(STUDENT, 3), &channels(TEACHER, 3)).is_err());
    let message = build(&TaskAdaptiveConfig::default(), &channels(STUDENT, 2), &channels(TEACHER, 3)).unwrap_err();
    assert!(message.contains("the student has 2 levels, the teacher 3"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn terms_are_finite_and_the_share_is_one(seed in 0u64..10_000, scale in 0.1f64..30.0) {
        let mut scene = Scene::new();
        scene.student_head.class_logits = var(&noise(seed, &[7, CLASSES], scale));
        scene.teacher_head.class_logits = noise(seed + 1, &[7, CLASSES], scale);
        scene.student_head.box_deltas = var(&noise(seed + 2, &[7, 4 * CLASSES], scale));
        scene.teacher_head.box_deltas = noise(seed + 3, &[7, 4 * CLASSES], scale);
        for (reg_gate, reg_loss) in [(RegGate::TeacherVsProposal, RegLoss::SmoothL1), (RegGate::None, RegLoss::Giou)] {
            let config = TaskAdaptiveConfig::default().reg_gate(reg_gate).reg_loss(reg_loss);
            let out = method(&config).loss(&scene.step()).unwrap();
            prop_assert!(raw(&out).iter().all(|v| v.is_finite() && *v >= 0.0));
            prop_assert!((0.0..=1.0).contains(&out.stat("gated_share").unwrap()));
            prop_assert!(out.stat("cls_excess").unwrap() > -1e-4);
            let gradients = out.total().unwrap().backward().unwrap();
            for t in scene.student() {
                prop_assert!(numbers(gradients.get(&t).unwrap()).iter().all(|g| g.is_finite()));
            }
        }
    }
}
