//! Other programs' weights: recognised, renamed, converted, refused.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use docent_model::coco::{Category, Resize, Rgb8};
use docent_model::detect::RoiConfig;
use docent_model::detect::backbone::{BackboneConfig, MobileNetV2Config, ResNetConfig};
use docent_model::detect::layers::NormKind;
use docent_model::detect::{
    Detector, DetectorConfig, FasterRcnn, FasterRcnnConfig, ImageBatch, Mode, Normalize, Registry, Size,
};
use docent_model::import::{
    Content, ConvertOptions, Converted, DetectorFile, Target, backbone_tensors, check_backbone, convert,
};
use docent_model::{
    CheckpointMeta, Kind, ParamStore, Predictor, Result, load_checkpoint, read_weights, save_checkpoint,
};
use tempfile::TempDir;

type Tensors = BTreeMap<String, Tensor>;

/// torchvision's architecture, narrow.
fn config(classes: usize, backbone: impl Into<BackboneConfig>) -> FasterRcnnConfig {
    let roi = RoiConfig::default().representation_size(12);
    FasterRcnnConfig::default().classes(classes).fpn_channels(8).backbone(backbone).roi(roi)
}

fn resnet(depth: usize, norm: NormKind) -> ResNetConfig {
    ResNetConfig::default().depth(depth).width_multiplier(0.125).norm(norm)
}

fn tensors(config: &FasterRcnnConfig) -> Tensors {
    let store = ParamStore::new(7, &Device::Cpu);
    FasterRcnn::new(config, store.var_builder()).unwrap();
    store.snapshot().unwrap()
}

/// The spelling of torchvision before 0.13.
fn old_names(tensors: Tensors) -> Tensors {
    let old = |name: &str| {
        let name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.");
        match name.split('.').collect::<Vec<_>>().as_slice() {
            [a, b, blocks, level, "0", leaf] if blocks.ends_with("_blocks") => {
                format!("{a}.{b}.{blocks}.{level}.{leaf}")
            }
            _ => name,
        }
    };
    tensors.into_iter().map(|(name, tensor)| (old(&name), tensor)).collect()
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Bare weights.
    fn write(&self, name: &str, tensors: &Tensors) -> PathBuf {
        let path = self.path(name);
        save_checkpoint(&path, tensors, &BTreeMap::new()).unwrap();
        path
    }
}

fn converted(path: &Path, options: &ConvertOptions) -> Converted {
    convert(path, read_weights(path).unwrap(), options).unwrap()
}

fn refused(path: &Path, options: &ConvertOptions) -> String {
    let message = convert(path, read_weights(path).unwrap(), options).unwrap_err().to_string();
    assert!(message.contains("w.safetensors") || message.contains("--set"), "{message}");
    message
}

fn meta_of(path: &Path, converted: &Converted) -> CheckpointMeta {
    CheckpointMeta::from_map(path, &converted.metadata).unwrap()
}

fn settings(path: &Path, meta: &CheckpointMeta) -> FasterRcnnConfig {
    meta.detector(path).unwrap().faster_rcnn().unwrap().clone()
}

/// A detector of `config` over the backbone in a file, and its store: the way of `init.backbone`.
fn start_from(path: &Path, mut config: FasterRcnnConfig, freeze_at: usize) -> Result<(FasterRcnn, ParamStore)> {
    let file = read_weights(path)?;
    let info = file.backbone_info(path)?;
    if let (Some(mean), Some(std)) = (info.mean, info.std) {
        config.normalize = Normalize { mean, std };
    }
    info.adopt(&mut config.backbone);
    let probe = ParamStore::probe(&Device::Cpu);
    let model = FasterRcnn::new(&config, probe.var_builder())?;
    let tensors = backbone_tensors(file.tensors);
    check_backbone(path, &probe, model.layers(), &tensors)?;
    let store = ParamStore::new(0, &Device::Cpu).with_layers(model.layers(), freeze_at);
    store.load(tensors);
    Ok((FasterRcnn::new(&config, store.var_builder())?, store))
}

