//! Fuzz target: COCO's annotation files.
#![no_main]

use docent_fuzz::coco::coco_json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| coco_json(bytes));
