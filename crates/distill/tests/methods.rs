//! The other methods one by one: a naive version of each, finite differences, and their limits.

#![allow(clippy::unwrap_used)] // helpers of tests, which clippy.toml does not see as tests

mod common;

use candle_core::Tensor;
use common::*;
use docent_detect::{DenseHeadOutput, FeaturePyramid, Size};
use docent_distill::config::AdaptationLayer;
use docent_distill::methods::{DefeatConfig, DistillerConfig, FgfiConfig, FitnetsConfig, PkdConfig, imitation_mask};
use docent_distill::{Distiller, DistillerRegistry};
use docent_ops::BoxXyxy;
use docent_ops::testing::check_gradient;

/// Every method beside the paper's, without an adaptation layer, between maps of equal channels.
fn all() -> [DistillerConfig; 4] {
    let adaptation_layer = AdaptationLayer::None;
    [
        DistillerConfig::Fitnets(FitnetsConfig::default().adaptation_layer(adaptation_layer)),
        DistillerConfig::Fgfi(FgfiConfig::default().adaptation_layer(adaptation_layer)),
        DistillerConfig::Pkd(PkdConfig::default().adaptation_layer(adaptation_layer)),
        DistillerConfig::Defeat(DefeatConfig::default().adaptation_layer(adaptation_layer)),
    ]
}

fn build(config: &DistillerConfig) -> Box<dyn Distiller> {
    let channels = channels(TEACHER, 2);
    DistillerRegistry::builtin().distiller(config, &channels, &channels, builder(&Default::default())).unwrap()
}

/// The scene between maps of equal channels.
fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.student_features = tracked(&features(1, TEACHER));
    scene.dense = Some(dense());
    scene
}

/// A dense head of which the methods read the anchors alone.
fn dense() -> DenseHeadOutput {
    DenseHeadOutput { logits: Vec::new(), deltas: Vec::new(), anchors: anchors() }
}

/// Two squares around each cell's corner.
fn anchors() -> Vec<Vec<BoxXyxy>> {
    let level = |(Size { height: h, width: w }, stride): (Size, usize)| {
        let cell = move |i: usize| [((i % w) * stride) as f32, ((i / w) * stride) as f32];
        (0..h * w)
            .flat_map(|i| [2.0, 4.0].map(|half| (cell(i), half * stride as f32)))
            .map(|([x, y], r)| [x - r, y - r, x + r, y + r])
            .collect()
    };
    LEVELS.into_iter().map(level).collect()
}

fn terms(config: &DistillerConfig, scene: &Scene) -> Vec<f64> {
    build(config).loss(&scene.step()).unwrap().terms.iter().map(|t| t.value().unwrap()).collect()
}

/// One level's elements as (image, channel, cell, student, teacher).
fn elements(scene: &Scene, level: usize) -> Vec<(usize, usize, usize, f64, f64)> {
    let (Size { height: h, width: w }, _) = LEVELS[level];
    let (s, t) = (numbers(&scene.student_features.levels[level]), numbers(&scene.teacher_features.levels[level]));
    let at = |i: usize| (i / (h * w * TEACHER), i / (h * w) % TEACHER, i % (h * w), f64::from(s[i]), f64::from(t[i]));
    (0..s.len()).map(at).collect()
}

/// The mean over the two levels of `sum weight(image, cell) (s - t)² / (divisor sum weight)`.
fn naive(scene: &Scene, divisor: f64, weight: impl Fn(usize, usize, usize) -> f64) -> f64 {
    let level = |level: usize| {
        let all = elements(scene, level);
        let sum: f64 = all.iter().map(|&(b, _, cell, s, t)| weight(level, b, cell) * (s - t).powi(2)).sum();
        let mask_sum: f64 = all.iter().filter(|e| e.1 == 0).map(|&(b, _, cell, ..)| weight(level, b, cell)).sum();
        sum / (divisor * mask_sum)
    };
    (level(0) + level(1)) / 2.0
}