fn values(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_coco_form_becomes_a_checkpoint_with_epsilon_0_and_cocos_ids() {
    let folder = Folder::new();
    let config = config(91, resnet(50, NormKind::FrozenBatchNorm));
    let source = tensors(&config);
    let path = folder.write("w.safetensors", &old_names(source.clone()));
    let content = Content::of(&path, &read_weights(&path).unwrap()).unwrap();
    assert!(
        content.describe().contains("ResNet-50, width 0.125") && content.describe().contains("COCO_V1"),
        "{}",
        content.describe()
    );

    let all = converted(&path, &ConvertOptions::default());
    assert_eq!(all.target, Target::Detector);
    let out = folder.path("coco.safetensors");
    all.save(&out).unwrap();
    let detector = Predictor::load(&out, &Registry::builtin()).unwrap();
    let mut expected = config.clone();
    expected.backbone.set_norm_eps(0.0);
    assert_eq!(detector.model.config(), expected.into(), "what is not in the shapes is torchvision's");
    assert_eq!((detector.resize.shortest, detector.resize.longest), (800, 1333));
    let category = |label| detector.category(label).map(|c| (c.id, c.name.as_str()));
    assert_eq!(
        [category(1), category(13), category(90)],
        [Some((1, "person")), Some((13, "stop sign")), Some((90, "toothbrush"))]
    );
    assert_eq!((category(12), category(91)), (Some((12, "N/A 12")), None));
    // Under the present names, and each with its own values.
    let back = load_checkpoint(&out).unwrap();
    assert_eq!(back.tensors.keys().collect::<Vec<_>>(), source.keys().collect::<Vec<_>>());
    assert!(source.iter().all(|(name, tensor)| values(tensor) == values(&back.tensors[name])));
    assert!(all.notes.iter().any(|n| n.contains("18 names")), "{:?}", all.notes);
    detector.detect(&Rgb8::filled(40, 30, [120, 90, 60])).unwrap();

    // COCO's data has 80 categories: as a teacher on it the detector needs exactly these.
    let used = converted(&path, &ConvertOptions::default().drop_unused(true));
    let out = folder.path("used.safetensors");
    used.save(&out).unwrap();
    let small = Predictor::load(&out, &Registry::builtin()).unwrap();
    assert_eq!((small.model.config().classes(), small.meta.categories.len()), (81, 80));
    assert!(small.meta.categories.iter().all(|c| !c.name.starts_with("N/A")));
    assert!(detector.meta.covers_categories(&out, &small.meta.categories).is_ok(), "enough for eval");
    assert!(detector.meta.check_categories(&out, &small.meta.categories).is_err());
    assert!(small.meta.covers_categories(&out, &detector.meta.categories).is_err());
    // Row 12 of the new predictor is class 13 of the old.
    let rows = |t: &Tensors, layer: &str, from: usize, n: usize| {
        values(&t[&format!("roi_heads.box_predictor.{layer}.weight")].narrow(0, from, n).unwrap())
    };
    assert_eq!(rows(&used.tensors, "cls_score", 12, 1), rows(&source, "cls_score", 13, 1));
    assert_eq!(rows(&used.tensors, "bbox_pred", 48, 4), rows(&source, "bbox_pred", 52, 4));
    assert_eq!(rows(&used.tensors, "bbox_pred", 0, 48), rows(&source, "bbox_pred", 0, 48));
    assert_eq!(used.tensors["roi_heads.box_predictor.bbox_pred.bias"].dims(), [324]);
}

#[test]
fn present_names_keep_torchvisions_epsilon_and_settings_can_be_given() {
    let folder = Folder::new();
    let mobile = MobileNetV2Config::default().width_multiplier(0.35).norm(NormKind::BatchNorm);
    for backbone in
        [resnet(18, NormKind::FrozenBatchNorm).into(), resnet(34, NormKind::BatchNorm).into(), mobile.into()]
    {
        let config = config(4, BackboneConfig::clone(&backbone));
        let path = folder.write("w.safetensors", &tensors(&config));
        let meta = |options: &ConvertOptions| meta_of(&path, &converted(&path, options));
        let plain = meta(&ConvertOptions::default());
        assert_eq!(settings(&path, &plain), config);
        assert_eq!(plain.categories[2], Category { id: 3, name: "class 3".into() });
        let named = ["cat", "dog", "cow"].iter().zip([5, 8, 9]).map(|(n, id)| Category { id, name: (*n).into() });
        let set = ["backbone.norm_eps=0", "anchors.sizes=[8,16,32,64,128]", "normalize.std=[1,1,1]"].map(String::from);
        let options = ConvertOptions::default().set(set.into()).categories(named.collect::<Vec<_>>());
        let other = meta(&options);
        assert_eq!((other.categories[1].id, other.categories[1].name.as_str()), (8, "dog"));
        let found = settings(&path, &other);
        assert_eq!(
            (found.backbone.norm_eps(), found.anchors.sizes[0], found.normalize.std),
            (Some(0.0), 8.0, [1.0; 3])
        );

        let wrong = |set: &str| refused(&path, &ConvertOptions::default().set(vec![set.into()]));
        assert!(wrong("backbone.norm_epz=0").contains("did you mean 'norm_eps'"), "{}", wrong("backbone.norm_epz=0"));
        assert!(wrong("fpn_channels=16").contains("wrongly shaped"));
        let one = ConvertOptions::default().categories(vec![Category { id: 1, name: "cat".into() }]);
        assert!(refused(&path, &one).contains("1 categories for 4 classes"));
    }
}

#[test]
fn every_tensor_that_does_not_fit_is_listed() {
    let folder = Folder::new();
    let mut source = tensors(&config(4, resnet(18, NormKind::FrozenBatchNorm)));
    let zeros = |n: usize| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
    source.remove("roi_heads.box_head.fc7.bias");
    source.insert("roi_heads.mask_head.bias".into(), zeros(2));
    source.insert("rpn.head.cls_logits.bias".into(), zeros(7));
    let path = folder.write("w.safetensors", &source);
    let message = refused(&path, &ConvertOptions::default());
    for part in [
        "missing (1): roi_heads.box_head.fc7.bias",
        "unexpected (1): roi_heads.mask_head.bias",
        "cls_logits.bias (model [3], file [7])",
    ] {
        assert!(message.contains(part), "{message}");
    }
    // What docent has not is told from what is broken.
    source.insert("rpn.head.conv.1.0.weight".into(), zeros(2));
    let path = folder.write("w.safetensors", &source);
    assert!(refused(&path, &ConvertOptions::default()).contains("second version"));
    let path = folder.write("w.safetensors", &BTreeMap::from([("encoder.weight".to_owned(), zeros(3))]));
    assert!(refused(&path, &ConvertOptions::default()).contains("encoder"));
}

/// Prefixes are no older names, with older names behind them or without.
#[test]
fn only_the_older_names_change_the_epsilon() {
    let folder = Folder::new();
    let source = tensors(&config(3, resnet(18, NormKind::FrozenBatchNorm)));
    let prefixed = |prefix: &str, tensors: &Tensors| {
        tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect::<Tensors>()
    };
    for prefix in ["", "module.", "model.", "_orig_mod.", "model._orig_mod.module."] {
        for (tensors, eps) in [(source.clone(), 1e-5), (old_names(source.clone()), 0.0)] {
            let path = folder.write("w.safetensors", &prefixed(prefix, &tensors));
            let found = converted(&path, &ConvertOptions::default());
            let model = settings(&path, &meta_of(&path, &found));
            assert_eq!(model.backbone.norm_eps(), Some(eps), "{prefix}");
            assert_eq!(found.notes.iter().any(|n| n.contains("older versions")), eps == 0.0, "{:?}", found.notes);
            assert_eq!(found.tensors.keys().collect::<Vec<_>>(), source.keys().collect::<Vec<_>>());
            // As first weights too.
            let first = DetectorFile::new(&path, read_weights(&path).unwrap()).unwrap();
            assert_eq!(first.config.faster_rcnn().unwrap().backbone.norm_eps(), Some(eps), "{prefix}");
            assert_eq!(first.tensors.keys().collect::<Vec<_>>(), source.keys().collect::<Vec<_>>());
        }
    }
    let mut twice = source.clone();
    twice.insert("module.rpn.head.cls_logits.bias".into(), source["rpn.head.cls_logits.bias"].clone());
    let path = folder.write("w.safetensors", &twice);
    let message = read_weights(&path).unwrap_err().to_string();
    assert!(message.contains("two tensors come to the name `rpn.head.cls_logits.bias`"), "{message}");
    // A classification network from a script for several GPUs.
    let body =
        |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix("backbone.body.")?.to_owned(), tensor.clone()));
    let network: Tensors = source.iter().filter_map(body).collect();
    let path = folder.write("w.safetensors", &prefixed("module.", &network));
    let found = converted(&path, &ConvertOptions::default());
    assert_eq!((found.target, found.tensors.len()), (Target::Backbone, network.len()));
    start_from(&path, config(3, resnet(18, NormKind::FrozenBatchNorm)), 0).unwrap();
}

