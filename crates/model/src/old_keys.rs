//! Keys of the first edition's checkpoints, and what they are called now.

use serde_json::{Map, Value};

/// Old and new key of a detector's settings, as paths.
const RENAMED: [(&str, &str); 17] = [
    ("backbone.arch", "backbone.architecture"),
    ("backbone.width", "backbone.width_multiplier"),
    ("rpn.samples", "rpn.batch_size_per_image"),
    ("rpn.nms", "rpn.nms_threshold"),
    ("rpn.positive_iou", "rpn.fg_iou_threshold"),
    ("rpn.negative_iou", "rpn.bg_iou_threshold"),
    ("rpn.pre_nms_train", "rpn.pre_nms_top_n_train"),
    ("rpn.pre_nms_test", "rpn.pre_nms_top_n_test"),
    ("rpn.post_nms_train", "rpn.post_nms_top_n_train"),
    ("rpn.post_nms_test", "rpn.post_nms_top_n_test"),
    ("roi.samples", "roi.batch_size_per_image"),
    ("roi.nms", "roi.nms_threshold"),
    ("roi.positive_iou", "roi.fg_iou_threshold"),
    ("roi.negative_iou", "roi.bg_iou_threshold"),
    ("roi.output", "roi.pooler_resolution"),
    ("roi.hidden", "roi.representation_size"),
    ("roi.canonical_scale", "roi.canonical_box_size"),
];

/// Old keys whose values changed their form too.
const DETECTIONS: (&str, &str) = ("roi.detections", "roi.detections_per_image");
const STRIDE: (&str, &str) = ("backbone.stride_place", "backbone.stride_in_1x1");

/// Old and new key of every renamed setting: a recipe with an old one is told the new one.
pub fn renamed() -> impl Iterator<Item = (&'static str, &'static str)> {
    RENAMED.into_iter().chain([DETECTIONS, STRIDE])
}

/// Brings the settings in a checkpoint of the first edition under today's keys.
pub(crate) fn up_to_date(model: &mut Value) {
    for (old, new) in renamed() {
        let ((section, old), Some((_, new))) = (old.split_once('.').unwrap_or(("", old)), new.split_once('.')) else { continue };
        let Some(section) = model.get_mut(section).and_then(Value::as_object_mut) else { continue };
        rename(section, old, new);
    }
}

fn rename(section: &mut Map<String, Value>, old: &str, new: &str) {
    let Some(value) = section.remove(old) else { return };
    let value = match value.as_str() {
        Some("in1x1") => Value::Bool(true),
        Some("in3x3") => Value::Bool(false),
        _ => value,
    };
    section.entry(new).or_insert(value);
}

#[cfg(test)]
mod tests {
    use docent_detect::DetectorConfig;
    use docent_detect::backbone::BackboneConfig;

    use super::*;

    /// The settings as revision b094fc3 wrote them.
    const FIRST_EDITION: &str = r#"{"classes":4,"backbone":{"depth":50,"width":0.25,"norm":"batch_norm","norm_eps":1e-5,
        "stride_place":"in1x1"},"fpn_channels":32,"anchors":{"sizes":[8.0,16.0,32.0,64.0,128.0],"ratios":[0.5,1.0,2.0]},
        "rpn":{"pre_nms_train":200,"pre_nms_test":100,"post_nms_train":200,"post_nms_test":50,"nms":0.6,"positive_iou":0.7,
        "negative_iou":0.3,"samples":64,"positive_fraction":0.5,"score_threshold":0.0,"min_size":0.001,"smooth_l1_beta":0.1},
        "roi":{"samples":32,"positive_fraction":0.25,"positive_iou":0.5,"negative_iou":0.4,"output":5,"sampling_ratio":2,
        "aligned":false,"canonical_scale":56.0,"canonical_level":4,"smooth_l1_beta":0.1,"box_weights":[10.0,10.0,5.0,5.0],
        "score_threshold":0.05,"nms":0.45,"detections":77,"hidden":64},
        "normalize":{"mean":[0.5,0.5,0.5],"std":[0.25,0.25,0.25]}}"#;

    #[test]
    fn settings_of_the_first_edition_are_read() {
        let mut model: Value = serde_json::from_str(FIRST_EDITION).unwrap();
        assert!(serde_json::from_value::<DetectorConfig>(model.clone()).is_err());
        up_to_date(&mut model);
        let config: DetectorConfig = serde_json::from_value(model.clone()).unwrap();
        let config = config.faster_rcnn().unwrap();
        let BackboneConfig::ResNet(backbone) = &config.backbone else { panic!("{:?}", config.backbone) };
        assert!(backbone.stride_in_1x1 && backbone.width_multiplier == 0.25);
        assert_eq!((config.rpn.batch_size_per_image, config.roi.batch_size_per_image), (64, 32));
        assert_eq!((config.rpn.nms_threshold, config.roi.nms_threshold), (0.6, 0.45));
        assert_eq!((config.roi.detections_per_image, config.roi.pooler_resolution), (77, 5));
        let again = model.clone();
        up_to_date(&mut model);
        assert_eq!(model, again);
    }
}
