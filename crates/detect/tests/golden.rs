//! The detector, stage by stage and in training, against torchvision's in float64.
// Clippy knows only `#[test]` functions as tests; helpers may fail the same way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "../../ops/tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use common::{Golden, boxes, image, parameter, pick, values};
use docent_detect::{
    Detection, FasterRcnn, FasterRcnnConfig, ImageBatch, Mode, NormKind, ResNetConfig, SamplePurpose, Sampler,
    StridePlace, Targets,
};

/// Heights and widths of the two images; the generator has the same.
const SIZES: [(usize, usize); 2] = [(97, 130), (115, 101)];

fn open() -> Golden {
    Golden::open(env!("CARGO_MANIFEST_DIR"), "model.safetensors")
}

/// Makes every parameter from the formula; variables and buffers can be looked at afterwards.
#[derive(Clone)]
struct Formula {
    seed: String,
    gains: Vec<(String, f64)>,
    /// The bias that the generator sets so that no class wins everywhere.
    class_bias: Vec<f32>,
    made: Arc<Mutex<Made>>,
}

#[derive(Default)]
struct Made {
    vars: BTreeMap<String, Var>,
    buffers: BTreeMap<String, Tensor>,
}

impl Formula {
    fn new(golden: &Golden, case: &str) -> Self {
        let gain = |pair: &serde_json::Value| (pair[0].as_str().unwrap().to_owned(), pair[1].as_f64().unwrap());
        Self {
            seed: golden.note(&format!("seed {case}")).as_str().unwrap().to_owned(),
            gains: golden.note("gains").as_array().unwrap().iter().map(gain).collect(),
            class_bias: golden.input(&format!("{case}.cls_bias")),
            made: Arc::default(),
        }
    }

    fn values(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        if name.ends_with("num_batches_tracked") {
            return vec![0.0];
        }
        if name == "roi_heads.box_predictor.cls_score.bias" {
            return self.class_bias.clone();
        }
        let gain = self.gains.iter().find(|(part, _)| name.contains(part)).map_or(1.0, |(_, gain)| *gain);
        parameter(&self.seed, name, shape, gain)
    }
}

