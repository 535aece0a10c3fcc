//! Architectures of other programs, told by the names of their tensors: what they are and what docent lacks to read them.

/// What to look for in a set of names, what it is, and what is missing for it.
struct Architecture {
    /// Each of these is part of some name.
    marks: &'static [&'static str],
    what: &'static str,
    missing: &'static str,
}

const DETECTRON2: &str =
    "the translation of its names, of its background class (the last one, here the first) and of its BGR input";
const MMDETECTION: &str =
    "the translation of its names, of its background class (the last one, here the first) and of its config's input";
const MASKS: &str = "a mask head; only boxes are detected";
const CASCADE: &str = "a cascade of box heads; there is one";
const ONE_STAGE: &str = "a one-stage head; the detector is a Faster R-CNN";
const KEYPOINTS: &str = "a keypoint head; only boxes are detected";
const NO_PYRAMID: &str = "a Faster R-CNN without a feature pyramid";

/// The first that fits is it, so what has more parts stands before what has fewer.
const ARCHITECTURES: [Architecture; 24] = [
    known(&["proposal_generator.", "roi_heads.mask_head."], "detectron2's Mask R-CNN", MASKS),
    known(&["proposal_generator.", "roi_heads.keypoint_head."], "detectron2's Keypoint R-CNN", KEYPOINTS),
    known(&["proposal_generator.", "roi_heads.box_predictor.0."], "detectron2's Cascade R-CNN", CASCADE),
    known(&["proposal_generator.", "roi_heads.res5."], "detectron2's Faster R-CNN on C4", NO_PYRAMID),
    known(&["proposal_generator.", "roi_heads.box_predictor."], "detectron2's Faster R-CNN", DETECTRON2),
    known(&["backbone.bottom_up.", "head.cls_subnet."], "detectron2's RetinaNet", ONE_STAGE),
    known(&["stem.conv1.", "res2.0."], "detectron2's ResNet", "the translation of its names and of its BGR input"),
    known(&["roi_head.mask_head."], "mmdetection's Mask R-CNN", MASKS),
    known(&["roi_head.bbox_head.0."], "mmdetection's Cascade R-CNN", CASCADE),
    known(&["neck.", "rpn_head.", "roi_head.bbox_head."], "mmdetection's Faster R-CNN", MMDETECTION),
    known(&["rpn_head.", "roi_head.bbox_head."], "mmdetection's Faster R-CNN on C4", NO_PYRAMID),
    known(&["bbox_head.retina_cls."], "mmdetection's RetinaNet", ONE_STAGE),
    known(&["bbox_head.conv_centerness."], "mmdetection's FCOS", ONE_STAGE),
    known(&["bbox_head.gfl_cls."], "mmdetection's GFL", ONE_STAGE),
    known(&["bbox_head.atss_cls."], "mmdetection's ATSS", ONE_STAGE),
    known(&["neck.", "bbox_head."], "a one-stage detector of mmdetection", ONE_STAGE),
    known(&["rpn.head.", "roi_heads.mask_predictor."], "torchvision's Mask R-CNN", MASKS),
    known(&["rpn.head.", "roi_heads.keypoint_predictor."], "torchvision's Keypoint R-CNN", KEYPOINTS),
    known(&["head.regression_head.bbox_ctrness."], "torchvision's FCOS", ONE_STAGE),
    known(&["head.classification_head.module_list."], "torchvision's SSD", ONE_STAGE),
    known(&["head.classification_head."], "torchvision's RetinaNet", ONE_STAGE),
    known(&[".cv1.conv.", ".cv2.conv."], "an ultralytics YOLO", ONE_STAGE),
    known(
        &["encoder.layers.", "decoder.layers.", "class_embed."],
        "a DETR",
        "transformers; the detector is a Faster R-CNN",
    ),
    known(
        &["encoder.layers.", "decoder.layers.", "class_labels_classifier."],
        "a DETR of Hugging Face",
        "transformers; the detector is a Faster R-CNN",
    ),
];

const fn known(marks: &'static [&'static str], what: &'static str, missing: &'static str) -> Architecture {
    Architecture { marks, what, missing }
}

/// "those of .., which docent does not read: it lacks ..", where `names` are another known architecture's.
pub(crate) fn architecture(names: &[&str]) -> Option<String> {
    let has = |mark: &&str| names.iter().any(|name| name.contains(mark));
    let Architecture { what, missing, .. } = ARCHITECTURES.iter().find(|a| a.marks.iter().all(has))?;
    Some(format!("those of {what}, which docent does not read: it lacks {missing}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_architecture() {
        for (names, what, missing) in [
            (
                &[
                    "backbone.bottom_up.res2.0.conv1.weight",
                    "proposal_generator.rpn_head.conv.weight",
                    "roi_heads.box_predictor.cls_score.weight",
                ][..],
                "detectron2's Faster R-CNN,",
                "BGR",
            ),
            (
                &[
                    "proposal_generator.rpn_head.conv.weight",
                    "roi_heads.box_predictor.cls_score.weight",
                    "roi_heads.mask_head.predictor.weight",
                ],
                "detectron2's Mask R-CNN",
                "mask head",
            ),
            (
                &[
                    "backbone.conv1.weight",
                    "neck.fpn_convs.0.conv.weight",
                    "rpn_head.rpn_conv.weight",
                    "roi_head.bbox_head.fc_cls.weight",
                ],
                "mmdetection's Faster R-CNN,",
                "background class",
            ),
            (
                &["backbone.conv1.weight", "neck.fpn_convs.0.conv.weight", "bbox_head.retina_cls.weight"],
                "mmdetection's RetinaNet",
                "one-stage",
            ),
            (
                &["backbone.body.conv1.weight", "head.classification_head.cls_logits.weight"],
                "torchvision's RetinaNet",
                "one-stage",
            ),
            (&["0.conv.weight", "2.cv1.conv.weight", "2.cv2.conv.weight"], "YOLO", "one-stage"),
        ] {
            let said = architecture(names).unwrap();
            assert!(said.contains(what) && said.contains(missing), "{names:?}: {said}");
        }
    }

    #[test]
    fn torchvisions_faster_rcnn_and_classifiers_are_no_foreign_ones() {
        for names in [
            &[
                "backbone.body.conv1.weight",
                "backbone.fpn.inner_blocks.0.0.weight",
                "rpn.head.conv.0.0.weight",
                "roi_heads.box_predictor.cls_score.weight",
            ][..],
            &["conv1.weight", "layer1.0.conv1.weight", "fc.weight"],
            &["features.0.0.weight", "features.1.conv.0.0.weight", "classifier.1.weight"],
        ] {
            assert_eq!(architecture(names), None, "{names:?}");
        }
    }
}
