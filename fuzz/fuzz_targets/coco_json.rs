//! A COCO annotation file of any bytes: refused, or a data set whose parts agree and which is written and read back the same.
#![no_main]

use std::path::Path;

use docent_coco::{CheckConfig, Dataset, Policy, split_by_id};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (json, images) = (Path::new("fuzz.json"), Path::new("images"));
    if let Err(error) = Dataset::from_json(bytes, json, images, &CheckConfig::default()) {
        assert!(error.to_string().contains("fuzz.json"));
    }
    let lenient = CheckConfig { outside: Policy::Drop, ..CheckConfig::lenient() };
    let Ok(set) = Dataset::from_json(bytes, json, images, &lenient) else { return };
    for i in 0..set.len() {
        let (image, truth) = (set.image(i), set.truth(i));
        assert_eq!(truth.boxes.len(), truth.labels.len());
        assert!(truth.labels.iter().all(|&label| set.category_of(label).is_some()));
        for [x1, y1, x2, y2] in truth.boxes {
            assert!(0.0 <= x1 && x1 < x2 && x2 <= image.width as f32);
            assert!(0.0 <= y1 && y1 < y2 && y2 <= image.height as f32);
        }
    }
    assert_eq!((0..set.len()).map(|i| set.annotations(i).len()).sum::<usize>(), set.all_annotations().len());
    let (train, val) = split_by_id(&set, 0.3);
    assert_eq!(train.len() + val.len(), set.len());
    // What the policies left in has nothing left to refuse.
    let text = set.to_json();
    let Ok(back) = Dataset::from_json(text.as_bytes(), json, images, &CheckConfig::default()) else {
        panic!("what was written is not read: {text}");
    };
    assert_eq!(back.to_json(), text);
});