impl SimpleBackend for Formula {
    fn get(&self, shape: Shape, name: &str, _: Init, _: DType, device: &Device) -> candle_core::Result<Tensor> {
        let tensor = Tensor::from_vec(self.values(name, shape.dims()), shape, device)?;
        let mut made = self.made.lock().unwrap();
        if name.contains("running") || name.ends_with("tracked") {
            made.buffers.insert(name.to_owned(), tensor.clone());
            return Ok(tensor);
        }
        let var = Var::from_tensor(&tensor)?;
        made.vars.insert(name.to_owned(), var.clone());
        Ok(var.as_tensor().clone())
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("{name}: the formula needs a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// Evenly spaced members of each list, as the generator takes them.
struct Even;

impl Sampler for Even {
    fn sample(
        &mut self,
        _: SamplePurpose,
        _: usize,
        positives: &[usize],
        negatives: &[usize],
        n_pos: usize,
        n_neg: usize,
    ) -> (Vec<usize>, Vec<usize>) {
        let take = |from: &[usize], n: usize| (0..n).map(|i| from[i * from.len() / n]).collect();
        (take(positives, n_pos.min(positives.len())), take(negatives, n_neg.min(negatives.len())))
    }
}

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
    fn new(name: &'static str, depth: usize, norm: NormKind, norm_eps: f64, stride_place: StridePlace) -> Self {
        let golden = open();
        let formula = Formula::new(&golden, name);
        let mut config = FasterRcnnConfig {
            classes: 11,
            fpn_channels: 32,
            backbone: ResNetConfig { depth, width: 0.25, norm, norm_eps, stride_place },
            ..FasterRcnnConfig::default()
        };
        config.anchors.sizes = vec![8.0, 16.0, 32.0, 64.0, 128.0];
        (config.rpn.pre_nms_train, config.rpn.post_nms_train) = (120, 50);
        (config.rpn.pre_nms_test, config.rpn.post_nms_test) = (100, 24);
        config.rpn.samples = 48;
        config.roi.samples = 32;
        config.roi.canonical_scale = 56.0;
        config.roi.hidden = 64;
        config.roi.detections = 40;
        let model = FasterRcnn::new(&config, builder(&formula)).unwrap();
        let picture = |(i, (h, w))| image(&format!("{}/image{i}", formula.seed), h, w);
        let planes: Vec<Vec<f32>> = SIZES.into_iter().enumerate().map(picture).collect();
        let images: Vec<_> = SIZES.iter().zip(&planes).map(|(&(h, w), p)| (h, w, p.as_slice())).collect();
        let batch = ImageBatch::from_planes(&images, 32, &Device::Cpu).unwrap();
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
        let features = self.model.fpn(&stages).unwrap();
        for (i, level) in features.levels.iter().enumerate() {
            self.golden.summary(&self.key(&format!("eval.p{}", i + 2)), level, 32);
        }
    }

    /// Every stage of inference.
    fn inference(&self) {
        self.features();
        let (model, golden) = (&self.model, &self.golden);
        let features = model.features(&self.batch, Mode::Eval).unwrap();
        let rpn = model.rpn(&features, &self.batch).unwrap();
        for (i, (objectness, deltas)) in rpn.objectness.iter().zip(&rpn.deltas).enumerate() {
            golden.summary(&self.key(&format!("eval.objectness{i}")), objectness, 64);
            golden.summary(&self.key(&format!("eval.deltas{i}")), deltas, 64);
        }
        let each: Vec<usize> = rpn.anchors.iter().map(Vec::len).collect();
        golden.compare_counts(&self.key("eval.anchors_each"), &each);
        let anchors: Vec<[f32; 4]> = rpn.anchors.concat();
        let name = self.key("eval.anchors");
        let some: Vec<f32> = pick(&name, anchors.len(), 200).into_iter().flat_map(|i| anchors[i]).collect();
        golden.compare_f32(&name, &some);

        let proposals = model.propose(&rpn, &self.batch.sizes, Mode::Eval).unwrap();
        for (i, (found, scores)) in proposals.boxes.iter().zip(&proposals.scores).enumerate() {
            golden.compare_f32(&self.key(&format!("eval.proposals{i}.boxes")), found.as_flattened());
            golden.compare_f32(&self.key(&format!("eval.proposals{i}.scores")), scores);
        }
        let head = model.box_head(&features, &proposals.rois()).unwrap();
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
        config.roi.detections = 100;
        let formula = Formula { made: Arc::default(), ..self.formula.clone() };
        self.detections("strict", &FasterRcnn::new(&config, builder(&formula)).unwrap());
    }

    /// One step: losses, sampled RoIs, each parameter's gradient, the buffers afterwards.
    fn training(&self) {
        let golden = &self.golden;
        let labels =
            |i: usize| golden.counts(&self.key(&format!("train.truth{i}.labels"))).into_iter().map(|l| l as u32);
        let truth = |i: usize| Targets {
            boxes: boxes(&golden.input(&self.key(&format!("train.truth{i}.boxes")))),
            labels: labels(i).collect(),
        };
        let targets = [truth(0), truth(1)];
        let out = self.model.train(&self.batch, &targets, &mut Even).unwrap();
        for (name, loss) in [
            ("loss_objectness", &out.losses.rpn_objectness),
            ("loss_rpn_box_reg", &out.losses.rpn_box),
            ("loss_classifier", &out.losses.head_class),
            ("loss_box_reg", &out.losses.head_box),
        ] {
            golden.tensor(&self.key(&format!("train.{name}")), loss);
        }
        for i in 0..SIZES.len() {
            let mine: Vec<usize> = (0..out.rois.rois.len()).filter(|&r| out.rois.rois[r].0 == i).collect();
            let flat: Vec<f32> = mine.iter().flat_map(|&r| out.rois.rois[r].1).collect();
            golden.compare_f32(&self.key(&format!("train.rois{i}")), &flat);
            let labels: Vec<usize> = mine.iter().map(|&r| out.rois.labels[r] as usize).collect();
            golden.compare_counts(&self.key(&format!("train.roi_labels{i}")), &labels);
        }
        golden.summary(&self.key("train.class_logits"), &out.head.class_logits, 64);
        golden.summary(&self.key("train.box_deltas"), &out.head.box_deltas, 64);

        let grads = out.losses.total().unwrap().backward().unwrap();
        let made = self.formula.made.lock().unwrap();
        for (name, var) in &made.vars {
            let key = self.key(&format!("train.grad.{name}"));
            match (grads.get(var), golden.has(&format!("{key}|norm"))) {
                (Some(grad), true) => golden.summary(&key, grad, 16),
                (None, false) => (), // the weight and bias of a frozen norm
                (found, _) => {
                    golden.fault(format!("{key}: gradient here: {}, in torch: {}", found.is_some(), found.is_none()))
                }
            }
        }
        for (name, buffer) in &made.buffers {
            let key = self.key(&format!("train.buffer.{name}"));
            if name.ends_with("tracked") {
                golden.compare_f32(&key, &values(buffer));
            } else if golden.has(&format!("{key}|norm")) {
                golden.summary(&key, buffer, 8);
            }
        }
    }

    fn finish(&self) {
        self.golden.finish(&[&self.key("")]);
    }
}

fn builder(formula: &Formula) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(formula.clone()), DType::F32, Device::Cpu)
}

#[test]
fn resnet18_with_frozen_norms() {
    let case = Case::new("frozen18", 18, NormKind::FrozenBatchNorm, 1e-5, StridePlace::In3x3);
    case.inference();
    case.strict();
    case.training();
    case.finish();
}

#[test]
fn resnet18_with_batch_statistics() {
    let case = Case::new("batch18", 18, NormKind::BatchNorm, 1e-5, StridePlace::In3x3);
    case.training();
    // The second image has no truth. Inference comes after the step, so it reads the moved statistics.
    case.inference();
    case.finish();
}

#[test]
fn resnet50_with_frozen_norms() {
    let case = Case::new("frozen50", 50, NormKind::FrozenBatchNorm, 1e-5, StridePlace::In3x3);
    case.inference();
    case.training();
    case.finish();
}

#[test]
fn resnet34_with_group_norms() {
    let case = Case::new("group34", 34, NormKind::GroupNorm { groups: 4 }, 1e-5, StridePlace::In3x3);
    case.training();
    case.finish();
}

#[test]
fn resnet50_of_msras_form() {
    let case = Case::new("msra50", 50, NormKind::FrozenBatchNorm, 1e-3, StridePlace::In1x1);
    case.features();
    case.finish();
}
