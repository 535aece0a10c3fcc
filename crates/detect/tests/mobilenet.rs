//! MobileNetV2 against torchvision's: features, every gradient, running statistics, real weights; and that it learns.
// Clippy knows only `#[test]` functions as tests; helpers may fail the same way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "../../ops/tests/common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use common::{Golden, fill, image, parameter, values};
use docent_detect::backbone::{Backbone, BackboneConfig, MobileNetV2Config};
use docent_detect::layers::{LayerList, ModelBuilder, NormKind};
use docent_detect::testing::{FormulaStore, Kind, SplitMix};
use docent_detect::{
    BalancedPositiveNegativeSampler, BoxXyxy, Detector, FasterRcnn, FasterRcnnConfig, ImageBatch, Mode, Normalize,
    Registry, Size, Target,
};

const PREFIX: &str = "backbone.body";

/// The backbone over the parameters of `vb`, and its layers.
fn backbone(cfg: &BackboneConfig, vb: VarBuilder<'_>) -> (Arc<dyn Backbone>, LayerList) {
    let builder = ModelBuilder::new(vb);
    let body = Registry::builtin().backbone(cfg, &builder.pp(PREFIX)).unwrap();
    (body, builder.layers())
}

/// The backbone's layers, whose description must be what the backbone asks a store for.
fn layers(cfg: &BackboneConfig) -> LayerList {
    let store = FormulaStore::new(|_| Kind::Plain);
    let (_, layers) = backbone(cfg, store.builder());
    let asked: BTreeMap<_, _> = store.tensors().into_iter().map(|(n, t)| (n, t.dims().to_vec())).collect();
    let listed: BTreeMap<_, _> = layers.tensors().into_iter().map(|(n, t)| (n, t.shape)).collect();
    assert_eq!(listed, asked);
    layers
}

fn is_state(name: &str) -> bool {
    name.contains("running") || name.ends_with("tracked")
}

/// Both images of the golden in one batch, as its generator makes them.
fn pixels(golden: &Golden) -> Tensor {
    let sizes: Vec<(usize, usize)> = serde_json::from_value(golden.note("sizes").clone()).unwrap();
    let (height, width) = (sizes.iter().map(|s| s.0).max().unwrap(), sizes.iter().map(|s| s.1).max().unwrap());
    let mut data = vec![0f32; sizes.len() * 3 * height * width];
    for (i, &(h, w)) in sizes.iter().enumerate() {
        for (at, v) in image(&format!("mobilenet/image{i}"), h, w).into_iter().enumerate() {
            let (c, y, x) = (at / (h * w), at / w % h, at % w);
            data[((i * 3 + c) * height + y) * width + x] = (4.0 * f64::from(v) - 2.0) as f32;
        }
    }
    Tensor::from_vec(data, (sizes.len(), 3, height, width), &Device::Cpu).unwrap()
}

