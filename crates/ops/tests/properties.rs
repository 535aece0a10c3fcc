//! What holds for any boxes, scores and maps: properties of boxes, NMS and RoIAlign, seen from outside.
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor, Var};
use docent_ops::boxes::{area, clip, iou, pairwise_iou};
use docent_ops::{BoxCoder, BoxXyxy, RoiAlignParams, batched_nms, nms, roi_align};
use proptest::collection::vec;
use proptest::prelude::*;

/// A box with sides from nothing to 60 pixels, around a place of 100x100.
fn any_box() -> impl Strategy<Value = BoxXyxy> {
    (-20f32..100.0, -20f32..100.0, 0f32..60.0, 0f32..60.0).prop_map(|(x, y, w, h)| [x, y, x + w, y + h])
}

/// A box with sides of at least a pixel.
fn solid_box() -> impl Strategy<Value = BoxXyxy> {
    (0f32..100.0, 0f32..100.0, 1f32..60.0, 1f32..60.0).prop_map(|(x, y, w, h)| [x, y, x + w, y + h])
}

/// Boxes on a coarse grid, so that equal ones and equal overlaps are common, with scores that tie and three classes.
fn crowd() -> impl Strategy<Value = Vec<(BoxXyxy, f32, usize)>> {
    let one = (0u8..8, 0u8..8, 0u8..6, 0u8..6, 0u8..5, 0usize..3).prop_map(|(x, y, w, h, s, c)| {
        let [x, y, w, h] = [x, y, w, h].map(f32::from);
        ([x, y, x + w, y + h], f32::from(s) / 4.0, c)
    });
    vec(one, 0..30)
}

/// What a diverging model or a broken file can hand over: sides that run backwards, NaN, infinities, numbers whose squares overflow.
fn broken_box() -> impl Strategy<Value = BoxXyxy> {
    let edge = prop_oneof![
        4 => -50f32..150.0,
        1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e30, -0.0]),
    ];
    [edge.clone(), edge.clone(), edge.clone(), edge]
}

fn columns(crowd: &[(BoxXyxy, f32, usize)]) -> (Vec<BoxXyxy>, Vec<f32>, Vec<usize>) {
    (crowd.iter().map(|c| c.0).collect(), crowd.iter().map(|c| c.1).collect(), crowd.iter().map(|c| c.2).collect())
}

