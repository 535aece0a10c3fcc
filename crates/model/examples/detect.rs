//! Loads a checkpoint and prints the objects in an image: `cargo run --example detect -- student.safetensors street.jpg`.
//!
//! docent-model is the only crate that it needs.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use std::error::Error;
use std::path::PathBuf;

use docent_model::Predictor;
use docent_model::coco::{DecodeOptions, decode_file};
use docent_model::detect::Registry;

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [checkpoint, image] = paths.as_slice() else { return Err("usage: detect CHECKPOINT IMAGE".into()) };

    let predictor = Predictor::load(checkpoint, &Registry::builtin())?;
    for found in predictor.detect(&decode_file(image, DecodeOptions::default())?)? {
        let [left, top, right, bottom] = found.bbox;
        println!(
            "{:<16} {:.3}  {left:.0},{top:.0} to {right:.0},{bottom:.0}",
            predictor.class_name(found.label),
            found.score
        );
    }
    Ok(())
}
