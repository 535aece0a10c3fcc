//! From the heads' output to detections.

use crate::config::RoiConfig;
use crate::{BoxHeadOutput, Detection, Error, Result, Size};
use docent_ops::{BoxCoder, BoxXyxy, batched_nms, boxes};
use rayon::prelude::*;

/// Detections with a side below this, in pixels after clipping, are dropped: torchvision's figure.
const MIN_SIZE: f32 = 1e-2;

/// The detections of each image, best first, by torchvision's steps: softmax, a box for each class but the background,
/// clipped to the image's true size (`sizes`: height, width), low scores and small boxes dropped, NMS within each class,
/// the best kept. Among equal scores the earlier region and then the lower class come first.
///
/// # Errors
/// Output and regions of different numbers, a region of an image without a size.
pub fn postprocess(
    cfg: &RoiConfig,
    output: &BoxHeadOutput,
    rois: &[(usize, BoxXyxy)],
    sizes: &[Size],
) -> Result<Vec<Vec<Detection>>> {
    let classes = match (output.class_logits.dims(), output.box_deltas.dims()) {
        (&[n, k], &[m, k4]) if n == rois.len() && m == n && k4 == 4 * k && k > 0 => k,
        (l, d) => {
            return Err(Error::input(
                "postprocess",
                format!("logits {l:?} and deltas {d:?} for {} regions", rois.len()),
            ));
        }
    };
    let mut of_image: Vec<Vec<usize>> = vec![vec![]; sizes.len()];
    for (i, (image, _)) in rois.iter().enumerate() {
        match of_image.get_mut(*image) {
            Some(list) => list.push(i),
            None => {
                return Err(Error::input("postprocess", format!("region {i} is of image {image} of {}", sizes.len())));
            }
        }
    }
    if rois.is_empty() {
        return Ok(vec![vec![]; sizes.len()]);
    }
    let logits: Vec<f32> = output.class_logits.flatten_all()?.to_vec1()?;
    let deltas: Vec<f32> = output.box_deltas.flatten_all()?.to_vec1()?;
    let coder = BoxCoder::new(cfg.box_weights);
    Ok(of_image
        .par_iter()
        .zip(sizes)
        .map(|(list, size)| {
            let (mut found, mut scores, mut labels) = (vec![], vec![], vec![]);
            for &i in list {
                let scored = softmax(&logits[i * classes..(i + 1) * classes]);
                for (k, score) in scored.enumerate().skip(1).filter(|(_, s)| *s > cfg.score_threshold) {
                    let at = (i * classes + k) * 4;
                    let d = [deltas[at], deltas[at + 1], deltas[at + 2], deltas[at + 3]];
                    let bbox = boxes::clip(&coder.decode(&d, &rois[i].1), (size.height as f32, size.width as f32));
                    if !boxes::is_small(&bbox, MIN_SIZE) {
                        found.push(bbox);
                        scores.push(score);
                        labels.push(k);
                    }
                }
            }
            batched_nms(&found, &scores, &labels, cfg.nms_threshold)
                .into_iter()
                .take(cfg.detections_per_image)
                .map(|i| Detection { bbox: found[i], score: scores[i], label: labels[i] as u32 })
                .collect()
        })
        .collect())
}

/// `exp(x - max) / sum` of one row.
fn softmax(row: &[f32]) -> impl Iterator<Item = f32> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = row.iter().map(|x| (x - max).exp()).sum();
    row.iter().map(move |x| (x - max).exp() / sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    fn output(logits: &[[f32; 3]], deltas: &[[f32; 12]]) -> BoxHeadOutput {
        let t = |v: Vec<f32>, columns: usize| Tensor::from_vec(v, (logits.len(), columns), &Device::Cpu).unwrap();
        BoxHeadOutput { class_logits: t(logits.concat(), 3), box_deltas: t(deltas.concat(), 12) }
    }

    #[test]
    fn suppression_is_within_a_class_and_order_is_by_score() {
        let ln = |p: [f32; 3]| p.map(f32::ln);
        let out = output(&[ln([0.2, 0.4, 0.4]), ln([0.3, 0.65, 0.05]), ln([0.5, 0.1, 0.4])], &[[0.0; 12]; 3]);
        let rois = [(0, [0., 0., 10., 10.]), (0, [0., 0., 10., 9.]), (1, [0., 0., 30., 5.])];
        let found = postprocess(
            &RoiConfig { score_threshold: 0.06, ..RoiConfig::default() },
            &out,
            &rois,
            &[Size::new(40, 40), Size::new(40, 20), Size::new(9, 9)],
        )
        .unwrap();
        let short = |d: &Detection| (d.label, d.bbox, (d.score * 1000.0).round());
        assert_eq!(
            found[0].iter().map(short).collect::<Vec<_>>(),
            [(1, [0., 0., 10., 9.], 650.), (2, [0., 0., 10., 10.], 400.),]
        );
        assert_eq!(
            found[1].iter().map(short).collect::<Vec<_>>(),
            [(2, [0., 0., 20., 5.], 400.), (1, [0., 0., 20., 5.], 100.),]
        );
        assert!(found[2].is_empty());
    }

    #[test]
    fn each_class_has_its_own_box_and_small_ones_fall() {
        let mut d = [0.0; 12];
        d[4] = 10.0; // Class 1 moves right by one width: out of the image.
        d[8..12].copy_from_slice(&[0.0, 5.0, 0.0, 0.0]); // Class 2 moves down by half a height.
        let out = output(&[[0.0; 3]], &[d]);
        let found = postprocess(&RoiConfig::default(), &out, &[(0, [0., 0., 10., 10.])], &[Size::new(40, 10)]).unwrap();
        assert_eq!(found[0].len(), 1);
        assert_eq!((found[0][0].label, found[0][0].bbox), (2, [0., 5., 10., 15.]));
    }

    #[test]
    fn the_count_is_bounded_and_inputs_are_checked() {
        let logits = [[0.0f32; 3]; 3];
        let rois = [(0, [0., 0., 5., 5.]), (0, [10., 0., 15., 5.]), (0, [20., 0., 25., 5.])];
        let out = output(&logits, &[[0.0; 12]; 3]);
        let cfg = RoiConfig { detections_per_image: 4, ..RoiConfig::default() };
        let found = postprocess(&cfg, &out, &rois, &[Size::new(40, 40)]).unwrap();
        // All scores are equal: regions in order, classes in order.
        assert_eq!(
            found[0].iter().map(|d| (d.bbox[0], d.label)).collect::<Vec<_>>(),
            [(0., 1), (0., 2), (10., 1), (10., 2)]
        );
        assert!(postprocess(&cfg, &out, &rois[..2], &[Size::new(40, 40)]).is_err());
        assert!(postprocess(&cfg, &out, &[rois[0], rois[1], (1, rois[2].1)], &[Size::new(40, 40)]).is_err());
    }
}
