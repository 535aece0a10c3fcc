//! The RPN's losses: anchors assigned, sampled, and picked straight from the maps.

use super::{CODER, LevelLayout};
use crate::config::RpnConfig;
use crate::matcher::{Match, Matcher, split};
use crate::sampler::choose;
use crate::{DenseHeadOutput, Result, SamplePurpose, Sampler, Target};
use candle_core::Tensor;
use docent_ops::loss;
use rayon::prelude::*;

/// What one level's losses look at.
#[derive(Debug, Default)]
struct Picks {
    logits: Vec<usize>,
    labels: Vec<f32>,
    deltas: Vec<usize>,
    targets: Vec<f32>,
}

/// The objectness and the box loss, both scalars, both sums over all levels and images divided by the number of
/// anchors sampled in the whole batch (torchvision's `RegionProposalNetwork.compute_loss`).
///
/// A level without sampled anchors adds a loss of 0, so every parameter always has a gradient.
///
/// # Errors
/// Levels that do not fit each other, another number of targets than of images, a sampler that breaks its contract.
/// The targets' contents are checked by [`crate::Detector::forward_train`].
pub fn rpn_losses(
    cfg: &RpnConfig,
    output: &DenseHeadOutput,
    targets: &[Target],
    sampler: &mut dyn Sampler,
) -> Result<(Tensor, Tensor)> {
    let (images, layouts) = LevelLayout::of(output, "rpn_losses")?;
    if targets.len() != images {
        return Err(crate::Error::input("rpn_losses", format!("{} targets for {images} images", targets.len())));
    }
    let anchors = output.anchors.concat();
    let matcher = Matcher {
        fg_iou_threshold: cfg.fg_iou_threshold,
        bg_iou_threshold: cfg.bg_iou_threshold,
        allow_low_quality_matches: true,
    };
    let matches: Vec<Vec<Match>> = targets.par_iter().map(|t| matcher.assign(&t.boxes, &anchors)).collect();

    let mut starts = Vec::with_capacity(layouts.len());
    let mut total = 0;
    for layout in &layouts {
        starts.push(total);
        total += layout.len();
    }
    // The level of an anchor, and its number within the level.
    let place = |i: usize| {
        let l = starts.partition_point(|&s| s <= i) - 1;
        (l, i - starts[l])
    };
    let mut picks: Vec<Picks> = layouts.iter().map(|_| Picks::default()).collect();
    let mut sampled = 0;
    for (b, (matches, target)) in matches.iter().zip(targets).enumerate() {
        let (positives, negatives) = split(matches);
        let (chosen, background) = choose(
            sampler,
            SamplePurpose::Rpn,
            b,
            (&positives, &negatives),
            (cfg.batch_size_per_image, cfg.positive_fraction),
        )?;
        sampled += chosen.len() + background.len();
        for i in chosen {
            let (l, n) = place(i);
            picks[l].logits.push(layouts[l].logit(b, n));
            picks[l].labels.push(1.0);
            if let Match::Positive(g) = matches[i] {
                picks[l].deltas.extend(layouts[l].deltas(b, n));
                picks[l].targets.extend(CODER.encode(&target.boxes[g], &anchors[i]));
            }
        }
        for i in background {
            let (l, n) = place(i);
            picks[l].logits.push(layouts[l].logit(b, n));
            picks[l].labels.push(0.0);
        }
    }
    let normalizer = sampled.max(1) as f32;
    let objectness = sum(picks
        .iter()
        .zip(&output.logits)
        .map(|(p, x)| Ok(loss::bce_with_logits(x, &p.logits, &p.labels, normalizer)?)))?;
    let boxes = sum(picks
        .iter()
        .zip(&output.deltas)
        .map(|(p, x)| Ok(loss::smooth_l1(x, &p.deltas, &p.targets, cfg.smooth_l1_beta, normalizer)?)))?;
    Ok((objectness, boxes))
}

