//! Keys of the first edition's checkpoints, and what they are called now.

use serde_json::{Map, Value};

const ARCHITECTURE: &str = "architecture";

/// Old and new key of a detector's settings, as paths.
const RENAMED: [(&str, &str); 18] = [
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
    ("roi.detections", "roi.detections_per_image"),
];

/// Its value was `in1x1` or `in3x3`, and is true or false now.
const STRIDE: (&str, &str) = ("backbone.stride_place", "backbone.stride_in_1x1");

/// Old and new key of every renamed setting: a recipe with an old one is told the new one.
pub fn renamed_keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    RENAMED.into_iter().chain([STRIDE])
}

/// Brings the settings in a checkpoint of the first edition into today's form. That edition had one detector and did not write its
/// name; settings that name their architecture stay as they are.
pub(crate) fn up_to_date(model: &mut Value) {
    let Some(model) = model.as_object_mut().filter(|model| !model.contains_key(ARCHITECTURE)) else { return };
    for (old, new) in renamed_keys() {
        let (Some((section, old)), Some((_, new))) = (old.split_once('.'), new.split_once('.')) else { continue };
        let Some(section) = model.get_mut(section).and_then(Value::as_object_mut) else { continue };
        rename(section, old, new);
    }
    model.insert(ARCHITECTURE.to_owned(), Value::from("faster_rcnn"));
    if let Some(backbone) = model.get_mut("backbone").and_then(Value::as_object_mut) {
        backbone.entry(ARCHITECTURE).or_insert_with(|| Value::from("resnet"));
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
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_that_name_their_architecture_are_left_alone() {
        let theirs = json!({ "architecture": "yours", "roi": { "nms": 0.5 }, "backbone": { "width": 2 } });
        let mut model = theirs.clone();
        up_to_date(&mut model);
        assert_eq!(model, theirs);
    }

    #[test]
    fn the_strides_place_becomes_yes_or_no() {
        for (place, in_1x1) in [("in1x1", true), ("in3x3", false)] {
            let mut model = json!({ "classes": 3, "backbone": { "stride_place": place } });
            up_to_date(&mut model);
            let backbone = json!({ "architecture": "resnet", "stride_in_1x1": in_1x1 });
            assert_eq!(model, json!({ "architecture": "faster_rcnn", "classes": 3, "backbone": backbone }));
        }
    }
}
