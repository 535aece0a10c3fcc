//! One training step as a distillation method sees it: a view of each model, and the run's progress.

use docent_detect::{
    BoxCoder, BoxHeadOutput, DenseHeadOutput, Detector, FeaturePyramid, FeatureSpec, SampledRois, Size, Target,
};

use crate::error::{Error, Result};
use crate::progress::Progress;

/// One training step: what a method reads of the student and of the teacher.
///
/// All boxes are xyxy in pixels of the network's input. [`SharedStep`](crate::SharedStep) makes one from two detectors.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct StepContext<'a> {
    /// The student, with its graph.
    pub student: ModelView<'a>,
    /// The teacher. Its graph, if it has one, is never followed.
    pub teacher: ModelView<'a>,
    /// Each image's ground truth.
    pub targets: &'a [Target],
    /// Each image's size without padding.
    pub sizes: &'a [Size],
    /// The run's progress.
    pub progress: Progress<'a>,
}

/// What one model computed in a step. A part that the method does not [need](crate::Needs) may be absent.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct ModelView<'a> {
    /// The backbone's maps.
    pub stages: Option<&'a FeaturePyramid>,
    /// The pyramid.
    pub pyramid: Option<&'a FeaturePyramid>,
    /// The dense head's maps and anchors: a one-stage detector's, or the RPN's.
    pub dense: Option<&'a DenseHeadOutput>,
    /// The student's sampled RoIs and this model's heads' output for them \[paper: region proposal sharing; ours: after NMS,
    /// assignment and sampling\].
    pub regions: Option<RegionView<'a>>,
    /// RoIs sampled from the teacher's proposals and this model's heads' output for them. The student's own losses do not read
    /// these.
    pub teacher_regions: Option<RegionView<'a>>,
}

impl<'a> ModelView<'a> {
    /// With the backbone's maps.
    #[must_use]
    pub fn with_stages(self, stages: &'a FeaturePyramid) -> Self {
        Self { stages: Some(stages), ..self }
    }

    /// With the pyramid.
    #[must_use]
    pub fn with_pyramid(self, pyramid: &'a FeaturePyramid) -> Self {
        Self { pyramid: Some(pyramid), ..self }
    }

    /// With the dense head's output.
    #[must_use]
    pub fn with_dense(self, dense: &'a DenseHeadOutput) -> Self {
        Self { dense: Some(dense), ..self }
    }

    /// With the heads on the student's RoIs.
    #[must_use]
    pub fn with_regions(self, regions: RegionView<'a>) -> Self {
        Self { regions: Some(regions), ..self }
    }

    /// With the heads on the RoIs of the teacher's proposals.
    #[must_use]
    pub fn with_teacher_regions(self, regions: RegionView<'a>) -> Self {
        Self { teacher_regions: Some(regions), ..self }
    }
}

/// Regions of interest and one model's heads' output for them.
#[derive(Clone, Copy)]
pub struct RegionView<'a> {
    /// The RoIs, their labels and matched ground truths. Both models' views of one set hold the same.
    pub rois: &'a SampledRois,
    /// The heads' output, in the order of the RoIs.
    pub head: &'a BoxHeadOutput,
    /// The coder of these heads' boxes.
    pub coder: BoxCoder,
}

/// A set of RoIs and both models' heads' output for them.
#[derive(Clone, Copy)]
pub struct RoiSet<'a> {
    /// The RoIs, their labels and matched ground truths.
    pub rois: &'a SampledRois,
    /// The student's head on them, with its graph.
    pub student: &'a BoxHeadOutput,
    /// The teacher's head on them.
    pub teacher: &'a BoxHeadOutput,
    /// The coder of the student's head.
    pub student_coder: BoxCoder,
    /// The coder of the teacher's head.
    pub teacher_coder: BoxCoder,
}

impl<'a> StepContext<'a> {
    /// A step of two views.
    pub fn new(
        student: ModelView<'a>,
        teacher: ModelView<'a>,
        targets: &'a [Target],
        sizes: &'a [Size],
        progress: Progress<'a>,
    ) -> Self {
        Self { student, teacher, targets, sizes, progress }
    }

    /// Both pyramids: the student's, the teacher's.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the loop did not compute them.
    pub fn pyramids(&self) -> Result<(&'a FeaturePyramid, &'a FeaturePyramid)> {
        both(self.student.pyramid, self.teacher.pyramid, "pyramid", "pyramid")
    }

    /// Both backbones' maps: the student's, the teacher's.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the loop did not keep them.
    pub fn stages(&self) -> Result<(&'a FeaturePyramid, &'a FeaturePyramid)> {
        both(self.student.stages, self.teacher.stages, "backbone output", "stages")
    }

    /// The student's RoIs with both heads.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the loop did not run the heads.
    pub fn student_set(&self) -> Result<RoiSet<'a>> {
        Ok(RoiSet::new(both(self.student.regions, self.teacher.regions, "region heads' output", "regions")?))
    }

    /// The RoIs from the teacher's proposals with both heads.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the loop did not sample them.
    pub fn teacher_set(&self) -> Result<RoiSet<'a>> {
        let (student, teacher) = (self.student.teacher_regions, self.teacher.teacher_regions);
        Ok(RoiSet::new(both(student, teacher, "region heads' output on the teacher's RoIs", "teacher_regions")?))
    }
}

impl<'a> RoiSet<'a> {
    fn new((student, teacher): (RegionView<'a>, RegionView<'a>)) -> Self {
        Self {
            rois: student.rois,
            student: student.head,
            teacher: teacher.head,
            student_coder: student.coder,
            teacher_coder: teacher.coder,
        }
    }

    /// Checks that the lists of the RoIs are of one length, and the heads' too.
    ///
    /// # Errors
    /// [`Error::Mismatch`] names the list.
    pub fn check(&self) -> Result<()> {
        let rois = self.rois;
        let count = rois.rois.len();
        let lists = [
            ("labels", rois.labels.len()),
            ("matched boxes", rois.matched_gt_boxes.len()),
            ("rows of student logits", self.student.class_logits.dim(0)?),
            ("rows of teacher logits", self.teacher.class_logits.dim(0)?),
        ];
        for (what, length) in lists {
            if length != count {
                return Err(Error::mismatch("sampled RoIs", format!("{length} {what} for {count} RoIs")));
            }
        }
        match rois.positives.iter().find(|&&r| r >= count) {
            Some(r) => Err(Error::mismatch(
                "sampled RoIs",
                format!("RoI {r} is listed as positive, but there are {count} RoIs"),
            )),
            None => Ok(()),
        }
    }
}

fn both<T>(student: Option<T>, teacher: Option<T>, what: &str, need: &str) -> Result<(T, T)> {
    match (student, teacher) {
        (Some(student), Some(teacher)) => Ok((student, teacher)),
        (student, _) => {
            let whose = if student.is_none() { "student" } else { "teacher" };
            Err(Error::mismatch(
                "step",
                format!("the {whose}'s {what} is missing; compute it where needs().{need} is true"),
            ))
        }
    }
}

/// Channels of the maps of one model, finest level first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels {
    /// Of the pyramid, P2 to P6.
    pub fpn: Vec<usize>,
    /// Of the backbone's stages, C2 to C5.
    pub stages: Vec<usize>,
}

impl Channels {
    /// Those of a detector.
    pub fn of(detector: &dyn Detector) -> Self {
        let channels = |specs: &[FeatureSpec]| specs.iter().map(|spec| spec.channels).collect();
        Self { fpn: channels(detector.levels()), stages: channels(detector.stages()) }
    }
}
