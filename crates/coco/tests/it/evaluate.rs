//! COCO metrics: cases with figures from pycocotools 2.0.11, and the shared files to 1e-12.

use std::path::Path;

use docent_coco::{
    Annotation, CocoMetrics, Dataset, Detection, Error, Evaluator, Metrics, STAT_NAMES, read_results, write_results,
};

use crate::support::{annotation, category, image, shared};

fn ground_truth(images: u64, annotations: Vec<Annotation>) -> Dataset {
    let images = (1..=images).map(|id| image(id, &format!("{id}.png"), 400, 400)).collect();
    Dataset::from_parts("ground truth", "", images, annotations, vec![category(3, "a"), category(17, "b")]).unwrap()
}

fn found(image_id: u64, category_id: u64, bbox: [f64; 4], score: f64) -> Detection {
    Detection { image_id, category_id, bbox, score }
}

fn evaluate(ground_truth: &Dataset, detections: &[Detection]) -> Metrics {
    CocoMetrics.evaluate(ground_truth, detections).unwrap()
}

fn close(metrics: &Metrics, expected: [f64; 12], tolerance: f64, what: &str) {
    for ((name, got), want) in STAT_NAMES.iter().zip(metrics.stats).zip(expected) {
        assert!((got - want).abs() <= tolerance, "{what} {name}: {got}, expected {want}");
    }
}

#[test]
fn nothing_found_is_zero_and_no_truth_is_minus_one() {
    let set = ground_truth(2, vec![annotation(1, 1, 3, [10.0, 10.0, 50.0, 50.0])]);
    let metrics = evaluate(&set, &[]);
    assert_eq!((metrics.ap(), metrics.ap50(), metrics.ap75()), (0.0, 0.0, 0.0));
    assert_eq!((metrics.ap_small(), metrics.ap_medium(), metrics.ap_large()), (-1.0, 0.0, -1.0));
    assert_eq!((metrics.ar1(), metrics.ar10(), metrics.ar100()), (0.0, 0.0, 0.0));
    assert_eq!((metrics.ar_small(), metrics.ar_medium(), metrics.ar_large()), (-1.0, 0.0, -1.0));
    let class: Vec<_> =
        metrics.per_class.iter().map(|c| (c.name.as_str(), c.category_id, c.ap, c.ap50, c.ap75, c.ar)).collect();
    assert_eq!(class, [("a", 3, 0.0, 0.0, 0.0, 0.0), ("b", 17, -1.0, -1.0, -1.0, -1.0)]);

    let bare = ground_truth(2, vec![]);
    assert_eq!(evaluate(&bare, &[]).stats, [-1.0; 12]);
    assert_eq!(evaluate(&bare, &[found(1, 3, [0.0, 0.0, 9.0, 9.0], 0.5)]).stats, [-1.0; 12]);
}

#[test]
fn the_truth_itself_is_perfect() {
    let boxes = vec![
        annotation(0, 1, 3, [10.0, 10.0, 20.0, 20.0]),
        annotation(1, 1, 17, [50.0, 60.0, 70.0, 80.0]),
        annotation(2, 2, 3, [0.0, 0.0, 300.0, 300.0]),
    ];
    let detections: Vec<_> = boxes.iter().map(|a| found(a.image_id, a.category_id, a.bbox, 0.5)).collect();
    let metrics = evaluate(&ground_truth(3, boxes), &detections);
    close(&metrics, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 1e-12, "perfect");
    assert!(metrics.per_class.iter().all(|c| (c.ap - 1.0).abs() < 1e-12 && c.ar == 1.0));
}

