//! First weights from a file: fine-tuning, and recipes that say so.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use docent_detect::RoiConfig;
use docent_detect::backbone::{MobileNetV2Config, ResNetConfig};
use docent_detect::layers::NormKind;
use docent_detect::{FasterRcnn, FasterRcnnConfig, Registry};
use docent_model::{Kind, ParamStore, save_checkpoint};
use docent_study::Error;
use docent_study::build::build;
use docent_study::recipe::{InitRecipe, ModelRecipe, Recipe, text_of};

fn config(classes: usize) -> FasterRcnnConfig {
    let backbone = ResNetConfig::default().depth(18).width_multiplier(0.125);
    let roi = RoiConfig::default().representation_size(12);
    FasterRcnnConfig::default().classes(classes).fpn_channels(8).backbone(backbone).roi(roi)
}

fn tensors(config: &FasterRcnnConfig, seed: u64) -> BTreeMap<String, Tensor> {
    let store = ParamStore::new(seed, &Device::Cpu);
    FasterRcnn::new(config, store.var_builder()).unwrap();
    store.snapshot().unwrap()
}

/// The spelling of torchvision before 0.13.
fn old_name(name: &str) -> String {
    let name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.");
    match name.split('.').collect::<Vec<_>>().as_slice() {
        [a, b, blocks, level, "0", leaf] if blocks.ends_with("_blocks") => format!("{a}.{b}.{blocks}.{level}.{leaf}"),
        _ => name,
    }
}

fn values(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn fine_tuning_takes_what_fits_and_asks_about_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let source = tensors(&config(91), 7);
    let path = folder.path().join("coco.safetensors");
    let old = source.iter().map(|(name, tensor)| (old_name(name), tensor.clone())).collect();
    save_checkpoint(&path, &old, &BTreeMap::new()).unwrap();
    let recipe = |skip: &[&str]| ModelRecipe {
        model: config(0).into(),
        init: InitRecipe {
            from: Some(path.clone()),
            skip: skip.iter().map(|s| (*s).to_owned()).collect(),
            freeze_at: 2,
            ..Default::default()
        },
    };
    let error = |skip: &[&str]| match build(&recipe(skip), 4, 0, &Registry::builtin()) {
        Err(Error::Recipe(message)) => message,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{skip:?} was accepted"),
    };
    let message = error(&[]);
    let suggested = r#"init.skip = ["roi_heads.box_predictor.bbox_pred.*", "roi_heads.box_predictor.cls_score.*"]"#;
    assert!(message.contains(suggested) && message.contains("cls_score.bias (model [4], file [91])"), "{message}");
    assert!(error(&["roi_heads.box_predictor.*", "roi_head.*"]).contains("no tensor's name fits `roi_head.*`"));
    assert!(
        error(&["roi_heads.box_predictor.*", "backbone.body.bn1.*"]).contains("backbone.body.bn1.bias"),
        "frozen and random"
    );

    let built = build(&recipe(&["roi_heads.box_predictor.*"]), 4, 3, &Registry::builtin()).unwrap();
    let fresh = tensors(built.model.config().faster_rcnn().unwrap(), 3);
    for (name, kind, tensor) in built.store.entries() {
        let from = if name.starts_with("roi_heads.box_predictor.") { &fresh } else { &source };
        assert_eq!(values(&tensor), values(&from[&name]), "{name}");
        let frozen = name.contains("bn")
            || name.contains("downsample.1")
            || name.starts_with("backbone.body.conv1")
            || name.starts_with("backbone.body.layer1");
        assert_eq!(kind == Kind::Trainable, !frozen, "{name}");
    }
    assert_eq!(
        built.model.config().faster_rcnn().unwrap().backbone.norm_eps(),
        Some(0.0),
        "it belongs to the file's weights"
    );
    assert!(built.notes.iter().any(|n| n.contains("4 tensors skipped")), "{:?}", built.notes);
    assert_eq!(built.init.unwrap().path, path.display().to_string());
}

#[test]
fn recipes_take_any_backbone_and_refuse_contradictions() {
    let parse = |set: &[&str]| {
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        Recipe::parse(&text_of("shapes").unwrap(), &set)
    };
    let mobile =
        r#"student.model.backbone={ architecture = "mobilenet_v2", width_multiplier = 0.35, norm = "batch_norm" }"#;
    let recipe = parse(&[mobile]).unwrap();
    let expected = MobileNetV2Config::default().width_multiplier(0.35).norm(NormKind::BatchNorm);
    assert_eq!(recipe.student.model.faster_rcnn().unwrap().backbone, expected.into());
    assert_eq!(Recipe::parse(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
    for (set, part) in [
        (&["student.model.backbone.architecture=mobilenet_v2"][..], "`depth`"),
        (&["student.model.backbone.width=0.5"], "width_multiplier"),
        (&["student.model.backbone.dept=18"], "did you mean 'depth'"),
        (&["student.init.skip=[\"rpn.*\"]"], "init.from"),
        (&["student.init.from=a.pth", "student.init.backbone=b.pth"], "keep one"),
    ] {
        let message = parse(set).unwrap_err().to_string();
        assert!(message.contains(part), "{set:?}: {message}");
    }
}
