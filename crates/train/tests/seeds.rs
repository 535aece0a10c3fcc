//! Every seed of the fuzz targets, through what they check.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

#[path = "../../../fuzz/src/train.rs"]
mod targets;

fn each_seed(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(seeds.len() > 3, "{seeds:?}");
    seeds.iter().for_each(|seed| check(&fs::read(seed).unwrap()));
}

#[test]
fn the_seeds_keep_the_fuzz_targets_promises() {
    each_seed("checkpoint", targets::checkpoint);
    each_seed("recipe", |bytes| targets::recipe(std::str::from_utf8(bytes).unwrap()));
}
