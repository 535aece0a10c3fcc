//! A PASCAL VOC annotation of any bytes: refused, or finite boxes under either reading.
#![no_main]

use docent_coco::{VocBoxes, parse_voc};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = parse_voc(bytes) else { return };
    for object in &file.objects {
        assert!(!object.name.is_empty() && object.corners.iter().all(|v| v.is_finite()));
        assert!(object.line >= 1 && object.line as usize <= bytes.iter().filter(|b| **b == b'\n').count() + 1);
        let [xmin, _, xmax, _] = object.corners;
        for boxes in [VocBoxes::Pixels, VocBoxes::Edges] {
            let [_, _, width, _] = object.bbox(boxes);
            assert!((xmax <= xmin) == (width <= 0.0));
        }
    }
});
