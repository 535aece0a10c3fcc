//! The stages one by one on given inputs: anchors, matcher, sampling, ties, levels.

use candle_core::Tensor;
use docent_detect::anchors::pyramid_anchors;
use docent_detect::matcher::{Match, Matcher};
use docent_detect::roi_heads::{LevelMapper, label_and_sample_proposals, postprocess};
use docent_detect::rpn::propose;
use docent_detect::{
    AnchorConfig, BoxCoder, BoxHeadOutput, BoxXyxy, DenseHeadOutput, Mode, Proposals, RoiConfig, RpnConfig, Size,
    Target,
};

use crate::common::{Golden, boxes, fill, filled, pick};
use crate::formula::Even;

/// The padded image and its levels; the last one's stride is no power of two.
const PADDED: Size = Size::new(96, 160);
const GRIDS: [Size; 5] = [Size::new(24, 40), Size::new(12, 20), Size::new(6, 10), Size::new(3, 5), Size::new(2, 3)];
const SIZES: [Size; 2] = [Size::new(90, 151), Size::new(77, 160)];

fn open() -> Golden {
    Golden::open(env!("CARGO_MANIFEST_DIR"), "stages.safetensors")
}

fn anchors(golden: &Golden, name: &str) -> Vec<Vec<BoxXyxy>> {
    let config: AnchorConfig = serde_json::from_value(golden.note(&format!("case anchors.{name}")).clone()).unwrap();
    pyramid_anchors(&config, PADDED, &GRIDS).unwrap()
}

#[test]
fn anchors_of_every_level() {
    let golden = open();
    for (name, _) in golden.notes("case anchors.") {
        for (i, level) in anchors(&golden, name).iter().enumerate() {
            let key = format!("anchors.{name}.{i}");
            let some: Vec<f32> = pick(&key, level.len(), 40).into_iter().flat_map(|a| level[a]).collect();
            golden.compare_f32(&key, &some);
        }
    }
    golden.finish(&["anchors."]);
}

/// Index and match of each box that is not background, as the generator writes them.
fn listed(matches: &[Match]) -> Vec<f64> {
    let of = |m: &Match| match m {
        Match::Negative => None,
        Match::Ignore => Some(-2.0),
        Match::Positive(g) => Some(*g as f64),
    };
    matches.iter().enumerate().filter_map(|(i, m)| Some([i as f64, of(m)?])).flatten().collect()
}

#[test]
fn matches_of_anchors() {
    let golden = open();
    let anchors = anchors(&golden, "small").concat();
    for i in 0..2 {
        let mut truth = boxes(&golden.input(&format!("matcher.truth{i}")));
        for (name, fg_iou_threshold, bg_iou_threshold, allow_low_quality_matches) in
            [("rpn", 0.7, 0.3, true), ("plain", 0.7, 0.3, false), ("head", 0.5, 0.5, false)]
        {
            let matcher = Matcher { fg_iou_threshold, bg_iou_threshold, allow_low_quality_matches };
            golden.compare(&format!("matcher.{name}{i}"), &listed(&matcher.assign(&truth, &anchors)));
        }
        // The one difference: a truth that overlaps nothing claims every anchor in torchvision, as the generator
        // asserts, and none here.
        truth.extend(boxes(&golden.input("matcher.far")));
        let matcher = Matcher { fg_iou_threshold: 0.7, bg_iou_threshold: 0.3, allow_low_quality_matches: true };
        golden.compare(&format!("matcher.rpn{i}"), &listed(&matcher.assign(&truth, &anchors)));
    }
    golden.finish(&["matcher."]);
}