#[test]
fn another_programs_detector_is_named_with_what_is_missing_for_it() {
    let folder = Folder::new();
    let zeros = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    for (names, parts) in [
        (
            &[
                "backbone.bottom_up.stem.conv1.weight",
                "proposal_generator.rpn_head.conv.weight",
                "roi_heads.box_predictor.cls_score.weight",
            ][..],
            ["detectron2's Faster R-CNN", "it lacks the translation of its names"],
        ),
        (
            &["neck.fpn_convs.0.conv.weight", "rpn_head.rpn_cls.weight", "roi_head.bbox_head.fc_cls.weight"],
            ["mmdetection's Faster R-CNN", "it lacks the translation of its names"],
        ),
        (
            &["module.head.classification_head.cls_logits.weight"],
            ["torchvision's RetinaNet", "it lacks a one-stage head"],
        ),
    ] {
        let tensors = names.iter().map(|name| ((*name).to_owned(), zeros.clone())).collect();
        let message = refused(&folder.write("w.safetensors", &tensors), &ConvertOptions::default());
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let names = ["stem.conv1.weight", "res2.0.conv1.weight"].map(|name| (name.to_owned(), zeros.clone()));
    let path = folder.write("w.safetensors", &names.into());
    let error = start_from(&path, config(3, resnet(50, NormKind::FrozenBatchNorm)), 0).unwrap_err();
    assert!(error.to_string().contains("detectron2's ResNet"), "{error}");
}

#[test]
fn classification_networks_become_backbones_and_detectors_give_theirs() {
    let folder = Folder::new();
    let config = config(3, resnet(18, NormKind::BatchNorm));
    let source = tensors(&config);
    let mut network: Tensors =
        source.iter().filter_map(|(n, t)| Some((n.strip_prefix("backbone.body.")?.to_owned(), t.clone()))).collect();
    let size = network.len();
    network.insert("fc.weight".into(), Tensor::zeros((5, 64), DType::F32, &Device::Cpu).unwrap());
    network.insert("fc.bias".into(), Tensor::zeros(5, DType::F32, &Device::Cpu).unwrap());
    let path = folder.write("w.safetensors", &network);
    let found = converted(&path, &ConvertOptions::default().f16(true));
    assert_eq!((found.target, found.tensors.len()), (Target::Backbone, size));
    assert!(found.notes.iter().any(|n| n.contains("fc.bias, fc.weight")), "{:?}", found.notes);
    assert_eq!(found.metadata["stride_in_1x1"], "false");
    assert_eq!(found.metadata["source"], "w.safetensors");
    assert_eq!((found.tensors["conv1.weight"].dtype(), found.tensors["bn1.weight"].dtype()), (DType::F16, DType::F32));
    let out = folder.path("backbone.safetensors");
    found.save(&out).unwrap();
    let (_, store) = start_from(&out, config.clone(), 0).unwrap();
    let store: Tensors = store.entries().into_iter().map(|(n, _, t)| (n, t)).collect();
    let name = "backbone.body.layer4.1.conv2.weight";
    let off = values(&store[name]).iter().zip(values(&source[name])).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off > 0.0 && off < 1e-3, "rounded to f16: {off}");

    // The same from a detector's file.
    let path = folder.write("w.safetensors", &source);
    let found = converted(&path, &ConvertOptions::default().to(Target::Backbone));
    assert_eq!((found.tensors.len(), found.metadata["bn_eps"].as_str()), (size, "0.00001"));
    let message = refused(&folder.write("w.safetensors", &network), &ConvertOptions::default().to(Target::Detector));
    assert!(message.contains("a detector is needed; backbone: ResNet-18"), "{message}");
}

