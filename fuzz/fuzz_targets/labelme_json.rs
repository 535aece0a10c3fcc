//! Fuzz target: labelme's files.
#![no_main]

use docent_fuzz::coco::labelme_json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| labelme_json(bytes));
