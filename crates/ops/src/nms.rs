//! Greedy non-maximum suppression, over all boxes or class by class.

use crate::BoxXyxy;
use crate::boxes::{area, greater, lesser, ratio};
use crate::simd::wide;
use crate::topk::descending;

/// The boxes that survive greedy suppression: a box falls if its IoU with a better, surviving one is above
/// `iou_threshold`. Indices by descending score (ties: lower index first).
///
/// As `torchvision.ops.nms`, with these points settled: a score that is NaN comes after all others; a box that is empty
/// or has a NaN coordinate overlaps nothing, so it neither falls nor fells another (see [`crate::boxes::iou`]).
/// Takes O(n²) at worst; the result does not depend on the number of threads.
///
/// ```
/// let boxes = [[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [20.0, 0.0, 30.0, 10.0]];
/// assert_eq!(docent_ops::nms(&boxes, &[0.6, 0.9, 0.3], 0.5), [1, 2]);
/// ```
///
/// # Shapes
/// `boxes` and `scores` have one entry a box. If one slice is longer, its surplus is left out.
pub fn nms(boxes: &[BoxXyxy], scores: &[f32], iou_threshold: f32) -> Vec<usize> {
    let n = boxes.len().min(scores.len());
    let order = descending(&scores[..n]);
    let keep = survivors(boxes, &order, iou_threshold);
    order.into_iter().zip(keep).filter_map(|(i, kept)| kept.then_some(i)).collect()
}

/// [`nms`] within each class: boxes of different classes never suppress each other. Indices of the survivors of all
/// classes by descending score (ties: lower index first).
///
/// A class may be any number that groups boxes (the RPN groups by pyramid level). Torchvision shifts each class to a
/// place of its own and suppresses once, which costs a few bits of the coordinates; here each class is compared as it is.
///
/// # Shapes
/// `boxes`, `scores` and `classes` have one entry a box. If a slice is longer than another, its surplus is left out.
pub fn batched_nms(boxes: &[BoxXyxy], scores: &[f32], classes: &[usize], iou_threshold: f32) -> Vec<usize> {
    let n = boxes.len().min(scores.len()).min(classes.len());
    let order = descending(&scores[..n]);
    // Places in `order`, grouped by class; the stable sort leaves each group in descending score.
    let mut places: Vec<usize> = (0..n).collect();
    places.sort_by_key(|&p| classes[order[p]]);
    let mut keep = vec![false; n];
    for group in places.chunk_by(|&p, &q| classes[order[p]] == classes[order[q]]) {
        let members: Vec<usize> = group.iter().map(|&p| order[p]).collect();
        for (&place, kept) in group.iter().zip(survivors(boxes, &members, iou_threshold)) {
            keep[place] = kept;
        }
    }
    order.into_iter().zip(keep).filter_map(|(i, kept)| kept.then_some(i)).collect()
}

/// For each place of `order` (indices of boxes, best first), whether its box survives.
fn survivors(boxes: &[BoxXyxy], order: &[usize], iou_threshold: f32) -> Vec<bool> {
    // One array a coordinate, in order of score: the inner loop then runs over plain, neighbouring floats.
    let column = |f: &dyn Fn(&BoxXyxy) -> f32| order.iter().map(|&i| f(&boxes[i])).collect::<Vec<f32>>();
    let columns = [column(&|b| b[0]), column(&|b| b[1]), column(&|b| b[2]), column(&|b| b[3]), column(&area)];
    let mut dead = vec![0u8; order.len()];
    for i in 0..order.len() {
        if dead[i] == 0 {
            let rest = [0, 1, 2, 3, 4].map(|k| &columns[k][i + 1..]);
            suppress(columns.each_ref().map(|c| c[i]), rest, &mut dead[i + 1..], iou_threshold);
        }
    }
    dead.into_iter().map(|d| d == 0).collect()
}

