//! Models filled by the generator's formula: parameters, images, injected samples. Shared with docent-train's goldens.
#![allow(dead_code)] // each test crate uses its part

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use docent_detect::backbone::ResNetConfig;
use docent_detect::roi_heads::head_losses;
use docent_detect::rpn::rpn_losses;
use docent_detect::{
    Detector, FasterRcnn, FasterRcnnConfig, ImageBatch, Losses, Mode, Proposals, RegionHeads, RegionStage,
    SamplePurpose, Sampler, Size, Target, TrainOutput,
};

use crate::common::{Golden, boxes, image, parameter};

/// Sizes of the two images; the generator has the same.
pub const SIZES: [Size; 2] = [Size::new(97, 130), Size::new(115, 101)];

/// The generator's detector: its anchors and counts; the backbone, `fpn` channels and `hidden` units are the case's.
pub fn config(backbone: ResNetConfig, fpn: usize, hidden: usize) -> FasterRcnnConfig {
    let mut config = FasterRcnnConfig::default().classes(11).fpn_channels(fpn).backbone(backbone);
    config.anchors.sizes = vec![8.0, 16.0, 32.0, 64.0, 128.0];
    (config.rpn.pre_nms_top_n_train, config.rpn.post_nms_top_n_train) = (120, 50);
    (config.rpn.pre_nms_top_n_test, config.rpn.post_nms_top_n_test) = (100, 24);
    config.rpn.batch_size_per_image = 48;
    config.roi.batch_size_per_image = 32;
    config.roi.canonical_box_size = 56.0;
    config.roi.representation_size = hidden;
    config.roi.detections_per_image = 40;
    config
}

/// The two images of a seed.
pub fn batch(seed: &str) -> ImageBatch {
    let picture = |(i, size): (usize, Size)| image(&format!("{seed}/image{i}"), size.height, size.width);
    let planes: Vec<Vec<f32>> = SIZES.into_iter().enumerate().map(picture).collect();
    let images: Vec<_> = SIZES.into_iter().zip(&planes).map(|(size, p)| (size, p.as_slice())).collect();
    ImageBatch::from_planes(&images, 32, &Device::Cpu).unwrap()
}

/// The truths of both images.
pub fn targets(golden: &Golden, prefix: &str) -> Vec<Target> {
    let labels = |i: usize| golden.counts(&format!("{prefix}.truth{i}.labels"));
    let boxes = |i: usize| boxes(&golden.input(&format!("{prefix}.truth{i}.boxes")));
    (0..2).map(|i| Target { boxes: boxes(i), labels: labels(i).into_iter().map(|l| l as u32).collect() }).collect()
}

/// The boxes that stand in the place of both images' proposals.
pub fn given(golden: &Golden, prefix: &str) -> Proposals {
    let boxes: Vec<_> = (0..2).map(|i| boxes(&golden.input(&format!("{prefix}.proposals{i}")))).collect();
    Proposals { scores: boxes.iter().map(|b| vec![1.0; b.len()]).collect(), boxes }
}

/// [`Detector::forward_train`] with given proposals instead of the RPN's.
pub fn train_with(model: &FasterRcnn, batch: &ImageBatch, targets: &[Target], proposals: &Proposals) -> TrainOutput {
    let stages = model.backbone(batch, Mode::Train).unwrap();
    let pyramid = model.pyramid(&stages, Mode::Train).unwrap();
    let rpn = model.rpn(&pyramid, batch, Mode::Train).unwrap();
    let (rpn_objectness, rpn_box) = rpn_losses(&model.settings().rpn, &rpn, targets, &mut Even).unwrap();
    let rois = model.label_and_sample_proposals(proposals, targets, &mut Even).unwrap();
    let head = model.box_head(&pyramid, &rois.rois, Mode::Train).unwrap();
    let (head_class, head_box) = head_losses(&model.settings().roi, &head, &rois).unwrap();
    let losses = Losses::new([
        ("rpn_objectness", rpn_objectness),
        ("rpn_box", rpn_box),
        ("head_class", head_class),
        ("head_box", head_box),
    ]);
    TrainOutput { stages, pyramid, dense: Some(rpn), regions: vec![RegionStage { rois, head }], losses }
}

/// Makes every parameter from the formula; variables and buffers can be looked at afterwards.
#[derive(Clone)]
pub struct Formula {
    /// Part of every parameter's key, and of the images'.
    pub seed: String,
    gains: Vec<(String, f64)>,
    /// The bias that the generator sets so that no class wins everywhere.
    class_bias: Vec<f32>,
    /// What was handed out.
    pub made: Arc<Mutex<Made>>,
}

#[derive(Default)]
pub struct Made {
    /// Parameters.
    pub vars: BTreeMap<String, Var>,
    /// Running statistics.
    pub buffers: BTreeMap<String, Tensor>,
}

impl Formula {
    /// The seed, gains and class bias of a case in a golden file.
    pub fn new(golden: &Golden, case: &str) -> Self {
        let gain = |pair: &serde_json::Value| (pair[0].as_str().unwrap().to_owned(), pair[1].as_f64().unwrap());
        Self {
            seed: golden.note(&format!("seed {case}")).as_str().unwrap().to_owned(),
            gains: golden.note("gains").as_array().unwrap().iter().map(gain).collect(),
            class_bias: golden.input(&format!("{case}.cls_bias")),
            made: Arc::default(),
        }
    }

    /// The same formula, of which nothing was handed out yet.
    pub fn anew(&self) -> Self {
        Self { made: Arc::default(), ..self.clone() }
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
pub struct Even;

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

/// A builder over the formula.
pub fn builder(formula: &Formula) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(formula.clone()), DType::F32, Device::Cpu)
}
