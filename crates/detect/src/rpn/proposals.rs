//! From the RPN's maps to proposals: top-k of each level, decode, clip, drop small ones, NMS, top-k.

use super::{CODER, LevelLayout};
use crate::config::RpnConfig;
use crate::{DenseHeadOutput, Error, Mode, Proposals, Result, Size};
use docent_ops::{BoxXyxy, batched_nms, boxes, top_k};
use rayon::prelude::*;

/// One level's maps as plain data.
struct Level<'a> {
    layout: LevelLayout,
    logits: Vec<f32>,
    deltas: Vec<f32>,
    anchors: &'a [BoxXyxy],
}

impl Level<'_> {
    /// The `k` best anchors of image `b` (ties: the one first in the order row, column, anchor), decoded.
    fn best(&self, b: usize, k: usize) -> (Vec<BoxXyxy>, Vec<f32>) {
        let logits: Vec<f32> = (0..self.layout.len()).map(|i| self.logits[self.layout.logit(b, i)]).collect();
        top_k(&logits, k)
            .into_iter()
            .map(|i| {
                let deltas = self.layout.deltas(b, i).map(|d| self.deltas[d]);
                (CODER.decode(&deltas, &self.anchors[i]), logits[i])
            })
            .unzip()
    }
}

/// Proposals of each image, by torchvision's steps: the best anchors of each level by logit, decoded, clipped to the
/// image's true size (`sizes`: height, width), small ones and those below the score threshold dropped, NMS within each
/// level, the best of all levels kept. Among equal scores the finer level and then the lower anchor come first.
///
/// The result is plain data: no gradient passes.
///
/// # Errors
/// Levels that do not fit each other, or another number of sizes than of images.
pub fn propose(cfg: &RpnConfig, output: &DenseHeadOutput, sizes: &[Size], mode: Mode) -> Result<Proposals> {
    let (images, layouts) = LevelLayout::of(output, "propose")?;
    if sizes.len() != images {
        return Err(Error::input("propose", format!("{} sizes for {images} images", sizes.len())));
    }
    let (pre, post) = match mode {
        Mode::Train => (cfg.pre_nms_top_n_train, cfg.post_nms_top_n_train),
        Mode::Eval => (cfg.pre_nms_top_n_test, cfg.post_nms_top_n_test),
    };
    let levels = layouts
        .into_iter()
        .enumerate()
        .map(|(l, layout)| {
            Ok(Level {
                layout,
                logits: output.logits[l].flatten_all()?.to_vec1()?,
                deltas: output.deltas[l].flatten_all()?.to_vec1()?,
                anchors: &output.anchors[l],
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let (boxes, scores) = sizes
        .par_iter()
        .enumerate()
        .map(|(b, size)| {
            let candidates: Vec<_> = levels.par_iter().map(|level| level.best(b, pre)).collect();
            let (mut kept, mut scores, mut of_level) = (vec![], vec![], vec![]);
            for (l, (boxes, logits)) in candidates.into_iter().enumerate() {
                for (bbox, logit) in boxes.into_iter().zip(logits) {
                    let bbox = boxes::clip(&bbox, (size.height as f32, size.width as f32));
                    let score = 1.0 / (1.0 + (-logit).exp());
                    if !boxes::is_small(&bbox, cfg.min_size) && score >= cfg.score_threshold {
                        kept.push(bbox);
                        scores.push(score);
                        of_level.push(l);
                    }
                }
            }
            let mut keep = batched_nms(&kept, &scores, &of_level, cfg.nms_threshold);
            keep.truncate(post);
            keep.into_iter().map(|i| (kept[i], scores[i])).unzip()
        })
        .unzip();
    Ok(Proposals { boxes, scores })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    /// Two levels of 1x2 and 1x1 cells with two anchors, one image.
    fn output(logits: [Vec<f32>; 2], deltas: [Vec<f32>; 2]) -> DenseHeadOutput {
        let t = |v: &Vec<f32>, s: (usize, usize, usize, usize)| Tensor::from_slice(v, s, &Device::Cpu).unwrap();
        DenseHeadOutput {
            logits: vec![t(&logits[0], (1, 2, 1, 2)), t(&logits[1], (1, 2, 1, 1))],
            deltas: vec![t(&deltas[0], (1, 8, 1, 2)), t(&deltas[1], (1, 8, 1, 1))],
            anchors: vec![
                vec![[0., 0., 4., 4.], [0., 0., 8., 4.], [10., 0., 14., 4.], [10., 0., 18., 4.]],
                vec![[0., 0., 4., 4.], [20., 20., 50., 50.]],
            ],
        }
    }

    fn zeros() -> [Vec<f32>; 2] {
        [vec![0.; 16], vec![0.; 8]]
    }

    #[test]
    fn order_is_by_score_and_ties_by_level_and_anchor() {
        // Map order (anchor, column): anchors of cell 0 have logits 1 and 3, those of cell 1 have 1 and 1.
        let out = output([vec![1., 1., 3., 1.], vec![1., 1.]], zeros());
        let cfg = RpnConfig { nms_threshold: 1.0, ..RpnConfig::default() };
        let p = propose(&cfg, &out, &[Size::new(40, 40)], Mode::Eval).unwrap();
        assert_eq!(
            p.boxes[0],
            [
                [0., 0., 8., 4.],
                [0., 0., 4., 4.],
                [10., 0., 14., 4.],
                [10., 0., 18., 4.],
                [0., 0., 4., 4.],
                [20., 20., 40., 40.]
            ]
        );
        assert!((p.scores[0][0] - 0.952_574_1).abs() < 1e-6);
    }

    #[test]
    fn nms_is_within_a_level_and_counts_follow_the_mode() {
        let out = output([vec![1., 1., 3., 1.], vec![1., 1.]], zeros());
        // IoU of a cell's two anchors is 1/2.
        let cfg =
            RpnConfig { nms_threshold: 0.4, post_nms_top_n_train: 2, pre_nms_top_n_test: 1, ..RpnConfig::default() };
        let p = propose(&cfg, &out, &[Size::new(40, 40)], Mode::Train).unwrap();
        assert_eq!(p.boxes[0], [[0., 0., 8., 4.], [10., 0., 14., 4.]]);
        let p = propose(&cfg, &out, &[Size::new(40, 40)], Mode::Eval).unwrap();
        assert_eq!(p.boxes[0], [[0., 0., 8., 4.], [0., 0., 4., 4.]], "the second level's equal box is not suppressed");
    }

    #[test]
    fn clips_to_the_true_size_and_drops_what_is_small_or_unsure() {
        let mut deltas = zeros();
        deltas[1][0] = -3.0; // Moves the second level's first anchor wholly out of the image.
        let out = output([vec![1., 1., 3., -9.], vec![9., 1.]], deltas);
        let cfg = RpnConfig { nms_threshold: 1.0, score_threshold: 0.5, ..RpnConfig::default() };
        let p = propose(&cfg, &out, &[Size::new(2, 12)], Mode::Eval).unwrap();
        assert_eq!(p.boxes[0], [[0., 0., 8., 2.], [0., 0., 4., 2.], [10., 0., 12., 2.]]);
    }

    #[test]
    fn not_a_number_gives_no_proposal() {
        let out = output([vec![f32::NAN; 4], vec![f32::NAN; 2]], [vec![f32::NAN; 16], vec![f32::NAN; 8]]);
        let p = propose(&RpnConfig::default(), &out, &[Size::new(40, 40)], Mode::Eval).unwrap();
        assert!(p.boxes[0].is_empty() && p.scores[0].is_empty());
        assert!(propose(&RpnConfig::default(), &out, &[], Mode::Eval).is_err());
    }
}
