//! The work of one detection, counted from the configuration.
//!
//! Two operations (a multiplication and an addition) for every weight that a convolution or a linear layer applies to an
//! output value: `2 * C_in * k * k * C_out * H_out * W_out`, and `2 * I * O` a row. Biases, norms, activations, pooling,
//! RoIAlign, box arithmetic and NMS are not counted. Some libraries publish
//! multiply-adds under the same name: half of this.

use crate::config::{BackboneConfig, FasterRcnnConfig, MobileNetV2Config, POOLED_LEVELS, ResNetConfig};
use crate::mobilenet::{self, TAPS};
use crate::{Result, StridePlace};

/// Floating point operations of each part for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flops {
    /// The backbone.
    pub backbone: u64,
    /// The pyramid.
    pub fpn: u64,
    /// The RPN's head on all levels.
    pub rpn: u64,
    /// The heads over all regions.
    pub head: u64,
}

impl Flops {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.backbone + self.fpn + self.rpn + self.head
    }
}

type Size = (usize, usize);

/// A size after a stride, with half a kernel of padding.
fn strided(size: Size, stride: usize) -> Size {
    (size.0.div_ceil(stride), size.1.div_ceil(stride))
}

fn conv(c_in: usize, c_out: usize, kernel: usize, out: Size) -> u64 {
    2 * [c_in, c_out, kernel, kernel, out.0, out.1].iter().map(|&n| n as u64).product::<u64>()
}

/// Operations of a backbone for an image of `size` (height, width), and the sizes of C2 to C5.
///
/// # Errors
/// A depth that there is not.
pub fn backbone(cfg: &BackboneConfig, size: Size) -> Result<(u64, [Size; 4])> {
    match cfg {
        BackboneConfig::ResNet(cfg) => resnet(cfg, size),
        BackboneConfig::MobileNetV2(cfg) => Ok(mobilenet_v2(cfg, size)),
    }
}

fn mobilenet_v2(cfg: &MobileNetV2Config, size: Size) -> (u64, [Size; 4]) {
    let (stem, blocks) = mobilenet::plan(cfg);
    let mut at = strided(size, 2);
    let mut total = conv(3, stem, 3, at);
    let mut sizes = [at; 4];
    for (i, block) in blocks.iter().enumerate() {
        if block.expands() {
            total += conv(block.c_in, block.hidden, 1, at);
        }
        at = strided(at, block.stride);
        // A depthwise convolution applies one channel's filter to each output.
        total += conv(1, block.hidden, 3, at) + conv(block.hidden, block.c_out, 1, at);
        if let Some(level) = TAPS.iter().position(|&tap| tap == i + 1) {
            sizes[level] = at;
        }
    }
    (total, sizes)
}

fn resnet(cfg: &ResNetConfig, size: Size) -> Result<(u64, [Size; 4])> {
    let base = cfg.base();
    let mut at = strided(size, 2);
    let mut total = conv(3, base, 7, at);
    at = strided(at, 2);
    let mut c_in = base;
    let mut sizes = [at; 4];
    for (i, blocks) in cfg.blocks()?.into_iter().enumerate() {
        let width = base << i;
        let c_out = width * cfg.expansion();
        for j in 0..blocks {
            let stride = if i > 0 && j == 0 { 2 } else { 1 };
            let out = strided(at, stride);
            total += if cfg.bottleneck() {
                let first = if cfg.stride_place == StridePlace::In1x1 { out } else { at };
                conv(c_in, width, 1, first) + conv(width, width, 3, out) + conv(width, c_out, 1, out)
            } else {
                conv(c_in, width, 3, out) + conv(width, c_out, 3, out)
            };
            if stride != 1 || c_in != c_out {
                total += conv(c_in, c_out, 1, out);
            }
            c_in = c_out;
            at = out;
        }
        sizes[i] = at;
    }
    Ok((total, sizes))
}

