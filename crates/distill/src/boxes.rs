//! The box term: the teacher's regression on the proposals that its gate lets through.

use candle_core::Tensor;
use docent_ops::loss::{FusedLoss, fused, smooth_l1};
use docent_ops::{BoxCoder, BoxXyxy};

use crate::config::RegLoss;
use crate::error::{Error, Result};
use crate::gate::first_delta;

/// One gated RoI as the box term sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoxRow {
    /// Its row in the student's output.
    pub row: usize,
    /// Its true class.
    pub label: u32,
    /// The proposal, xyxy in pixels of the network's input.
    pub proposal: BoxXyxy,
    /// The teacher's deltas for the true class, in the *student's* coding; see [`convert_deltas`].
    pub teacher: [f32; 4],
}

/// Deltas of one coder in the weights of another: decoded, then encoded again. Equal coders leave the deltas as they
/// are, to the bit.
pub fn convert_deltas(deltas: &[f32; 4], proposal: &BoxXyxy, from: &BoxCoder, to: &BoxCoder) -> [f32; 4] {
    if from == to {
        return *deltas;
    }
    to.encode(&from.decode(deltas, proposal), proposal)
}

/// The box term over the rows that the gate let through; `sum / normalizer`.
///
/// - [`RegLoss::SmoothL1`]: `sum_i sum_4 smooth_l1(r_s - r_t)` with beta 1: `d²/2` below 1, `|d| - 1/2` above (not
///   torchvision's 1/9);
/// - [`RegLoss::L1`]: `|d|`; [`RegLoss::L2`]: `d²`;
/// - [`RegLoss::Giou`]: `sum_i 1 - GIoU` of the two boxes that the student's coder decodes, unclipped.
///
/// `r` are the 4 encoded deltas of the true class. No row gives exactly 0 with a zero gradient.
///
/// # Shapes
/// `student` is `[R, 4K]`. Returns a scalar, shape `[]`.
///
/// # Errors
/// [`Error::Mismatch`] for a row or a class outside the output, [`Error::Ops`] for a normalizer that is not a
/// positive number or a teacher's delta that is not finite.
pub fn box_loss(student: &Tensor, rows: &[BoxRow], kind: RegLoss, coder: &BoxCoder, normalizer: f32) -> Result<Tensor> {
    let (count, width) = student.dims2()?;
    let classes = width / 4;
    if let Some(r) = rows.iter().find(|r| r.row >= count || r.label as usize >= classes) {
        return Err(Error::mismatch(
            "box term",
            format!(
                "RoI {} with label {} is outside the student's deltas, {:?} for {classes} classes",
                r.row,
                r.label,
                student.dims()
            ),
        ));
    }
    let pairs = || {
        let picks =
            rows.iter().flat_map(|r| (0..4).map(move |d| first_delta(classes, r.row, r.label) + d)).collect::<Vec<_>>();
        let targets = rows.iter().flat_map(|r| r.teacher).collect::<Vec<_>>();
        (picks, targets)
    };
    Ok(match kind {
        RegLoss::SmoothL1 => {
            let (picks, targets) = pairs();
            smooth_l1(student, &picks, &targets, 1.0, normalizer)?
        }
        RegLoss::L1 => {
            let (picks, targets) = pairs();
            smooth_l1(student, &picks, &targets, 0.0, normalizer)?
        }
        RegLoss::L2 => {
            let (picks, targets) = pairs();
            fused(student, SquaredDistance { picks, targets }, normalizer)?
        }
        RegLoss::Giou => {
            let rows = rows
                .iter()
                .map(|r| GiouRow {
                    start: first_delta(classes, r.row, r.label),
                    proposal: r.proposal,
                    target: coder.decode(&r.teacher, &r.proposal),
                })
                .collect();
            fused(student, GiouDistance { rows, coder: *coder }, normalizer)?
        }
    })
}

/// `sum (x - target)²` over picked values.
struct SquaredDistance {
    picks: Vec<usize>,
    targets: Vec<f32>,
}

impl FusedLoss for SquaredDistance {
    const NAME: &'static str = "distill-box-l2";

    fn sum(&self, x: &[f32]) -> docent_ops::Result<f64> {
        let distance = |(&i, &t): (&usize, &f32)| f64::from(x[i] - t).powi(2);
        Ok(self.picks.iter().zip(&self.targets).map(distance).sum())
    }

    fn gradient(&self, x: &[f32], scale: f32, dx: &mut [f32]) -> docent_ops::Result<()> {
        for (&i, &t) in self.picks.iter().zip(&self.targets) {
            dx[i] += scale * 2.0 * (x[i] - t);
        }
        Ok(())
    }
}

