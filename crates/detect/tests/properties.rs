//! What holds for any boxes: properties of matching, sampling and anchors, seen from outside.
#![allow(clippy::unwrap_used)]

use docent_detect::anchors::{base_anchors, grid_anchors};
use docent_detect::matcher::{Match, Matcher};
use docent_detect::testing::SplitMix;
use docent_detect::{BalancedPositiveNegativeSampler, SamplePurpose, Sampler, Size};
use docent_ops::BoxXyxy;
use docent_ops::boxes::iou;
use proptest::collection::vec;
use proptest::prelude::*;

/// Boxes on a coarse grid, so that equal overlaps, no overlap and boxes without an area are common.
fn boxes(most: usize) -> impl Strategy<Value = Vec<BoxXyxy>> {
    let one = (0u8..10, 0u8..10, 0u8..7, 0u8..7).prop_map(|(x, y, w, h)| {
        let [x, y, w, h] = [x, y, w, h].map(f32::from);
        [x, y, x + w, y + h]
    });
    vec(one, 0..most)
}

fn matcher() -> impl Strategy<Value = Matcher> {
    (0.05f32..0.5, 0f32..0.5, any::<bool>()).prop_map(|(bg_iou_threshold, more, allow_low_quality_matches)| Matcher {
        fg_iou_threshold: bg_iou_threshold + more,
        bg_iou_threshold,
        allow_low_quality_matches,
    })
}

/// The first of the truths that overlap `b` most, and by how much.
fn best(truths: &[BoxXyxy], b: &BoxXyxy) -> (usize, f32) {
    let mut best = (0, iou(&truths[0], b));
    for (g, t) in truths.iter().enumerate() {
        if iou(t, b) > best.1 {
            best = (g, iou(t, b));
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn a_match_is_the_box_s_own_best_truth(truths in boxes(6), boxes in boxes(25), m in matcher()) {
        let matches = m.assign(&truths, &boxes);
        prop_assert_eq!(matches.len(), boxes.len());
        for (found, b) in matches.iter().zip(&boxes) {
            if truths.is_empty() {
                prop_assert_eq!(*found, Match::Negative);
                continue;
            }
            let (g, overlap) = best(&truths, b);
            // Claimed: no other box overlaps one of the truths more than this one does.
            let claimed = m.allow_low_quality_matches
                && truths.iter().any(|t| iou(t, b) > 0.0 && boxes.iter().all(|other| iou(t, other) <= iou(t, b)));
            let expected = if overlap >= m.fg_iou_threshold || claimed {
                Match::Positive(g)
            } else if overlap < m.bg_iou_threshold {
                Match::Negative
            } else {
                Match::Ignore
            };
            prop_assert_eq!(*found, expected, "box {:?} of {:?}", b, truths);
        }
    }

    #[test]
    fn with_low_quality_every_truth_that_is_touched_has_a_box(truths in boxes(6), boxes in boxes(25), m in matcher()) {
        let matches = Matcher { allow_low_quality_matches: true, ..m }.assign(&truths, &boxes);
        for t in truths.iter().filter(|t| boxes.iter().any(|b| iou(t, b) > 0.0)) {
            let most = boxes.iter().map(|b| iou(t, b)).fold(0.0, f32::max);
            let claimed = |(found, b): (&Match, &BoxXyxy)| matches!(found, Match::Positive(_)) && iou(t, b) == most;
            prop_assert!(matches.iter().zip(&boxes).any(claimed));
        }
    }

    #[test]
    fn boxes_are_matched_each_for_itself(truths in boxes(6), boxes in boxes(25), m in matcher(), turn in 0usize..25) {
        let order: Vec<usize> = (0..boxes.len()).map(|i| (i + turn) % boxes.len().max(1)).rev().collect();
        let moved: Vec<BoxXyxy> = order.iter().map(|&i| boxes[i]).collect();
        let (there, here) = (m.assign(&truths, &moved), m.assign(&truths, &boxes));
        for (n, &i) in order.iter().enumerate() {
            prop_assert_eq!(there[n], here[i]);
        }
    }

    #[test]
    fn a_sample_is_of_the_candidates_without_repeats(
        seed in any::<u64>(), positives in 0usize..40, negatives in 0usize..40, a in 0usize..40, b in 0usize..40,
    ) {
        let (p, n): (Vec<usize>, Vec<usize>) = ((0..positives).map(|i| 2 * i).collect(), (0..negatives).map(|i| 2 * i + 1).collect());
        let (n_pos, n_neg) = (a.min(positives), b.min(negatives));
        let draw = || {
            let mut sampler = BalancedPositiveNegativeSampler::new(vec![SplitMix(seed)]);
            sampler.sample(SamplePurpose::Roi, 0, &p, &n, n_pos, n_neg)
        };
        let (chosen_p, chosen_n) = draw();
        prop_assert_eq!((chosen_p.len(), chosen_n.len()), (n_pos, n_neg));
        for (chosen, from) in [(&chosen_p, &p), (&chosen_n, &n)] {
            let distinct: std::collections::BTreeSet<_> = chosen.iter().collect();
            prop_assert_eq!(distinct.len(), chosen.len());
            prop_assert!(chosen.iter().all(|i| from.contains(i)));
        }
        prop_assert_eq!(draw(), (chosen_p, chosen_n));
    }

    #[test]
    fn anchors_of_a_grid_are_one_cell_s_moved(
        size in 4f32..200.0, ratios in vec(0.25f32..4.0, 1..4), rows in 1usize..6, columns in 1usize..6, stride in 1usize..40,
    ) {
        let base = base_anchors(size, &ratios);
        let all = grid_anchors(&base, Size::new(rows, columns), Size::new(stride, 2 * stride));
        prop_assert_eq!(all.len(), rows * columns * ratios.len());
        for (i, anchor) in all.iter().enumerate() {
            let (cell, b) = (i / base.len(), base[i % base.len()]);
            let (x, y) = ((cell % columns * 2 * stride) as f32, (cell / columns * stride) as f32);
            prop_assert_eq!(*anchor, [b[0] + x, b[1] + y, b[2] + x, b[3] + y]);
        }
        // Rounded to whole pixels, symmetric around the corner of the cell.
        for b in &base {
            prop_assert!(b.iter().all(|v| v.fract() == 0.0) && b[0] == -b[2] && b[1] == -b[3]);
        }
    }
}
