//! One training step's forward pass: the student's own losses and, with a teacher, what it teaches.
//!
//! This is section 1 of docs/method.md as code: proposals and their sampling are the student's alone, and the teacher
//! answers on the same feature positions and the same RoIs. Of the teacher, only what the method reads is computed.

use candle_core::Tensor;
use docent_detect::config::STRIDES;
use docent_detect::{BackboneFeatures, FasterRcnn, Features, Mode, RandomSampler, TrainOutput};
use docent_distill::{DistillOutput, Distiller, Progress, RoiSet, Stages, StepContext};
use rand_chacha::ChaCha8Rng;

use crate::data::Batch;
use crate::events::{DistillRecord, TermRecord};
use crate::{Result, TeacherCache};

/// A teacher and the way it teaches.
pub struct Lesson<'a> {
    /// Holds plain tensors: no graph is built for it.
    pub teacher: &'a FasterRcnn,
    /// The distillation.
    pub distiller: &'a dyn Distiller,
    /// Where the teacher's pyramids are kept.
    pub cache: Option<&'a TeacherCache>,
}

/// What a step's forward pass gives.
pub struct Forward {
    /// What is differentiated, a scalar.
    pub total: Tensor,
    /// RPN objectness, RPN box, head class, head box.
    pub detection: [f64; 4],
    /// Positive proposals in the batch.
    pub positives: usize,
    /// The distillation's share of `total`, a scalar.
    pub taught: Option<Tensor>,
    /// The distillation terms.
    pub distill: Option<DistillRecord>,
}

/// Runs the student on `batch`, and the teacher beside it where there is a lesson.
///
/// The sampler's choices are keyed by (`seed`, epoch, image id), so neither the order of images nor threads change them.
///
/// # Errors
/// When a shape does not fit; numbers that are not finite are returned, not refused.
pub fn forward(
    student: &FasterRcnn,
    lesson: Option<&Lesson<'_>>,
    batch: &Batch,
    progress: &Progress<'_>,
    seed: u64,
) -> Result<Forward> {
    let images = &batch.images;
    let mut sampler = keyed_sampler(seed, "sample", progress, batch);

    let own = student.train(images, &batch.targets, &mut sampler)?;
    let losses = &own.losses;
    let detection = [
        scalar(&losses.rpn_objectness)?,
        scalar(&losses.rpn_box)?,
        scalar(&losses.head_class)?,
        scalar(&losses.head_box)?,
    ];
    let mut total = losses.total()?;

    let (taught, distill) = match lesson {
        None => (None, None),
        Some(lesson) => {
            let output = teach(lesson, student, &own, batch, progress, seed)?;
            let mut terms = Vec::new();
            for term in &output.terms {
                let raw = scalar(&term.raw)?;
                let factor = output.decay * term.weight;
                // A term at weight 0 is left out of the sum, whatever its value.
                let weighted = if factor == 0.0 { 0.0 } else { factor * raw };
                terms.push(TermRecord { name: term.name.to_owned(), raw, weighted });
            }
            let sum: f64 = terms.iter().map(|t| t.weighted).sum();
            let stats = output.stats.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            let unaided: f64 = detection.iter().sum();
            let ratio = if unaided == 0.0 { 0.0 } else { sum / unaided };
            let taught = output.total()?;
            total = (total + &taught)?;
            (Some(taught), Some(DistillRecord { terms, decay: output.decay, ratio, stats }))
        }
    };
    Ok(Forward { total, detection, positives: own.rois.positives.len(), taught, distill })
}

/// Runs of the teacher what the method needs, and no more.
fn teach(
    lesson: &Lesson<'_>,
    student: &FasterRcnn,
    own: &TrainOutput,
    batch: &Batch,
    progress: &Progress<'_>,
    seed: u64,
) -> Result<DistillOutput> {
    let Lesson { teacher, distiller, cache } = lesson;
    let (images, needs) = (&batch.images, distiller.needs());
    let stages = if needs.stages { Some(teacher.backbone(images, Mode::Eval)?) } else { None };
    let pyramid = match (&stages, cache) {
        _ if !(needs.features || needs.head || needs.proposals) => None,
        (Some(stages), _) => Some(teacher.fpn(stages)?),
        (None, Some(cache)) => Some(cache.features(teacher, images)?),
        (None, None) => Some(teacher.features(images, Mode::Eval)?),
    };
    let head = match &pyramid {
        Some(pyramid) if needs.head => Some(teacher.box_head(pyramid, &own.rois.rois)?),
        _ => None,
    };
    let shared = match &pyramid {
        Some(pyramid) if needs.proposals => {
            let rpn = teacher.rpn(pyramid, images)?;
            // As many proposals as in training, since they go through the sampler of training; and draws of their own, so
            // that the student's RoIs stay what they are without a teacher.
            let proposals = teacher.propose(&rpn, &images.sizes, Mode::Train)?;
            let mut sampler = keyed_sampler(seed, "sample-teacher", progress, batch);
            let rois = student.sample(&proposals, &batch.targets, &mut sampler)?;
            let ours = student.box_head(&own.features, &rois.rois)?;
            let theirs = teacher.box_head(pyramid, &rois.rois)?;
            Some((rois, ours, theirs))
        }
        _ => None,
    };
    // Stages as pyramids without the top.
    let levels = |stages: BackboneFeatures| Features {
        strides: STRIDES.into_iter().take(stages.levels.len()).collect(),
        levels: stages.levels,
    };
    let stages = stages.map(|theirs| (levels(own.stages.clone()), levels(theirs)));
    Ok(distiller.loss(&StepContext {
        student_features: &own.features,
        teacher_features: pyramid.as_ref(),
        stages: stages.as_ref().map(|(student, teacher)| Stages { student, teacher }),
        rois: &own.rois,
        student_head: &own.head,
        teacher_head: head.as_ref(),
        teacher_rois: shared.as_ref().map(|(rois, student, teacher)| RoiSet { rois, student, teacher }),
        anchors: &own.rpn.anchors,
        targets: &batch.targets,
        sizes: &images.sizes,
        image_size: images.padded()?,
        epoch: progress.epoch,
        epochs: progress.epochs,
        iteration: progress.iteration,
        iterations: progress.iterations,
        milestones: progress.milestones,
        student_coder: &student.box_coder(),
        teacher_coder: &teacher.box_coder(),
    })?)
}

/// One generator an image, keyed by (`seed`, `purpose`, epoch, image id).
fn keyed_sampler(seed: u64, purpose: &str, progress: &Progress<'_>, batch: &Batch) -> RandomSampler<ChaCha8Rng> {
    let keyed = |id: &u64| docent_coco::rng::keyed(seed, purpose, progress.epoch as u64, *id);
    RandomSampler::new(batch.ids.iter().map(keyed).collect())
}

fn scalar(t: &Tensor) -> Result<f64> {
    Ok(f64::from(t.to_scalar::<f32>()?))
}
