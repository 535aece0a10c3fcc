//! Axis-aligned boxes: area, overlap, clipping, and the small tests a detector asks of them.
//!
//! A box is `[x1, y1, x2, y2]` in pixels of an image that the caller names. Sides are `x2 - x1` and `y2 - y1`:
//! there is no "+1" anywhere, as in `torchvision.ops.boxes`. A box whose right edge lies left of its left edge (or whose
//! bottom lies above its top) is *empty*: its area is 0, where torchvision would multiply two negative sides.

use crate::BoxXyxy;

/// The greater of two numbers, without `f32::max`'s care for NaN, which keeps a loop from being vectorised.
#[inline(always)]
pub(crate) fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The lesser of two numbers; see [`greater`].
#[inline(always)]
pub(crate) fn lesser(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// Width and height in pixels; 0 for a side that runs backwards.
#[inline]
pub fn sides(b: &BoxXyxy) -> (f32, f32) {
    // Not f32::max: a NaN must reach the area, and with it keep `ratio` at 0.
    let side = |d: f32| if d < 0.0 { 0.0 } else { d };
    (side(b[2] - b[0]), side(b[3] - b[1]))
}

/// The centre `(x, y)` in pixels.
#[inline]
pub fn center(b: &BoxXyxy) -> (f32, f32) {
    (b[0] + 0.5 * (b[2] - b[0]), b[1] + 0.5 * (b[3] - b[1]))
}

/// Area in square pixels; 0 for an empty box, NaN for one with a NaN coordinate.
#[inline]
pub fn area(b: &BoxXyxy) -> f32 {
    let (w, h) = sides(b);
    w * h
}

/// Area of the part that `a` and `b` share, in square pixels.
#[inline]
fn intersection(a: &BoxXyxy, b: &BoxXyxy) -> f32 {
    let w = greater(lesser(a[2], b[2]) - greater(a[0], b[0]), 0.0);
    let h = greater(lesser(a[3], b[3]) - greater(a[1], b[1]), 0.0);
    w * h
}

/// `inter / (area_a + area_b - inter)`, and 0 where that is 0/0.
///
/// The order of the operations is torchvision's. In it the union never rounds below the intersection, so the result
/// stays within 0..=1.
#[inline(always)]
pub(crate) fn ratio(inter: f32, area_a: f32, area_b: f32) -> f32 {
    let r = inter / (area_a + area_b - inter);
    if r > 0.0 { r } else { 0.0 }
}

/// Intersection over union, within 0..=1.
///
/// Two empty boxes have 0, never NaN; so has a box with a coordinate that is NaN.
#[inline]
pub fn iou(a: &BoxXyxy, b: &BoxXyxy) -> f32 {
    ratio(intersection(a, b), area(a), area(b))
}

/// Every [`iou`] between two lists.
///
/// # Shapes
/// `a`: N boxes, `b`: M; the result is \[N, M\], row-major: that of `a[i]` and `b[j]` stands at `i * M + j`.
pub fn pairwise_iou(a: &[BoxXyxy], b: &[BoxXyxy]) -> Vec<f32> {
    let area_b: Vec<f32> = b.iter().map(area).collect();
    let mut out = Vec::with_capacity(a.len() * b.len());
    for x in a {
        let area_x = area(x);
        out.extend(b.iter().zip(&area_b).map(|(y, &area_y)| ratio(intersection(x, y), area_x, area_y)));
    }
    out
}

/// Generalised intersection over union, within -1..=1: `iou - (hull - union) / hull`, where `hull` is the area of the
/// smallest box around both (Rezatofighi et al., CVPR 2019, algorithm 1).
///
/// A hull without area takes nothing off: the result is then the [`iou`], 0.
pub fn giou(a: &BoxXyxy, b: &BoxXyxy) -> f32 {
    let inter = intersection(a, b);
    let (area_a, area_b) = (area(a), area(b));
    let union = area_a + area_b - inter;
    let hull = area(&[a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])]);
    let overlap = ratio(inter, area_a, area_b);
    if hull > 0.0 { overlap - (hull - union).max(0.0) / hull } else { overlap }
}

/// The box cut to an image of `size` = (height, width) pixels: x into 0..=width, y into 0..=height.
///
/// A coordinate that is NaN stays NaN.
#[inline]
pub fn clip(b: &BoxXyxy, size: (f32, f32)) -> BoxXyxy {
    let (h, w) = size;
    let within = |v: f32, end: f32| {
        if v < 0.0 {
            0.0
        } else if v > end {
            end
        } else {
            v
        }
    };
    [within(b[0], w), within(b[1], h), within(b[2], w), within(b[3], h)]
}

/// [`clip`] for each box, in place.
pub fn clip_all(boxes: &mut [BoxXyxy], size: (f32, f32)) {
    for b in boxes {
        *b = clip(b, size);
    }
}

