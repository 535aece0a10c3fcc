//! The digest that our safetensors files carry of their own content: damage shows when the file is read, not in its results.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use crate::digest::hex;
use crate::error::{Error, Result};

/// The metadata key under which the digest stands.
pub(crate) const KEY: &str = "content_sha256";

/// SHA-256 over metadata (without [`KEY`]) and tensors in name order; every part is preceded by its length.
pub(crate) struct ContentHash(Sha256);

impl ContentHash {
    /// Begins with the metadata.
    pub(crate) fn new(metadata: &BTreeMap<String, String>) -> Self {
        let mut hash = Self(Sha256::new());
        for (key, value) in metadata.iter().filter(|(key, _)| *key != KEY) {
            hash.part(key.as_bytes());
            hash.part(value.as_bytes());
        }
        hash
    }

    /// Goes on with a tensor, whose bytes follow.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) {
        self.part(name.as_bytes());
        let shape: Vec<u8> = shape.iter().flat_map(|n| (*n as u64).to_le_bytes()).collect();
        self.part(&shape);
    }

    /// Bytes of the tensor; its shape has told how many there are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// In hexadecimal.
    pub(crate) fn finish(self) -> String {
        hex(&self.0.finalize())
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

/// Checks that a file with a digest is as it was written. Other programs' files have none and pass.
///
/// # Errors
/// Metadata or tensors that differ from those that were written, even by one bit.
pub(crate) fn check(path: &Path, metadata: &BTreeMap<String, String>, view: &SafeTensors<'_>) -> Result<()> {
    let Some(expected) = metadata.get(KEY) else { return Ok(()) };
    let mut hash = ContentHash::new(metadata);
    let tensors: BTreeMap<_, _> = view.iter().collect();
    for (name, tensor) in tensors {
        hash.tensor(name, tensor.shape());
        hash.bytes(tensor.data());
    }
    if hash.finish() == *expected {
        return Ok(());
    }
    let what = format!(
        "its content is not what was written: damaged, or changed by hand (`{KEY}` in its metadata does not fit). Write or fetch \
         it again; if you changed it on purpose, remove `{KEY}` from its metadata"
    );
    Err(Error::file(path, what))
}