wide! {
    /// Marks those of `rest` (x1, y1, x2, y2, area) whose IoU with `best` is above the threshold.
    fn suppress(best: [f32; 5], rest: [&[f32]; 5], dead: &mut [u8], threshold: f32) {
        let m = dead.len();
        // Equal lengths that the compiler can see free the loop from bounds checks.
        let [x1, y1, x2, y2, areas] = rest.map(|c| &c[..m]);
        let dead = &mut dead[..m];
        for j in 0..m {
            let w = greater(lesser(best[2], x2[j]) - greater(best[0], x1[j]), 0.0);
            let h = greater(lesser(best[3], y2[j]) - greater(best[1], y1[j]), 0.0);
            dead[j] |= u8::from(ratio(w * h, best[4], areas[j]) > threshold);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boxes::iou;
    use proptest::prelude::*;

    /// The definition: take the best, compare it with everything taken before.
    fn naive(boxes: &[BoxXyxy], scores: &[f32], classes: &[usize], threshold: f32) -> Vec<usize> {
        let mut order: Vec<usize> = (0..boxes.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut kept: Vec<usize> = Vec::new();
        for i in order {
            if kept.iter().all(|&k| classes[k] != classes[i] || iou(&boxes[k], &boxes[i]) <= threshold) {
                kept.push(i);
            }
        }
        kept
    }

    #[test]
    fn the_better_box_wins_and_a_dead_box_kills_nobody() {
        // The second overlaps the first and the third; the third overlaps the second only.
        let b = [[0.0, 0.0, 10.0, 10.0], [4.0, 0.0, 14.0, 10.0], [8.0, 0.0, 18.0, 10.0]];
        assert_eq!(nms(&b, &[0.9, 0.8, 0.7], 0.3), [0, 2]);
        assert_eq!(nms(&b, &[0.8, 0.9, 0.7], 0.3), [1]);
        assert_eq!(batched_nms(&b, &[0.8, 0.9, 0.7], &[1, 2, 1], 0.3), [1, 0, 2]);
    }

    /// Indices of torchvision 0.29's `nms` and `batched_nms`.
    #[test]
    fn indices_are_torchvisions() {
        let side = |at: usize, base: usize, extra: usize| (at as f32, (at + base + extra) as f32);
        let boxes: Vec<BoxXyxy> = (0..12)
            .map(|i| {
                let (x1, x2) = side(i * 29 % 40, 15, i * 7 % 13);
                let (y1, y2) = side(i * 17 % 30, 12, i * 5 % 11);
                [x1, y1, x2, y2]
            })
            .collect();
        let scores: Vec<f32> = (0..12).map(|i| (i * 23 % 31) as f32 / 31.0).collect();
        let classes: Vec<usize> = (0..12).map(|i| i % 3).collect();
        assert_eq!(nms(&boxes, &scores, 0.1), [4, 5, 2, 3, 0]);
        assert_eq!(nms(&boxes, &scores, 0.3), [4, 5, 9, 2, 10, 7, 11, 0]);
        assert_eq!(nms(&boxes, &scores, 0.5), [4, 8, 5, 9, 2, 6, 10, 7, 11, 0]);
        assert_eq!(batched_nms(&boxes, &scores, &classes, 0.1), [4, 8, 9, 2, 6, 10, 11, 0]);
        assert_eq!(batched_nms(&boxes, &scores, &classes, 0.3), [4, 8, 9, 2, 6, 10, 7, 11, 0]);
        assert_eq!(batched_nms(&boxes, &scores, &classes, 0.5), [4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, 0]);
    }

    #[test]
    fn overlap_at_the_threshold_stays() {
        let b = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0]];
        assert_eq!(nms(&b, &[0.9, 0.8], 0.5), [0, 1]);
        assert_eq!(nms(&b, &[0.9, 0.8], 0.499), [0]);
    }

    #[test]
    fn odd_input() {
        assert!(nms(&[], &[], 0.5).is_empty());
        assert!(batched_nms(&[], &[], &[], 0.5).is_empty());
        let b = [[0.0, 0.0, 10.0, 10.0]; 3];
        // Equal scores: the first survives. NaN: last, and suppressed like any other.
        assert_eq!(nms(&b, &[0.5, 0.5, 0.5], 0.5), [0]);
        assert_eq!(nms(&b, &[f32::NAN, 0.1, f32::NEG_INFINITY], 0.5), [1]);
        assert_eq!(nms(&b, &[f32::NAN; 3], 1.0), [0, 1, 2]);
        // Empty boxes overlap nothing, not even themselves.
        let e = [[5.0, 5.0, 5.0, 5.0]; 2];
        assert_eq!(nms(&e, &[0.5, 0.6], 0.0), [1, 0]);
        let nan = [[f32::NAN, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]];
        assert_eq!(nms(&nan, &[0.6, 0.5], 0.1), [0, 1]);
        // A surplus is left out.
        assert_eq!(nms(&b, &[0.5], 1.0), [0]);
        assert_eq!(batched_nms(&b, &[0.5; 3], &[1, 2], 0.1), [0, 1]);
    }

    type Scene = (Vec<BoxXyxy>, Vec<f32>, Vec<usize>);

    fn scene() -> impl Strategy<Value = Scene> {
        let one = (0f32..60.0, 0f32..60.0, 1f32..40.0, 1f32..40.0, 0u32..20, 0usize..3)
            .prop_map(|(x, y, w, h, s, c)| ([x, y, x + w, y + h], s as f32 / 20.0, c));
        prop::collection::vec(one, 0..40).prop_map(|v| {
            let mut out: Scene = Default::default();
            for (b, s, c) in v {
                out.0.push(b);
                out.1.push(s);
                out.2.push(c);
            }
            out
        })
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition((b, s, c) in scene(), t in 0.05f32..0.9) {
            prop_assert_eq!(batched_nms(&b, &s, &c, t), naive(&b, &s, &c, t));
            prop_assert_eq!(nms(&b, &s, t), naive(&b, &s, &vec![0; b.len()], t));
        }

        #[test]
        fn a_second_pass_changes_nothing((b, s, c) in scene(), t in 0.05f32..0.9) {
            let kept = batched_nms(&b, &s, &c, t);
            let b: Vec<BoxXyxy> = kept.iter().map(|&i| b[i]).collect();
            let s: Vec<f32> = kept.iter().map(|&i| s[i]).collect();
            let c: Vec<usize> = kept.iter().map(|&i| c[i]).collect();
            prop_assert_eq!(batched_nms(&b, &s, &c, t), (0..b.len()).collect::<Vec<_>>());
        }

        #[test]
        fn one_class_is_plain_nms((b, s, _) in scene(), t in 0.05f32..0.9) {
            prop_assert_eq!(batched_nms(&b, &s, &vec![7; b.len()], t), nms(&b, &s, t));
        }
    }
}
