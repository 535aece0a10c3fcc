//! Assigns ground truths to boxes by IoU, as torchvision's `Matcher` does.

use docent_ops::BoxXyxy;
use docent_ops::boxes::iou;

/// What a box was assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The ground truth of this index.
    Positive(usize),
    /// No ground truth comes near: background.
    Negative,
    /// Between the thresholds: neither positive nor negative.
    Ignore,
}

/// The thresholds of an assignment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matcher {
    /// A box whose best IoU is at least this takes that ground truth.
    pub fg_iou_threshold: f32,
    /// A box whose best IoU is below this is background.
    pub bg_iou_threshold: f32,
    /// Whether each ground truth also claims the boxes that overlap it most, however little that is.
    pub allow_low_quality_matches: bool,
}

impl Matcher {
    /// A match for each box. Among equal IoUs the first ground truth wins. Without ground truth all is background.
    ///
    /// With `allow_low_quality_matches`, every box that reaches a ground truth's largest IoU (ties too) is matched, *to its own best*
    /// ground truth, which need not be the claimant: torchvision's rule. One thing differs: a ground truth that
    /// overlaps no box at all claims nothing here, while in torchvision it would claim every box with IoU 0.
    pub fn assign(&self, truths: &[BoxXyxy], boxes: &[BoxXyxy]) -> Vec<Match> {
        if truths.is_empty() {
            return vec![Match::Negative; boxes.len()];
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
                if v < self.bg_iou_threshold {
                    Match::Negative
                } else if v < self.fg_iou_threshold {
                    Match::Ignore
                } else {
                    Match::Positive(g)
                }
            })
            .collect();
        if self.allow_low_quality_matches {
            // A claimed box has at least the claimant's largest IoU, so that only few boxes are looked at again.
            let least = claims.iter().copied().filter(|&c| c > 0.0).fold(f32::INFINITY, f32::min);
            for ((m, &(v, g)), b) in matches.iter_mut().zip(&best).zip(boxes) {
                if v >= least
                    && !matches!(m, Match::Positive(_))
                    && truths.iter().zip(&claims).any(|(t, &c)| c > 0.0 && iou(t, b) == c)
                {
                    *m = Match::Positive(g);
                }
            }
        }
        matches
    }
}

/// The indices of the positives and of the negatives, ascending.
pub(crate) fn split(matches: &[Match]) -> (Vec<usize>, Vec<usize>) {
    let pick = |want: fn(&Match) -> bool| matches.iter().enumerate().filter(|(_, m)| want(m)).map(|(i, _)| i).collect();
    (pick(|m| matches!(m, Match::Positive(_))), pick(|m| *m == Match::Negative))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Match::{Ignore, Negative, Positive};

    const RPN: Matcher = Matcher { fg_iou_threshold: 0.7, bg_iou_threshold: 0.3, allow_low_quality_matches: true };

    #[test]
    fn thresholds_are_closed_below() {
        let m = Matcher { fg_iou_threshold: 0.5, bg_iou_threshold: 0.25, allow_low_quality_matches: false };
        let truth = [[0., 0., 4., 4.]];
        // IoU 1, exactly 1/2, exactly 1/4, 3/16, 0.
        let boxes = [[0., 0., 4., 4.], [0., 0., 4., 2.], [0., 0., 2., 2.], [0., 0., 3., 1.], [9., 9., 10., 10.]];
        assert_eq!(m.assign(&truth, &boxes), [Positive(0), Positive(0), Ignore, Negative, Negative]);
    }

    #[test]
    fn ties_go_to_the_first_truth() {
        let truth = [[0., 0., 2., 2.], [0., 0., 2., 2.]];
        assert_eq!(RPN.assign(&truth, &[[0., 0., 2., 2.]]), [Positive(0)]);
    }

    #[test]
    fn every_truth_claims_its_best_boxes_ties_too() {
        let truth = [[0., 0., 10., 10.]];
        // Two boxes overlap it by a tenth each, one by less.
        let boxes = [[0., 0., 10., 1.], [0., 9., 10., 10.], [0., 0., 5., 1.], [20., 20., 30., 30.]];
        assert_eq!(RPN.assign(&truth, &boxes), [Positive(0), Positive(0), Negative, Negative]);
        let plain = Matcher { allow_low_quality_matches: false, ..RPN };
        assert_eq!(plain.assign(&truth, &boxes), [Negative; 4]);
    }

    #[test]
    fn a_claimed_box_goes_to_its_own_best_truth() {
        // The one box that touches truth 1 overlaps truth 0 more.
        let truth = [[0., 0., 10., 10.], [9., 0., 30., 10.]];
        let boxes = [[0., 0., 11., 10.], [50., 50., 60., 60.]];
        assert_eq!(RPN.assign(&truth, &boxes), [Positive(0), Negative]);
    }

    #[test]
    fn ignored_boxes_can_be_claimed() {
        let truth = [[0., 0., 10., 10.], [20., 0., 30., 10.]];
        let boxes = [[0., 0., 10., 10.], [20., 0., 30., 5.], [20., 0., 30., 4.]];
        assert_eq!(RPN.assign(&truth, &boxes), [Positive(0), Positive(1), Ignore]);
    }

    #[test]
    fn no_truth_is_all_background_and_a_far_truth_claims_nothing() {
        let boxes = [[0., 0., 1., 1.], [3., 3., 4., 4.]];
        assert_eq!(RPN.assign(&[], &boxes), [Negative; 2]);
        assert_eq!(RPN.assign(&[[8., 8., 9., 9.]], &boxes), [Negative; 2]);
        assert_eq!(RPN.assign(&[[8., 8., 9., 9.]], &[]), []);
        assert_eq!(split(&[Positive(0), Ignore, Negative, Positive(2)]), (vec![0, 3], vec![2]));
    }
}
