//! Tests of the crate through its public face: files in, batches and figures out.

// clippy.toml allows these inside test functions; the helpers beside them are tests too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod analysis;
mod augment;
mod bad_input;
mod cases;
mod checks;
mod dataset;
mod decode;
mod evaluate;
mod formats;
mod fuzz;
mod image_key;
mod listed;
mod loader;
mod odd_input;
mod open;
mod properties;
mod resample;
mod resize;
mod stats;
mod support;
mod voc;
mod voc_xml;
mod wrong_image;
mod yolo;
