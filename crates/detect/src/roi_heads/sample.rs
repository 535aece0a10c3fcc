//! The regions of a training step: ground truths added, assigned, sampled.

use crate::config::RoiConfig;
use crate::matcher::{Match, Matcher, split};
use crate::sampler::choose;
use crate::{Error, Proposals, Result, SamplePurpose, SampledRois, Sampler, Target};
use rayon::prelude::*;

/// Samples each image's proposals and its ground truths, which are appended to them (torchvision's
/// `RoIHeads.select_training_samples`). Boxes only: no gradient passes.
///
/// # Errors
/// Another number of targets than of images, a sampler that breaks its contract. The targets' contents are checked by
/// [`crate::RegionHeads::label_and_sample_proposals`].
pub fn label_and_sample_proposals(
    cfg: &RoiConfig,
    proposals: &Proposals,
    targets: &[Target],
    sampler: &mut dyn Sampler,
) -> Result<SampledRois> {
    if targets.len() != proposals.boxes.len() {
        return Err(Error::input(
            "label_and_sample_proposals",
            format!("{} targets for {} images", targets.len(), proposals.boxes.len()),
        ));
    }
    let matcher = Matcher {
        fg_iou_threshold: cfg.fg_iou_threshold,
        bg_iou_threshold: cfg.bg_iou_threshold,
        allow_low_quality_matches: false,
    };
    let assigned: Vec<_> = proposals
        .boxes
        .par_iter()
        .zip(targets)
        .map(|(boxes, target)| {
            let all = [boxes.as_slice(), &target.boxes].concat();
            let matches = matcher.assign(&target.boxes, &all);
            (all, matches)
        })
        .collect();
    let mut out = SampledRois::default();
    for (image, ((boxes, matches), target)) in assigned.iter().zip(targets).enumerate() {
        let (positives, negatives) = split(matches);
        let (mut chosen, background) = choose(
            sampler,
            SamplePurpose::Roi,
            image,
            (&positives, &negatives),
            (cfg.batch_size_per_image, cfg.positive_fraction),
        )?;
        chosen.extend(background);
        chosen.sort_unstable();
        for i in chosen {
            let (label, gt_box) = match matches[i] {
                Match::Positive(g) => (target.labels[g], target.boxes[g]),
                _ => (0, boxes[i]),
            };
            if label != 0 {
                out.positives.push(out.rois.len());
            }
            out.rois.push((image, boxes[i]));
            out.labels.push(label);
            out.matched_gt_boxes.push(gt_box);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct First;

    impl Sampler for First {
        fn sample(
            &mut self,
            purpose: SamplePurpose,
            image: usize,
            positives: &[usize],
            negatives: &[usize],
            n_pos: usize,
            n_neg: usize,
        ) -> (Vec<usize>, Vec<usize>) {
            assert_eq!(purpose, SamplePurpose::Roi);
            if image == 0 {
                assert_eq!((positives, negatives), (&[1, 3][..], &[0, 2][..]));
            }
            (positives[..n_pos].to_vec(), negatives[..n_neg].to_vec())
        }
    }

    #[test]
    fn truths_are_added_and_rois_keep_their_order() {
        let truth = [10., 10., 20., 20.];
        let near = [10., 10., 20., 18.];
        let proposals = Proposals {
            boxes: vec![vec![[0., 0., 5., 5.], near, [10., 10., 20., 14.]], vec![[1., 1., 2., 2.]]],
            scores: vec![vec![0.9, 0.8, 0.7], vec![0.5]],
        };
        let targets = [Target { boxes: vec![truth], labels: vec![2] }, Target::default()];
        let cfg = RoiConfig { batch_size_per_image: 4, positive_fraction: 0.5, ..RoiConfig::default() };
        let s = label_and_sample_proposals(&cfg, &proposals, &targets, &mut First).unwrap();
        assert_eq!(
            s.rois,
            [(0, [0., 0., 5., 5.]), (0, near), (0, [10., 10., 20., 14.]), (0, truth), (1, [1., 1., 2., 2.])]
        );
        assert_eq!(s.labels, [0, 2, 0, 2, 0]);
        assert_eq!(s.positives, [1, 3]);
        assert_eq!(
            (s.matched_gt_boxes[1], s.matched_gt_boxes[3], s.matched_gt_boxes[2]),
            (truth, truth, [10., 10., 20., 14.])
        );
        assert!(label_and_sample_proposals(&cfg, &proposals, &targets[..1], &mut First).is_err());
    }

    #[test]
    fn nothing_in_is_nothing_out() {
        let proposals = Proposals { boxes: vec![vec![]], scores: vec![vec![]] };
        let s =
            label_and_sample_proposals(&RoiConfig::default(), &proposals, &[Target::default()], &mut First0).unwrap();
        assert_eq!(s, SampledRois::default());
    }

    struct First0;

    impl Sampler for First0 {
        fn sample(
            &mut self,
            _: SamplePurpose,
            _: usize,
            _: &[usize],
            _: &[usize],
            p: usize,
            n: usize,
        ) -> (Vec<usize>, Vec<usize>) {
            assert_eq!((p, n), (0, 0));
            (vec![], vec![])
        }
    }
}