struct GiouRow {
    start: usize,
    proposal: BoxXyxy,
    target: BoxXyxy,
}

/// `sum 1 - GIoU` of decoded boxes.
struct GiouDistance {
    rows: Vec<GiouRow>,
    coder: BoxCoder,
}

impl GiouDistance {
    fn deltas(x: &[f32], row: &GiouRow) -> [f32; 4] {
        [x[row.start], x[row.start + 1], x[row.start + 2], x[row.start + 3]]
    }
}

impl FusedLoss for GiouDistance {
    const NAME: &'static str = "distill-box-giou";

    fn sum(&self, x: &[f32]) -> docent_ops::Result<f64> {
        let distance = |row: &GiouRow| {
            1.0 - giou_with_gradient(&self.coder.decode(&Self::deltas(x, row), &row.proposal), &row.target).0
        };
        Ok(self.rows.iter().map(distance).sum())
    }

    fn gradient(&self, x: &[f32], scale: f32, dx: &mut [f32]) -> docent_ops::Result<()> {
        let scale = f64::from(scale);
        for row in &self.rows {
            let deltas = Self::deltas(x, row);
            let b = self.coder.decode(&deltas, &row.proposal);
            let (_, g) = giou_with_gradient(&b, &row.target);
            for axis in 0..2 {
                let (g_lo, g_hi) = (g[axis], g[axis + 2]);
                let side = f64::from(row.proposal[axis + 2] - row.proposal[axis]);
                let decoded = f64::from(b[axis + 2] - b[axis]);
                let (w_centre, w_size) = (self.coder.weights[axis], self.coder.weights[axis + 2]);
                // centre = d/w * side + ..., so both edges move by side/w.
                dx[row.start + axis] += (-scale * (g_lo + g_hi) * side / f64::from(w_centre)) as f32;
                // size = exp(d/w) * side, flat beyond the coder's clip; the edges move by half of it, apart.
                if deltas[axis + 2] / w_size <= self.coder.clip {
                    dx[row.start + axis + 2] += (-scale * 0.5 * (g_hi - g_lo) * decoded / f64::from(w_size)) as f32;
                }
            }
        }
        Ok(())
    }
}

