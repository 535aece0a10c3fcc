//! One training step: losses, regions, every parameter's gradient, running statistics.

use docent_detect::{RegionStage, TrainOutput};

use crate::common::{Golden, values};
use crate::formula::{Formula, SIZES};

/// Compares a step. Of each gradient there are so many `entries`, or all.
pub fn compare_step(golden: &Golden, prefix: &str, out: &TrainOutput, formula: &Formula, entries: Option<usize>) {
    for (torch, ours) in [
        ("loss_objectness", "rpn_objectness"),
        ("loss_rpn_box_reg", "rpn_box"),
        ("loss_classifier", "head_class"),
        ("loss_box_reg", "head_box"),
    ] {
        golden.tensor(&format!("{prefix}.{torch}"), out.losses.get(ours).unwrap());
    }
    let [RegionStage { rois, head }] = out.regions.as_slice() else { panic!("{} region stages", out.regions.len()) };
    for i in 0..SIZES.len() {
        let mine: Vec<usize> = (0..rois.rois.len()).filter(|&r| rois.rois[r].0 == i).collect();
        let flat: Vec<f32> = mine.iter().flat_map(|&r| rois.rois[r].1).collect();
        golden.compare_f32(&format!("{prefix}.rois{i}"), &flat);
        let labels: Vec<usize> = mine.iter().map(|&r| rois.labels[r] as usize).collect();
        golden.compare_counts(&format!("{prefix}.roi_labels{i}"), &labels);
    }
    golden.summary(&format!("{prefix}.class_logits"), &head.class_logits, 64);
    golden.summary(&format!("{prefix}.box_deltas"), &head.box_deltas, 64);

    let grads = out.total().unwrap().backward().unwrap();
    let made = formula.made.lock().unwrap();
    for (name, var) in &made.vars {
        let key = format!("{prefix}.grad.{name}");
        let stored = golden.has(&key) || golden.has(&format!("{key}|norm"));
        match (grads.get(var), stored, entries) {
            (Some(grad), true, Some(entries)) => golden.summary(&key, grad, entries),
            (Some(grad), true, None) => golden.tensor(&key, grad),
            (None, false, _) => (), // the weight and bias of a frozen norm
            (found, ..) => {
                golden.fault(format!("{key}: gradient here: {}, in torch: {}", found.is_some(), found.is_none()))
            }
        }
    }
    for (name, buffer) in &made.buffers {
        let key = format!("{prefix}.buffer.{name}");
        if name.ends_with("tracked") {
            golden.compare_f32(&key, &values(buffer));
        } else if golden.has(&format!("{key}|norm")) {
            golden.summary(&key, buffer, 8);
        }
    }
}
