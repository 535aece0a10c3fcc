//! What must hold for any bytes that docent-coco reads. The fuzz targets call it, and so does a test, with every seed.

use std::path::Path;

use docent_coco::{
    Annotation, BoxReading, Category, CheckConfig, CocoMetrics, Dataset, DecodeOptions, Evaluator, Image, MAX_PIXELS,
    MAX_SIDE, Policy, Resize, decode_bytes, parse_csv, parse_data_yaml, parse_labelme, parse_results, parse_via,
    parse_voc, parse_yolo, split_by_name,
};

/// A COCO annotation file: refused, or a data set whose parts agree and which is written and read back the same.
pub fn coco_json(bytes: &[u8]) {
    let (json, images) = (Path::new("fuzz.json"), Path::new("images"));
    if let Err(error) = Dataset::from_json(bytes, json, images, &CheckConfig::default()) {
        assert!(error.to_string().contains("fuzz.json"));
    }
    let lenient = CheckConfig::lenient().outside(Policy::Drop);
    let Ok(set) = Dataset::from_json(bytes, json, images, &lenient) else { return };
    for i in 0..set.len() {
        let (image, truth) = (set.image(i), set.ground_truth(i));
        assert_eq!(truth.boxes.len(), truth.labels.len());
        assert!(truth.labels.iter().all(|&label| set.category_of(label).is_some()));
        for [x1, y1, x2, y2] in truth.boxes {
            assert!(0.0 <= x1 && x1 < x2 && x2 <= image.width as f32);
            assert!(0.0 <= y1 && y1 < y2 && y2 <= image.height as f32);
        }
    }
    assert_eq!((0..set.len()).map(|i| set.annotations(i).len()).sum::<usize>(), set.all_annotations().len());
    if let Ok((train, val)) = split_by_name(&set, 0.3) {
        assert_eq!(train.len() + val.len(), set.len());
        assert!(!train.is_empty() && !val.is_empty());
    }
    // What the policies left in has nothing left to refuse.
    let text = set.to_json();
    let Ok(back) = Dataset::from_json(text.as_bytes(), json, images, &CheckConfig::default()) else {
        panic!("what was written is not read: {text}");
    };
    assert_eq!(back.to_json(), text);
}

/// A PASCAL VOC annotation: refused, or finite boxes under either reading.
pub fn voc_xml(bytes: &[u8]) {
    let Ok(file) = parse_voc(bytes, None) else { return };
    for object in &file.objects {
        assert!(!object.name.is_empty() && object.corners.iter().all(|v| v.is_finite()));
        assert!(object.line >= 1 && object.line as usize <= bytes.iter().filter(|b| **b == b'\n').count() + 1);
        for boxes in BoxReading::ALL {
            let ([_, _, width, height], _) = boxes.ordered_bbox(object.corners, 64.0, 48.0);
            // Differences of numbers near the largest may overflow; boxes without area are left out later.
            if boxes == BoxReading::Edges {
                assert!([width, height].iter().all(|v| *v >= 0.0 || v.is_nan()), "corners are put in order");
            }
        }
        assert!(object.line as usize <= 1 + bytes.iter().filter(|b| **b == b'\n').count());
    }
}

/// A labelme file: refused with a reason, or boxes of finite numbers.
pub fn labelme_json(bytes: &[u8]) {
    match parse_labelme(bytes) {
        Ok(file) => {
            for (class, bbox) in &file.objects {
                assert!(!class.is_empty());
                assert!(bbox[..2].iter().all(|v| v.is_finite()) && bbox[2..].iter().all(|v| *v >= 0.0 || v.is_nan()));
            }
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
}

/// A VIA file: refused with a reason, or regions with classes.
pub fn via_json(bytes: &[u8]) {
    match parse_via(bytes) {
        Ok(images) => {
            for (class, bbox) in images.iter().flat_map(|image| &image.objects) {
                assert!(!class.is_empty() && bbox.iter().all(|v| !v.is_nan()));
            }
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
}

/// A CSV file: refused with a reason, or rows of finite numbers, each with its line.
pub fn table_csv(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match parse_csv(&text) {
        Ok((rows, broken)) => {
            for row in &rows {
                assert!(!row.filename.is_empty());
                assert!(
                    row.object.as_ref().is_none_or(|(class, n)| !class.is_empty() && n.iter().all(|v| v.is_finite()))
                );
            }
            assert!(broken.iter().all(|(_, reason)| !reason.is_empty()));
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
}

/// A `data.yaml`, and the same bytes as a label file: refused with a reason, or names and numbers.
pub fn data_yaml(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match parse_data_yaml(&text) {
        Ok(yaml) => assert!(yaml.kpt_shape.is_none_or(|[points, values]| points < 10_000 && values <= 3)),
        Err(reason) => assert!(!reason.is_empty()),
    }
    let (rows, broken) = parse_yolo(&text);
    assert!(rows.iter().all(|row| row.numbers.len() >= 4 && row.numbers.iter().all(|v| v.is_finite())));
    assert!(broken.iter().all(|(line, reason)| *line > 0 && !reason.is_empty()));
}

/// An image file: an error, or as many pixels as its size says, within the limits.
pub fn image(bytes: &[u8]) {
    let image = match decode_bytes(bytes, "fuzz.jpg", DecodeOptions::default()) {
        Ok(image) => image,
        Err(error) => {
            assert!(error.to_string().contains("fuzz.jpg"));
            return;
        }
    };
    assert!(image.width > 0 && image.height > 0);
    assert!(image.width.max(image.height) <= MAX_SIDE as usize);
    assert!((image.width * image.height) as u64 <= MAX_PIXELS);
    assert_eq!(image.data.len(), image.width * image.height * 3);
    let planes = Resize::default().shortest(24).longest(32).apply(&image);
    let planes = planes.unwrap_or_else(|e| panic!("a whole image is resized: {e}"));
    assert_eq!(planes.data.len(), 3 * planes.height * planes.width);
    assert!(planes.data.iter().all(|v| (0.0..=1.0).contains(v)));
}

/// A results file, scored against a fixed truth: refused, or figures between 0 and 1 (or -1, where there is no truth).
pub fn results_json(bytes: &[u8]) {
    let detections = match parse_results(bytes, Path::new("fuzz.json")) {
        Ok(detections) => detections,
        Err(error) => {
            assert!(error.to_string().contains("fuzz.json"));
            return;
        }
    };
    let Ok(metrics) = CocoMetrics.evaluate(&truth(), &detections) else { return };
    for value in metrics.stats {
        assert!(value == -1.0 || (0.0..=1.0 + 1e-9).contains(&value), "{:?}", metrics.stats);
    }
}

fn truth() -> Dataset {
    let image = |id| Image { id, file_name: format!("{id}.png"), width: 200, height: 100 };
    let object = |id, image_id, category_id, bbox: [f64; 4], iscrowd| Annotation {
        id,
        image_id,
        category_id,
        bbox,
        area: bbox[2] * bbox[3],
        iscrowd,
    };
    let truth = Dataset::from_parts(
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
    );
    truth.unwrap_or_else(|e| panic!("the parts agree: {e}"))
}
