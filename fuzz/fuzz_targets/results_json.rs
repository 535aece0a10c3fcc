//! A results file of any bytes, scored against a fixed truth: refused, or figures between 0 and 1 (or -1, where there is no truth).
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use docent_coco::{Annotation, Category, CocoMetrics, Dataset, Evaluator, Image, parse_results};
use libfuzzer_sys::fuzz_target;

static TRUTH: LazyLock<Dataset> = LazyLock::new(|| {
    let image = |id| Image { id, file_name: format!("{id}.png"), width: 200, height: 100 };
    let object = |id, image_id, category_id, bbox: [f64; 4], iscrowd| Annotation {
        id,
        image_id,
        category_id,
        bbox,
        area: bbox[2] * bbox[3],
        iscrowd,
    };
    Dataset::from_parts(
        "truth",
        "",
        vec![image(1), image(2)],
        vec![
            object(1, 1, 1, [10.0, 10.0, 40.0, 40.0], false),
            object(2, 1, 2, [60.0, 20.0, 100.0, 70.0], false),
            object(3, 2, 1, [0.0, 0.0, 200.0, 100.0], true),
            object(4, 2, 1, [5.0, 5.0, 20.0, 20.0], false),
        ],
        vec![Category { id: 1, name: "cat".into() }, Category { id: 2, name: "dog".into() }],
    )
    .expect("the parts agree")
});

fuzz_target!(|bytes: &[u8]| {
    let detections = match parse_results(bytes, Path::new("fuzz.json")) {
        Ok(detections) => detections,
        Err(error) => {
            assert!(error.to_string().contains("fuzz.json"));
            return;
        }
    };
    let Ok(metrics) = CocoMetrics.evaluate(&TRUTH, &detections) else { return };
    for value in metrics.stats {
        assert!(value == -1.0 || (0.0..=1.0 + 1e-9).contains(&value), "{:?}", metrics.stats);
    }
});
