//! Fuzz target: checkpoint files.
#![no_main]

use docent_fuzz::model::checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| checkpoint(bytes));