#[test]
fn values_are_those_of_the_formulas() {
    let scene = scene();
    let [fitnets, fgfi, pkd, defeat] = all();
    let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-5 * want.abs(), "{got}, {want}");
    let channels = TEACHER as f64;
    near(terms(&fitnets, &scene)[0], naive(&scene, 2.0 * channels, |_, _, _| 1.0));

    let (anchors, targets) = (anchors(), targets());
    let mask = |level: usize, b: usize, cell: usize| {
        let (Size { height: h, width: w }, _) = LEVELS[level];
        f64::from(imitation_mask(&anchors[level], h * w, &targets[b].boxes, 0.5)[cell])
    };
    near(terms(&fgfi, &scene)[0], naive(&scene, 2.0, mask));

    let inside = |level: usize, b: usize, cell: usize| {
        let (Size { width: w, .. }, stride) = LEVELS[level];
        let centre = |i: usize| (i as f32 + 0.5) * stride as f32;
        let (x, y) = (centre(cell % w), centre(cell / w));
        let holds = |t: &BoxXyxy| t[0] <= x && x <= t[2] && t[1] <= y && y <= t[3];
        let under = |t: &BoxXyxy| {
            let at = |lo: f32, hi: f32| (0.5 * (lo + hi) / stride as f32) as usize;
            at(t[1], t[3]) * w + at(t[0], t[2]) == cell
        };
        f64::from(u8::from(targets[b].boxes.iter().any(|t| holds(t) || under(t))))
    };
    let got = terms(&defeat, &scene);
    near(got[0], naive(&scene, 2.0 * channels, inside));
    near(got[1], naive(&scene, 2.0 * channels, |l, b, c| 1.0 - inside(l, b, c)));
    let (s, t) = (numbers(&student_logits()), numbers(&teacher_logits()));
    let kl = |row: usize| {
        let softmax = |z: &[f32]| {
            let e: Vec<f64> = z[row * CLASSES..][..CLASSES].iter().map(|v| f64::from(*v).exp()).collect();
            let sum: f64 = e.iter().sum();
            e.iter().map(|v| v / sum).collect::<Vec<_>>()
        };
        let (p, q) = (softmax(&s), softmax(&t));
        q.iter().zip(&p).map(|(q, p)| q * (q / p).ln()).sum::<f64>()
    };
    near(got[2], [0, 1, 2, 4, 6].map(kl).iter().sum::<f64>() / 5.0);
    near(got[3], [3, 5].map(kl).iter().sum::<f64>() / 2.0);

    let correlation = |level: usize, channel: usize| {
        let of: Vec<(f64, f64)> =
            elements(&scene, level).iter().filter(|e| e.1 == channel).map(|&(.., s, t)| (s, t)).collect();
        let n = of.len() as f64;
        let (ms, mt) = (of.iter().map(|p| p.0).sum::<f64>() / n, of.iter().map(|p| p.1).sum::<f64>() / n);
        let moment = |f: &dyn Fn(f64, f64) -> f64| of.iter().map(|p| f(p.0 - ms, p.1 - mt)).sum::<f64>();
        moment(&|s, t| s * t) / (moment(&|s, _| s * s) * moment(&|_, t| t * t)).sqrt()
    };
    let one_less = |level: usize| (0..TEACHER).map(|c| 1.0 - correlation(level, c)).sum::<f64>() / channels;
    near(terms(&pkd, &scene)[0], (one_less(0) + one_less(1)) / 2.0);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for config in all() {
        let (scene, method) = (scene(), build(&config));
        let loss = |maps: &[Tensor]| {
            let student_features = FeaturePyramid { levels: maps.to_vec(), strides: vec![4, 8] };
            let mut step = scene.step();
            step.student.pyramid = Some(&student_features);
            method.loss(&step)?.total()
        };
        let maps: Vec<Tensor> = scene.student_features.levels.iter().map(Tensor::detach).collect();
        check_gradient(loss, &maps, 3e-2, 5e-3).unwrap();
    }
}

