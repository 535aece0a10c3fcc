//! The checks of the configuration: what each field may be, and the nearest allowed values in the message.

use super::backbone::MAX_WIDTH;
use super::{AnchorConfig, FasterRcnnConfig, LEVELS, NormKind, ResNetConfig, RoiConfig, RpnConfig};
use crate::{Error, Result};
use docent_ops::RoiAlignParams;

fn at_least(field: &'static str, value: usize, least: usize) -> Result<()> {
    between(field, value, least, usize::MAX)
}

/// Sizes have a bound, so that a damaged file cannot ask for more memory than there is.
fn between(field: &'static str, value: usize, least: usize, most: usize) -> Result<()> {
    let (side, nearest) = match value {
        v if v < least => ("small", least),
        v if v > most => ("large", most),
        _ => return Ok(()),
    };
    Err(Error::config(field, format!("{value} is too {side}; the nearest allowed value is {nearest}")))
}

/// `value` must be finite and within `[lo, hi]`.
fn within(field: &'static str, value: f64, lo: f64, hi: f64) -> Result<()> {
    if value.is_nan() {
        return Err(Error::config(field, format!("is not a number; give one from {lo} to {hi}")));
    }
    if value < lo || value > hi {
        return Err(Error::config(
            field,
            format!("{value} is outside {lo} to {hi}; the nearest allowed value is {}", value.clamp(lo, hi)),
        ));
    }
    Ok(())
}

fn positive(field: &'static str, value: f64) -> Result<()> {
    if !(value.is_finite() && value > 0.0) {
        return Err(Error::config(field, format!("{value} is not a finite number above 0")));
    }
    Ok(())
}

fn thresholds(
    positive_field: &'static str,
    negative_field: &'static str,
    positive_iou: f32,
    negative_iou: f32,
) -> Result<()> {
    within(positive_field, f64::from(positive_iou), 0.0, 1.0)?;
    within(negative_field, f64::from(negative_iou), 0.0, 1.0)?;
    if negative_iou > positive_iou {
        return Err(Error::config(
            negative_field,
            format!("{negative_iou} is above the positive threshold; the nearest allowed value is {positive_iou}"),
        ));
    }
    Ok(())
}

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

impl ResNetConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field with a value that it cannot have.
    pub fn validate(&self) -> Result<()> {
        self.blocks()?;
        positive("backbone.width", self.width)?;
        within("backbone.width", self.width, 0.0, MAX_WIDTH)?;
        if self.base() == 0 {
            return Err(Error::config(
                "backbone.width",
                format!("{} leaves no channel in the stem; the least is {}", self.width, 1.0 / 64.0),
            ));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(Error::config(
                "backbone.norm_eps",
                format!("{} is not a finite number from 0; the nearest allowed value is 0", self.norm_eps),
            ));
        }
        if let NormKind::GroupNorm { groups } = self.norm {
            // Every layer has the stem's channels times a power of two.
            let base = self.base();
            if groups == 0 || !base.is_multiple_of(groups) {
                let below = (1..=groups.clamp(1, base)).rev().find(|&g| base.is_multiple_of(g)).unwrap_or(1);
                let above = (groups.max(1)..=base).find(|&g| base.is_multiple_of(g)).unwrap_or(base);
                return Err(Error::config(
                    "backbone.norm.group_norm.groups",
                    format!(
                        "{groups} does not divide the stem's {base} channels; the nearest that do are {below} and {above}"
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl AnchorConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field with a value that it cannot have.
    pub fn validate(&self) -> Result<()> {
        if self.sizes.len() != LEVELS {
            return Err(Error::config(
                "anchors.sizes",
                format!("{} sizes given; the pyramid has {LEVELS} levels (P2 to P6), each takes one", self.sizes.len()),
            ));
        }
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
        at_least("rpn.pre_nms_train", self.pre_nms_train, 1)?;
        at_least("rpn.pre_nms_test", self.pre_nms_test, 1)?;
        at_least("rpn.post_nms_train", self.post_nms_train, 1)?;
        at_least("rpn.post_nms_test", self.post_nms_test, 1)?;
        at_least("rpn.samples", self.samples, 1)?;
        within("rpn.nms", f64::from(self.nms), 0.0, 1.0)?;
        thresholds("rpn.positive_iou", "rpn.negative_iou", self.positive_iou, self.negative_iou)?;
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
        at_least("roi.samples", self.samples, 1)?;
        between("roi.output", self.output, 1, 64)?;
        between("roi.hidden", self.hidden, 1, 1 << 16)?;
        between("roi.sampling_ratio", self.sampling_ratio, 0, RoiAlignParams::MAX_SAMPLING_RATIO)?;
        at_least("roi.detections", self.detections, 1)?;
        within("roi.positive_fraction", self.positive_fraction, 0.0, 1.0)?;
        thresholds("roi.positive_iou", "roi.negative_iou", self.positive_iou, self.negative_iou)?;
        positive("roi.canonical_scale", f64::from(self.canonical_scale))?;
        for w in self.box_weights {
            positive("roi.box_weights", f64::from(w))?;
        }
        within("roi.smooth_l1_beta", f64::from(self.smooth_l1_beta), 0.0, f64::from(f32::MAX))?;
        within("roi.score_threshold", f64::from(self.score_threshold), 0.0, 1.0)?;
        within("roi.nms", f64::from(self.nms), 0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MobileNetV2Config;

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
        let m = message(|c| c.roi.nms = 1.5);
        assert!(m.contains("roi.nms") && m.contains("value is 1"), "{m}");
        let m = message(|c| c.rpn.negative_iou = 0.8);
        assert!(m.contains("rpn.negative_iou") && m.contains("0.7"), "{m}");
        let m = message(|c| c.anchors.sizes.truncate(3));
        assert!(m.contains("anchors.sizes") && m.contains('5'), "{m}");
        let m = message(|c| c.classes = 1);
        assert!(m.contains("classes") && m.contains("value is 2"), "{m}");
        let m = message(|c| c.fpn_channels = 4_000_000_000);
        assert!(m.contains("fpn_channels") && m.contains("too large") && m.contains("16384"), "{m}");
        let of_width = |width| message(|c| c.backbone = ResNetConfig { width, ..Default::default() }.into());
        assert!(of_width(1e18).contains("nearest allowed value is 16"));
        let mobile = |width| message(|c| c.backbone = MobileNetV2Config { width, ..Default::default() }.into());
        assert!(mobile(1e18).contains("backbone.width") && mobile(f64::NAN).contains("backbone.width"));
        assert!(message(|c| c.roi.sampling_ratio = 5000).contains("nearest allowed value is 1024"));
        assert!(of_width(f64::NAN).contains("backbone.width"));
        assert!(of_width(0.001).contains("backbone.width"));
        assert!(message(|c| c.normalize.std[1] = 0.0).contains("normalize.std"));
    }
}