fn against_torchvision(kind: &str, norm: NormKind) {
    let golden = Golden::open(env!("CARGO_MANIFEST_DIR"), "mobilenet.safetensors");
    let (width, gain) = (golden.note("width").as_f64().unwrap(), golden.note("gain").as_f64().unwrap());
    let norm_scale = golden.note("norm_scale")[kind].as_f64().unwrap() as f32;
    let cfg: BackboneConfig = MobileNetV2Config::default().width_multiplier(width).norm(norm).norm_eps(1e-5).into();
    let (mut vars, mut plain, mut all) = (BTreeMap::new(), BTreeMap::new(), std::collections::HashMap::new());
    for (name, described) in layers(&cfg).tensors() {
        let shape = described.shape;
        let short = name.strip_prefix("backbone.body.").unwrap().to_owned();
        let mut data = if name.ends_with("tracked") { vec![0.0] } else { parameter("mobilenet", &short, &shape, gain) };
        if name.ends_with("weight") && shape.len() == 1 {
            data.iter_mut().for_each(|v| *v *= norm_scale);
        }
        let tensor = Tensor::from_vec(data, shape, &Device::Cpu).unwrap();
        let tensor = if described.buffer {
            plain.insert(short, tensor.clone());
            tensor
        } else {
            let var = Var::from_tensor(&tensor).unwrap();
            vars.insert(short, var.clone());
            var.as_tensor().clone()
        };
        all.insert(name, tensor);
    }
    let (body, _) = backbone(&cfg, VarBuilder::from_tensors(all, DType::F32, &Device::Cpu));
    let levels = body.forward(&pixels(&golden), Mode::Train).unwrap().levels;
    let mut loss = Tensor::zeros((), DType::F32, &Device::Cpu).unwrap();
    for (i, level) in levels.iter().enumerate() {
        golden.summary(&format!("{kind}.c{}", i + 2), level, 64);
        let cotangent = fill(&format!("mobilenet/cotangent{i}"), level.elem_count(), 1.0, 0.0);
        let cotangent = Tensor::from_vec(cotangent, level.shape(), &Device::Cpu).unwrap();
        loss = (loss + (level * cotangent).unwrap().sum_all().unwrap()).unwrap();
    }
    let grads = loss.backward().unwrap();
    for (name, var) in &vars {
        golden.summary(&format!("{kind}.grad.{name}"), grads.get(var).unwrap(), 8);
    }
    if norm == NormKind::BatchNorm {
        for (name, tensor) in plain.iter().filter(|(n, _)| n.contains("running")) {
            golden.summary(&format!("{kind}.buffer.{name}"), tensor, 4);
        }
        assert!(plain.iter().filter(|(n, _)| n.ends_with("tracked")).all(|(_, t)| values(t) == [1.0]));
    } else {
        assert!(vars.keys().all(|n| !is_state(n)) && plain.len() > vars.len(), "a frozen norm has no variable");
    }
    // Every value of the generator has its counterpart here: no parameter's name is our own.
    golden.finish(&[&format!("{kind}.")]);
}

#[test]
fn features_and_gradients_with_frozen_norms() {
    against_torchvision("frozen", NormKind::FrozenBatchNorm);
}

#[test]
fn features_and_gradients_with_batch_statistics() {
    against_torchvision("batch", NormKind::BatchNorm);
}

#[test]
fn freezing_covers_every_tensor_once() {
    let cfg: BackboneConfig = MobileNetV2Config::default().into();
    let layers = layers(&cfg);
    let all: BTreeSet<String> = layers.tensors().into_keys().collect();
    let frozen = |at: usize| -> BTreeSet<String> { layers.frozen(at).into_iter().collect() };
    assert_eq!(frozen(5), all);
    for at in 0..5 {
        assert!(frozen(at).is_subset(&frozen(at + 1)) && frozen(at).len() < frozen(at + 1).len());
    }
    assert!(
        frozen(2).contains("backbone.body.3.conv.2.weight") && !frozen(2).contains("backbone.body.4.conv.2.weight")
    );
    assert!(!frozen(2).iter().any(|n| n.starts_with("backbone.body.13.")), "3. is not 13.");
}

