//! Every seed of the fuzz target `upload`, through what it checks.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../../fuzz/src/seeds.rs"]
mod seeds;
#[path = "../../../fuzz/src/upload.rs"]
mod upload;

#[test]
fn the_seeds_keep_the_fuzz_targets_promises() {
    seeds::each_seed("upload", upload::upload);
}
