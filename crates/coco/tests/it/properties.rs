//! What COCO's metrics must do whatever the boxes are.

use docent_coco::{Annotation, CocoMetrics, Dataset, Detection, Evaluator, Metrics, STAT_NAMES};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{categories, image};

const IMAGES: u64 = 4;

/// Which object a detection lies near, how far off, and how much wider; `None` for one anywhere.
type Near = Option<(Index, i32, i32, i32)>;

/// A box within an image of 200 x 200.
fn bbox() -> impl Strategy<Value = [f64; 4]> {
    (0u32..150, 0u32..150, 1u32..50, 1u32..50).prop_map(|(x, y, w, h)| [x, y, w, h].map(f64::from))
}

fn object() -> impl Strategy<Value = Annotation> {
    (1..=IMAGES, prop::sample::select(vec![2u64, 9]), bbox()).prop_map(|(image_id, category_id, bbox)| Annotation {
        id: 0,
        image_id,
        category_id,
        bbox,
        area: bbox[2] * bbox[3],
        iscrowd: false,
    })
}

fn ground_truth(objects: Vec<Annotation>) -> Dataset {
    let images = (1..=IMAGES).map(|id| image(id, &format!("{id}.png"), 200, 200)).collect();
    let numbered = (1..).zip(objects).map(|(id, a)| Annotation { id, ..a }).collect();
    Dataset::from_parts("ground truth", "", images, numbered, categories()).unwrap()
}

/// Objects, and detections of which some lie near an object and some anywhere; no two scores are equal.
fn case() -> impl Strategy<Value = (Vec<Annotation>, Vec<Detection>)> {
    let near = (any::<Index>(), -4i32..=4, -4i32..=4, 0i32..=4);
    let some = prop::collection::vec((prop::option::weighted(0.7, near), object()), 0..14);
    (prop::collection::vec(object(), 1..10), some, any::<u64>()).prop_map(|(objects, some, seed)| {
        let n = some.len() as u64;
        let detection = |(i, (near, other)): (usize, (Near, Annotation))| {
            let on = near.map(|(at, dx, dy, more)| {
                let a = at.get(&objects);
                let [x, y, w, h] = a.bbox;
                (a, [x + f64::from(dx), y + f64::from(dy), w + f64::from(more), h])
            });
            let (object, bbox) = on.unwrap_or((&other, other.bbox));
            // A permutation: an odd stride over a power of two, above which no two of the ranks are equal.
            let rank = (i as u64).wrapping_mul(seed | 1) % 64;
            let score = 0.1 + (rank as f64 + i as f64 / (n + 1) as f64) / 100.0;
            Detection { image_id: object.image_id, category_id: object.category_id, bbox, score }
        };
        let detections = some.into_iter().enumerate().map(detection).collect();
        (objects, detections)
    })
}

