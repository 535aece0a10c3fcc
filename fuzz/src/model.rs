//! What must hold for any bytes that docent-model reads. The fuzz targets call it, and so does a test, with every seed.

use std::path::Path;

use docent_model::detect::Registry;
use docent_model::{Checkpoint, Predictor, parse_safetensors, parse_weights};

/// A checkpoint: refused by header, metadata, architecture or tensor list, or a detector.
pub fn checkpoint(bytes: &[u8]) {
    let path = Path::new("fuzz.safetensors");
    let read = parse_safetensors(path, bytes).and_then(|file| {
        let _ = file.backbone_info(path);
        Checkpoint::from_file(path, file)
    });
    match read {
        Ok(checkpoint) => drop(Predictor::from_checkpoint(path, checkpoint, &Registry::builtin())),
        Err(error) => assert!(error.to_string().contains("fuzz.safetensors"), "{error}"),
    }
}

/// A weight file of any form: refused, or finite tensors under names without neutral prefixes, not much bigger than the file.
pub fn weights(bytes: &[u8]) {
    let path = Path::new("fuzz.pth");
    let file = match parse_weights(path, bytes) {
        Ok(file) => file,
        Err(error) => {
            assert!(error.to_string().contains("fuzz.pth"), "{error}");
            return;
        }
    };
    assert_eq!(file.tensors.len(), file.stored.len());
    // Each byte of the file may stand for a value of 16 tensors.
    let values: usize = file.tensors.values().map(|tensor| tensor.elem_count()).sum();
    assert!(values <= 16 * bytes.len());
    assert!(!file.tensors.keys().any(|name| name.starts_with("module.") || name.starts_with("model.")));
}