#[test]
fn half_precision_keeps_what_f16_cannot_hold() {
    let folder = Folder::new();
    let config = config(3, resnet(18, NormKind::BatchNorm));
    let mut source = tensors(&config);
    let name = "backbone.body.bn1.running_var".to_owned();
    source.insert(name.clone(), Tensor::full(1e6f32, 8, &Device::Cpu).unwrap());
    let path = folder.path("w.safetensors");
    let categories = [Category { id: 4, name: "cat".into() }, Category { id: 9, name: "dog".into() }];
    let model = DetectorConfig::from(config);
    let meta = CheckpointMeta::new(&model, &categories, &Resize::default(), "mine", 12).unwrap();
    save_checkpoint(&path, &source, &meta.to_map().unwrap()).unwrap();
    let half = converted(&path, &ConvertOptions::default().f16(true));
    let out = folder.path("half.safetensors");
    half.save(&out).unwrap();
    let (before, after) = (std::fs::metadata(&path).unwrap().len(), std::fs::metadata(&out).unwrap().len());
    assert!(after < before * 6 / 10, "{after} of {before} bytes");
    let back = Predictor::load(&out, &Registry::builtin()).unwrap();
    assert_eq!((back.meta.categories[1].id, back.meta.recipe.as_str(), back.meta.step), (9, "mine", 12));
    let entries: Tensors = back.store.entries().into_iter().map(|(n, _, t)| (n, t)).collect();
    assert_eq!(values(&entries[&name]), [1e6; 8]);
    for (name, tensor) in &source {
        let (a, b) = (values(tensor), values(&entries[name]));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= a.abs() / 1000.0 + 1e-6), "{name}");
    }
    // Any reader of the format sees f32 where it should be aligned.
    let bytes = std::fs::read(&out).unwrap();
    let (at, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    for (name, info) in header.tensors() {
        if info.dtype == safetensors::Dtype::F32 {
            assert_eq!((8 + at + info.data_offsets.0) % 4, 0, "{name}");
        }
    }
    source.insert("rpn.head.conv.0.0.weight".into(), Tensor::full(1e5f32, (8, 8, 3, 3), &Device::Cpu).unwrap());
    save_checkpoint(&path, &source, &meta.to_map().unwrap()).unwrap();
    assert!(refused(&path, &ConvertOptions::default().f16(true)).contains("rpn.head.conv.0.0.weight"));
}

