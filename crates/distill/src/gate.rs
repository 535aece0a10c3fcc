//! The adaptive gate, which selects the proposals on which the teacher's box is better.

use docent_detect::Size;
use docent_ops::{BoxCoder, BoxXyxy, boxes};

use crate::config::RegGate;
use crate::error::{Error, Result};

/// One positive RoI as the gate sees it. Boxes are xyxy in pixels of the network's input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateRow {
    /// The proposal, as it comes from the student's RPN.
    pub proposal: BoxXyxy,
    /// Its matched ground truth.
    pub gt_box: BoxXyxy,
    /// Size of the image without padding; refined boxes are clipped to it.
    pub image: Size,
    /// The teacher's deltas for the true class.
    pub teacher: [f32; 4],
    /// The student's deltas for the true class.
    pub student: [f32; 4],
}

/// The gate of each row; strict, so that equal IoUs stay shut. No gradient: plain data in, plain data out.
///
/// [`RegGate::TeacherVsProposal`] \[paper, Eq. (5)\]: `IoU(clip(decode(roi, r_t)), gt) > IoU(roi, gt) + margin`. The
/// proposal is taken before the box head's regression. A ground-truth box that was added as a proposal has IoU 1, so
/// it is dropped without a special case. [`RegGate::TeacherVsStudent`] \[ours\] compares with the student's refined,
/// clipped box instead; [`RegGate::Both`] wants both.
///
/// The margin is 0 in the method. \[ours\]
pub fn box_gate(gate: RegGate, margin: f32, rows: &[GateRow], student: &BoxCoder, teacher: &BoxCoder) -> Vec<bool> {
    rows.iter()
        .map(|row| {
            let quality = |deltas: &[f32; 4], coder: &BoxCoder| {
                let refined = coder.decode(deltas, &row.proposal);
                boxes::iou(&boxes::clip(&refined, (row.image.height as f32, row.image.width as f32)), &row.gt_box)
            };
            let of_teacher = quality(&row.teacher, teacher);
            let beats_proposal = || of_teacher > boxes::iou(&row.proposal, &row.gt_box) + margin;
            let beats_student = || of_teacher > quality(&row.student, student) + margin;
            match gate {
                RegGate::TeacherVsProposal => beats_proposal(),
                RegGate::TeacherVsStudent => beats_student(),
                RegGate::Both => beats_proposal() && beats_student(),
                RegGate::None => true,
            }
        })
        .collect()
}

/// The share of rows that the gate lets through, `sum(gate)/#pos`; 0 without a row.
pub fn gated_share(gate: &[bool]) -> f64 {
    if gate.is_empty() {
        return 0.0;
    }
    gate.iter().filter(|open| **open).count() as f64 / gate.len() as f64
}

/// The deltas of one RoI for one class, out of a head's `[R, 4K]` output read row-major.
///
/// # Errors
/// [`Error::Mismatch`] if the output has no such row or class.
pub fn class_deltas(deltas: &[f32], classes: usize, row: usize, label: u32) -> Result<[f32; 4]> {
    let start = first_delta(classes, row, label);
    match deltas.get(start..start + 4) {
        Some(&[dx, dy, dw, dh]) if (label as usize) < classes => Ok([dx, dy, dw, dh]),
        _ => Err(Error::mismatch(
            "box term",
            format!(
                "RoI {row} with label {label} has no deltas in an output of {} numbers for {classes} classes",
                deltas.len()
            ),
        )),
    }
}

