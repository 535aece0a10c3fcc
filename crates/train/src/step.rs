//! One training step's forward pass: the student's own losses and, with a teacher, the distillation's.

use candle_core::Tensor;
use docent_detect::{BalancedPositiveNegativeSampler, Detector};
use docent_distill::{Distiller, Progress, PyramidSource, SharedStep, SharingOptions, Stat, StepInput};
use docent_model::ParamStore;
use rand_chacha::ChaCha8Rng;

use crate::batch::Batch;
use crate::error::Result;
use crate::events::TermRecord;
use crate::teacher_cache::TeacherPyramids;

/// The model that is trained.
#[derive(Clone, Copy)]
pub struct StudentModel<'a> {
    /// The detector.
    pub model: &'a dyn Detector,
    /// Its tensors.
    pub store: &'a ParamStore,
}

/// A teacher, the way it teaches and the tensors that are trained for that.
#[derive(Clone, Copy)]
pub struct TeacherContext<'a> {
    /// The trained detector. It runs in [`docent_detect::Mode::Eval`]: no graph is built for it.
    pub model: &'a dyn Detector,
    /// The distillation.
    pub distiller: &'a dyn Distiller,
    /// The distillation's own parameters (adapters); they stay out of the student's checkpoint.
    pub store: &'a ParamStore,
    /// Where the teacher's pyramids are kept; none computes them in each step.
    pub cache: Option<&'a TeacherPyramids>,
}

/// What a step's forward pass gives.
pub struct Forward {
    /// What is differentiated, a scalar: the detection losses and the distillation's.
    pub total: Tensor,
    /// The detection losses by name.
    pub losses: Vec<(String, f64)>,
    /// Positive proposals in the batch.
    pub positives: usize,
    /// The distillation's part.
    pub distill: Option<ForwardDistill>,
}

/// The distillation's part of a forward pass.
pub struct ForwardDistill {
    /// Its share of [`Forward::total`], a scalar.
    pub total: Tensor,
    /// Every term, raw and weighted.
    pub terms: Vec<TermRecord>,
    /// r(t), the decay's factor.
    pub decay: f64,
    /// Further numbers.
    pub stats: Vec<Stat>,
}

/// Runs the student on `batch`, and the teacher beside it where there is one.
///
/// The sampler's choices are keyed by (`seed`, epoch, image id), so neither the order of images nor threads change them.
///
/// # Errors
/// When a shape does not fit; numbers that are not finite are returned, not refused.
pub fn forward(
    student: &dyn Detector,
    teacher: Option<&TeacherContext<'_>>,
    batch: &Batch,
    progress: Progress<'_>,
    seed: u64,
) -> Result<Forward> {
    let Batch { images, targets, .. } = batch;
    let output = student.forward_train(images, targets, &mut keyed_sampler(seed, "sample", progress, batch))?;
    let losses = output.losses.iter().map(|(name, loss)| Ok((name.to_owned(), scalar(loss)?)));
    let mut forward = Forward {
        total: output.total()?,
        losses: losses.collect::<Result<_>>()?,
        positives: output.positives(),
        distill: None,
    };
    let Some(TeacherContext { model, distiller, cache, .. }) = teacher else { return Ok(forward) };

    let cached = cache.map(|cache| cache.for_batch(&batch.keys));
    let options = SharingOptions {
        sampler: Some(&mut keyed_sampler(seed, "sample-teacher", progress, batch)),
        pyramids: cached.as_ref().map(|cached| cached as &dyn PyramidSource),
    };
    let input = StepInput { student, teacher: *model, output: &output, images, targets };
    let shared = SharedStep::new(input, distiller.needs(), options)?;
    let out = distiller.loss(&shared.context(progress))?;
    let term = |term: &docent_distill::Term| {
        let (raw, factor) = (term.value()?, out.decay * term.weight);
        // A term at weight 0 is left out of the sum, whatever its value.
        let weighted = if factor == 0.0 { 0.0 } else { factor * raw };
        Ok(TermRecord { name: term.name.to_owned(), raw, weighted })
    };
    let terms = out.terms.iter().map(term).collect::<Result<_>>()?;
    let total = out.total()?;
    forward.total = (forward.total + &total)?;
    forward.distill = Some(ForwardDistill { total, terms, decay: out.decay, stats: out.stats });
    Ok(forward)
}

/// One generator an image, keyed by (`seed`, `purpose`, epoch, image id).
fn keyed_sampler(
    seed: u64,
    purpose: &str,
    progress: Progress<'_>,
    batch: &Batch,
) -> BalancedPositiveNegativeSampler<ChaCha8Rng> {
    let keyed = |id| docent_coco::rng::keyed(seed, purpose, progress.epoch as u64, id);
    BalancedPositiveNegativeSampler::new(batch.ids().map(keyed).collect())
}

fn scalar(t: &Tensor) -> Result<f64> {
    Ok(f64::from(t.to_scalar::<f32>()?))
}