/// A detector over this backbone learns an image by heart, its first stages frozen.
#[test]
fn it_learns_two_boxes() {
    const BOXES: [BoxXyxy; 2] = [[8., 6., 30., 40.], [34., 20., 60., 38.]];
    let backbone =
        MobileNetV2Config::default().width_multiplier(0.35).norm(NormKind::GroupNorm { groups: 4 }).norm_eps(1e-5);
    let mut cfg = FasterRcnnConfig::default().classes(3).fpn_channels(16).backbone(backbone);
    cfg.anchors.sizes = vec![8.0, 16.0, 32.0, 64.0, 128.0];
    (cfg.rpn.batch_size_per_image, cfg.rpn.post_nms_top_n_train) = (64, 60);
    (cfg.roi.batch_size_per_image, cfg.roi.representation_size, cfg.roi.canonical_box_size) = (32, 32, 56.0);
    let frozen = layers(&cfg.backbone).frozen(2);
    let store =
        FormulaStore::new(move |name| if frozen.iter().any(|f| f == name) { Kind::Plain } else { Kind::Variable });
    let model = FasterRcnn::new(&cfg, store.builder()).unwrap();
    let (h, w) = (48, 64);
    let inside = |y: usize, x: usize| {
        BOXES.iter().any(|b| b[0] <= x as f32 && (x as f32) < b[2] && b[1] <= y as f32 && (y as f32) < b[3])
    };
    let planes: Vec<f32> =
        (0..3 * h * w).map(|i| if inside(i / w % h, i % w) { 0.5 + 0.2 * (i / (h * w)) as f32 } else { 0.3 }).collect();
    let batch = ImageBatch::from_planes(&[(Size::new(h, w), &planes)], 32, &Device::Cpu).unwrap();
    let targets = [Target { boxes: BOXES.to_vec(), labels: vec![1, 2] }];
    let before = store.get("backbone.body.2.conv.2.weight").unwrap().copy().unwrap();
    let mut losses = vec![];
    for step in 0..40 {
        let mut draw = BalancedPositiveNegativeSampler::new(vec![SplitMix(step)]);
        let total = model.forward_train(&batch, &targets, &mut draw).unwrap().total().unwrap();
        losses.push(total.to_scalar::<f32>().unwrap());
        let grads = total.backward().unwrap();
        for (name, var) in store.vars() {
            let Some(grad) = grads.get(&var) else { panic!("{name} has no gradient") };
            var.set(&(var.as_tensor().detach() - (grad * 0.02).unwrap()).unwrap()).unwrap();
        }
    }
    let (first, last) = (losses[0], losses[35..].iter().sum::<f32>() / 5.0);
    assert!(last < 0.7 * first, "from {first} to {last}: {losses:?}");
    let after = store.get("backbone.body.2.conv.2.weight").unwrap();
    assert_eq!(values(&before), values(&after), "the first stage is frozen");
    assert!(store.vars().iter().all(|(n, _)| !n.starts_with("backbone.body.2.")));
}

/// torchvision's ImageNet weights, where they lie beside the repository: features of a formula's image. The literals come from
/// torchvision in float64 (`xtask/golden/mobilenet.py FILE`).
#[test]
fn the_imagenet_weights_give_torchvisions_features() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/weights/mobilenet_v2-imagenet.safetensors");
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return;
    }
    let file = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let kept = file.iter().filter_map(|(n, t)| Some((n.strip_prefix("features.")?.to_owned(), t)));
    let tensors: std::collections::HashMap<String, Tensor> = kept
        .filter(|(n, _)| !n.starts_with("18."))
        .map(|(n, t)| (format!("{PREFIX}.{n}"), t.to_dtype(DType::F32).unwrap()))
        .collect();
    let cfg: BackboneConfig = MobileNetV2Config::default().into();
    let asked: BTreeSet<String> = layers(&cfg).tensors().into_keys().collect();
    assert_eq!(asked, tensors.keys().cloned().collect(), "every tensor of the file has its place");
    let (body, _) = backbone(&cfg, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu));
    let planes = image("mobilenet/real", 96, 128);
    let batch = ImageBatch::from_planes(&[(Size::new(96, 128), &planes)], 32, &Device::Cpu).unwrap();
    let levels = body.forward(&Normalize::imagenet().apply(&batch).unwrap(), Mode::Eval).unwrap().levels;
    let expected = [
        ([24, 24, 32], 184.864_003_72, [0.818_300_82, -0.911_075_89, -1.051_808_98, 3.489_406_53]),
        ([32, 12, 16], 82.951_357_31, [0.092_870_65, 0.695_605_22, 0.284_147_65, -1.459_024_71]),
        ([96, 6, 8], 35.028_189_79, [0.122_677_82, -0.295_651_31, -0.027_600_19, 2.012_084_67]),
        ([320, 3, 4], 11.996_437_83, [0.036_858_20, 0.346_819_08, 0.127_533_50, -0.011_979_92]),
    ];
    for (level, (shape, norm, some)) in levels.iter().zip(expected) {
        let [c, h, w] = shape;
        assert_eq!(level.dims(), [1, c, h, w]);
        let v = values(level);
        let found = v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        assert!((found / norm - 1.0).abs() < 1e-5, "{shape:?}: norm {found} instead of {norm}");
        for (i, want) in some.into_iter().enumerate() {
            let at = |n: usize| n * (2 * i + 1) / 8;
            let found = f64::from(v[(at(c) * h + at(h)) * w + at(w)]);
            assert!((found - want).abs() < 1e-4, "{shape:?}, sample {i}: {found} instead of {want}");
        }
    }
}
