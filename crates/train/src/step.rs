//! One training step's forward pass: the student's own losses and, with a teacher, what it teaches.
//!
//! This is section 1 of docs/method.md as code: proposals and their sampling are the student's alone, and the teacher
//! answers on the same feature positions and the same RoIs.

use candle_core::Tensor;
use docent_detect::{DetectionLosses, FasterRcnn, Mode, RandomSampler};
use docent_distill::{Distiller, Progress, StepContext};
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
    let rngs: Vec<ChaCha8Rng> =
        batch.ids.iter().map(|id| docent_coco::rng::keyed(seed, "sample", progress.epoch as u64, *id)).collect();
    let mut sampler = RandomSampler::new(rngs);

    let features = student.features(images, Mode::Train)?;
    let rpn = student.rpn(&features, images)?;
    let (rpn_objectness, rpn_box) = student.rpn_losses(&rpn, &batch.targets, &mut sampler)?;
    let proposals = student.propose(&rpn, &images.sizes, Mode::Train)?;
    let rois = student.sample(&proposals, &batch.targets, &mut sampler)?;
    let head = student.box_head(&features, &rois.rois)?;
    let (head_class, head_box) = student.head_losses(&head, &rois)?;
    let losses = DetectionLosses { rpn_objectness, rpn_box, head_class, head_box };
    let detection = [
        scalar(&losses.rpn_objectness)?,
        scalar(&losses.rpn_box)?,
        scalar(&losses.head_class)?,
        scalar(&losses.head_box)?,
    ];
    let mut total = losses.total()?;

    let distill = match lesson {
        None => None,
        Some(Lesson { teacher, distiller, cache }) => {
            let teacher_features = match cache {
                Some(cache) => cache.features(teacher, images)?,
                None => teacher.features(images, Mode::Eval)?,
            };
            let teacher_head = teacher.box_head(&teacher_features, &rois.rois)?;
            let output = distiller.loss(&StepContext {
                student_features: &features,
                teacher_features: &teacher_features,
                rois: &rois,
                student_head: &head,
                teacher_head: &teacher_head,
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
            })?;
            let mut terms = Vec::new();
            for term in &output.terms {
                let raw = scalar(&term.raw)?;
                let factor = output.decay * term.weight;
                // A term at weight 0 is left out of the sum, whatever its value.
                let weighted = if factor == 0.0 { 0.0 } else { factor * raw };
                terms.push(TermRecord { name: term.name.to_owned(), raw, weighted });
            }
            let taught: f64 = terms.iter().map(|t| t.weighted).sum();
            let stats = output.stats.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            let own: f64 = detection.iter().sum();
            let ratio = if own == 0.0 { 0.0 } else { taught / own };
            total = (total + output.total()?)?;
            Some(DistillRecord { terms, decay: output.decay, ratio, stats })
        }
    };
    Ok(Forward { total, detection, positives: rois.positives.len(), distill })
}

fn scalar(t: &Tensor) -> Result<f64> {
    Ok(f64::from(t.to_scalar::<f32>()?))
}
