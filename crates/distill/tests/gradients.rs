//! Each term's gradient against finite differences: odd sizes, batch 2, two consumers of every input.

#![allow(clippy::unwrap_used)] // helpers of tests, which clippy.toml does not see as tests

mod common;

use common::*;
use docent_detect::FeaturePyramid;
use docent_distill::boxes::{BoxRow, box_loss};
use docent_distill::class::class_loss;
use docent_distill::config::{AdaptationLayer, ClsLoss, LevelNorm, RegLoss};
use docent_distill::feature::{Adapters, feature_loss};
use docent_distill::gate::class_deltas;
use docent_ops::testing::check_gradient;

#[test]
fn feature_term() {
    let (teacher, masks) = (features(11, TEACHER), masks());
    let student = features(1, STUDENT);
    for (kind, norm) in [
        (AdaptationLayer::Conv3x3, LevelNorm::PerLevelMean),
        (AdaptationLayer::Conv1x1, LevelNorm::Global),
        (AdaptationLayer::Conv3x3, LevelNorm::Sum),
    ] {
        let adapters = Adapters::new(
            kind,
            &[STUDENT; 2],
            &[TEACHER; 2],
            builder(&adapter_vars(if kind == AdaptationLayer::Conv1x1 { 1 } else { 3 })),
        )
        .unwrap();
        let loss = |maps: &[candle_core::Tensor]| {
            let student = FeaturePyramid { levels: maps.to_vec(), strides: vec![4, 8] };
            feature_loss(&student, &teacher, &masks, &adapters, norm)
        };
        // The loss is quadratic in its inputs, so a wide step costs no accuracy.
        check_gradient(loss, &student.levels, 0.25, 1e-4).unwrap();
    }
}

#[test]
fn feature_term_by_its_adapter() {
    let (student, teacher, masks) = (features(1, STUDENT), features(11, TEACHER), masks());
    let vars = adapter_vars(3);
    let names = ["adapt.0.weight", "adapt.0.bias", "adapt.1.weight", "adapt.1.bias"];
    let inputs: Vec<_> = names.iter().map(|n| vars[*n].detach()).collect();
    let loss = |values: &[candle_core::Tensor]| {
        let vars = names.iter().map(|n| n.to_string()).zip(values.iter().cloned()).collect();
        let adapters = Adapters::new(AdaptationLayer::Conv3x3, &[STUDENT; 2], &[TEACHER; 2], builder(&vars))?;
        feature_loss(&student, &teacher, &masks, &adapters, LevelNorm::PerLevelMean)
    };
    check_gradient(loss, &inputs, 0.25, 1e-4).unwrap();
}

#[test]
fn feature_term_without_adapter() {
    let (student, teacher, masks) = (features(1, TEACHER), features(11, TEACHER), masks());
    let loss = |maps: &[candle_core::Tensor]| {
        let student = FeaturePyramid { levels: maps.to_vec(), strides: vec![4, 8] };
        feature_loss(&student, &teacher, &masks, &Adapters::none(), LevelNorm::PerLevelMean)
    };
    check_gradient(loss, &student.levels, 0.25, 1e-4).unwrap();
}

#[test]
fn classification_term() {
    let (student, teacher) = (student_logits(), teacher_logits());
    // Row 4 is read twice, row 3 never.
    let rows = [0, 4, 1, 6, 4];
    for (kind, temperature) in [(ClsLoss::Bce, 1.0), (ClsLoss::Kl, 2.0), (ClsLoss::SoftCe, 0.5)] {
        let loss = |z: &[candle_core::Tensor]| class_loss(&z[0], &teacher, &rows, kind, temperature, 3.0);
        check_gradient(loss, std::slice::from_ref(&student), 1e-2, 2e-3).unwrap();
    }
}

#[test]
fn box_term() {
    let (rois, teacher) = (rois(), numbers(&teacher_deltas()));
    let row = |r: usize| BoxRow {
        row: r,
        label: rois.labels[r],
        proposal: rois.rois[r].1,
        teacher: class_deltas(&teacher, CLASSES, r, rois.labels[r]).unwrap(),
    };
    let rows = [row(0), row(1), row(4), row(6), row(1)];
    for kind in [RegLoss::SmoothL1, RegLoss::L1, RegLoss::L2, RegLoss::Giou] {
        let loss = |d: &[candle_core::Tensor]| box_loss(&d[0], &rows, kind, &CODER, 3.0);
        check_gradient(loss, &[student_deltas()], 1e-2, 5e-3).unwrap();
    }
}
