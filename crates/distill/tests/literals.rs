//! The default terms and the box gates against literal numbers from PyTorch in f64, on the scene of `common`.

#![allow(clippy::unwrap_used)] // helpers of tests, which clippy.toml does not see as tests

mod common;

use common::*;
use docent_distill::Distiller;
use docent_distill::boxes::{BoxRow, box_loss};
use docent_distill::config::{LevelNorm, RegGate, RegLoss, TaskAdaptiveConfig};
use docent_distill::feature::{Adapters, feature_loss};
use docent_distill::gate::{GateRow, box_gate, class_deltas};
use docent_distill::methods::TaskAdaptive;

#[test]
fn the_step_at_its_defaults() {
    let (scene, vars) = (Scene::new(), adapter_vars(3));
    let config = TaskAdaptiveConfig::default();
    let method = TaskAdaptive::new(&config, &channels(STUDENT, 2), &channels(TEACHER, 2), builder(&vars)).unwrap();
    let mut step = scene.step();
    step.progress.epoch = 4;
    let out = method.loss(&step).unwrap();
    let raw: Vec<f32> = out.terms.iter().map(|t| scalar(&t.raw)).collect();
    let want = [0.57015013, 2.74984120, 3.70885182];
    close(&raw, &want, 1e-6);
    let total = out.total().unwrap();
    close(&[scalar(&total)], &[0.75 * (0.32 * want[0] + 0.25 * want[1] + 0.25 * want[2])], 1e-6);
    let stat = |name| out.stat(name).unwrap() as f32;
    close(
        &[stat("mask_sum"), stat("teacher_entropy"), stat("gated_share")],
        &[93.46318120670767, 0.75147967, 0.6],
        1e-6,
    );

    // Gradients of the raw terms, through the factor each has in the total.
    let gradients = total.backward().unwrap();
    let of = |t, weight: f32| -> Vec<f32> {
        numbers(gradients.get(t).unwrap()).iter().map(|g| g / (0.75 * weight)).collect()
    };
    close(&of(&vars["adapt.1.bias"], 0.32), &[-0.0512228, -0.041543155, 0.022603476, 0.014586886, 0.022422672], 2e-7);
    let weight = of(&vars["adapt.0.weight"], 0.32);
    let ends = [weight[0], weight[7], weight[weight.len() - 1]];
    close(&ends, &[-0.013394943, -0.021827524, -0.0024106585], 2e-7);
    let map = of(&scene.student_features.levels[0], 0.32);
    close(&map[(10 + 3) * 13 + 2..][..3], &[-0.0015908587, -0.0020579465, 0.0024969800], 2e-8);
    let logits = of(&scene.student_head.class_logits, 0.25);
    close(&logits[..4], &[-0.04050955, -0.14168326, 0.04996649, 0.13222632], 2e-7);
    close(&logits[16..20], &[0.10904409, -0.19557083, 0.02097621, 0.06555053], 2e-7);
    close(&logits[12..16], &[0.0; 4], 0.0);
    let deltas = of(&scene.student_head.box_deltas, 0.25);
    close(&deltas[4..8], &[0.33333333, -0.33333333, 0.27029463, 0.12453493], 1e-6);
}

#[test]
fn the_level_norms() {
    let (student, teacher, masks) = (features(1, STUDENT), features(11, TEACHER), masks());
    let adapters = Adapters::new(Default::default(), &[STUDENT; 2], &[TEACHER; 2], builder(&adapter_vars(3))).unwrap();
    for (norm, want) in
        [(LevelNorm::PerLevelMean, 0.57015013), (LevelNorm::Global, 0.54684413), (LevelNorm::Sum, 1.14030027)]
    {
        let loss = feature_loss(&student, &teacher, &masks, &adapters, norm).unwrap();
        close(&[scalar(&loss)], &[want], 1e-6);
    }
}

#[test]
fn the_gates() {
    let (rois, student, teacher) = (rois(), numbers(&student_deltas()), numbers(&teacher_deltas()));
    let row = |&r: &usize| GateRow {
        proposal: rois.rois[r].1,
        gt_box: rois.matched_gt_boxes[r],
        image: SIZES[rois.rois[r].0],
        teacher: class_deltas(&teacher, CLASSES, r, rois.labels[r]).unwrap(),
        student: class_deltas(&student, CLASSES, r, rois.labels[r]).unwrap(),
    };
    let rows: Vec<GateRow> = rois.positives.iter().map(row).collect();
    let open = |gate| box_gate(gate, 0.0, &rows, &CODER, &CODER);
    // RoIs 0, 1, 2, 4, 6; RoI 2 is a ground truth used as a proposal.
    assert_eq!(open(RegGate::TeacherVsProposal), [true, true, false, true, false]);
    assert_eq!(open(RegGate::TeacherVsStudent), [true, false, true, true, false]);
    assert_eq!(open(RegGate::Both), [true, false, false, true, false]);
    assert_eq!(open(RegGate::None), [true; 5]);
}

#[test]
fn the_box_losses() {
    let goldens = [
        (RegLoss::SmoothL1, 3.70885182, [0.33333333, -0.11665293, 0.33333333, -0.33333333]),
        (RegLoss::L1, 5.52806485, [0.33333333, -0.33333333, 0.33333333, -0.33333333]),
        (RegLoss::L2, 10.12874794, [0.70829755, -0.23330585, 1.66459425, -0.69664536]),
        (RegLoss::Giou, 0.55509908, [0.0, 0.0, 0.03870565, -0.04450688]),
    ];
    let (rois, deltas) = (rois(), numbers(&teacher_deltas()));
    let rows = [0, 1, 4].map(|r| BoxRow {
        row: r,
        label: rois.labels[r],
        proposal: rois.rois[r].1,
        teacher: class_deltas(&deltas, CLASSES, r, rois.labels[r]).unwrap(),
    });
    for (kind, want, slope) in goldens {
        let student = var(&student_deltas());
        let loss = box_loss(&student, &rows, kind, &CODER, 3.0).unwrap();
        close(&[scalar(&loss)], &[want], 1e-6);
        let gradient = numbers(loss.backward().unwrap().get(&student).unwrap());
        // RoI 1 has label 3.
        close(&gradient[4 * (CLASSES + 3)..][..4], &slope, 1e-6);
        let all_of =
            |r: &BoxRow| 4 * (r.row * CLASSES + r.label as usize)..4 * (r.row * CLASSES + r.label as usize) + 4;
        let others = (0..gradient.len()).filter(|i| !rows.iter().any(|r| all_of(r).contains(i)));
        assert!(others.into_iter().all(|i| gradient[i] == 0.0), "only the true class's deltas have a gradient");
    }
}
