//! The metrics against pycocotools: cases and figures of tests/golden/metrics.json (`xtask/golden/metrics.py`). Colours against
//! torchvision.
// Clippy knows only `#[test]` functions as tests; helpers may fail the same way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;

use docent_coco::{
    Annotation, Category, CocoMetrics, ColourChange, Dataset, Detection, Evaluator, Image, Metrics, Rgb8, STAT_NAMES,
};
use serde::Deserialize;

/// pycocotools works in float64, as we do.
const TOLERANCE: f64 = 1e-12;

#[derive(Deserialize)]
struct Case {
    images: Vec<u64>,
    categories: Vec<u64>,
    truths: Vec<Truth>,
    detections: Vec<Detection>,
    expected: Expected,
}

#[derive(Deserialize)]
struct Truth {
    image_id: u64,
    category_id: u64,
    bbox: [f64; 4],
    area: f64,
    iscrowd: u8,
}

#[derive(Deserialize)]
struct Expected {
    stats: [f64; 12],
    /// AP, AP50, AP75 and AR100 of each category.
    by_category: BTreeMap<String, [f64; 4]>,
}

fn cases() -> BTreeMap<String, Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/metrics.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

impl Case {
    fn evaluate(&self) -> Metrics {
        let image = |&id: &u64| Image { id, file_name: format!("{id}.png"), width: 400, height: 300 };
        let category = |&id: &u64| Category { id, name: format!("c{id}") };
        let annotation = |(id, t): (u64, &Truth)| Annotation {
            id,
            image_id: t.image_id,
            category_id: t.category_id,
            bbox: t.bbox,
            area: t.area,
            iscrowd: t.iscrowd == 1,
        };
        let truth = Dataset::from_parts(
            "golden",
            "",
            self.images.iter().map(image).collect(),
            (1..).zip(&self.truths).map(annotation).collect(),
            self.categories.iter().map(category).collect(),
        );
        CocoMetrics.evaluate(&truth.unwrap(), &self.detections).unwrap()
    }

    /// Every figure with its name: found and expected.
    fn figures(&self) -> Vec<(String, f64, f64)> {
        let metrics = self.evaluate();
        let stats = STAT_NAMES.iter().zip(metrics.stats).zip(self.expected.stats);
        let mut all: Vec<_> = stats.map(|((name, a), b)| ((*name).to_owned(), a, b)).collect();
        assert_eq!(metrics.per_class.len(), self.expected.by_category.len());
        for class in &metrics.per_class {
            let expected = &self.expected.by_category[&class.category_id.to_string()];
            let found = [class.ap, class.ap50, class.ap75, class.ar];
            for ((name, a), b) in ["AP", "AP50", "AP75", "AR"].iter().zip(found).zip(expected) {
                all.push((format!("{name} of category {}", class.category_id), a, *b));
            }
        }
        all
    }
}

#[test]
fn every_figure_is_pycocotools() {
    let cases = cases();
    assert!(cases.len() >= 15, "{} cases", cases.len());
    let mut faults = Vec::new();
    for (case, parts) in &cases {
        for (name, found, expected) in parts.figures() {
            // A NaN must not pass.
            if found.is_nan() || (found - expected).abs() > TOLERANCE {
                faults.push(format!("{case}: {name}: {found}, pycocotools {expected}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} figures differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn the_cases_tell_orders_and_counts_apart() {
    let ap = |case: &Case| case.evaluate().stats;
    let mut cases = cases();
    // Among equal scores the order of the list counts, and so do the detections past the hundredth.
    for name in ["ties", "all_equal", "more_than_100_tied"] {
        let case = cases.get_mut(name).unwrap();
        case.detections.reverse();
        assert_ne!(ap(case), case.expected.stats, "{name} does not see the order");
    }
    let case = cases.get_mut("more_than_100").unwrap();
    case.detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    let kept = ap(case);
    case.detections.truncate(60);
    assert_ne!(ap(case), kept, "detections past the sixtieth change nothing");
    let case = cases.get_mut("crowds").unwrap();
    case.truths.iter_mut().for_each(|t| t.iscrowd = 0);
    assert_ne!(ap(case), case.expected.stats, "crowds change nothing");
}

#[derive(Deserialize)]
struct ImageCase {
    width: usize,
    height: usize,
    changes: Vec<(String, f64)>,
    levels: Vec<u8>,
}

/// Against torchvision's v2 functions on 8-bit images (`xtask/golden/jitter.py`). A value that float32 puts on the other side of a
/// whole number is a level apart; that may happen to one in a hundred.
#[test]
fn colours_change_as_torchvisions() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/jitter.json");
    let cases: BTreeMap<String, ImageCase> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let ImageCase { width, height, levels, .. } = &cases["picture"];
    assert_eq!(cases.len(), 16);
    for (name, case) in &cases {
        let mut image = Rgb8 { width: *width, height: *height, data: levels.clone() };
        for (what, factor) in &case.changes {
            let change = match what.as_str() {
                "brightness" => ColourChange::Brightness,
                "contrast" => ColourChange::Contrast,
                "saturation" => ColourChange::Saturation,
                "hue" => ColourChange::Hue,
                other => panic!("{other}"),
            };
            change(*factor).apply(&mut image);
        }
        assert_eq!((case.width, case.height), (image.width, image.height));
        let off: Vec<u8> =
            image.data.iter().zip(&case.levels).map(|(a, b)| a.abs_diff(*b)).filter(|d| *d > 0).collect();
        println!("{name}: {} of {} values differ", off.len(), image.data.len());
        assert!(off.iter().all(|d| *d == 1) && off.len() <= image.data.len() / 100, "{name}: {off:?}");
    }
}
