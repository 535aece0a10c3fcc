//! The detector, stage by stage and in training, against torchvision's in float64.
// Clippy knows only `#[test]` functions as tests; helpers may fail the same way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "../../ops/tests/common/mod.rs"]
mod common;
#[path = "golden/formula.rs"]
mod formula;
#[path = "golden/stages.rs"]
mod stages;
#[path = "golden/step.rs"]
mod step;

use common::{Golden, pick};
use docent_detect::backbone::ResNetConfig;
use docent_detect::layers::NormKind;
use docent_detect::{Detection, Detector, FasterRcnn, FasterRcnnConfig, ImageBatch, Mode, RegionHeads};
use formula::{Even, Formula, batch, builder, config, given, targets, train_with};
use step::compare_step;

/// One case: the model, its parameters and the batch.
struct Case {
    golden: Golden,
    name: &'static str,
    formula: Formula,
    config: FasterRcnnConfig,
    model: FasterRcnn,
    batch: ImageBatch,
}

impl Case {
    fn new(name: &'static str, depth: usize, norm: NormKind, norm_eps: f64, stride_in_1x1: bool) -> Self {
        let config = config(
            ResNetConfig::default()
                .depth(depth)
                .width_multiplier(0.25)
                .norm(norm)
                .norm_eps(norm_eps)
                .stride_in_1x1(stride_in_1x1),
            32,
            64,
        );
        Self::with(name, "model.safetensors", config)
    }

    fn with(name: &'static str, file: &str, config: FasterRcnnConfig) -> Self {
        let golden = Golden::open(env!("CARGO_MANIFEST_DIR"), file);
        let formula = Formula::new(&golden, name);
        let model = FasterRcnn::new(&config, builder(&formula)).unwrap();
        let batch = batch(&formula.seed);
        Self { golden, name, formula, config, model, batch }
    }

    fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.name)
    }

    /// C2..C5 and P2..P6.
    fn features(&self) {
        let stages = self.model.backbone(&self.batch, Mode::Eval).unwrap();
        for (i, level) in stages.levels.iter().enumerate() {
            self.golden.summary(&self.key(&format!("eval.c{}", i + 2)), level, 32);
        }
        let features = self.model.pyramid(&stages, Mode::Eval).unwrap();
        for (i, level) in features.levels.iter().enumerate() {
            self.golden.summary(&self.key(&format!("eval.p{}", i + 2)), level, 32);
        }
    }

    /// Every stage of inference.
    fn inference(&self) {
        self.features();
        let (model, golden) = (&self.model, &self.golden);
        let features = model.features(&self.batch, Mode::Eval).unwrap();
        let rpn = model.rpn(&features, &self.batch, Mode::Eval).unwrap();
        for (i, (objectness, deltas)) in rpn.logits.iter().zip(&rpn.deltas).enumerate() {
            golden.summary(&self.key(&format!("eval.objectness{i}")), objectness, 64);
            golden.summary(&self.key(&format!("eval.deltas{i}")), deltas, 64);
        }
        let each: Vec<usize> = rpn.anchors.iter().map(Vec::len).collect();
        golden.compare_counts(&self.key("eval.anchors_each"), &each);
        let anchors: Vec<[f32; 4]> = rpn.anchors.concat();
        let name = self.key("eval.anchors");
        let some: Vec<f32> = pick(&name, anchors.len(), 200).into_iter().flat_map(|i| anchors[i]).collect();
        golden.compare_f32(&name, &some);

        let proposals = model.propose(&features, &self.batch, Mode::Eval).unwrap();
        for (i, (found, scores)) in proposals.boxes.iter().zip(&proposals.scores).enumerate() {
            golden.compare_f32(&self.key(&format!("eval.proposals{i}.boxes")), found.as_flattened());
            golden.compare_f32(&self.key(&format!("eval.proposals{i}.scores")), scores);
        }
        let head = model.box_head(&features, &proposals.rois(), Mode::Eval).unwrap();
        golden.summary(&self.key("eval.class_logits"), &head.class_logits, 128);
        golden.summary(&self.key("eval.box_deltas"), &head.box_deltas, 128);
        self.detections("eval.detections", model);
    }

    fn detections(&self, key: &str, model: &FasterRcnn) {
        for (i, found) in model.detect(&self.batch).unwrap().iter().enumerate() {
            let list = |what: &str| self.key(&format!("{key}{i}.{what}"));
            let of = |f: fn(&Detection) -> f64| found.iter().map(f).collect::<Vec<_>>();
            let flat: Vec<f32> = found.iter().flat_map(|d| d.bbox).collect();
            self.golden.compare_f32(&list("boxes"), &flat);
            self.golden.compare(&list("scores"), &of(|d| f64::from(d.score)));
            self.golden.compare(&list("labels"), &of(|d| f64::from(d.label)));
        }
    }

    /// The same weights under a score threshold that decides more than the limit of detections does.
    fn strict(&self) {
        let mut config = self.config.clone();
        config.roi.score_threshold = 0.12;
        config.roi.detections_per_image = 100;
        self.detections("strict", &FasterRcnn::new(&config, builder(&self.formula.anew())).unwrap());
    }

    /// One step: losses, sampled RoIs, each parameter's gradient, the buffers afterwards.
    fn training(&self) {
        let prefix = self.key("train");
        let out = self.model.forward_train(&self.batch, &targets(&self.golden, &prefix), &mut Even).unwrap();
        compare_step(&self.golden, &prefix, &out, &self.formula, Some(16));
    }

    /// The same with given proposals; so many `entries` of each gradient, or all.
    fn training_with_given(&self, entries: Option<usize>) {
        let prefix = self.key("train");
        let (truth, proposals) = (targets(&self.golden, &prefix), given(&self.golden, &prefix));
        let out = train_with(&self.model, &self.batch, &truth, &proposals);
        compare_step(&self.golden, &prefix, &out, &self.formula, entries);
    }

    fn finish(&self) {
        self.golden.finish(&[&self.key("")]);
    }
}

#[test]
fn resnet18_with_frozen_norms() {
    let case = Case::new("frozen18", 18, NormKind::FrozenBatchNorm, 1e-5, false);
    case.inference();
    case.strict();
    case.training();
    case.finish();
}

#[test]
fn resnet18_with_batch_statistics() {
    let case = Case::new("batch18", 18, NormKind::BatchNorm, 1e-5, false);
    case.training();
    // The second image has no truth. Inference comes after the step, so it reads the moved statistics.
    case.inference();
    case.finish();
}

#[test]
fn resnet50_with_frozen_norms() {
    let case = Case::new("frozen50", 50, NormKind::FrozenBatchNorm, 1e-5, false);
    case.inference();
    case.training();
    case.finish();
}

#[test]
fn resnet34_with_group_norms() {
    let case = Case::new("group34", 34, NormKind::GroupNorm { groups: 4 }, 1e-5, false);
    case.training();
    case.finish();
}

#[test]
fn resnet50_of_msras_form() {
    let case = Case::new("msra50", 50, NormKind::FrozenBatchNorm, 1e-3, true);
    case.features();
    case.finish();
}

#[test]
fn every_gradient_of_a_narrow_model() {
    let backbone = ResNetConfig::default().depth(18).width_multiplier(0.125).norm(NormKind::BatchNorm);
    let case = Case::with("eighth", "training.safetensors", config(backbone, 16, 32));
    case.training_with_given(None);
    case.finish();
}

#[test]
fn resnet50_of_full_width() {
    // The eps of torchvision's COCO checkpoints.
    let backbone = ResNetConfig::default().norm_eps(0.0);
    let case = Case::with("full50", "training.safetensors", config(backbone, 256, 1024));
    case.inference();
    case.training_with_given(Some(64));
    case.finish();
}
