//! The losses of the heads.

use crate::config::RoiConfig;
use crate::{BoxHeadOutput, Error, Result, SampledRois};
use candle_core::Tensor;
use docent_ops::{BoxCoder, loss};

/// Cross-entropy over all sampled regions and smooth L1 of the true class's deltas over the positive ones, scalars,
/// both divided by the number of sampled regions R (torchvision's `fastrcnn_loss`). Both are 0 for no region.
///
/// # Errors
/// Output and regions of different numbers, a label outside the classes.
pub fn head_losses(cfg: &RoiConfig, output: &BoxHeadOutput, rois: &SampledRois) -> Result<(Tensor, Tensor)> {
    let r = rois.rois.len();
    let (logits, deltas) = (&output.class_logits, &output.box_deltas);
    let classes = match (logits.dims(), deltas.dims()) {
        (&[n, k], &[m, k4]) if n == r && m == r && k4 == 4 * k => k,
        (l, d) => {
            return Err(Error::input("head_losses", format!("logits {l:?} and deltas {d:?} for {r} regions")));
        }
    };
    if rois.labels.len() != r || rois.matched_gt_boxes.len() != r {
        return Err(Error::input(
            "head_losses",
            format!("{} labels and {} matched boxes for {r} regions", rois.labels.len(), rois.matched_gt_boxes.len()),
        ));
    }
    if let Some(&label) = rois.labels.iter().find(|&&l| l as usize >= classes) {
        return Err(Error::input("head_losses", format!("label {label} for {classes} classes")));
    }
    if r == 0 {
        let zero = || Tensor::zeros((), logits.dtype(), logits.device());
        return Ok((zero()?, zero()?));
    }
    let coder = BoxCoder::new(cfg.box_weights);
    let mut picks = Vec::with_capacity(4 * rois.positives.len());
    let mut targets = Vec::with_capacity(4 * rois.positives.len());
    for &i in &rois.positives {
        if i >= r {
            return Err(Error::input("head_losses", format!("positive {i} of {r} regions")));
        }
        let first = (i * classes + rois.labels[i] as usize) * 4;
        picks.extend(first..first + 4);
        targets.extend(coder.encode(&rois.matched_gt_boxes[i], &rois.rois[i].1));
    }
    let normalizer = r as f32;
    Ok((
        loss::softmax_cross_entropy(logits, &rois.labels, normalizer)?,
        loss::smooth_l1(deltas, &picks, &targets, cfg.smooth_l1_beta, normalizer)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn parts() -> (Var, Var, SampledRois) {
        let logits: Vec<f32> = (0..6).map(|i| (i * i) as f32 * 0.1).collect();
        let deltas: Vec<f32> = (0..24).map(|i| 0.1 * i as f32 - 1.05).collect();
        let rois = SampledRois {
            rois: vec![(0, [0., 0., 10., 10.]), (0, [5., 5., 15., 25.])],
            labels: vec![0, 2],
            matched_gt_boxes: vec![[0., 0., 10., 10.], [6., 5., 16., 20.]],
            positives: vec![1],
        };
        (
            Var::from_vec(logits, (2, 3), &Device::Cpu).unwrap(),
            Var::from_vec(deltas, (2, 12), &Device::Cpu).unwrap(),
            rois,
        )
    }

    #[test]
    fn the_sums_are_those_written_out_by_hand() {
        let (l, d, rois) = parts();
        let out = BoxHeadOutput { class_logits: l.as_tensor().clone(), box_deltas: d.as_tensor().clone() };
        let (class, bbox) = head_losses(&RoiConfig::default(), &out, &rois).unwrap();
        let ce = |x: [f32; 3], y: usize| x.iter().map(|v| v.exp()).sum::<f32>().ln() - x[y];
        let want = (ce([0.0, 0.1, 0.4], 0) + ce([0.9, 1.6, 2.5], 2)) / 2.0;
        assert!((class.to_scalar::<f32>().unwrap() - want).abs() < 1e-6);
        // The centre moves by 1 of 10 and -2.5 of 20, the sides by 1 and 3/4; weights 10, 10, 5, 5.
        let t = [1.0, -1.25, 0.0, 5.0 * 0.75f32.ln()];
        let beta = 1.0 / 9.0;
        let want: f32 = (0..4)
            .map(|k| {
                let e = (0.1 * (20 + k) as f32 - 1.05 - t[k]).abs();
                if e < beta { 0.5 * e * e / beta } else { e - 0.5 * beta }
            })
            .sum();
        assert!((bbox.to_scalar::<f32>().unwrap() - want / 2.0).abs() < 1e-5);
        let g = bbox.backward().unwrap().get(&d).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(g.iter().enumerate().all(|(i, v)| (*v != 0.0) == (i >= 20)), "{g:?}");
    }

    #[test]
    fn no_region_and_no_positive_are_zero() {
        let (l, d, mut rois) = parts();
        let out = BoxHeadOutput { class_logits: l.as_tensor().clone(), box_deltas: d.as_tensor().clone() };
        rois.labels[1] = 0;
        rois.positives.clear();
        let (_, bbox) = head_losses(&RoiConfig::default(), &out, &rois).unwrap();
        assert_eq!(bbox.to_scalar::<f32>().unwrap(), 0.0);
        let none = BoxHeadOutput {
            class_logits: Tensor::zeros((0, 3), candle_core::DType::F32, &Device::Cpu).unwrap(),
            box_deltas: Tensor::zeros((0, 12), candle_core::DType::F32, &Device::Cpu).unwrap(),
        };
        let (class, bbox) = head_losses(&RoiConfig::default(), &none, &SampledRois::default()).unwrap();
        assert_eq!((class.to_scalar::<f32>().unwrap(), bbox.to_scalar::<f32>().unwrap()), (0.0, 0.0));
        assert!(head_losses(&RoiConfig::default(), &out, &SampledRois::default()).is_err());
        rois.labels[1] = 3;
        assert!(head_losses(&RoiConfig::default(), &out, &rois).is_err());
    }
}