#[test]
fn limits() {
    for config in all() {
        // A teacher equal to the student, and the teacher's own graph.
        let mut same = scene();
        same.student_features = tracked(&features(11, TEACHER));
        same.student_head.class_logits = var(&teacher_logits());
        let out = build(&config).loss(&same.step()).unwrap();
        assert!(out.terms.iter().all(|t| t.value().unwrap().abs() < 1e-9), "{config:?}: {:?}", out.report());
        let grads = out.total().unwrap().backward().unwrap();
        assert!(same.teacher().iter().all(|t| grads.get(t).is_none()), "{config:?}");

        // No object and no positive: finite, and nothing that speaks of objects.
        let mut empty = Scene::empty();
        empty.student_features = tracked(&features(1, TEACHER));
        empty.dense = Some(dense());
        let out = build(&config).loss(&empty.step()).unwrap();
        for (name, value) in out.report().unwrap() {
            assert!(value.is_finite(), "{config:?}: {name}");
            if ["raw_imitation", "raw_feat_obj", "raw_cls_obj", "mask_sum", "positives"].contains(&name.as_str()) {
                assert_eq!(value, 0.0, "{config:?}: {name}");
            }
        }
    }
}

#[test]
fn pearson_sees_no_scale_and_no_offset() {
    let [_, _, pkd, _] = all();
    let mut scene = scene();
    let before = terms(&pkd, &scene)[0];
    let levels = scene.student_features.levels.iter().map(|t| var(&t.affine(7.0, 3.0).unwrap()));
    scene.student_features.levels = levels.collect();
    assert!((terms(&pkd, &scene)[0] - before).abs() < 1e-5 * before);
    // A constant map has no direction: 1/2 of the teacher's own variance, and no gradient that is no number.
    let levels = scene.student_features.levels.iter().map(|t| var(&t.zeros_like().unwrap()));
    scene.student_features.levels = levels.collect();
    assert!((terms(&pkd, &scene)[0] - 0.5).abs() < 1e-4);
    let grads = build(&pkd).loss(&scene.step()).unwrap().total().unwrap().backward().unwrap();
    assert!(numbers(grads.get(&scene.student_features.levels[0]).unwrap()).iter().all(|g| g.is_finite()));
}

#[test]
fn settings_are_checked_by_name() {
    let refused = |text: &str, part: &str| {
        let config: DistillerConfig = serde_json::from_str(text).unwrap();
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    };
    refused(r#"{"method":"fitnets","weight":-1.0}"#, "`weight`");
    refused(r#"{"method":"fgfi","psi":2.0}"#, "`psi`");
    refused(r#"{"method":"pkd","weight":-0.5}"#, "`weight`");
    refused(r#"{"method":"defeat","t_bg":0.0}"#, "`t_bg`");
    refused(r#"{"method":"defeat","beta_obj":-2.0}"#, "`beta_obj`");
    for stranger in [r#"{"method":"fitnets","psi":0.5}"#, r#"{"method":"pkd","w_feat":1}"#] {
        assert!(serde_json::from_str::<DistillerConfig>(stranger).is_err(), "{stranger}");
    }
    // PKD needs no adapter where channels are equal, and says what to do where they are not.
    let pkd = DistillerConfig::Pkd(PkdConfig::default());
    let build = |student: usize| {
        let (student, teacher) = (channels(student, 2), channels(4, 2));
        DistillerRegistry::builtin().distiller(&pkd, &student, &teacher, builder(&Default::default())).map(|_| ())
    };
    build(4).unwrap();
    let message = build(3).unwrap_err().to_string();
    assert!(message.contains("conv1x1"), "{message}");
    let text = serde_json::to_string(&DistillerConfig::default()).unwrap();
    assert!(text.contains(r#""method":"task_adaptive""#));
    assert_eq!(serde_json::from_str::<DistillerConfig>(&text).unwrap(), DistillerConfig::default());
}
