//! Fuzz target: PASCAL VOC's files.
#![no_main]

use docent_fuzz::coco::voc_xml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| voc_xml(bytes));