#[test]
fn equal_scores_keep_their_order() {
    let set = ground_truth(
        2,
        vec![
            annotation(1, 1, 3, [10.0, 10.0, 50.0, 50.0]),
            annotation(2, 2, 3, [10.0, 10.0, 50.0, 50.0]),
            annotation(3, 1, 17, [100.0, 100.0, 120.0, 120.0]),
        ],
    );
    let (correct, wrong) = ([10.0, 10.0, 50.0, 50.0], [200.0, 200.0, 50.0, 50.0]);
    let run = |first: [f64; 4], second: [f64; 4]| {
        evaluate(
            &set,
            &[
                found(1, 3, first, 0.5),
                found(1, 3, second, 0.5),
                found(2, 3, wrong, 0.5),
                found(2, 3, correct, 0.5),
                found(1, 17, [100.0, 100.0, 120.0, 100.0], 0.9),
            ],
        )
    };
    let expected = [
        0.7262376237623762,
        0.8762376237623762,
        0.8762376237623762,
        -1.0,
        0.7524752475247525,
        0.6999999999999998,
        0.6,
        0.85,
        0.85,
        -1.0,
        1.0,
        0.7,
    ];
    close(&run(correct, wrong), expected, 1e-12, "correct first");
    let expected = [0.6, 0.75, 0.75, -1.0, 0.5, 0.6999999999999998, 0.35, 0.85, 0.85, -1.0, 1.0, 0.7];
    close(&run(wrong, correct), expected, 1e-12, "wrong first");
}

#[test]
fn at_most_a_hundred_of_a_category_count_in_an_image() {
    let set = ground_truth(
        1,
        vec![annotation(1, 1, 3, [10.0, 10.0, 50.0, 50.0]), annotation(2, 1, 3, [300.0, 300.0, 50.0, 50.0])],
    );
    let run = |rank: usize| {
        let mut detections: Vec<_> =
            (0..130).map(|k| found(1, 3, [200.0, 100.0, 20.0, 20.0], 1.0 - f64::from(k) / 1000.0)).collect();
        detections[rank].bbox = [10.0, 10.0, 50.0, 50.0];
        evaluate(&set, &detections)
    };
    close(&run(104), [0.0, 0.0, 0.0, -1.0, 0.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0, -1.0], 1e-12, "rank 104");
    let ap = 0.005315268368942157;
    close(&run(94), [ap, ap, ap, -1.0, 0.5049504950495048, -1.0, 0.0, 0.0, 0.5, -1.0, 0.5, -1.0], 1e-12, "rank 94");
    let ap = 0.05610561056105611;
    close(&run(8), [ap, ap, ap, -1.0, 0.5049504950495048, -1.0, 0.0, 0.5, 0.5, -1.0, 0.5, -1.0], 1e-12, "rank 8");
}

#[test]
fn detections_inside_a_crowd_do_not_count() {
    let mut crowd = annotation(2, 1, 3, [100.0, 100.0, 200.0, 200.0]);
    crowd.iscrowd = true;
    let set = ground_truth(
        2,
        vec![annotation(1, 1, 3, [10.0, 10.0, 20.0, 20.0]), crowd, annotation(3, 2, 3, [50.0, 50.0, 60.0, 60.0])],
    );
    let detections = [
        found(1, 3, [120.0, 120.0, 30.0, 30.0], 0.9),
        found(1, 3, [150.0, 150.0, 30.0, 30.0], 0.8),
        found(1, 3, [10.0, 10.0, 20.0, 20.0], 0.7),
        found(2, 3, [50.0, 50.0, 60.0, 50.0], 0.6),
        found(2, 3, [5.0, 5.0, 10.0, 10.0], 0.95),
    ];
    let expected = [
        0.5424092409240924,
        0.6666666666666669,
        0.6666666666666669,
        0.5,
        0.6999999999999998,
        -1.0,
        0.0,
        0.85,
        0.85,
        1.0,
        0.7,
        -1.0,
    ];
    close(&evaluate(&set, &detections), expected, 1e-12, "crowd");
}

#[test]
fn the_stated_area_decides_the_size_and_flat_truth_stays() {
    let mut stated = annotation(1, 1, 3, [10.0, 10.0, 50.0, 50.0]);
    stated.area = 900.0;
    let mut flat = annotation(2, 1, 3, [200.0, 200.0, 0.0, 10.0]);
    flat.area = 5.0;
    let metrics = evaluate(&ground_truth(1, vec![stated, flat]), &[found(1, 3, [10.0, 10.0, 50.0, 50.0], 0.9)]);
    let ap = 0.5049504950495048;
    close(&metrics, [ap, ap, ap, ap, -1.0, -1.0, 0.5, 0.5, 0.5, 0.5, -1.0, -1.0], 1e-12, "area");
}

