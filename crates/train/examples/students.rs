//! Writes checkpoints of three small detectors whose untrained heads find many objects of many classes.
//!
//! `xtask/golden/weights.py` loads them into torchvision's models and compares the detections:
//! `cargo run -p docent-train --example students -- FOLDER`.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use docent_coco::{Category, Resize, ResizeRule};
use docent_detect::{
    BackboneConfig, FasterRcnn, FasterRcnnConfig, ImageBatch, MobileNetV2Config, Mode, NormKind, ResNetConfig,
    StridePlace,
};
use docent_train::{CheckpointMeta, ParamStore, save_checkpoint};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const CLASSES: usize = 31;
/// Deviation of the class logits over an image's regions: enough that many regions are sure of something.
const SPREAD: f64 = 3.0;

fn main() -> Outcome<()> {
    let folder = std::env::args().nth(1).ok_or("name a folder")?;
    let resnet = |depth, width, norm, stride_place| {
        BackboneConfig::from(ResNetConfig { depth, width, norm, norm_eps: 1e-4, stride_place })
    };
    let mobile = MobileNetV2Config { width: 0.35, norm: NormKind::BatchNorm, norm_eps: 1e-5 };
    let students = [
        ("basic", resnet(18, 0.25, NormKind::BatchNorm, StridePlace::In3x3)),
        ("bottleneck", resnet(50, 0.125, NormKind::BatchNorm, StridePlace::In1x1)),
        ("mobile", mobile.into()),
    ];
    for (name, backbone) in students {
        write(&Path::new(&folder).join(format!("student-{name}.safetensors")), backbone)?;
    }
    Ok(())
}

fn write(path: &Path, backbone: BackboneConfig) -> Outcome<()> {
    let mut config = FasterRcnnConfig { classes: CLASSES, fpn_channels: 32, backbone, ..FasterRcnnConfig::default() };
    config.anchors.sizes = vec![16.0, 32.0, 64.0, 96.0, 128.0];
    config.rpn.pre_nms_test = 200;
    config.rpn.post_nms_test = 100;
    config.roi.hidden = 64;
    config.roi.canonical_scale = 112.0;
    let store = ParamStore::new(1, &Device::Cpu);
    let model = FasterRcnn::new(&config, store.var_builder())?;
    let (h, w) = (128, 160);
    let pixel = |i: usize| ((i / 8 % w / 4 * 37 + i / w / 8 * 11 + i / (h * w) * 5) % 17) as f32 / 17.0;
    let planes: Vec<f32> = (0..3 * h * w).map(pixel).collect();
    let batch = ImageBatch::from_planes(&[(h, w, &planes)], 32, &Device::Cpu)?;

    // Running statistics as a training leaves them, a little behind.
    for _ in 0..20 {
        model.backbone(&batch, Mode::Train)?;
    }
    let mut tensors = store.snapshot()?;
    // Proposals of different objectness and shape.
    for (layer, factor) in [("conv.0.0", 5.0), ("cls_logits", 20.0), ("bbox_pred", 5.0)] {
        change(&mut tensors, &format!("rpn.head.{layer}.weight"), |t| t * factor)?;
    }
    store.restore(&tensors)?;

    // No class wins everywhere: the mean logit over the regions is taken off.
    let features = model.features(&batch, Mode::Eval)?;
    let proposals = model.propose(&model.rpn(&features, &batch)?, &batch.sizes, Mode::Eval)?;
    let logits = model.box_head(&features, &proposals.rois())?.class_logits.detach();
    let mean = logits.mean(0)?;
    let off = logits.broadcast_sub(&mean)?;
    let factor = SPREAD / f64::from(off.sqr()?.mean_all()?.to_scalar::<f32>()?).sqrt();
    let predictor = "roi_heads.box_predictor";
    change(&mut tensors, &format!("{predictor}.cls_score.weight"), |t| t * factor)?;
    change(&mut tensors, &format!("{predictor}.cls_score.bias"), |t| (t - &mean)? * factor)?;
    change(&mut tensors, &format!("{predictor}.bbox_pred.weight"), |t| t * 5.0)?;

    let categories: Vec<Category> =
        (1..CLASSES as u64).map(|i| Category { id: 3 * i, name: format!("thing {i}") }).collect();
    let resize = Resize::default().shortest(128).longest(200).rule(ResizeRule::Torchvision);
    let meta = CheckpointMeta::new(&config, &categories, &resize, "students", 0)?;
    save_checkpoint(path, &tensors, &meta.to_map()?)?;
    Ok(())
}

/// Replaces a tensor by what `f` makes of it.
fn change(
    tensors: &mut BTreeMap<String, Tensor>,
    name: &str,
    f: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
) -> Outcome<()> {
    let tensor = tensors.get_mut(name).ok_or_else(|| format!("no tensor {name}"))?;
    *tensor = f(tensor)?;
    Ok(())
}
