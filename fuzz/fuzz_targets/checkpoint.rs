//! A checkpoint of any bytes: refused by header, metadata, architecture or tensor list, or a detector.
#![no_main]

use std::path::Path;

use docent_train::detector::Detector;
use docent_train::{Checkpoint, parse_safetensors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("fuzz.safetensors");
    let read = parse_safetensors(path, bytes).and_then(|file| {
        let _ = file.backbone_info(path);
        Checkpoint::from_file(path, file)
    });
    match read {
        Ok(checkpoint) => drop(Detector::from_checkpoint(path, checkpoint)),
        Err(error) => assert!(error.to_string().contains("fuzz.safetensors"), "{error}"),
    }
});
