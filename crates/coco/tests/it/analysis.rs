//! Curves, kinds of error, images and matches, on cases that are worked out by hand.

use docent_coco::{
    Annotation, CocoMetrics, Dataset, Detection, DetectionMatch, ErrorKind, Evaluator, analyze, read_results,
};

use crate::support::{annotation, category, image, shared};

fn ground_truth(images: u64, annotations: Vec<Annotation>) -> Dataset {
    let images = (1..=images).map(|id| image(id, &format!("{id}.png"), 400, 400)).collect();
    Dataset::from_parts("ground truth", "", images, annotations, vec![category(3, "a"), category(17, "b")]).unwrap()
}

fn found(image_id: u64, category_id: u64, bbox: [f64; 4], score: f64) -> Detection {
    Detection { image_id, category_id, bbox, score }
}

fn near(got: f64, want: f64, what: &str) {
    assert!((got - want).abs() < 1e-9, "{what}: {got}, expected {want}");
}

/// One object of each class is found, one of class a is missed, and there is one error of each kind.
///
/// Class a has three objects. Its ranking: correct (0.95), duplicate (0.9), place (0.85), background (0.8), so that the only correct
/// one comes first: precision 1 up to recall 1/3, which 34 of the 101 recalls are (0 to 0.33): AP50 34/101.
/// Class b has two objects. Its ranking: class (0.7: on a's third object), both (0.6: between), correct (0.5): precision 1/3 up to
/// recall 1/2, 51 of the 101 recalls (0 to 0.50): AP50 51/303.
#[test]
fn each_kind_of_error_is_counted_and_costs_what_setting_it_right_brings() {
    let side = 40.0;
    let set = ground_truth(
        1,
        vec![
            annotation(1, 1, 3, [0.0, 0.0, side, side]),      // found
            annotation(2, 1, 3, [100.0, 0.0, side, side]),    // found out of place
            annotation(3, 1, 3, [200.0, 0.0, side, side]),    // found as b
            annotation(4, 1, 17, [0.0, 100.0, side, side]),   // found
            annotation(5, 1, 17, [100.0, 100.0, side, side]), // missed
        ],
    );
    let detections = [
        found(1, 3, [0.0, 0.0, side, side], 0.95),
        found(1, 3, [2.0, 0.0, side, side], 0.9),     // a duplicate: IoU 38/42
        found(1, 3, [120.0, 0.0, side, side], 0.85),  // out of place: IoU 20/60
        found(1, 3, [300.0, 300.0, side, side], 0.8), // background
        found(1, 17, [200.0, 0.0, side, side], 0.7),  // the class
        found(1, 17, [220.0, 0.0, side, side], 0.6),  // both: IoU 20/60 with an object of a
        found(1, 17, [0.0, 100.0, side, side], 0.5),
    ];
    let analysis = analyze(&set, &detections).unwrap();
    let errors = &analysis.errors;
    let (a, b) = (34.0 / 101.0, 51.0 / 303.0);
    near(errors.ap50, (a + b) / 2.0, "AP50");
    near(errors.ap50, analysis.metrics.ap50(), "the same as COCO's");
    let of = |kind| *errors.kinds.iter().find(|k| k.kind == kind).unwrap();
    for kind in ErrorKind::ALL {
        assert_eq!(of(kind).count, 1, "{kind:?}");
    }
    // Without the background or the duplicate, a's only correct detection is first as before.
    near(of(ErrorKind::Background).cost, 0.0, "background");
    near(of(ErrorKind::Duplicate).cost, 0.0, "duplicate");
    // The third of a becomes correct: two of three found; the second behind one error (the duplicate): precision 2/3 for the recalls
    // 0.34 to 0.66, which are 33.
    near(of(ErrorKind::Place).cost, 33.0 * (2.0 / 3.0) / 101.0 / 2.0, "place");
    // The class: b loses its first error (precision 1/2 where it was 1/3) and a gets a correct one in fifth place: precision 2/5 for
    // the recalls 0.34 to 0.66.
    near(
        of(ErrorKind::Class).cost,
        (33.0 * (2.0 / 5.0) / 101.0 + 51.0 * (1.0 / 2.0 - 1.0 / 3.0) / 101.0) / 2.0,
        "class",
    );
    near(of(ErrorKind::Both).cost, 51.0 * (1.0 / 2.0 - 1.0 / 3.0) / 101.0 / 2.0, "both");
    // The missed object of b goes: one object, found: precision 1/3 at every recall.
    near(of(ErrorKind::Missed).cost, (101.0 - 51.0) / 303.0 / 2.0, "missed");
    // Without any false positive: 34/101 and 51/101.
    near(errors.false_positives, (51.0 / 101.0 - b) / 2.0, "false positives");
    // Only what was found is left: a's one object at precision 1, b's at 1/3.
    near(errors.false_negatives, ((1.0 - a) + (1.0 / 3.0 - b)) / 2.0, "false negatives");
    let shares: f64 = ErrorKind::ALL.iter().map(|kind| errors.share(*kind)).sum();
    near(shares, 1.0, "shares");
    use DetectionMatch::{FalsePositive, TruePositive};
    assert_eq!(
        analysis.matches,
        [TruePositive, FalsePositive, FalsePositive, FalsePositive, FalsePositive, FalsePositive, TruePositive]
    );
    assert_eq!((analysis.metrics.per_class[0].objects, analysis.metrics.per_class[1].detections), (3, 3));
}

