//! The gradients of one step: of a whole batch, or of its parts one after the other.

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use docent_detect::Detector;
use docent_distill::{Progress, Stat};
use docent_tensor::{backward_freeing, with_f32};

use crate::batch::Batch;
use crate::error::Result;
use crate::events::{Diagnosis, DistillRecord, TermRecord};
use crate::gradients::{GradientTree, Params};
use crate::step::{Forward, ForwardDistill, TeacherContext, forward};

/// What a step's forward and backward passes give.
pub struct Update {
    /// What is differentiated.
    pub total: f64,
    /// The detection losses by name.
    pub losses: Vec<(String, f64)>,
    /// Positive proposals.
    pub positives: usize,
    /// The distillation terms.
    pub distill: Option<DistillRecord>,
    /// How detection and distillation pull, where that was asked for.
    pub diagnosis: Option<Diagnosis>,
    /// The gradients; None where a loss is not finite.
    pub gradients: Option<GradStore>,
}

/// Forward and backward over `parts`, which together are one step's images.
///
/// The gradient is the mean of the parts' gradients weighted by their images, as in data-parallel training, added in a balanced
/// binary tree. Losses are such means too; counts are sums. So equal parts give the gradient of the whole batch as far as its losses
/// are means over images: RPN and head losses are, where every image samples its full number of anchors and RoIs. The distillation's
/// normalisers (mask, positives) are each part's own. BatchNorm that is not frozen sees the parts alone. Of several parts, only the
/// gradients of `params` are kept. One part gives the bits of a batch without parts.
///
/// The backward pass frees activations, so nothing of the forward pass is returned. `diagnose` costs one more backward pass, which
/// changes nothing.
///
/// # Errors
/// As [`forward`].
pub fn update(
    student: &dyn Detector,
    teacher: Option<&TeacherContext<'_>>,
    parts: &[Batch],
    progress: Progress<'_>,
    seed: u64,
    params: &[&Params],
    diagnose: bool,
) -> Result<Update> {
    let images: usize = parts.iter().map(|part| part.keys.len()).sum();
    let mut sums = Sums::default();
    let (mut all, mut distill) = (GradientTree::default(), GradientTree::default());
    for part in parts {
        let share = part.keys.len() as f64 / images.max(1) as f64;
        let out = forward(student, teacher, part, progress, seed)?;
        let total = f64::from(out.total.to_scalar::<f32>()?);
        sums.add(share, total, &out);
        if !total.is_finite() {
            return Ok(sums.into_update(None, None));
        }
        let of_share = |loss: &Tensor| if parts.len() == 1 { Ok(loss.clone()) } else { loss * share };
        if let (true, Some(part)) = (diagnose, &out.distill) {
            distill.push(of_share(&part.total)?.backward()?, params)?;
        }
        let gradients = backward_freeing(&of_share(&out.total)?)?;
        if parts.len() == 1 {
            all = GradientTree::of(gradients);
        } else {
            all.push(gradients, params)?;
        }
    }
    let (all, distill) = (all.finish(params)?, distill.finish(params)?);
    let diagnosis = match (diagnose, &sums.distill, params.first()) {
        (true, Some(sum), Some(student)) => Some(diagnosis(sum, sums.detection(), student, &all, &distill)?),
        _ => None,
    };
    Ok(sums.into_update(Some(all), diagnosis))
}

/// Numbers of the parts so far: means weighted by images, and counts.
#[derive(Default)]
struct Sums {
    total: f64,
    losses: Vec<(String, f64)>,
    positives: usize,
    distill: Option<DistillSums>,
}

struct DistillSums {
    terms: Vec<TermRecord>,
    decay: f64,
    stats: Vec<Stat>,
}

impl Sums {
    fn add(&mut self, share: f64, total: f64, part: &Forward) {
        self.total += share * total;
        self.positives += part.positives;
        let of_share = |value: f64| share * value;
        if self.losses.is_empty() {
            self.losses = part.losses.iter().map(|(name, loss)| (name.clone(), of_share(*loss))).collect();
        } else {
            self.losses.iter_mut().zip(&part.losses).for_each(|(sum, (_, loss))| sum.1 += of_share(*loss));
        }
        let Some(ForwardDistill { terms, decay, stats, .. }) = &part.distill else { return };
        let terms = terms.iter().map(|t| TermRecord {
            name: t.name.clone(),
            raw: of_share(t.raw),
            weighted: of_share(t.weighted),
        });
        let stats = stats.iter().map(|s| if s.count { *s } else { Stat { value: of_share(s.value), ..*s } });
        match &mut self.distill {
            None => self.distill = Some(DistillSums { terms: terms.collect(), decay: *decay, stats: stats.collect() }),
            Some(sum) => {
                for (sum, term) in sum.terms.iter_mut().zip(terms) {
                    sum.raw += term.raw;
                    sum.weighted += term.weighted;
                }
                sum.stats.iter_mut().zip(stats).for_each(|(sum, stat)| sum.value += stat.value);
            }
        }
    }

    /// The sum of the detection losses.
    fn detection(&self) -> f64 {
        self.losses.iter().map(|(_, loss)| loss).sum()
    }

    fn into_update(self, gradients: Option<GradStore>, diagnosis: Option<Diagnosis>) -> Update {
        let detection = self.detection();
        let distill = self.distill.map(|DistillSums { terms, decay, stats }| DistillRecord {
            ratio: ratio(terms.iter().map(|t| t.weighted).sum(), detection),
            terms,
            decay,
            stats: stats.into_iter().map(|stat| (stat.name.to_owned(), stat.value)).collect(),
        });
        let Self { total, losses, positives, .. } = self;
        Update { total, losses, positives, distill, diagnosis, gradients }
    }
}

/// The gradient of the detection losses is what `all` has beyond `distill`, so one more backward pass tells both.
fn diagnosis(
    sums: &DistillSums,
    detection: f64,
    student: &Params,
    all: &GradStore,
    distill: &GradStore,
) -> Result<Diagnosis> {
    let (mut both, mut whole, mut part) = (0.0, 0.0, 0.0);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    for (_, var) in student {
        let Some(a) = all.get(var) else { continue };
        whole += with_f32(a, |a| dot(a, a))?;
        if let Some(d) = distill.get(var) {
            part += with_f32(d, |d| dot(d, d))?;
            both += with_f32(a, |a| with_f32(d, |d| dot(a, d)))??;
        }
    }
    let own = (whole - 2.0 * both + part).max(0.0);
    Ok(Diagnosis {
        cosine: ratio(both - part, (own * part).sqrt()),
        norm_ratio: ratio(part.sqrt(), own.sqrt()),
        terms: sums.terms.iter().map(|t| (t.name.clone(), ratio(t.weighted, detection))).collect(),
    })
}

/// 0 where there is nothing to compare with.
fn ratio(value: f64, to: f64) -> f64 {
    if to == 0.0 { 0.0 } else { value / to }
}
