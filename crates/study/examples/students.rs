//! Writes checkpoints of three small detectors whose untrained heads find many objects of many classes.
//!
//! `xtask/golden/weights.py` loads them into torchvision's models and compares the detections:
//! `cargo run -p docent-study --example students -- FOLDER`.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use docent_coco::{Category, Resize, ResizeRule};
use docent_detect::backbone::{BackboneConfig, MobileNetV2Config, ResNetConfig};
use docent_detect::layers::NormKind;
use docent_detect::{Detector, FasterRcnn, FasterRcnnConfig, ImageBatch, Mode, RegionHeads, Size};
use docent_model::{CheckpointMeta, ParamStore, save_checkpoint};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const CLASSES: usize = 31;
/// Deviation of the class logits over an image's regions: enough that many regions are sure of something.
const SPREAD: f64 = 3.0;

fn main() -> Outcome<()> {
    let folder = std::env::args().nth(1).ok_or("name a folder")?;
    let resnet = |depth, width_multiplier, stride_in_1x1| -> BackboneConfig {
        let config = ResNetConfig::default().depth(depth).width_multiplier(width_multiplier);
        config.norm(NormKind::BatchNorm).norm_eps(1e-4).stride_in_1x1(stride_in_1x1).into()
    };
    let mobile = MobileNetV2Config::default().width_multiplier(0.35).norm(NormKind::BatchNorm);
    let students =
        [("basic", resnet(18, 0.25, false)), ("bottleneck", resnet(50, 0.125, true)), ("mobile", mobile.into())];
    for (name, backbone) in students {
        write(&Path::new(&folder).join(format!("student-{name}.safetensors")), backbone)?;
    }
    Ok(())
}

fn write(path: &Path, backbone: BackboneConfig) -> Outcome<()> {
    let mut config = FasterRcnnConfig::default().classes(CLASSES).fpn_channels(32).backbone(backbone);
    config.anchors.sizes = vec![16.0, 32.0, 64.0, 96.0, 128.0];
    config.rpn.pre_nms_top_n_test = 200;
    config.rpn.post_nms_top_n_test = 100;
    config.roi.representation_size = 64;
    config.roi.canonical_box_size = 112.0;
    let store = ParamStore::new(1, &Device::Cpu);
    let model = FasterRcnn::new(&config, store.var_builder())?;
    let size = Size::new(128, 160);
    let (h, w) = (size.height, size.width);
    let pixel = |i: usize| ((i / 8 % w / 4 * 37 + i / w / 8 * 11 + i / (h * w) * 5) % 17) as f32 / 17.0;
    let planes: Vec<f32> = (0..3 * h * w).map(pixel).collect();
    let batch = ImageBatch::from_planes(&[(size, &planes)], 32, &Device::Cpu)?;

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
    let proposals = model.propose(&features, &batch, Mode::Eval)?;
    let logits = model.box_head(&features, &proposals.rois(), Mode::Eval)?.class_logits.detach();
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
    let meta = CheckpointMeta::new(&model.config(), &categories, &resize, "students", 0)?;
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
