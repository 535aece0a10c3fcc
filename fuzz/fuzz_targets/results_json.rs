//! Fuzz target: COCO's result files.
#![no_main]

use docent_fuzz::coco::results_json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| results_json(bytes));
