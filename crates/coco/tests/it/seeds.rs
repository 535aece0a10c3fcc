//! Every seed of the fuzz targets, through what they check.

use std::fs;
use std::path::Path;

#[path = "../../../../fuzz/src/coco.rs"]
mod targets;

fn each_seed(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(seeds.len() > 3, "{seeds:?}");
    seeds.iter().for_each(|seed| check(&fs::read(seed).unwrap()));
}

#[test]
fn the_seeds_keep_the_fuzz_targets_promises() {
    each_seed("coco_json", targets::coco_json);
    each_seed("voc_xml", targets::voc_xml);
    each_seed("image", targets::image);
    each_seed("results_json", targets::results_json);
}