#[test]
fn detections_that_cannot_be_scored_are_named() {
    let set = ground_truth(1, vec![annotation(1, 1, 3, [10.0, 10.0, 50.0, 50.0])]);
    let good = found(1, 3, [10.0, 10.0, 50.0, 50.0], 0.5);
    let bad = [
        (Detection { image_id: 2, ..good }, "another split"),
        (Detection { category_id: 1, ..good }, "category"),
        (Detection { score: f64::NAN, ..good }, "score"),
        (Detection { bbox: [0.0, f64::INFINITY, 1.0, 1.0], ..good }, "finite"),
    ];
    for (detection, word) in bad {
        let error = CocoMetrics.evaluate(&set, &[good, detection]).unwrap_err();
        assert!(matches!(error, Error::Detection { index: 1, .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn results_files_are_read_in_both_forms() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("results.json");
    let detections = vec![found(1, 3, [1.0, 2.5, 3.0, 4.0], 0.25), found(2, 17, [0.0; 4], 1.0)];
    write_results(&path, &detections).unwrap();
    assert_eq!(read_results(&path).unwrap(), detections);
    let list = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!(r#"{{"images": [], "annotations": {list}}}"#)).unwrap();
    assert_eq!(read_results(&path).unwrap(), detections);
    std::fs::write(&path, " \n[]").unwrap();
    assert_eq!(read_results(&path).unwrap(), []);
    for text in ["", "{}", "[1]", r#"[{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3], "score": 1}]"#, &list[..20]]
    {
        std::fs::write(&path, text).unwrap();
        let error = read_results(&path).unwrap_err().to_string();
        assert!(error.contains("results.json") && error.contains("COCO results"), "{error}");
    }
    assert!(read_results(Path::new("none.json")).unwrap_err().to_string().contains("none.json"));
}

fn shared_case(root: &Path, gt: &str, dt: &str) -> Metrics {
    let set = Dataset::load(&root.join(gt), root).unwrap();
    evaluate(&set, &read_results(&root.join(dt)).unwrap())
}

#[test]
fn pycocotools_figures_to_1e_12() {
    let Some(root) = shared("cocoeval") else { return };
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(root.join("expected_bbox_pycocotools.json")).unwrap()).unwrap();
    let metrics = shared_case(&root, "instances_val2014_100.json", "instances_val2014_fakebbox100_results.json");
    let stats = std::array::from_fn(|i| expected["stats"][i].as_f64().unwrap());
    close(&metrics, stats, 1e-12, "val2014");
    let classes = expected["per_category"].as_object().unwrap();
    let mut compared = 0;
    for class in &metrics.per_class {
        match classes.get(&class.name) {
            Some(want) => {
                compared += 1;
                assert!((class.ap - want["AP"].as_f64().unwrap()).abs() <= 1e-12, "{class:?}");
                assert!((class.ar - want["AR100"].as_f64().unwrap()).abs() <= 1e-12, "{class:?}");
            }
            None => assert_eq!(class.ap, -1.0, "{class:?}"),
        }
    }
    assert_eq!(compared, classes.len());
}

#[test]
fn other_shared_figures() {
    let Some(root) = shared("cocoeval") else { return };
    // Published with six digits.
    let metrics =
        shared_case(&root, "odm_nocrowd/gts/sampled_gts_bbox_area.json", "odm_nocrowd/dets/sampled_bbox_results.json");
    let expected = [
        0.503647, 0.696973, 0.571667, 0.593252, 0.557991, 0.489363, 0.386813, 0.593680, 0.595353, 0.654764, 0.603130,
        0.553744,
    ];
    close(&metrics, expected, 6e-7, "no crowd");
    let metrics = shared_case(&root, "fce_gt_dataset.json", "fce_dt_dataset.json");
    assert!((metrics.ap() - 0.694719).abs() < 6e-7, "{}", metrics.ap());
    assert!((metrics.ar1() - 0.666667).abs() < 6e-7);
    assert!((metrics.ar100() - 0.75).abs() < 6e-7);
    assert_eq!((metrics.ap_small(), metrics.ap_large()), (-1.0, 0.0));
}
