//! The checks of the detector's configuration.

use docent_ops::RoiAlignParams;

use super::{AnchorConfig, FasterRcnnConfig, RoiConfig, RpnConfig};
use crate::ranges::{at_least, between, positive, thresholds, within};
use crate::{Error, Result};

impl FasterRcnnConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field with a value that it cannot have, with the nearest allowed values.
    pub fn validate(&self) -> Result<()> {
        between("classes", self.classes, 2, 1 << 16)?;
        between("fpn_channels", self.fpn_channels, 1, 1 << 14)?;
        self.backbone.validate()?;
        self.anchors.validate()?;
        self.rpn.validate()?;
        self.roi.validate()?;
        self.normalize.validate()
    }
}

impl AnchorConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field with a value that it cannot have.
    pub fn validate(&self) -> Result<()> {
        between("anchors.sizes (their number)", self.sizes.len(), 1, 16)?;
        if self.ratios.is_empty() {
            return Err(Error::config("anchors.ratios", "empty; give at least one, such as 1"));
        }
        between("anchors.ratios (their number)", self.ratios.len(), 1, 64)?;
        for &s in &self.sizes {
            positive("anchors.sizes", f64::from(s))?;
        }
        for &r in &self.ratios {
            positive("anchors.ratios", f64::from(r))?;
        }
        Ok(())
    }
}

impl RpnConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field with a value that it cannot have.
    pub fn validate(&self) -> Result<()> {
        at_least("rpn.pre_nms_top_n_train", self.pre_nms_top_n_train, 1)?;
        at_least("rpn.pre_nms_top_n_test", self.pre_nms_top_n_test, 1)?;
        at_least("rpn.post_nms_top_n_train", self.post_nms_top_n_train, 1)?;
        at_least("rpn.post_nms_top_n_test", self.post_nms_top_n_test, 1)?;
        at_least("rpn.batch_size_per_image", self.batch_size_per_image, 1)?;
        within("rpn.nms_threshold", f64::from(self.nms_threshold), 0.0, 1.0)?;
        thresholds("rpn.fg_iou_threshold", "rpn.bg_iou_threshold", self.fg_iou_threshold, self.bg_iou_threshold)?;
        within("rpn.positive_fraction", self.positive_fraction, 0.0, 1.0)?;
        within("rpn.score_threshold", f64::from(self.score_threshold), 0.0, 1.0)?;
        within("rpn.min_size", f64::from(self.min_size), 0.0, f64::from(f32::MAX))?;
        within("rpn.smooth_l1_beta", f64::from(self.smooth_l1_beta), 0.0, f64::from(f32::MAX))
    }
}

impl RoiConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field with a value that it cannot have.
    pub fn validate(&self) -> Result<()> {
        at_least("roi.batch_size_per_image", self.batch_size_per_image, 1)?;
        between("roi.pooler_resolution", self.pooler_resolution, 1, 64)?;
        between("roi.representation_size", self.representation_size, 1, 1 << 16)?;
        between("roi.sampling_ratio", self.sampling_ratio, 0, RoiAlignParams::MAX_SAMPLING_RATIO)?;
        at_least("roi.detections_per_image", self.detections_per_image, 1)?;
        within("roi.positive_fraction", self.positive_fraction, 0.0, 1.0)?;
        thresholds("roi.fg_iou_threshold", "roi.bg_iou_threshold", self.fg_iou_threshold, self.bg_iou_threshold)?;
        positive("roi.canonical_box_size", f64::from(self.canonical_box_size))?;
        for w in self.box_weights {
            positive("roi.box_weights", f64::from(w))?;
        }
        within("roi.smooth_l1_beta", f64::from(self.smooth_l1_beta), 0.0, f64::from(f32::MAX))?;
        within("roi.score_threshold", f64::from(self.score_threshold), 0.0, 1.0)?;
        within("roi.nms_threshold", f64::from(self.nms_threshold), 0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::{MobileNetV2Config, ResNetConfig};
    use crate::layers::NormKind;

    fn message(change: impl FnOnce(&mut FasterRcnnConfig)) -> String {
        let mut c = FasterRcnnConfig::default();
        change(&mut c);
        c.validate().unwrap_err().to_string()
    }

    #[test]
    fn messages_name_the_field_and_the_nearest_values() {
        let m = message(|c| c.backbone = ResNetConfig { depth: 90, ..Default::default() }.into());
        assert!(m.contains("backbone.depth") && m.contains("nearest is 101"), "{m}");
        let norm = NormKind::GroupNorm { groups: 20 };
        let m = message(|c| c.backbone = ResNetConfig { norm, ..Default::default() }.into());
        assert!(m.contains("16 and 32"), "{m}");
        let m = message(|c| c.roi.nms_threshold = 1.5);
        assert!(m.contains("roi.nms_threshold") && m.contains("value is 1"), "{m}");
        let m = message(|c| c.rpn.bg_iou_threshold = 0.8);
        assert!(m.contains("rpn.bg_iou_threshold") && m.contains("0.7"), "{m}");
        let m = message(|c| c.anchors.sizes.clear());
        assert!(m.contains("anchors.sizes"), "{m}");
        let m = message(|c| c.classes = 1);
        assert!(m.contains("classes") && m.contains("value is 2"), "{m}");
        let m = message(|c| c.fpn_channels = 4_000_000_000);
        assert!(m.contains("fpn_channels") && m.contains("too large") && m.contains("16384"), "{m}");
        let of_width =
            |width_multiplier| message(|c| c.backbone = ResNetConfig { width_multiplier, ..Default::default() }.into());
        assert!(of_width(1e18).contains("nearest allowed value is 16"));
        let mobile = |width_multiplier| {
            message(|c| c.backbone = MobileNetV2Config { width_multiplier, ..Default::default() }.into())
        };
        assert!(mobile(1e18).contains("backbone.width") && mobile(f64::NAN).contains("backbone.width"));
        assert!(message(|c| c.roi.sampling_ratio = 5000).contains("nearest allowed value is 1024"));
        assert!(of_width(f64::NAN).contains("backbone.width"));
        assert!(of_width(0.001).contains("backbone.width"));
        assert!(message(|c| c.normalize.std[1] = 0.0).contains("normalize.std"));
    }
}
