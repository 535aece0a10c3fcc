//! Every seed of the fuzz targets, through what they check.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../../fuzz/src/seeds.rs"]
mod seeds;
#[path = "../../../fuzz/src/train.rs"]
mod targets;

use seeds::each_seed;

#[test]
fn the_seeds_keep_the_fuzz_targets_promises() {
    each_seed("checkpoint", targets::checkpoint);
    each_seed("weights", targets::weights);
    each_seed("recipe", |bytes| targets::recipe(std::str::from_utf8(bytes).unwrap()));
}