fn evaluate(ground_truth: &Dataset, detections: &[Detection]) -> Metrics {
    CocoMetrics.evaluate(ground_truth, detections).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_order_of_the_list_changes_nothing((objects, detections) in case(), seed in any::<u64>()) {
        let set = ground_truth(objects);
        let mut order: Vec<usize> = (0..detections.len()).collect();
        docent_coco::rng::shuffle(&mut docent_coco::rng::keyed(seed, "order", 0, 0), &mut order);
        let shuffled: Vec<_> = order.iter().map(|&i| detections[i]).collect();
        prop_assert_eq!(evaluate(&set, &detections), evaluate(&set, &shuffled));
    }

    #[test]
    fn names_of_images_change_nothing((objects, detections) in case()) {
        // 1, 2, 3, 4 become 6001, 3001, 2001, 1501: other numbers in another order.
        let other = |id: u64| 6000 / id + 1;
        let renamed: Vec<_> = objects.iter().map(|a| Annotation { image_id: other(a.image_id), ..a.clone() }).collect();
        let images = (1..=IMAGES).map(|id| image(other(id), "x.png", 200, 200)).collect();
        let numbered = (1..).zip(renamed).map(|(id, a)| Annotation { id, ..a }).collect();
        let set = Dataset::from_parts("renamed", "", images, numbered, categories()).unwrap();
        let moved: Vec<_> = detections.iter().map(|d| Detection { image_id: other(d.image_id), ..*d }).collect();
        prop_assert_eq!(evaluate(&ground_truth(objects), &detections), evaluate(&set, &moved));
    }

    #[test]
    fn of_scores_the_order_alone_counts_ties_included((objects, detections) in case(), steps in 1u32..5) {
        let set = ground_truth(objects);
        let with = |score: fn(f64) -> f64| -> Vec<_> {
            // So coarse that most scores are shared.
            let coarse = |s: f64| (s * f64::from(steps)).round() / f64::from(steps);
            detections.iter().map(|d| Detection { score: score(coarse(d.score)), ..*d }).collect()
        };
        prop_assert_eq!(evaluate(&set, &with(|s| s)), evaluate(&set, &with(|s| 0.25 + s / 4.0)));
    }

    #[test]
    fn figures_stay_within_their_range_and_perfection_is_one((objects, detections) in case()) {
        let set = ground_truth(objects.clone());
        for (name, value) in STAT_NAMES.iter().zip(evaluate(&set, &detections).stats) {
            prop_assert!(value == -1.0 || (0.0..=1.0 + 1e-12).contains(&value), "{name} {value}");
        }
        let perfect: Vec<_> = objects
            .iter()
            .map(|a| Detection { image_id: a.image_id, category_id: a.category_id, bbox: a.bbox, score: 0.5 })
            .collect();
        for (name, value) in STAT_NAMES.iter().zip(evaluate(&set, &perfect).stats) {
            // With one or ten detections an image, more objects than that cannot be found.
            let capped = matches!(*name, "AR1" | "AR10");
            prop_assert!(value == -1.0 || (value - 1.0).abs() < 1e-12 || capped, "{name} {value}");
        }
    }

    #[test]
    fn a_false_detection_below_all_others_never_raises_ap((objects, mut detections) in case(), category in prop::sample::select(vec![2u64, 9])) {
        let set = ground_truth(objects);
        let before = evaluate(&set, &detections);
        // Off every object: they end at 200.
        detections.push(Detection { image_id: 1, category_id: category, bbox: [500.0, 500.0, 20.0, 20.0], score: 0.01 });
        let after = evaluate(&set, &detections);
        for (name, (a, b)) in STAT_NAMES.iter().zip(after.stats.iter().zip(before.stats)) {
            prop_assert!(*a <= b + 1e-12, "{name} {b} -> {a}");
        }
    }

    #[test]
    fn a_crowd_and_what_lies_in_it_never_count((objects, mut detections) in case()) {
        let before = evaluate(&ground_truth(objects.clone()), &detections);
        // A crowd beside all objects and detections, and detections that no object could match.
        let mut with_crowd = objects;
        for category_id in [2, 9] {
            let bbox = [1000.0, 1000.0, 300.0, 300.0];
            with_crowd.push(Annotation { id: 0, image_id: 2, category_id, bbox, area: 90000.0, iscrowd: true });
            for i in 0..3 {
                let bbox = [1010.0 + 30.0 * f64::from(i), 1010.0, 25.0, 40.0];
                detections.push(Detection { image_id: 2, category_id, bbox, score: 0.95 - 0.01 * f64::from(i) });
            }
        }
        let images = (1..=IMAGES).map(|id| image(id, "x.png", 2000, 2000)).collect();
        let numbered = (1..).zip(with_crowd).map(|(id, a)| Annotation { id, ..a }).collect();
        let set = Dataset::from_parts("crowd", "", images, numbered, categories()).unwrap();
        let after = evaluate(&set, &detections);
        for (at, name) in STAT_NAMES.iter().enumerate() {
            // AR1 and AR10 take the best one and ten of an image before crowds are looked at.
            if !matches!(*name, "AR1" | "AR10") {
                prop_assert!((after.stats[at] - before.stats[at]).abs() < 1e-12, "{name} {:?} {:?}", before, after);
            }
        }
    }
}