/// Operations of a detection in one image of `size` (height, width, with its padding) with `rois` regions.
///
/// # Errors
/// A depth that there is not.
pub fn count(cfg: &FasterRcnnConfig, size: Size, rois: usize) -> Result<Flops> {
    let (total, mut sizes) = backbone(&cfg.backbone, size).map(|(f, s)| (f, s.to_vec()))?;
    let c = cfg.fpn_channels;
    let fpn =
        cfg.backbone.channels().iter().zip(&sizes).map(|(&c_in, &s)| conv(c_in, c, 1, s) + conv(c, c, 3, s)).sum();
    sizes.push(strided(sizes[POOLED_LEVELS - 1], 2));
    let anchors = cfg.anchors_per_cell();
    let rpn = sizes.iter().map(|&s| conv(c, c, 3, s) + conv(c, 5 * anchors, 1, s)).sum();
    let linear = |i: usize, o: usize| conv(i, o, 1, (rois, 1));
    let hidden = cfg.roi.hidden;
    let head =
        linear(c * cfg.roi.output * cfg.roi.output, hidden) + linear(hidden, hidden) + linear(hidden, 5 * cfg.classes);
    Ok(Flops { backbone: total, fpn, rpn, head })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resnet(depth: usize) -> u64 {
        let cfg = ResNetConfig { depth, ..ResNetConfig::default() };
        backbone(&cfg.into(), (224, 224)).unwrap().0
    }

    // torchvision's published multiply-adds at 224x224 with the classifier: 1.814, 3.664, 4.089 and 7.801 G.
    #[test]
    fn backbones_agree_with_published_figures() {
        let published = |g: f64, features: u64| (2e9 * g - 2.0 * 1000.0 * features as f64, 2e6);
        for (depth, g, features) in [(18, 1.814, 512), (34, 3.664, 512), (50, 4.089, 2048), (101, 7.801, 2048)] {
            let (want, tolerance) = published(g, features);
            assert!((resnet(depth) as f64 - want).abs() < tolerance, "{depth}: {} {want}", resnet(depth));
        }
    }

    // Counted in torchvision's own model (`xtask/golden/mobilenet.py`), up to feature 17, at 224x224.
    #[test]
    fn mobilenets_agree_with_torchvision() {
        for (width, multiply_adds) in [(1.0, 279_423_872), (0.5, 85_816_640), (1.4, 541_065_840)] {
            let cfg = MobileNetV2Config { width, ..MobileNetV2Config::default() };
            let (flops, sizes) = backbone(&cfg.into(), (224, 224)).unwrap();
            assert_eq!(flops, 2 * multiply_adds, "width {width}");
            assert_eq!(sizes, [(56, 56), (28, 28), (14, 14), (7, 7)]);
        }
    }

    #[test]
    fn the_stride_place_matters() {
        let at = |stride_place| {
            super::resnet(&ResNetConfig { stride_place, ..ResNetConfig::default() }, (224, 224)).unwrap().0
        };
        assert!(at(StridePlace::In1x1) < at(StridePlace::In3x3));
    }

    #[test]
    fn the_whole_agrees_with_a_count_by_hand() {
        let f = count(&FasterRcnnConfig::default(), (64, 96), 10).unwrap();
        let cells = [16 * 24u64, 8 * 12, 4 * 6, 2 * 3, 3 * 2 / 2 - 1];
        assert_eq!(cells[4], 2, "P6 is 1x2");
        let rpn: u64 = cells.iter().map(|n| n * 2 * (256 * 256 * 9 + 256 * 15)).sum();
        assert_eq!(f.rpn, rpn);
        let lateral = [256u64, 512, 1024, 2048];
        let fpn: u64 = cells.iter().zip(lateral).map(|(n, c)| n * 2 * (c * 256 + 256 * 256 * 9)).sum();
        assert_eq!(f.fpn, fpn);
        assert_eq!(f.head, 10 * 2 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * 455));
        assert_eq!(f.total(), f.backbone + f.fpn + f.rpn + f.head);
    }
}