#[test]
fn an_images_ap_counts_detections_of_absent_classes() {
    let set =
        ground_truth(3, vec![annotation(1, 1, 3, [0.0, 0.0, 40.0, 40.0]), annotation(2, 2, 3, [0.0, 0.0, 40.0, 40.0])]);
    let detections = [
        found(1, 3, [0.0, 0.0, 40.0, 40.0], 0.5),
        // Surer, and of a class that is not there: the correct one comes second.
        found(2, 17, [0.0, 0.0, 40.0, 40.0], 0.9),
        found(2, 3, [0.0, 0.0, 40.0, 40.0], 0.5),
        found(3, 3, [0.0, 0.0, 40.0, 40.0], 0.5),
    ];
    let images = analyze(&set, &detections).unwrap().images;
    let ids: Vec<(u64, usize)> = images.iter().map(|i| (i.image_id, i.objects)).collect();
    assert_eq!(ids, [(1, 1), (2, 1), (3, 0)]);
    near(images[0].ap.unwrap(), 1.0, "found");
    near(images[1].ap.unwrap(), 0.5, "found behind an error");
    assert_eq!(images[2].ap, None);
    // Nothing found, and no ground truth at all.
    assert_eq!(analyze(&set, &[]).unwrap().images[0].ap, Some(0.0));
    let bare = analyze(&ground_truth(1, vec![]), &detections[..1]).unwrap();
    assert_eq!((bare.images[0].ap, bare.errors.share(ErrorKind::Missed)), (None, 0.0));
    assert!(bare.curves.iter().all(|c| c.precision.iter().all(|p| *p == -1.0)));
}

#[test]
fn crowds_and_the_cap_are_neither_right_nor_wrong() {
    let mut crowd = annotation(2, 1, 3, [200.0, 200.0, 100.0, 100.0]);
    crowd.iscrowd = true;
    let set = ground_truth(1, vec![annotation(1, 1, 3, [0.0, 0.0, 40.0, 40.0]), crowd]);
    let mut detections = vec![found(1, 3, [210.0, 210.0, 20.0, 20.0], 0.9), found(1, 3, [0.0, 0.0, 40.0, 40.0], 0.8)];
    detections.extend((0..100).map(|i| found(1, 3, [350.0, 350.0, 9.0, 9.0], 0.7 - 0.001 * f64::from(i))));
    let analysis = analyze(&set, &detections).unwrap();
    let matches = &analysis.matches;
    assert_eq!(matches[..3], [DetectionMatch::Ignored, DetectionMatch::TruePositive, DetectionMatch::FalsePositive]);
    // Two come before the hundred, so the last two are beyond it.
    assert_eq!(matches.iter().filter(|v| **v == DetectionMatch::Ignored).count(), 3);
    assert_eq!(analysis.images[0].objects, 1);
    near(analysis.images[0].ap.unwrap(), 1.0, "the crowd's detection does not count");
}

#[test]
fn a_curves_mean_is_its_ap_on_real_files() {
    let Some(dir) = shared("cocoeval") else { return };
    let set = Dataset::load(&dir.join("instances_val2014_100.json"), &dir).unwrap();
    let detections = read_results(&dir.join("instances_val2014_fakebbox100_results.json")).unwrap();
    let analysis = analyze(&set, &detections).unwrap();
    assert_eq!(analysis.metrics, CocoMetrics.evaluate(&set, &detections).unwrap());
    let m = &analysis.metrics;
    for (curve, ap) in analysis.curves.iter().zip([m.ap50(), m.ap75(), m.ap()]) {
        assert_eq!(curve.precision.len(), 101);
        near(curve.precision.iter().sum::<f64>() / 101.0, ap, "the curve's mean");
        assert!(curve.precision.windows(2).all(|p| p[0] >= p[1]), "{curve:?}");
    }
    near(analysis.errors.ap50, m.ap50(), "AP50");
    assert_eq!(analysis.images.len(), set.len());
    assert!(analysis.errors.kinds.iter().all(|k| k.cost >= -1e-12));
}
