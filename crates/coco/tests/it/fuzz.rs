//! Every seed of the fuzz targets, through what they check.

#[path = "../../../../fuzz/src/seeds.rs"]
mod seeds;
#[path = "../../../../fuzz/src/coco.rs"]
mod targets;

use seeds::each_seed;

#[test]
fn the_seeds_keep_the_fuzz_targets_promises() {
    each_seed("coco_json", targets::coco_json);
    each_seed("voc_xml", targets::voc_xml);
    each_seed("image", targets::image);
    each_seed("results_json", targets::results_json);
    each_seed("labelme_json", targets::labelme_json);
    each_seed("via_json", targets::via_json);
    each_seed("table_csv", targets::table_csv);
    each_seed("data_yaml", targets::data_yaml);
}
