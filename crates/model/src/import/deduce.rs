//! The architecture that a set of names and shapes is of.

use std::collections::BTreeMap;

use candle_core::Tensor;
use docent_detect::FasterRcnnConfig;
use docent_detect::backbone::{BackboneConfig, MobileNetV2, MobileNetV2Config, ResNetConfig, make_divisible};
use docent_detect::layers::NormKind;

use super::names::BACKBONE_PREFIX;

type Tensors = BTreeMap<String, Tensor>;

/// Why no architecture fits.
type Outcome<T> = Result<T, String>;

fn dims<const N: usize>(tensors: &Tensors, name: &str) -> Outcome<[usize; N]> {
    let tensor = tensors.get(name).ok_or_else(|| format!("`{name}` is missing"))?;
    tensor.dims().try_into().map_err(|_| format!("`{name}` has shape {:?}; {N} dimensions are needed", tensor.dims()))
}

/// The backbone below `prefix`. Its epsilon and the place of its stride show in no shape: they are torchvision's of today.
pub(super) fn backbone(tensors: &Tensors, prefix: &str) -> Outcome<BackboneConfig> {
    let has = |name: &str| tensors.contains_key(&format!("{prefix}{name}"));
    let below = || tensors.keys().filter_map(|n| n.strip_prefix(prefix));
    let norm = if below().any(|n| n.ends_with("num_batches_tracked")) {
        NormKind::BatchNorm
    } else if below().any(|n| n.ends_with("running_var")) {
        NormKind::FrozenBatchNorm
    } else {
        return Err("its backbone has no running statistics: only BatchNorm's shapes tell enough".to_owned());
    };
    if has("conv1.weight") && has("layer1.0.conv1.weight") {
        let [stem, ..] = dims::<4>(tensors, &format!("{prefix}conv1.weight"))?;
        let blocks: Vec<usize> =
            (1..=4).map(|stage| (0..).take_while(|i| has(&format!("layer{stage}.{i}.conv1.weight"))).count()).collect();
        let bottleneck = has("layer1.0.conv3.weight");
        let depth = match (blocks.as_slice(), bottleneck) {
            ([2, 2, 2, 2], false) => 18,
            ([3, 4, 6, 3], false) => 34,
            ([3, 4, 6, 3], true) => 50,
            ([3, 4, 23, 3], true) => 101,
            _ => {
                let kind = if bottleneck { "bottleneck" } else { "basic" };
                return Err(format!("a ResNet of {blocks:?} {kind} blocks; docent has 18, 34, 50 and 101"));
            }
        };
        return Ok(ResNetConfig::default().depth(depth).width_multiplier(stem as f64 / 64.0).norm(norm).into());
    }
    if has("0.0.weight") && has("1.conv.0.0.weight") {
        let [stem, ..] = dims::<4>(tensors, &format!("{prefix}0.0.weight"))?;
        let mut channels = [0; 4];
        for (c, tap) in channels.iter_mut().zip(MobileNetV2::TAPS) {
            [*c, ..] = dims::<4>(tensors, &format!("{prefix}{tap}.conv.2.weight"))?;
        }
        // Channels are rounded, so a width is looked for among those that somebody would choose.
        let chosen = (1..=60).map(|i| f64::from(i) / 20.0).chain([channels[3] as f64 / 320.0]);
        let fits = |width: &f64| {
            make_divisible(32.0 * width) == stem
                && MobileNetV2Config::default().width_multiplier(*width).channels() == channels
        };
        // The nearest to the last stage's own ratio: several may give the same channels.
        let ratio = channels[3] as f64 / 320.0;
        let width = chosen.filter(fits).min_by(|a, b| (a - ratio).abs().total_cmp(&(b - ratio).abs()));
        let width =
            width.ok_or_else(|| format!("a MobileNetV2 of {stem} and {channels:?} channels, which no width gives"))?;
        return Ok(MobileNetV2Config::default().width_multiplier(width).norm(norm).into());
    }
    Err("its backbone is neither a ResNet nor a MobileNetV2 of torchvision's names".to_owned())
}

/// A Faster R-CNN under present names: what shapes tell; the rest (anchor sizes, thresholds, normalisation) has torchvision's
/// defaults.
pub(super) fn detector(tensors: &Tensors) -> Outcome<FasterRcnnConfig> {
    if tensors.contains_key("rpn.head.conv.1.0.weight") || tensors.contains_key("roi_heads.box_head.0.0.weight") {
        return Err(
            "a Faster R-CNN of torchvision's second version (norms in pyramid and head, four convolutions before its \
                    classes), which docent has not; the first version is fasterrcnn_resnet50_fpn"
                .to_owned(),
        );
    }
    let mut config = FasterRcnnConfig::default().backbone(backbone(tensors, BACKBONE_PREFIX)?);
    [config.fpn_channels, ..] = dims::<4>(tensors, "backbone.fpn.layer_blocks.0.0.weight")?;
    [config.classes, config.roi.representation_size] = dims::<2>(tensors, "roi_heads.box_predictor.cls_score.weight")?;
    let [_, pooled] = dims::<2>(tensors, "roi_heads.box_head.fc6.weight")?;
    let cells = pooled / config.fpn_channels.max(1);
    let side = (cells as f64).sqrt().round() as usize;
    if side * side * config.fpn_channels != pooled {
        return Err(format!(
            "`roi_heads.box_head.fc6.weight` takes {pooled} values, no square of {} channels",
            config.fpn_channels
        ));
    }
    config.roi.pooler_resolution = side;
    Ok(config)
}
