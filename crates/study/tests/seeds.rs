//! Every seed of the fuzz targets, through what they check.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../../fuzz/src/model.rs"]
mod model;
#[path = "../../../fuzz/src/study.rs"]
mod recipe;
#[path = "../../../fuzz/src/seeds.rs"]
mod seeds;

use seeds::each_seed;

#[test]
fn the_seeds_keep_the_fuzz_targets_promises() {
    each_seed("checkpoint", model::checkpoint);
    each_seed("weights", model::weights);
    each_seed("recipe", |bytes| recipe::recipe(std::str::from_utf8(bytes).unwrap()));
}