#[test]
fn sampled_regions() {
    let golden = open();
    let key = |what: &str, i: usize| format!("sampling.{what}{i}");
    let truth = |i: usize| Target {
        boxes: boxes(&golden.input(&key("truth", i))),
        labels: golden.counts(&key("labels", i)).into_iter().map(|l| l as u32).collect(),
    };
    let given: Vec<_> = (0..3).map(|i| boxes(&golden.input(&key("proposals", i)))).collect();
    let proposals = Proposals { scores: given.iter().map(|b| vec![1.0; b.len()]).collect(), boxes: given };
    let config = RoiConfig::default().batch_size_per_image(16);
    let rois = label_and_sample_proposals(&config, &proposals, &[truth(0), truth(1), truth(2)], &mut Even).unwrap();
    let coder = BoxCoder::new(config.box_weights);
    for i in 0..3 {
        let mine: Vec<usize> = (0..rois.rois.len()).filter(|&r| rois.rois[r].0 == i).collect();
        let flat: Vec<f32> = mine.iter().flat_map(|&r| rois.rois[r].1).collect();
        golden.compare_f32(&key("rois", i), &flat);
        let classes: Vec<usize> = mine.iter().map(|&r| rois.labels[r] as usize).collect();
        golden.compare_counts(&key("classes", i), &classes);
        let positives = mine.iter().filter(|r| rois.positives.contains(r));
        let targets: Vec<f32> =
            positives.flat_map(|&r| coder.encode(&rois.matched_gt_boxes[r], &rois.rois[r].1)).collect();
        golden.compare_f32(&key("targets", i), &targets);
    }
    golden.finish(&["sampling."]);
}

#[test]
fn equal_scores() {
    let golden = open();
    // Quarters: the generator's logits with many ties.
    let logits = |i: usize, Size { height: h, width: w }| {
        let quarters = fill(&format!("ties.objectness{i}"), 6 * h * w, 2.0, 0.0).into_iter();
        let quarters: Vec<f32> = quarters.map(|v| (v * 4.0).round_ties_even() / 4.0).collect();
        Tensor::from_vec(quarters, (2, 3, h, w), &candle_core::Device::Cpu).unwrap()
    };
    let deltas = |i: usize, Size { height: h, width: w }| filled(&format!("ties.deltas{i}"), &[2, 12, h, w], 0.4, 0.0);
    let output = DenseHeadOutput {
        logits: GRIDS.into_iter().enumerate().map(|(i, g)| logits(i, g)).collect(),
        deltas: GRIDS.into_iter().enumerate().map(|(i, g)| deltas(i, g)).collect(),
        anchors: anchors(&golden, "small"),
    };
    let config = RpnConfig::default().pre_nms_top_n_test(80).post_nms_top_n_test(50);
    let proposals = propose(&config, &output, &SIZES, Mode::Eval).unwrap();
    for i in 0..2 {
        golden.compare_f32(&format!("ties.proposals{i}.boxes"), proposals.boxes[i].as_flattened());
        golden.compare_f32(&format!("ties.proposals{i}.scores"), &proposals.scores[i]);
    }

    const CLASSES: usize = 6;
    let mut logits = fill("ties.class_logits", 50 * CLASSES, 2.0, 0.0);
    (0..50).for_each(|row| logits[row * CLASSES + 2] = logits[row * CLASSES + 4]);
    for (to, from) in [(10, 0), (35, 25)] {
        logits.copy_within(from * CLASSES..(from + 10) * CLASSES, to * CLASSES);
    }
    let head = BoxHeadOutput {
        class_logits: Tensor::from_vec(logits, (50, CLASSES), &candle_core::Device::Cpu).unwrap(),
        box_deltas: filled("ties.box_deltas", &[50, 4 * CLASSES], 1.5, 0.0),
    };
    let regions = |i: usize| boxes(&golden.input(&format!("ties.regions{i}"))).into_iter().map(move |b| (i, b));
    let regions: Vec<_> = regions(0).chain(regions(1)).collect();
    let found = postprocess(&RoiConfig::default().detections_per_image(30), &head, &regions, &SIZES).unwrap();
    for (i, found) in found.iter().enumerate() {
        let key = |what: &str| format!("ties.detections{i}.{what}");
        golden.compare_f32(&key("boxes"), &found.iter().flat_map(|d| d.bbox).collect::<Vec<_>>());
        golden.compare_f32(&key("scores"), &found.iter().map(|d| d.score).collect::<Vec<_>>());
        golden.compare_counts(&key("labels"), &found.iter().map(|d| d.label as usize).collect::<Vec<_>>());
    }
    golden.finish(&["ties."]);
}

#[test]
fn levels_of_regions() {
    let golden = open();
    for scale in [224, 56] {
        let config = RoiConfig::default().canonical_box_size(scale as f32);
        let mapper = LevelMapper::new(&config, &[4, 8, 16, 32]);
        let regions = boxes(&golden.input(&format!("levels.{scale}.boxes")));
        let levels: Vec<usize> = regions.iter().map(|b| mapper.level(b)).collect();
        golden.compare_counts(&format!("levels.{scale}"), &levels);
    }
    golden.finish(&["levels."]);
}
