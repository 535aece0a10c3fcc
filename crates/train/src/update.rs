//! The gradients of one update: of a whole batch, or of its parts one after the other.

use candle_core::Var;
use candle_core::backprop::GradStore;
use docent_detect::FasterRcnn;
use docent_distill::Progress;
use docent_tensor::backward_freeing;

use crate::Result;
use crate::data::Batch;
use crate::events::{Diagnosis, DistillRecord, TermRecord};
use crate::step::{Forward, Lesson, forward};
use crate::tensors::with_f32;

/// What an update's forward and backward passes give.
pub struct Update {
    /// What is differentiated.
    pub total: f64,
    /// RPN objectness, RPN box, head class, head box.
    pub detection: [f64; 4],
    /// Positive proposals.
    pub positives: usize,
    /// The distillation terms.
    pub distill: Option<DistillRecord>,
    /// How detection and distillation pull, where that was asked for.
    pub diagnosis: Option<Diagnosis>,
    /// The gradients; None where a loss is not finite.
    pub gradients: Option<GradStore>,
}

/// Forward and backward over `parts`, which together are one update's images.
///
/// The loss is the mean of the parts' losses weighted by their images, so equal parts give the gradient of the whole batch as far
/// as its losses are means over images: RPN and head losses are, where every image samples its full number of anchors and RoIs.
/// The distillation's normalisers (mask, positives) are each part's own. BatchNorm that is not frozen sees the parts alone. Of
/// each part, only the gradients of `params` are kept. One part gives the bits of a batch without parts.
///
/// `diagnose` costs one more backward pass, which changes nothing.
///
/// # Errors
/// As [`forward`].
pub fn update(
    student: &FasterRcnn,
    lesson: Option<&Lesson<'_>>,
    parts: &[Batch],
    progress: &Progress<'_>,
    seed: u64,
    params: &[&[(String, Var)]],
    diagnose: bool,
) -> Result<Update> {
    let images: usize = parts.iter().map(|part| part.ids.len()).sum();
    let mut sum = Update {
        total: 0.0,
        detection: [0.0; 4],
        positives: 0,
        distill: None,
        diagnosis: None,
        gradients: Some(GradStore::default()),
    };
    let mut taught = GradStore::default();
    for part in parts {
        let share = part.ids.len() as f64 / images.max(1) as f64;
        let out = forward(student, lesson, part, progress, seed)?;
        let total = f64::from(out.total.to_scalar::<f32>()?);
        sum.total += share * total;
        sum.add(share, &out);
        if !total.is_finite() {
            sum.gradients = None;
            return Ok(sum);
        }
        let whole = parts.len() == 1;
        let of_share = |loss: &candle_core::Tensor| if whole { Ok(loss.clone()) } else { loss * share };
        if let (true, Some(loss)) = (diagnose, &out.taught) {
            add(&mut taught, of_share(loss)?.backward()?, params, false)?;
        }
        if let Some(gradients) = &mut sum.gradients {
            add(gradients, backward_freeing(&of_share(&out.total)?)?, params, whole)?;
        }
    }
    if let (true, Some(record), Some(gradients), Some(student)) =
        (diagnose, &sum.distill, &sum.gradients, params.first())
    {
        sum.diagnosis = Some(diagnosis(record, &sum.detection, student, gradients, &taught)?);
    }
    Ok(sum)
}

/// Adds the gradients of `params` to `sum`; all of `more` is taken as it is where it is the only part.
fn add(sum: &mut GradStore, mut more: GradStore, params: &[&[(String, Var)]], only: bool) -> Result<()> {
    if only {
        *sum = more;
        return Ok(());
    }
    for (_, var) in params.iter().copied().flatten() {
        let Some(gradient) = more.remove(var) else { continue };
        let gradient = match sum.remove(var) {
            Some(before) => (before + gradient)?,
            None => gradient,
        };
        sum.insert(var, gradient);
    }
    Ok(())
}

impl Update {
    fn add(&mut self, share: f64, part: &Forward) {
        self.detection.iter_mut().zip(part.detection).for_each(|(sum, loss)| *sum += share * loss);
        self.positives += part.positives;
        let Some(record) = &part.distill else { return };
        let scaled = DistillRecord {
            terms: record
                .terms
                .iter()
                .map(|t| TermRecord { raw: share * t.raw, weighted: share * t.weighted, ..t.clone() })
                .collect(),
            decay: record.decay,
            ratio: record.ratio,
            stats: record.stats.iter().map(|(name, value)| (name.clone(), share * value)).collect(),
        };
        match &mut self.distill {
            None => self.distill = Some(scaled),
            Some(sum) => {
                for (sum, term) in sum.terms.iter_mut().zip(scaled.terms) {
                    sum.raw += term.raw;
                    sum.weighted += term.weighted;
                }
                sum.stats.iter_mut().zip(scaled.stats).for_each(|(sum, stat)| sum.1 += stat.1);
                let (taught, own): (f64, f64) =
                    (sum.terms.iter().map(|t| t.weighted).sum(), self.detection.iter().sum());
                sum.ratio = if own == 0.0 { 0.0 } else { taught / own };
            }
        }
    }
}

/// The gradient of the detection losses is what `all` has beyond `taught`, so one more backward pass tells both.
fn diagnosis(
    record: &DistillRecord,
    detection: &[f64; 4],
    student: &[(String, Var)],
    all: &GradStore,
    taught: &GradStore,
) -> Result<Diagnosis> {
    let (mut both, mut whole, mut part) = (0.0, 0.0, 0.0);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    for (_, var) in student {
        let Some(a) = all.get(var) else { continue };
        whole += with_f32(a, |a| dot(a, a))?;
        if let Some(t) = taught.get(var) {
            part += with_f32(t, |t| dot(t, t))?;
            both += with_f32(a, |a| with_f32(t, |t| dot(a, t)))??;
        }
    }
    let own = (whole - 2.0 * both + part).max(0.0);
    let lengths = (own * part).sqrt();
    let losses: f64 = detection.iter().sum();
    let ratio = |value: f64, to: f64| if to == 0.0 { 0.0 } else { value / to };
    Ok(Diagnosis {
        cosine: ratio(both - part, lengths),
        norm_ratio: ratio(part.sqrt(), own.sqrt()),
        terms: record.terms.iter().map(|t| (t.name.clone(), ratio(t.weighted, losses))).collect(),
    })
}
