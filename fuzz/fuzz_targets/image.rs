//! Fuzz target: image files.
#![no_main]

use docent_fuzz::coco::image;
use libfuzzer_sys::fuzz_target;

// A decoder that panics is caught and becomes an error; the fuzzer's own hook would end the process before that. What is not caught
// still ends it.
fn tell_only() {
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
}

fuzz_target!(init: tell_only(), |bytes: &[u8]| image(bytes));