/// GIoU of two boxes and its derivative by the first one's x1, y1, x2, y2; 0 and no slope for two empty boxes.
///
/// `GIoU = I/U - (H - U)/H` with intersection I, union U and hull H (Rezatofighi et al., CVPR 2019). On a tie of two
/// edges the edge of the second box counts, so that equal boxes have slope 0.
fn giou_with_gradient(a: &BoxXyxy, b: &BoxXyxy) -> (f64, [f64; 4]) {
    let (a, b) = (a.map(f64::from), b.map(f64::from));
    let mut inter = [0.0; 2];
    let mut hull = [0.0; 2];
    // By the lower and the upper edge of each axis.
    let mut d_inter = [[0.0; 2]; 2];
    let mut d_hull = [[0.0; 2]; 2];
    for axis in 0..2 {
        let (a_lo, a_hi, b_lo, b_hi) = (a[axis], a[axis + 2], b[axis], b[axis + 2]);
        inter[axis] = a_hi.min(b_hi) - a_lo.max(b_lo);
        if inter[axis] > 0.0 {
            d_inter[axis] = [if a_lo > b_lo { -1.0 } else { 0.0 }, if a_hi < b_hi { 1.0 } else { 0.0 }];
        } else {
            inter[axis] = 0.0;
        }
        hull[axis] = a_hi.max(b_hi) - a_lo.min(b_lo);
        d_hull[axis] = [if a_lo < b_lo { -1.0 } else { 0.0 }, if a_hi > b_hi { 1.0 } else { 0.0 }];
    }
    let sides = [a[2] - a[0], a[3] - a[1]];
    let i = inter[0] * inter[1];
    let u = sides[0] * sides[1] + (b[2] - b[0]) * (b[3] - b[1]) - i;
    let h = hull[0] * hull[1];
    if u <= 0.0 || h <= 0.0 {
        return (0.0, [0.0; 4]);
    }
    let mut gradient = [0.0; 4];
    for axis in 0..2 {
        let other = 1 - axis;
        for (edge, sign) in [(0, -1.0), (1, 1.0)] {
            let di = d_inter[axis][edge] * inter[other];
            let du = sign * sides[other] - di;
            let dh = d_hull[axis][edge] * hull[other];
            gradient[axis + 2 * edge] = di / u - i * du / (u * u) + du / h - u * dh / (h * h);
        }
    }
    (i / u - (h - u) / h, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use proptest::prelude::*;

    const CODER: BoxCoder = BoxCoder::new([10.0, 10.0, 5.0, 5.0]);

    #[test]
    fn giou_is_the_detectors_own() {
        let boxes = [
            [0.0, 0.0, 10.0, 8.0],
            [2.0, 3.0, 7.0, 20.0],
            [30.0, 1.0, 40.0, 4.0],
            [0.0, 0.0, 10.0, 8.0],
            [5.0, 5.0, 5.0, 5.0],
        ];
        for a in &boxes {
            for b in &boxes {
                let (ours, _) = giou_with_gradient(a, b);
                assert!((ours - f64::from(docent_ops::boxes::giou(a, b))).abs() < 1e-5, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn equal_boxes_have_no_slope() {
        let b = [3.0, 4.0, 17.0, 9.0];
        let (value, slope) = giou_with_gradient(&b, &b);
        assert!((value - 1.0).abs() < 1e-12);
        assert_eq!(slope, [0.0; 4]);
    }

    #[test]
    fn beyond_the_coders_clip_size_is_flat() {
        let x = Var::from_vec(vec![0f32, 0.0, 30.0, 0.0], (1, 4), &Device::Cpu).unwrap();
        let row = BoxRow { row: 0, label: 0, proposal: [10.0, 10.0, 20.0, 30.0], teacher: [1.0, 0.5, 0.0, 1.0] };
        let loss = box_loss(x.as_tensor(), &[row], RegLoss::Giou, &CODER, 1.0).unwrap();
        let gradient =
            loss.backward().unwrap().remove(x.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(gradient[2], 0.0);
        assert!(gradient[3] != 0.0);
    }

    #[test]
    fn no_row_is_exactly_zero_and_strangers_are_refused() {
        let x = Var::from_vec(vec![1f32; 24], (2, 12), &Device::Cpu).unwrap();
        for kind in [RegLoss::SmoothL1, RegLoss::L1, RegLoss::L2, RegLoss::Giou] {
            let loss = box_loss(x.as_tensor(), &[], kind, &CODER, 1.0).unwrap();
            assert_eq!(loss.to_scalar::<f32>().unwrap(), 0.0);
            let gradient = loss.backward().unwrap().remove(x.as_tensor()).unwrap();
            assert!(gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|g| *g == 0.0));
            for (row, label) in [(2, 0), (0, 3)] {
                let stranger = BoxRow { row, label, proposal: [0.0, 0.0, 8.0, 8.0], teacher: [0.0; 4] };
                assert!(box_loss(x.as_tensor(), &[stranger], kind, &CODER, 1.0).is_err());
            }
        }
    }

    #[test]
    fn recoding_keeps_the_box() {
        let other = BoxCoder::new([1.0; 4]);
        let (proposal, deltas) = ([10.0, 10.0, 30.0, 50.0], [0.25, -0.5, 0.125, -0.0625]);
        assert_eq!(convert_deltas(&deltas, &proposal, &other, &other), deltas, "to the bit");
        let there = convert_deltas(&deltas, &proposal, &other, &CODER);
        for (a, b) in there.iter().zip([2.5, -5.0, 0.625, -0.3125]) {
            assert!((a - b).abs() < 1e-5, "{there:?}");
        }
    }

    proptest! {
        #[test]
        fn giou_slope_is_the_difference(
            a in prop::array::uniform4(0.0f32..40.0), b in prop::array::uniform4(0.0f32..40.0),
        ) {
            let sized = |v: [f32; 4]| [v[0], v[1], v[0] + v[2] + 1.0, v[1] + v[3] + 1.0];
            let (a, b) = (sized(a), sized(b));
            // GIoU has kinks where two edges meet; stay off them.
            let apart = |i: usize, j: usize| (a[i] - b[j]).abs() > 0.05;
            prop_assume!((0..4).all(|i| apart(i, i)) && (0..2).all(|i| apart(i + 2, i) && apart(i, i + 2)));
            let (_, slope) = giou_with_gradient(&a, &b);
            for i in 0..4 {
                let at = |d: f32| {
                    let mut moved = a;
                    moved[i] += d;
                    (giou_with_gradient(&moved, &b).0, f64::from(moved[i]))
                };
                let ((up, x_up), (down, x_down)) = (at(0.01), at(-0.01));
                prop_assert!(((up - down) / (x_up - x_down) - slope[i]).abs() < 1e-3, "edge {i}");
            }
        }
    }
}
