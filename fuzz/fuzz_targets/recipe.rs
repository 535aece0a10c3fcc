//! Fuzz target: recipes.
#![no_main]

use docent_fuzz::study::recipe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| recipe(text));
