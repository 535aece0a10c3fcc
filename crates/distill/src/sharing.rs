//! Proposal sharing: both models on one batch, on the same regions of interest.
//!
//! This is section 1 of docs/method.md as code. The student proposes and samples the RoIs; the teacher's heads run on the same RoIs.
//! Only the parts of the teacher that the method reads are computed.

use docent_detect::{
    BoxCoder, BoxHeadOutput, DenseHeadOutput, Detector, FeaturePyramid, ImageBatch, Mode, RegionHeads, SampledRois,
    Sampler, Target, TrainOutput,
};

use crate::context::{ModelView, RegionView, StepContext};
use crate::distiller::Needs;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// The two models, and the student's training forward pass over the batch.
#[derive(Clone, Copy)]
pub struct StepInput<'a> {
    /// The model that learns.
    pub student: &'a dyn Detector,
    /// The model that teaches. It runs in [`Mode::Eval`]: no graph is built for it.
    pub teacher: &'a dyn Detector,
    /// The student's [`Detector::forward_train`] of `images`.
    pub output: &'a TrainOutput,
    /// The batch, which each model normalises by its own statistics.
    pub images: &'a ImageBatch,
    /// Each image's ground truth.
    pub targets: &'a [Target],
}

/// A source of the teacher's pyramids other than a forward pass, such as a cache.
pub trait PyramidSource {
    /// The teacher's pyramid of the batch, with the bits of [`Detector::features`] in [`Mode::Eval`].
    ///
    /// # Errors
    /// As [`Detector::features`].
    fn pyramid(&self, teacher: &dyn Detector, images: &ImageBatch) -> docent_detect::Result<FeaturePyramid>;
}

/// Options of [`SharedStep::new`].
#[derive(Default)]
pub struct SharingOptions<'a> {
    /// Samples RoIs from the teacher's proposals, where the method [needs](Needs::teacher_regions) them. It is not the student's sampler, so the
    /// student's RoIs are the same with and without a teacher.
    pub sampler: Option<&'a mut dyn Sampler>,
    /// The source of the teacher's pyramids; without one they are computed.
    pub pyramids: Option<&'a dyn PyramidSource>,
}

/// What both models computed on one batch, with shared proposals.
pub struct SharedStep<'a> {
    input: StepInput<'a>,
    student_coder: Option<BoxCoder>,
    teacher_coder: Option<BoxCoder>,
    stages: Option<FeaturePyramid>,
    pyramid: Option<FeaturePyramid>,
    dense: Option<DenseHeadOutput>,
    head: Option<BoxHeadOutput>,
    from_teacher: Option<TeacherRegions>,
}

/// RoIs of the teacher's proposals with both heads on them.
struct TeacherRegions {
    rois: SampledRois,
    student: BoxHeadOutput,
    teacher: BoxHeadOutput,
}

impl<'a> SharedStep<'a> {
    /// Runs the parts of the teacher that `needs` lists. Region heads run on the student's RoIs; with
    /// [`Needs::teacher_regions`] both models' heads also run on RoIs sampled from the teacher's proposals.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the method needs heads that a detector does not have, or draws without a sampler; the detectors' own
    /// errors.
    pub fn new(input: StepInput<'a>, needs: Needs, options: SharingOptions<'_>) -> Result<Self> {
        let StepInput { student, teacher, output, images, targets } = input;
        let stages = if needs.stages { Some(teacher.backbone(images, Mode::Eval)?) } else { None };
        let pyramid = match (&stages, options.pyramids) {
            _ if !(needs.pyramid || needs.dense || needs.regions || needs.teacher_regions) => None,
            (Some(stages), _) => Some(teacher.pyramid(stages, Mode::Eval)?),
            (None, Some(source)) => Some(source.pyramid(teacher, images)?),
            (None, None) => Some(teacher.features(images, Mode::Eval)?),
        };
        let mut step = Self {
            input,
            student_coder: student.region_heads().map(RegionHeads::box_coder),
            teacher_coder: teacher.region_heads().map(RegionHeads::box_coder),
            stages,
            pyramid: None,
            dense: None,
            head: None,
            from_teacher: None,
        };
        if let Some(pyramid) = &pyramid {
            if needs.dense {
                let dense = teacher.dense_head(pyramid, images, Mode::Eval)?;
                step.dense = Some(dense.ok_or_else(|| missing("teacher", "dense head"))?);
            }
            if needs.regions {
                let regions = output.regions.first().ok_or_else(|| missing("student", "region heads"))?;
                step.head = Some(heads(teacher, "teacher")?.box_head(pyramid, &regions.rois.rois, Mode::Eval)?);
            }
            if needs.teacher_regions {
                let (student, teacher) = (heads(student, "student")?, heads(teacher, "teacher")?);
                let sampler = options.sampler.ok_or_else(|| {
                    Error::mismatch("proposal sharing", "the teacher's proposals are sampled, but no sampler is given")
                })?;
                // As many proposals as in training, since they go through the sampler of training; plain data without a graph.
                let proposals = teacher.propose(pyramid, images, Mode::Train)?;
                let rois = student.label_and_sample_proposals(&proposals, targets, sampler)?;
                let ours = student.box_head(&output.pyramid, &rois.rois, Mode::Train)?;
                let theirs = teacher.box_head(pyramid, &rois.rois, Mode::Eval)?;
                step.from_teacher = Some(TeacherRegions { rois, student: ours, teacher: theirs });
            }
        }
        step.pyramid = pyramid;
        Ok(step)
    }

    /// The step as a method sees it.
    pub fn context(&self, progress: Progress<'a>) -> StepContext<'_> {
        let StepInput { output, images, targets, .. } = self.input;
        let view = |rois, head, coder: Option<BoxCoder>| Some(RegionView { rois, head, coder: coder? });
        let own = output.regions.first();
        let shared = self.from_teacher.as_ref();
        let student = ModelView {
            stages: Some(&output.stages),
            pyramid: Some(&output.pyramid),
            dense: output.dense.as_ref(),
            regions: own.and_then(|own| view(&own.rois, &own.head, self.student_coder)),
            teacher_regions: shared.and_then(|s| view(&s.rois, &s.student, self.student_coder)),
        };
        let teacher = ModelView {
            stages: self.stages.as_ref(),
            pyramid: self.pyramid.as_ref(),
            dense: self.dense.as_ref(),
            regions: own.zip(self.head.as_ref()).and_then(|(own, head)| view(&own.rois, head, self.teacher_coder)),
            teacher_regions: shared.and_then(|s| view(&s.rois, &s.teacher, self.teacher_coder)),
        };
        StepContext::new(student, teacher, targets, &images.sizes, progress)
    }
}

fn heads<'d>(detector: &'d dyn Detector, whose: &str) -> Result<&'d dyn RegionHeads> {
    detector.region_heads().ok_or_else(|| missing(whose, "region heads"))
}

fn missing(whose: &str, what: &str) -> Error {
    Error::mismatch("proposal sharing", format!("the method reads the {what}, which the {whose} does not have"))
}