/// The sum of at least one scalar.
fn sum(mut terms: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let first = terms.next().unwrap_or_else(|| Err(crate::Error::input("rpn_losses", "no feature level")))?;
    terms.try_fold(first, |total, term| Ok((total + term?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    struct Everything;

    impl Sampler for Everything {
        fn sample(
            &mut self,
            purpose: SamplePurpose,
            _: usize,
            positives: &[usize],
            negatives: &[usize],
            n_pos: usize,
            n_neg: usize,
        ) -> (Vec<usize>, Vec<usize>) {
            assert_eq!(purpose, SamplePurpose::Rpn);
            // The last ones, backwards: the order must not matter.
            let last = |v: &[usize], n: usize| v.iter().rev().take(n).copied().collect();
            (last(positives, n_pos), last(negatives, n_neg))
        }
    }

    fn output(logits: &[Var], deltas: &[Var]) -> DenseHeadOutput {
        DenseHeadOutput {
            logits: logits.iter().map(|v| v.as_tensor().clone()).collect(),
            deltas: deltas.iter().map(|v| v.as_tensor().clone()).collect(),
            anchors: vec![
                vec![[0., 0., 4., 4.], [0., 0., 8., 4.], [10., 0., 14., 4.], [10., 0., 18., 4.]],
                vec![[0., 0., 5., 4.], [20., 20., 50., 50.]],
            ],
        }
    }

    fn vars() -> (Vec<Var>, Vec<Var>) {
        let v = |n: usize, s: (usize, usize, usize, usize)| {
            let data = (0..n).map(|i| 0.25 * i as f32 - 0.5).collect();
            Var::from_vec(data, s, &Device::Cpu).unwrap()
        };
        (vec![v(8, (2, 2, 1, 2)), v(4, (2, 2, 1, 1))], vec![v(32, (2, 8, 1, 2)), v(16, (2, 8, 1, 1))])
    }

    #[test]
    fn the_sums_are_those_written_out_by_hand() {
        let (logits, deltas) = vars();
        let targets = [Target { boxes: vec![[0., 0., 8., 5.]], labels: vec![1] }, Target::default()];
        let cfg = RpnConfig { batch_size_per_image: 5, ..RpnConfig::default() };
        let (obj, bbox) = rpn_losses(&cfg, &output(&logits, &deltas), &targets, &mut Everything).unwrap();
        // Image 0: anchor 1 overlaps by 32/40 = 0.8, anchor 4 (level 1) by 1/2 and is ignored, anchor 0 by 0.4 and is
        // ignored, the rest is negative: 2, 3, 5. Image 1: five negatives of six, the last ones: 1 .. 5.
        let v = |b: usize, level: usize, n: usize| {
            let (cells, at) = if level == 0 { (2, n) } else { (1, n) };
            0.25 * ((b * 2 + at % 2) * cells + at / 2) as f32 - 0.5
        };
        let bce = |x: f32, y: f32| x.max(0.0) - x * y + (-x.abs()).exp().ln_1p();
        let negatives = [(0, 0, 2), (0, 0, 3), (0, 1, 1), (1, 0, 1), (1, 0, 2), (1, 0, 3), (1, 1, 0), (1, 1, 1)];
        let want = bce(v(0, 0, 1), 1.0) + negatives.iter().map(|&(b, l, n)| bce(v(b, l, n), 0.0)).sum::<f32>();
        assert!((obj.to_scalar::<f32>().unwrap() - want / 9.0).abs() < 1e-6);
        // Anchor 1 is anchor channel 1 of cell 0: map entries (4 + k) * 2.
        let t = CODER.encode(&[0., 0., 8., 5.], &[0., 0., 8., 4.]);
        let beta = 1.0 / 9.0;
        let want: f32 = (0..4)
            .map(|k| {
                let d = (0.25 * ((4 + k) * 2) as f32 - 0.5 - t[k]).abs();
                if d < beta { 0.5 * d * d / beta } else { d - 0.5 * beta }
            })
            .sum();
        assert!((bbox.to_scalar::<f32>().unwrap() - want / 9.0).abs() < 1e-6);
        // Only what was picked has a gradient that is not zero.
        let grads = (obj + bbox).unwrap().backward().unwrap();
        let nonzero = |v: &Var| {
            let g = grads.get(v).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            g.iter().filter(|x| **x != 0.0).count()
        };
        assert_eq!(nonzero(&logits[0]) + nonzero(&logits[1]), 9);
        assert_eq!((nonzero(&deltas[0]), nonzero(&deltas[1])), (4, 0));
    }

    #[test]
    fn without_truth_the_box_loss_is_zero() {
        let (logits, deltas) = vars();
        let targets = [Target::default(), Target::default()];
        let (obj, bbox) =
            rpn_losses(&RpnConfig::default(), &output(&logits, &deltas), &targets, &mut Everything).unwrap();
        assert!(obj.to_scalar::<f32>().unwrap() > 0.0);
        assert_eq!(bbox.to_scalar::<f32>().unwrap(), 0.0);
        let grads = bbox.backward().unwrap();
        let g = grads.get(&deltas[0]).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(g, [0.0; 32]);
    }
}
