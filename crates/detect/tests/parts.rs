//! A detector put together from parts: a backbone of the test's own, which gets work, freezing and gradients from its layers.

#![allow(clippy::unwrap_used)] // helpers of tests, which clippy.toml does not see as tests

use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use docent_detect::backbone::{Backbone, BackboneConfig, OtherBackbone};
use docent_detect::layers::{Conv2dConfig, ConvNorm, LayerKind, ModelBuilder, NormKind};
use docent_detect::testing::{FormulaStore, Kind, SplitMix};
use docent_detect::{
    BalancedPositiveNegativeSampler, Detector, DetectorConfig, FasterRcnn, FasterRcnnConfig, FeaturePyramid,
    FeatureSpec, ImageBatch, Mode, RegionHeads, Registry, Result, Size, Target,
};

/// A stem of stride 4 and two stages, at strides 8 and 16: fewer maps and other strides than docent's own backbones.
#[derive(Debug)]
struct TwoStages {
    layers: Vec<ConvNorm>,
    outputs: Vec<FeatureSpec>,
}

impl TwoStages {
    const CHANNELS: [usize; 3] = [8, 12, 20];
    /// Where each layer's inputs come from, and its stride.
    const STRIDES: [(usize, usize); 3] = [(1, 4), (4, 2), (8, 2)];

    fn new(builder: &ModelBuilder<'_>) -> Result<Self> {
        let mut c_in = 3;
        let mut layers = Vec::new();
        for (i, (c_out, (side, stride))) in Self::CHANNELS.into_iter().zip(Self::STRIDES).enumerate() {
            let here = builder.stage(i).on_maps(&[side]).pp(format!("part{i}"));
            let conv = Conv2dConfig::new(c_in, c_out, 5).stride(stride);
            layers.push(ConvNorm::new(&conv, NormKind::BatchNorm, 1e-5, &here.pp("conv"), &here.pp("norm"))?);
            c_in = c_out;
        }
        let spec = |name: &str, stride, channels| FeatureSpec { name: name.to_owned(), stride, channels };
        Ok(Self { layers, outputs: vec![spec("fine", 8, 12), spec("coarse", 16, 20)] })
    }
}