/// Whether a side is shorter than `min_size` pixels (or NaN): such a box is dropped by torchvision's
/// `remove_small_boxes`.
#[inline]
pub fn is_small(b: &BoxXyxy, min_size: f32) -> bool {
    !(b[2] - b[0] >= min_size && b[3] - b[1] >= min_size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: BoxXyxy = [0.0, 0.0, 10.0, 10.0];

    #[test]
    fn overlap_of_known_boxes() {
        assert_eq!(area(&[1.0, 2.0, 4.0, 8.0]), 18.0);
        assert_eq!(center(&[1.0, 2.0, 4.0, 8.0]), (2.5, 5.0));
        assert_eq!(iou(&A, &A), 1.0);
        assert_eq!(iou(&A, &[5.0, 0.0, 15.0, 10.0]), 50.0 / 150.0);
        assert_eq!(iou(&A, &[10.0, 0.0, 20.0, 10.0]), 0.0);
        assert_eq!(iou(&A, &[0.0, 0.0, 5.0, 5.0]), 0.25);
    }

    #[test]
    fn empty_boxes_have_no_overlap_and_no_nan() {
        let point = [3.0, 3.0, 3.0, 3.0];
        assert_eq!(iou(&point, &point), 0.0);
        assert_eq!(giou(&point, &point), 0.0);
        assert_eq!(iou(&A, &point), 0.0);
        let inverted = [5.0, 5.0, 2.0, 2.0];
        assert_eq!(area(&inverted), 0.0);
        assert_eq!(iou(&inverted, &inverted), 0.0);
        assert_eq!(iou(&A, &[f32::NAN, 0.0, 1.0, 1.0]), 0.0);
        assert_eq!(pairwise_iou(&[point], &[point, A]), [0.0, 0.0]);
        assert!(pairwise_iou(&[], &[A]).is_empty());
    }

    #[test]
    fn pairs_are_row_major() {
        let b = [[5.0, 0.0, 15.0, 10.0], [0.0, 0.0, 5.0, 5.0], A];
        let a = [A, [100.0, 100.0, 101.0, 101.0]];
        assert_eq!(pairwise_iou(&a, &b), [50.0 / 150.0, 0.25, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn giou_of_known_boxes() {
        assert_eq!(giou(&A, &A), 1.0);
        // Hull 300, union 200.
        assert_eq!(giou(&A, &[20.0, 0.0, 30.0, 10.0]), -100.0 / 300.0);
        // torchvision.ops.generalized_box_iou.
        let g = giou(&[1.0, 2.0, 7.5, 9.0], &[3.0, 4.5, 12.0, 10.0]);
        assert!((g - 0.120_334_8).abs() < 1e-6, "{g}");
    }

    #[test]
    fn smallness_counts_either_side_and_nan() {
        assert!(!is_small(&[0.0, 0.0, 2.0, 2.0], 2.0));
        assert!(is_small(&[0.0, 0.0, 1.9, 5.0], 2.0));
        assert!(is_small(&[0.0, 0.0, 5.0, 1.9], 2.0));
        assert!(is_small(&[0.0, f32::NAN, 5.0, 5.0], 2.0));
    }

    #[test]
    fn clipping_uses_height_for_y() {
        assert_eq!(clip(&[-3.0, -4.0, 50.0, 60.0], (20.0, 30.0)), [0.0, 0.0, 30.0, 20.0]);
        assert!(clip(&[f32::NAN, 0.0, 1.0, 1.0], (20.0, 30.0))[0].is_nan());
    }

    fn any_box() -> impl Strategy<Value = BoxXyxy> {
        (-50f32..150.0, -50f32..150.0, -5f32..120.0, -5f32..120.0).prop_map(|(x, y, w, h)| [x, y, x + w, y + h])
    }

    /// IoU by counting, in f64, without a shared line of code.
    fn naive_iou(a: &BoxXyxy, b: &BoxXyxy) -> f64 {
        let side = |lo: f32, hi: f32| (hi as f64 - lo as f64).max(0.0);
        let inter = side(a[0].max(b[0]), a[2].min(b[2])) * side(a[1].max(b[1]), a[3].min(b[3]));
        let union = side(a[0], a[2]) * side(a[1], a[3]) + side(b[0], b[2]) * side(b[1], b[3]) - inter;
        if union > 0.0 { inter / union } else { 0.0 }
    }

    proptest! {
        #[test]
        fn iou_is_symmetric_and_within_0_and_1(a in any_box(), b in any_box()) {
            let v = iou(&a, &b);
            prop_assert_eq!(v, iou(&b, &a));
            prop_assert!((0.0..=1.0).contains(&v));
            prop_assert!((v as f64 - naive_iou(&a, &b)).abs() < 1e-4);
            prop_assert_eq!(pairwise_iou(&[a], &[b])[0], v);
        }

        #[test]
        fn iou_with_itself_is_1(a in any_box()) {
            let expected = if area(&a) > 0.0 { 1.0 } else { 0.0 };
            prop_assert_eq!(iou(&a, &a), expected);
        }

        #[test]
        fn giou_is_symmetric_and_at_most_iou(a in any_box(), b in any_box()) {
            let v = giou(&a, &b);
            prop_assert_eq!(v, giou(&b, &a));
            prop_assert!((-1.0..=1.0).contains(&v));
            prop_assert!(v <= iou(&a, &b));
        }

        #[test]
        fn a_clipped_box_lies_inside_and_stays(a in any_box(), h in 1f32..100.0, w in 1f32..100.0) {
            let c = clip(&a, (h, w));
            prop_assert!(c[0] >= 0.0 && c[2] <= w && c[1] >= 0.0 && c[3] <= h);
            prop_assert_eq!(clip(&c, (h, w)), c);
            prop_assert!(area(&c) <= area(&a));
            let mut all = [a, a];
            clip_all(&mut all, (h, w));
            prop_assert_eq!(all, [c, c]);
        }
    }
}