/// Index of the first of 4 deltas in a row-major `[R, 4K]`.
pub(crate) fn first_delta(classes: usize, row: usize, label: u32) -> usize {
    4 * (row * classes + label as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CODER: BoxCoder = BoxCoder { weights: [10.0, 10.0, 5.0, 5.0], clip: 4.135_166_6 };
    const IMAGE: Size = Size::new(100, 120);

    fn row(proposal: BoxXyxy, gt_box: BoxXyxy, teacher: BoxXyxy, student: BoxXyxy) -> GateRow {
        GateRow {
            proposal,
            gt_box,
            image: IMAGE,
            teacher: CODER.encode(&teacher, &proposal),
            student: CODER.encode(&student, &proposal),
        }
    }

    fn open(gate: RegGate, margin: f32, row: GateRow) -> bool {
        box_gate(gate, margin, &[row], &CODER, &CODER)[0]
    }

    const GT_BOX: BoxXyxy = [20.0, 20.0, 60.0, 60.0];

    #[test]
    fn opens_when_the_teacher_improves_the_proposal() {
        let (far, near) = ([26.0, 26.0, 66.0, 66.0], [22.0, 22.0, 62.0, 62.0]);
        assert!(open(RegGate::TeacherVsProposal, 0.0, row(far, GT_BOX, near, far)));
        assert!(!open(RegGate::TeacherVsProposal, 0.0, row(near, GT_BOX, far, far)));
    }

    #[test]
    fn a_ground_truth_used_as_proposal_is_dropped() {
        let worse = [21.0, 20.0, 60.0, 60.0];
        assert!(!open(RegGate::TeacherVsProposal, 0.0, row(GT_BOX, GT_BOX, worse, worse)));
        let mut same = row(GT_BOX, GT_BOX, GT_BOX, worse);
        same.teacher = [0.0; 4];
        assert!(!open(RegGate::TeacherVsProposal, 0.0, same), "not even by a teacher that keeps it");
    }

    #[test]
    fn equality_is_shut() {
        // Zero deltas decode to the proposal itself: powers of two, so to the very bits.
        let proposal = [16.0, 16.0, 48.0, 80.0];
        let mut r = row(proposal, GT_BOX, GT_BOX, GT_BOX);
        (r.teacher, r.student) = ([0.0; 4], [0.0; 4]);
        for gate in [RegGate::TeacherVsProposal, RegGate::TeacherVsStudent, RegGate::Both] {
            assert!(!open(gate, 0.0, r), "{gate:?}");
        }
        assert!(open(RegGate::None, 0.0, r));
    }

    #[test]
    fn the_other_gates() {
        let (far, near) = ([26.0, 26.0, 66.0, 66.0], [22.0, 22.0, 62.0, 62.0]);
        let student_best = row(far, GT_BOX, near, GT_BOX);
        assert!(open(RegGate::TeacherVsProposal, 0.0, student_best));
        assert!(!open(RegGate::TeacherVsStudent, 0.0, student_best));
        assert!(!open(RegGate::Both, 0.0, student_best));
        let proposal_best = row(near, GT_BOX, [23.0, 23.0, 63.0, 63.0], far);
        assert!(!open(RegGate::TeacherVsProposal, 0.0, proposal_best));
        assert!(open(RegGate::TeacherVsStudent, 0.0, proposal_best));
        assert!(!open(RegGate::Both, 0.0, proposal_best));
    }

    #[test]
    fn the_margin_is_on_top() {
        let r = row([26.0, 20.0, 66.0, 60.0], GT_BOX, GT_BOX, GT_BOX);
        let gain = 1.0 - 34.0 / 46.0;
        assert!(open(RegGate::TeacherVsProposal, gain - 0.01, r));
        assert!(!open(RegGate::TeacherVsProposal, gain + 0.01, r));
    }

    #[test]
    fn the_refined_box_is_clipped_to_the_image() {
        // The teacher's box runs out of the image; clipped, it is the ground truth.
        let gt_box = [80.0, 20.0, 120.0, 60.0];
        let out = row([84.0, 20.0, 124.0, 60.0], gt_box, [80.0, 20.0, 180.0, 60.0], gt_box);
        assert!(open(RegGate::TeacherVsProposal, 0.0, out));
    }

    #[test]
    fn each_model_decodes_with_its_own_coder() {
        let other = BoxCoder { weights: [1.0; 4], ..CODER };
        let proposal = [26.0, 26.0, 66.0, 66.0];
        let mut r = row(proposal, GT_BOX, GT_BOX, proposal);
        r.teacher = other.encode(&GT_BOX, &proposal);
        assert_eq!(box_gate(RegGate::Both, 0.0, &[r], &CODER, &other), [true]);
    }

    #[test]
    fn share_of_nothing_is_zero() {
        assert_eq!(gated_share(&[]), 0.0);
        assert_eq!(gated_share(&[true, false, false, true]), 0.5);
    }

    #[test]
    fn deltas_of_a_class() {
        let all: Vec<f32> = (0..24).map(|v| v as f32).collect();
        assert_eq!(class_deltas(&all, 3, 1, 2).unwrap(), [20.0, 21.0, 22.0, 23.0]);
        assert!(class_deltas(&all, 3, 2, 0).is_err());
        assert!(class_deltas(&all, 3, 0, 3).is_err());
    }

    proptest! {
        #[test]
        fn both_is_the_and_and_a_margin_only_shuts(
            p in prop::array::uniform4(0.0f32..50.0),
            t in prop::array::uniform4(-3.0f32..3.0),
            s in prop::array::uniform4(-3.0f32..3.0),
            margin in 0.0f32..0.3,
        ) {
            let proposal = [p[0], p[1], p[0] + p[2] + 2.0, p[1] + p[3] + 2.0];
            let r = GateRow { proposal, gt_box: GT_BOX, image: IMAGE, teacher: t, student: s };
            let (a, b) = (open(RegGate::TeacherVsProposal, 0.0, r), open(RegGate::TeacherVsStudent, 0.0, r));
            prop_assert_eq!(open(RegGate::Both, 0.0, r), a && b);
            prop_assert!(a || !open(RegGate::TeacherVsProposal, margin, r));
        }
    }
}
