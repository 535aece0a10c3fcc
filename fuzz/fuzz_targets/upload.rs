//! Fuzz target: the bodies that `docent serve` receives.
#![no_main]

use docent_fuzz::upload::upload;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| upload(bytes));
