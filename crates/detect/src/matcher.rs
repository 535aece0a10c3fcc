//! Assigns ground truths to boxes by IoU, as torchvision's `Matcher` does.

use docent_ops::BoxXyxy;
use docent_ops::boxes::iou;

/// What a box was assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The ground truth of this index.
    Truth(usize),
    /// No ground truth comes near: a negative.
    Background,
    /// Between the thresholds: neither positive nor negative.
    Ignored,
}

/// The thresholds of an assignment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matcher {
    /// A box whose best IoU is at least this takes that ground truth.
    pub positive_iou: f32,
    /// A box whose best IoU is below this is background.
    pub negative_iou: f32,
    /// Whether each ground truth also claims the boxes that overlap it most, however little that is.
    pub low_quality: bool,
}

impl Matcher {
    /// A match for each box. Among equal IoUs the first ground truth wins. Without ground truth all is background.
    ///
    /// With `low_quality`, every box that reaches a ground truth's largest IoU (ties too) is matched, *to its own best*
    /// ground truth, which need not be the claimant: torchvision's rule. One thing differs: a ground truth that
    /// overlaps no box at all claims nothing here, while in torchvision it would claim every box with IoU 0.
    pub fn assign(&self, truths: &[BoxXyxy], boxes: &[BoxXyxy]) -> Vec<Match> {
        if truths.is_empty() {
            return vec![Match::Background; boxes.len()];
        }
        let mut claims = vec![0f32; truths.len()];
        let best: Vec<(f32, usize)> = boxes
            .iter()
            .map(|b| {
                let mut best = (-1f32, 0);
                for (g, t) in truths.iter().enumerate() {
                    let v = iou(t, b);
                    if v > best.0 {
                        best = (v, g);
                    }
                    if v > claims[g] {
                        claims[g] = v;
                    }
                }
                best
            })
            .collect();
        let mut matches: Vec<Match> = best
            .iter()
            .map(|&(v, g)| {
                if v < self.negative_iou {
                    Match::Background
                } else if v < self.positive_iou {
                    Match::Ignored
                } else {
                    Match::Truth(g)
                }
            })
            .collect();
        if self.low_quality {
            // A claimed box has at least the claimant's largest IoU, so that only few boxes are looked at again.
            let least = claims.iter().copied().filter(|&c| c > 0.0).fold(f32::INFINITY, f32::min);
            for ((m, &(v, g)), b) in matches.iter_mut().zip(&best).zip(boxes) {
                if v >= least
                    && !matches!(m, Match::Truth(_))
                    && truths.iter().zip(&claims).any(|(t, &c)| c > 0.0 && iou(t, b) == c)
                {
                    *m = Match::Truth(g);
                }
            }
        }
        matches
    }
}

/// The indices of the positives and of the negatives, ascending.
pub(crate) fn split(matches: &[Match]) -> (Vec<usize>, Vec<usize>) {
    let pick = |want: fn(&Match) -> bool| matches.iter().enumerate().filter(|(_, m)| want(m)).map(|(i, _)| i).collect();
    (pick(|m| matches!(m, Match::Truth(_))), pick(|m| *m == Match::Background))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Match::{Background, Ignored, Truth};

    const RPN: Matcher = Matcher { positive_iou: 0.7, negative_iou: 0.3, low_quality: true };

    #[test]
    fn thresholds_are_closed_below() {
        let m = Matcher { positive_iou: 0.5, negative_iou: 0.25, low_quality: false };
        let truth = [[0., 0., 4., 4.]];
        // IoU 1, exactly 1/2, exactly 1/4, 3/16, 0.
        let boxes = [[0., 0., 4., 4.], [0., 0., 4., 2.], [0., 0., 2., 2.], [0., 0., 3., 1.], [9., 9., 10., 10.]];
        assert_eq!(m.assign(&truth, &boxes), [Truth(0), Truth(0), Ignored, Background, Background]);
    }

    #[test]
    fn ties_go_to_the_first_truth() {
        let truth = [[0., 0., 2., 2.], [0., 0., 2., 2.]];
        assert_eq!(RPN.assign(&truth, &[[0., 0., 2., 2.]]), [Truth(0)]);
    }

    #[test]
    fn every_truth_claims_its_best_boxes_ties_too() {
        let truth = [[0., 0., 10., 10.]];
        // Two boxes overlap it by a tenth each, one by less.
        let boxes = [[0., 0., 10., 1.], [0., 9., 10., 10.], [0., 0., 5., 1.], [20., 20., 30., 30.]];
        assert_eq!(RPN.assign(&truth, &boxes), [Truth(0), Truth(0), Background, Background]);
        let plain = Matcher { low_quality: false, ..RPN };
        assert_eq!(plain.assign(&truth, &boxes), [Background; 4]);
    }

    #[test]
    fn a_claimed_box_goes_to_its_own_best_truth() {
        // The one box that touches truth 1 overlaps truth 0 more.
        let truth = [[0., 0., 10., 10.], [9., 0., 30., 10.]];
        let boxes = [[0., 0., 11., 10.], [50., 50., 60., 60.]];
        assert_eq!(RPN.assign(&truth, &boxes), [Truth(0), Background]);
    }

    #[test]
    fn ignored_boxes_can_be_claimed() {
        let truth = [[0., 0., 10., 10.], [20., 0., 30., 10.]];
        let boxes = [[0., 0., 10., 10.], [20., 0., 30., 5.], [20., 0., 30., 4.]];
        assert_eq!(RPN.assign(&truth, &boxes), [Truth(0), Truth(1), Ignored]);
    }

    #[test]
    fn no_truth_is_all_background_and_a_far_truth_claims_nothing() {
        let boxes = [[0., 0., 1., 1.], [3., 3., 4., 4.]];
        assert_eq!(RPN.assign(&[], &boxes), [Background; 2]);
        assert_eq!(RPN.assign(&[[8., 8., 9., 9.]], &boxes), [Background; 2]);
        assert_eq!(RPN.assign(&[[8., 8., 9., 9.]], &[]), []);
        assert_eq!(split(&[Truth(0), Ignored, Background, Truth(2)]), (vec![0, 3], vec![2]));
    }
}
