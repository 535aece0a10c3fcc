//! Fuzz target: VIA's files.
#![no_main]

use docent_fuzz::coco::via_json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| via_json(bytes));
