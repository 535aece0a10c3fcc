//! Fuzz target: CSV tables of boxes.
#![no_main]

use docent_fuzz::coco::table_csv;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| table_csv(bytes));