impl Backbone for TwoStages {
    fn outputs(&self) -> &[FeatureSpec] {
        &self.outputs
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<FeaturePyramid> {
        let mut maps = vec![x.clone()];
        for layer in &self.layers {
            maps.push(layer.forward(&maps[maps.len() - 1], None, true, mode)?);
        }
        Ok(FeaturePyramid::new(maps.split_off(2), &self.outputs))
    }
}

/// Settings for the three levels over [`TwoStages`].
fn config() -> FasterRcnnConfig {
    let mut config = FasterRcnnConfig::default().classes(3).fpn_channels(16);
    config.anchors.sizes = vec![12.0, 24.0, 48.0];
    (config.rpn.batch_size_per_image, config.rpn.post_nms_top_n_test) = (32, 20);
    (config.roi.batch_size_per_image, config.roi.representation_size) = (16, 32);
    config
}

fn build(config: &FasterRcnnConfig, store: &FormulaStore) -> Result<FasterRcnn> {
    let builder = ModelBuilder::new(store.builder());
    let body = Arc::new(TwoStages::new(&builder.pp("backbone").pp("body"))?);
    FasterRcnn::from_parts(config, body, &builder)
}

fn batch() -> ImageBatch {
    let planes: Vec<f32> = (0..3 * 40 * 56).map(|i| (i * 31 % 97) as f32 / 97.0).collect();
    ImageBatch::from_planes(&[(Size::new(40, 56), &planes)], 16, &Device::Cpu).unwrap()
}

fn is_state(name: &str) -> bool {
    name.contains("running_") || name.ends_with("tracked")
}

#[test]
fn a_backbone_of_ones_own_trains_and_detects() {
    let store = FormulaStore::new(|name| if is_state(name) { Kind::Plain } else { Kind::Variable });
    let model = build(&config(), &store).unwrap();
    let strides: Vec<usize> = model.levels().iter().map(|level| level.stride).collect();
    assert_eq!(strides, [8, 16, 32]);
    let batch = batch();
    let features = model.features(&batch, Mode::Eval).unwrap();
    assert_eq!(features.levels[0].dims(), [1, 16, 6, 8]);
    assert!(!model.propose(&features, &batch, Mode::Eval).unwrap().rois().is_empty());
    assert_eq!(model.detect(&batch).unwrap().len(), 1);

    let targets = [Target { boxes: vec![[4., 4., 28., 30.]], labels: vec![2] }];
    let mut sampler = BalancedPositiveNegativeSampler::new(vec![SplitMix(3)]);
    let gradients = model.forward_train(&batch, &targets, &mut sampler).unwrap().total().unwrap().backward().unwrap();
    for (name, var) in store.vars() {
        let gradient = gradients.get(&var).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(gradient.is_finite() && gradient > 0.0, "{name}: {gradient}");
    }
}

#[test]
fn its_layers_are_in_the_list() {
    let store = FormulaStore::new(|_| Kind::Plain);
    let model = build(&config(), &store).unwrap();
    let layers = model.layers();
    let asked: Vec<String> = store.tensors().into_iter().map(|(name, _)| name).collect();
    assert!(layers.tensors().keys().eq(&asked), "the list names what the model asked for");

    // 64x96 pixels: 16x24, 8x12 and 4x6 cells after the parts.
    let parts = [(3, 8, 16 * 24), (8, 12, 8 * 12), (12, 20, 4 * 6)];
    let by_hand: u64 = parts.iter().map(|(i, o, cells)| 2 * 25 * i * o * cells).sum();
    assert_eq!(layers.below("backbone.body").flops(Size::new(64, 96), 0), by_hand);

    assert_eq!(layers.freezable(), 3);
    let tensors = |at: usize| layers.frozen(at).into_iter().collect::<BTreeSet<_>>();
    let of_stem = ["conv.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"];
    let mut stem: BTreeSet<String> = of_stem.iter().map(|end| format!("backbone.body.part0.{end}")).collect();
    stem.insert("backbone.body.part0.norm.num_batches_tracked".to_owned());
    assert_eq!(tensors(1), stem);
    assert_eq!(tensors(3).len(), 18);
    assert!(tensors(3).iter().all(|name| name.starts_with("backbone.body.")));
    let counts: Vec<String> = (0..3).map(|i| format!("backbone.body.part{i}.norm.num_batches_tracked")).collect();
    assert!(layers.batch_counts().iter().eq(&counts));
}

#[test]
fn a_frozen_part_keeps_its_statistics() {
    let frozen: BTreeSet<String> =
        build(&config(), &FormulaStore::new(|_| Kind::Plain)).unwrap().layers().frozen(1).into_iter().collect();
    let store = FormulaStore::new(
        move |name| {
            if is_state(name) || frozen.contains(name) { Kind::Plain } else { Kind::Variable }
        },
    );
    let model = build(&config(), &store).unwrap();
    model.features(&batch(), Mode::Train).unwrap();
    let count = |part: usize| {
        let name = format!("backbone.body.part{part}.norm.num_batches_tracked");
        store.get(&name).unwrap().to_scalar::<f32>().unwrap()
    };
    assert_eq!([0, 1, 2].map(count), [0.0, 1.0, 1.0]);
}

#[test]
fn anchors_must_fit_the_pyramid() {
    let mut config = config();
    config.anchors.sizes.push(96.0);
    let message = build(&config, &FormulaStore::new(|_| Kind::Plain)).unwrap_err().to_string();
    assert!(
        message.contains("anchors.sizes") && message.contains("4 sizes") && message.contains("3 levels"),
        "{message}"
    );
}

#[test]
fn a_registry_builds_it_from_a_table() {
    let registry = Registry::builtin().with_backbone("two_stages", |config, builder| {
        let BackboneConfig::Other(OtherBackbone { fields, .. }) = config else { panic!("{config:?}") };
        assert_eq!(fields["note"], "mine", "the factory sees its fields");
        Ok(Arc::new(TwoStages::new(builder)?))
    });
    let mut table = serde_json::to_value(DetectorConfig::from(config())).unwrap();
    table["backbone"] = serde_json::json!({"architecture": "two_stages", "note": "mine"});
    let config: DetectorConfig = serde_json::from_value(table).unwrap();
    let store = FormulaStore::new(|_| Kind::Plain);
    let model = registry.detector(&config, store.builder()).unwrap();
    assert_eq!(model.config(), config, "a checkpoint that keeps it names this backbone");
    assert_eq!(model.stages()[1].name, "coarse");
    let convs = model.layers().below("backbone.body");
    assert_eq!(convs.iter().filter(|layer| matches!(layer.kind, LayerKind::Conv2d { .. })).count(), 3);

    let without = Registry::builtin().detector(&config, store.builder()).unwrap_err().to_string();
    assert!(without.contains("unknown backbone `two_stages`; known are mobilenet_v2, resnet"), "{without}");
    let other: DetectorConfig = serde_json::from_str(r#"{"architecture": "retinanet"}"#).unwrap();
    let unknown = registry.detector(&other, store.builder()).unwrap_err().to_string();
    assert!(unknown.contains("unknown detector `retinanet`; known are faster_rcnn"), "{unknown}");
    // A constructor that does not take a registry knows docent's own backbones alone.
    let message = FasterRcnn::new(config.faster_rcnn().unwrap(), store.builder()).unwrap_err().to_string();
    assert!(message.contains("unknown backbone `two_stages`"), "{message}");
}
