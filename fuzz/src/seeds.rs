//! For the tests of the workspace's crates: every seed of a target.

use std::fs;
use std::path::Path;

/// Calls `check` with each file of `fuzz/seeds/TARGET`.
pub fn each_seed(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(seeds.len() > 3, "{seeds:?}");
    seeds.iter().for_each(|seed| check(&fs::read(seed).unwrap()));
}