fn near(a: f32, b: f32, tolerance: f32) -> bool {
    (a - b).abs() <= tolerance * (1.0 + a.abs().max(b.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn overlap_is_at_most_the_ratio_of_the_areas(a in any_box(), b in any_box()) {
        let (small, large) = (area(&a).min(area(&b)), area(&a).max(area(&b)));
        let most = if large > 0.0 { small / large } else { 0.0 };
        prop_assert!(iou(&a, &b) <= most * (1.0 + 1e-5) + 1e-6);
    }

    #[test]
    fn a_box_inside_another_overlaps_it_by_the_ratio_of_the_areas(
        a in solid_box(), l in 0f32..0.5, t in 0f32..0.5, r in 0f32..0.5, b in 0f32..0.5,
    ) {
        let (w, h) = (a[2] - a[0], a[3] - a[1]);
        let inner = [a[0] + l * w, a[1] + t * h, a[2] - r * w, a[3] - b * h];
        prop_assert!(near(iou(&a, &inner), area(&inner) / area(&a), 1e-3));
    }

    #[test]
    fn overlap_is_blind_to_doubling_and_to_mirrors(a in any_box(), b in any_box()) {
        let double = |b: &BoxXyxy| b.map(|v| 2.0 * v);
        let mirror = |b: &BoxXyxy| [-b[2], b[1], -b[0], b[3]];
        let turn = |b: &BoxXyxy| [b[1], b[0], b[3], b[2]];
        // A power of two changes no rounding; neither does a sign or the order of the axes.
        prop_assert_eq!(iou(&double(&a), &double(&b)), iou(&a, &b));
        prop_assert_eq!(iou(&mirror(&a), &mirror(&b)), iou(&a, &b));
        prop_assert_eq!(iou(&turn(&a), &turn(&b)), iou(&a, &b));
    }

    #[test]
    fn broken_boxes_have_an_overlap_all_the_same(a in broken_box(), b in broken_box()) {
        let overlap = iou(&a, &b);
        prop_assert!((0.0..=1.0).contains(&overlap), "{overlap}");
        prop_assert_eq!(overlap, iou(&b, &a));
        if a.iter().any(|v| v.is_nan()) || a[2] < a[0] || a[3] < a[1] {
            prop_assert_eq!(overlap, 0.0);
        }
    }

    #[test]
    fn broken_boxes_and_scores_leave_a_list_of_survivors(
        crowd in vec((broken_box(), prop_oneof![3 => 0f32..1.0, 1 => Just(f32::NAN)], 0usize..3), 0..30), threshold in 0f32..1.0,
    ) {
        let (boxes, scores, classes) = columns(&crowd);
        let kept = batched_nms(&boxes, &scores, &classes, threshold);
        prop_assert!(kept.iter().all(|&i| i < boxes.len()));
        // Best first, NaN last.
        prop_assert!(kept.windows(2).all(|w| scores[w[0]] >= scores[w[1]] || scores[w[1]].is_nan()));
        for (n, &i) in kept.iter().enumerate() {
            prop_assert!(kept[..n].iter().all(|&j| i != j && (classes[i] != classes[j] || iou(&boxes[i], &boxes[j]) <= threshold)));
        }
        // Nobody falls but by an overlap.
        for i in (0..boxes.len()).filter(|i| !kept.contains(i)) {
            prop_assert!(kept.iter().any(|&j| classes[i] == classes[j] && iou(&boxes[i], &boxes[j]) > threshold));
        }
    }

    #[test]
    fn clipping_both_boxes_to_an_image_around_them_changes_nothing(a in solid_box(), b in solid_box()) {
        let image = (200.0, 300.0);
        prop_assert_eq!(clip(&a, image), a);
        prop_assert_eq!(iou(&clip(&a, image), &clip(&b, image)), iou(&a, &b));
    }

    #[test]
    fn the_table_of_overlaps_is_the_other_one_s_mirror(a in vec(any_box(), 0..9), b in vec(any_box(), 0..9)) {
        let (ab, ba) = (pairwise_iou(&a, &b), pairwise_iou(&b, &a));
        prop_assert_eq!(ab.len(), a.len() * b.len());
        for i in 0..a.len() {
            for j in 0..b.len() {
                prop_assert_eq!(ab[i * b.len() + j], ba[j * a.len() + i]);
                prop_assert_eq!(ab[i * b.len() + j], iou(&a[i], &b[j]));
            }
        }
    }

    #[test]
    fn decoding_undoes_encoding(a in solid_box(), b in solid_box(), w in 1f32..10.0) {
        let coder = BoxCoder::new([w, w, w / 2.0, w / 2.0]);
        let back = coder.decode(&coder.encode(&a, &b), &b);
        for (x, y) in back.iter().zip(&a) {
            prop_assert!(near(*x, *y, 1e-3), "{back:?} for {a:?}");
        }
    }

    #[test]
    fn survivors_do_not_overlap_and_the_fallen_have_a_better_survivor(crowd in crowd(), threshold in 0f32..1.0) {
        let (boxes, scores, _) = columns(&crowd);
        let kept = nms(&boxes, &scores, threshold);
        prop_assert!(kept.windows(2).all(|w| scores[w[0]] > scores[w[1]] || (scores[w[0]] == scores[w[1]] && w[0] < w[1])));
        for (n, &i) in kept.iter().enumerate() {
            prop_assert!(kept[..n].iter().all(|&j| iou(&boxes[i], &boxes[j]) <= threshold));
        }
        for i in (0..boxes.len()).filter(|i| !kept.contains(i)) {
            let better = |j: usize| scores[j] > scores[i] || (scores[j] == scores[i] && j < i);
            prop_assert!(kept.iter().any(|&j| better(j) && iou(&boxes[i], &boxes[j]) > threshold), "{i} fell to nobody");
        }
    }

    #[test]
    fn classes_do_not_see_each_other(crowd in crowd(), threshold in 0f32..1.0) {
        let (boxes, scores, classes) = columns(&crowd);
        let mut together = batched_nms(&boxes, &scores, &classes, threshold);
        let mut apart = Vec::new();
        for class in 0..3 {
            let members: Vec<usize> = (0..boxes.len()).filter(|&i| classes[i] == class).collect();
            let (b, s): (Vec<_>, Vec<_>) = members.iter().map(|&i| (boxes[i], scores[i])).unzip();
            apart.extend(nms(&b, &s, threshold).into_iter().map(|n| members[n]));
        }
        together.sort_unstable();
        apart.sort_unstable();
        prop_assert_eq!(together, apart);
    }

    #[test]
    fn the_order_of_boxes_with_different_scores_does_not_matter(
        boxes in vec(any_box(), 1..20), threshold in 0f32..1.0, turn in 0usize..20,
    ) {
        let scores: Vec<f32> = (0..boxes.len()).map(|i| (i * 7 % 23) as f32).collect();
        let order: Vec<usize> = (0..boxes.len()).map(|i| (i + turn) % boxes.len()).rev().collect();
        let (b, s): (Vec<_>, Vec<_>) = order.iter().map(|&i| (boxes[i], scores[i])).unzip();
        let moved: Vec<usize> = nms(&b, &s, threshold).into_iter().map(|n| order[n]).collect();
        prop_assert_eq!(moved, nms(&boxes, &scores, threshold));
    }
}

/// Two images of two channels, 6x5 cells.
const MAP: (usize, usize, usize, usize) = (2, 2, 6, 5);
const CELLS: usize = 2 * 2 * 6 * 5;

fn map() -> impl Strategy<Value = Vec<f32>> {
    vec(-4f32..4.0, CELLS)
}

fn params() -> impl Strategy<Value = RoiAlignParams> {
    (1usize..4, 0usize..4, any::<bool>()).prop_map(|(output, sampling_ratio, aligned)| RoiAlignParams {
        output,
        spatial_scale: 0.25,
        sampling_ratio,
        aligned,
    })
}

/// RoIs in pixels of an image of 24x20, some of them partly outside of it.
fn rois() -> impl Strategy<Value = Vec<(usize, BoxXyxy)>> {
    let one = (0usize..2, -6f32..20.0, -6f32..24.0, 0f32..20.0, 0f32..20.0)
        .prop_map(|(image, x, y, w, h)| (image, [x, y, x + w, y + h]));
    vec(one, 0..6)
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, MAP, &Device::Cpu).unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn aligned_values_lie_within_the_map_s_range(map in map(), rois in rois(), p in params()) {
        // A sample outside of the map counts as 0.
        let (least, most) = map.iter().fold((0f32, 0f32), |(a, b), &v| (a.min(v), b.max(v)));
        let out = values(&roi_align(&tensor(&map), &rois, &p).unwrap());
        prop_assert_eq!(out.len(), rois.len() * MAP.1 * p.output * p.output);
        prop_assert!(out.iter().all(|v| *v >= least - 1e-4 && *v <= most + 1e-4));
    }

    #[test]
    fn a_constant_map_gives_its_constant_inside(
        constant in -4f32..4.0, x in 4f32..12.0, y in 4f32..14.0, w in 0f32..4.0, h in 0f32..6.0, p in params(),
    ) {
        let out = values(&roi_align(&tensor(&[constant; CELLS]), &[(1, [x, y, x + w, y + h])], &p).unwrap());
        prop_assert!(out.iter().all(|v| near(*v, constant, 1e-5)), "{out:?}");
    }

    #[test]
    fn it_is_linear_in_the_map(a in map(), b in map(), k in -3f32..3.0, rois in rois(), p in params()) {
        let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + k * b).collect();
        let [a, b, sum] = [a, b, sum].map(|m| values(&roi_align(&tensor(&m), &rois, &p).unwrap()));
        for ((a, b), sum) in a.iter().zip(&b).zip(&sum) {
            prop_assert!(near(a + k * b, *sum, 1e-4));
        }
    }

    #[test]
    fn the_gradient_is_the_map_s_adjoint(map in map(), rois in rois(), p in params(), weights in vec(-2f32..2.0, 108)) {
        // <weights, align(x)> = <gradient, x>, for the operation is linear.
        let x = Var::from_tensor(&tensor(&map)).unwrap();
        let y = roi_align(&x, &rois, &p).unwrap();
        let weights = Tensor::from_slice(&weights[..y.elem_count()], y.shape(), &Device::Cpu).unwrap();
        let product = (&y * &weights).unwrap().sum_all().unwrap();
        let grads = product.backward().unwrap();
        let gradient = values(grads.get(&x).unwrap());
        let other: f64 = gradient.iter().zip(&map).map(|(g, v)| f64::from(*g) * f64::from(*v)).sum();
        let product = f64::from(product.to_scalar::<f32>().unwrap());
        prop_assert!((product - other).abs() <= 1e-3 * (1.0 + product.abs()), "{product} and {other}");
    }

    #[test]
    fn rois_do_not_see_each_other(map in map(), rois in rois(), p in params()) {
        let x = tensor(&map);
        let together = values(&roi_align(&x, &rois, &p).unwrap());
        let apart: Vec<f32> = rois.iter().flat_map(|roi| values(&roi_align(&x, &[*roi], &p).unwrap())).collect();
        prop_assert_eq!(together, apart);
    }
}
