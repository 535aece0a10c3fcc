//! This crate's own backbones by their configuration.

use std::sync::Arc;

use super::config::{BackboneConfig, MOBILENET_V2, RESNET};
use super::interface::Backbone;
use super::mobilenet::MobileNetV2;
use super::resnet::ResNet;
use crate::layers::ModelBuilder;
use crate::{Error, Result};

/// Names of the backbones that [`builtin`] makes.
pub const BUILTIN: [&str; 2] = [RESNET, MOBILENET_V2];

/// One of this crate's backbones; `builder` is at torchvision's `backbone.body`.
///
/// # Errors
/// An invalid configuration, a backbone that this crate does not have; a parameter that is missing or has another shape.
pub fn builtin(cfg: &BackboneConfig, builder: &ModelBuilder<'_>) -> Result<Arc<dyn Backbone>> {
    match cfg {
        BackboneConfig::ResNet(cfg) => Ok(Arc::new(ResNet::new(cfg, builder)?)),
        BackboneConfig::MobileNetV2(cfg) => Ok(Arc::new(MobileNetV2::new(cfg, builder)?)),
        BackboneConfig::Other(other) => Err(Error::Unknown {
            kind: "backbone",
            name: other.architecture.clone(),
            known: BUILTIN.map(str::to_owned).to_vec(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::VarBuilder;

    use super::super::{MobileNetV2Config, ResNetConfig};
    use super::*;
    use crate::Size;
    use crate::layers::LayerList;

    fn layers(cfg: impl Into<BackboneConfig>) -> (Arc<dyn Backbone>, LayerList) {
        let builder = ModelBuilder::new(VarBuilder::zeros(DType::F32, &Device::Cpu));
        let backbone = builtin(&cfg.into(), &builder).unwrap();
        (backbone, builder.layers())
    }

    const IMAGENET: Size = Size { height: 224, width: 224 };

    // torchvision's published multiply-adds at 224x224 with the classifier: 1.814, 3.664, 4.089 and 7.801 G.
    #[test]
    fn resnets_agree_with_published_figures() {
        for (depth, g, features) in [(18, 1.814, 512), (34, 3.664, 512), (50, 4.089, 2048), (101, 7.801, 2048)] {
            let flops = layers(ResNetConfig { depth, ..Default::default() }).1.flops(IMAGENET, 0);
            let want = 2e9 * g - 2.0 * 1000.0 * features as f64;
            assert!((flops as f64 - want).abs() < 2e6, "{depth}: {flops} {want}");
        }
    }

    // Counted in torchvision's own model (`xtask/golden/mobilenet.py`), up to feature 17, at 224x224.
    #[test]
    fn mobilenets_agree_with_torchvision() {
        for (width_multiplier, multiply_adds) in [(1.0, 279_423_872), (0.5, 85_816_640), (1.4, 541_065_840)] {
            let cfg = MobileNetV2Config { width_multiplier, ..Default::default() };
            let (backbone, layers) = layers(cfg.clone());
            assert_eq!(layers.flops(IMAGENET, 0), 2 * multiply_adds, "width {width_multiplier}");
            let strides: Vec<usize> = backbone.outputs().iter().map(|spec| spec.stride).collect();
            assert_eq!(strides, [4, 8, 16, 32]);
            assert!(backbone.outputs().iter().map(|spec| spec.channels).eq(cfg.channels()));
        }
    }

    #[test]
    fn the_place_of_the_stride_matters() {
        let at = |stride_in_1x1| layers(ResNetConfig { stride_in_1x1, ..Default::default() }).1.flops(IMAGENET, 0);
        assert!(at(true) < at(false));
    }

    #[test]
    fn freezing_counts_the_stem_first_and_then_the_stages() {
        let (_, resnet) = layers(ResNetConfig::default());
        assert!(resnet.frozen(0).is_empty());
        assert!(resnet.frozen(1).iter().all(|name| name.starts_with("conv1.") || name.starts_with("bn1.")));
        assert!(resnet.frozen(3).iter().any(|name| name.starts_with("layer2.3.conv3")));
        assert!(!resnet.frozen(3).iter().any(|name| name.starts_with("layer3.")));
        let (_, mobile) = layers(MobileNetV2Config::default());
        let at = |n| mobile.frozen(n).iter().filter_map(|name| name.split('.').next()?.parse::<usize>().ok()).max();
        assert_eq!([0, 1, 2, 3, 4, 5].map(at), [None, Some(0), Some(3), Some(6), Some(13), Some(17)]);
        assert_eq!((resnet.freezable(), mobile.freezable()), (5, 5));
    }

    #[test]
    fn buffers_are_told_by_layer() {
        let buffer = |layers: &LayerList, name: &str| layers.tensors()[name].buffer;
        let (_, frozen) = layers(ResNetConfig::default());
        assert!(buffer(&frozen, "bn1.weight") && buffer(&frozen, "layer1.0.downsample.1.bias"));
        assert!(!buffer(&frozen, "layer1.0.downsample.0.weight") && !buffer(&frozen, "conv1.weight"));
        let (_, trained) = layers(ResNetConfig { norm: crate::layers::NormKind::BatchNorm, ..Default::default() });
        assert!(!buffer(&trained, "bn1.weight") && buffer(&trained, "bn1.running_mean"));
        assert!(buffer(&trained, "layer4.1.bn2.num_batches_tracked"));
        let (_, mobile) = layers(MobileNetV2Config::default());
        for norm in ["0.1", "1.conv.0.1", "1.conv.2", "2.conv.0.1", "2.conv.1.1", "17.conv.3"] {
            assert!(buffer(&mobile, &format!("{norm}.weight")), "{norm}");
        }
        for conv in ["0.0", "1.conv.0.0", "1.conv.1", "2.conv.0.0", "2.conv.1.0", "17.conv.2"] {
            assert!(!buffer(&mobile, &format!("{conv}.weight")), "{conv}");
        }
    }
}
