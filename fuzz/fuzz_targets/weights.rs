//! Fuzz target: weight files of other programs.
#![no_main]

use docent_fuzz::model::weights;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| weights(bytes));
