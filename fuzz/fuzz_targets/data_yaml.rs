//! Fuzz target: YOLO's data.yaml.
#![no_main]

use docent_fuzz::coco::data_yaml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| data_yaml(bytes));