/// `format` is a key of other programs too, which mean by it whose tensors the file holds.
#[test]
fn a_format_that_is_not_ours_is_no_checkpoint() {
    let folder = Folder::new();
    let all = tensors(&config(3, resnet(18, NormKind::FrozenBatchNorm)));
    let body = all.into_iter().filter_map(|(name, t)| Some((name.strip_prefix("backbone.body.")?.to_owned(), t)));
    let path = folder.path("timm.safetensors");
    let meta = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    save_checkpoint(&path, &body.collect(), &meta).unwrap();
    assert!(matches!(Content::of(&path, &read_weights(&path).unwrap()).unwrap(), Content::Backbone { .. }));
}

/// `../shared/weights` beside the repository; a test that lacks it says so.
#[allow(clippy::print_stdout)]
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/weights").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// The MSRA form, recognised and converted, gives the features that were computed elsewhere from the same file.
#[test]
fn the_msra_backbone_gives_its_expected_features() {
    let (Some(path), Some(expected)) =
        (shared("resnet50-imagenet.safetensors"), shared("resnet50-imagenet.expected.json"))
    else {
        return;
    };
    let content = Content::of(&path, &read_weights(&path).unwrap()).unwrap();
    assert_eq!(content.describe(), "backbone: ResNet-50, MSRA's form, without classifier");
    let folder = Folder::new();
    let found = converted(&path, &ConvertOptions::default());
    let out = folder.path("r50.safetensors");
    found.save(&out).unwrap();
    let narrow = FasterRcnnConfig::default().classes(2).fpn_channels(8);
    let (model, _) = start_from(&out, narrow, 0).unwrap();
    let (h, w) = (64, 96);
    let pixel = |i: usize| ((7 * (i / (h * w)) + 3 * (i / w % h) + 5 * (i % w)) % 256) as f32 / 255.0;
    let planes: Vec<f32> = (0..3 * h * w).map(pixel).collect();
    let batch = ImageBatch::from_planes(&[(Size::new(h, w), &planes)], 32, &Device::Cpu).unwrap();
    let levels = model.backbone(&batch, Mode::Eval).unwrap().levels;
    let expected: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(expected).unwrap()).unwrap();
    for (level, name) in levels.iter().zip(["C2", "C3", "C4", "C5"]) {
        let want = &expected["features"][name];
        assert_eq!(serde_json::json!(level.dims()), want["shape"]);
        let v = values(level);
        let l2 = v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let want_l2 = want["l2"].as_f64().unwrap();
        assert!((l2 / want_l2 - 1.0).abs() < 1e-3, "{name}: {l2} instead of {want_l2}");
        for (at, sample) in want["samples"].as_object().unwrap() {
            let (found, sample) = (f64::from(v[at.parse::<usize>().unwrap()]), sample.as_f64().unwrap());
            assert!((found - sample).abs() < 1e-3 * sample.abs().max(1.0), "{name}[{at}]: {found} instead of {sample}");
        }
    }
}

#[test]
fn the_mobilenet_of_imagenet_starts_a_students_backbone() {
    let Some(path) = shared("mobilenet_v2-imagenet.safetensors") else { return };
    let content = Content::of(&path, &read_weights(&path).unwrap()).unwrap();
    assert!(content.describe().starts_with("backbone: MobileNetV2, torchvision's form"), "{}", content.describe());
    let backbone = MobileNetV2Config::default().norm(NormKind::BatchNorm);
    let config = FasterRcnnConfig::default().classes(3).fpn_channels(8).backbone(backbone);
    let (_, store) = start_from(&path, config, 2).unwrap();
    assert!(store.frozen_but_drawn().is_empty());
    let kind = |name: &str| store.entries().into_iter().find(|e| e.0 == name).unwrap().1;
    assert_eq!(kind("backbone.body.3.conv.2.weight"), Kind::Frozen);
    assert_eq!(kind("backbone.body.4.conv.2.weight"), Kind::Trainable);
}
