//! What a training loop and a distillation method say to each other.

use candle_core::{DType, Device, Tensor};
use docent_detect::{BoxHeadOutput, FasterRcnnConfig, FeaturePyramid, SampledRois, Target};
use docent_ops::{BoxCoder, BoxXyxy};

use crate::decay::Progress;
use crate::error::{Error, Result};

/// One training step as a distillation method sees it: both models' stages on one batch, and where the run stands.
///
/// The RoIs are the student's own, sampled once, and both heads have seen exactly these \[paper: region proposal
/// sharing; ours: after NMS, assignment and sampling\]. All boxes are xyxy in pixels of the network's input.
#[derive(Clone, Copy)]
pub struct StepContext<'a> {
    /// The student's pyramid, with its graph.
    pub student_features: &'a FeaturePyramid,
    /// The teacher's pyramid, if the method [needs](Needs::features) it. Its graph, if it has one, is never followed.
    pub teacher_features: Option<&'a FeaturePyramid>,
    /// Both backbones' C2 to C5, if the method [needs](Needs::stages) them.
    pub stages: Option<Stages<'a>>,
    /// The student's sampled RoIs, their labels and matched ground truths.
    pub rois: &'a SampledRois,
    /// The student's head on the RoIs, with its graph.
    pub student_head: &'a BoxHeadOutput,
    /// The teacher's head on the same RoIs, if the method [needs](Needs::head) it.
    pub teacher_head: Option<&'a BoxHeadOutput>,
    /// RoIs sampled from the teacher's proposals, with both heads on them, if the method [needs](Needs::proposals)
    /// them. The student's own losses know nothing of these.
    pub teacher_rois: Option<RoiSet<'a>>,
    /// The student's anchors, one list a level of its pyramid, each in the order (row, column, anchor).
    pub anchors: &'a [Vec<BoxXyxy>],
    /// Each image's ground truth.
    pub targets: &'a [Target],
    /// Each image's (rows, columns) without padding.
    pub sizes: &'a [(usize, usize)],
    /// (rows, columns) of the padded batch.
    pub image_size: (usize, usize),
    /// The epoch now running, from 1.
    pub epoch: usize,
    /// Epochs of the whole run.
    pub epochs: usize,
    /// The optimizer step now running, from 1, counted over the whole run.
    pub iteration: usize,
    /// Optimizer steps of the whole run.
    pub iterations: usize,
    /// Steps after which the learning rate drops: the drop holds from step `m + 1` on.
    pub milestones: &'a [usize],
    /// The coder of the student's box head.
    pub student_coder: &'a BoxCoder,
    /// The coder of the teacher's box head.
    pub teacher_coder: &'a BoxCoder,
}

impl<'a> StepContext<'a> {
    /// The teacher's pyramid.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the loop did not compute it.
    pub fn teacher_pyramid(&self) -> Result<&'a FeaturePyramid> {
        self.teacher_features.ok_or_else(|| not_given("pyramid", "features"))
    }

    /// The student's RoIs with both heads.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the loop did not run the teacher's head.
    pub fn student_set(&self) -> Result<RoiSet<'a>> {
        let teacher = self.teacher_head.ok_or_else(|| not_given("head", "head"))?;
        Ok(RoiSet { rois: self.rois, student: self.student_head, teacher })
    }

    /// The RoIs from the teacher's proposals with both heads.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the loop did not sample them.
    pub fn teacher_set(&self) -> Result<RoiSet<'a>> {
        self.teacher_rois.ok_or_else(|| not_given("proposals", "proposals"))
    }

    /// Both backbones' stages.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the loop did not keep them.
    pub fn both_stages(&self) -> Result<Stages<'a>> {
        self.stages.ok_or_else(|| not_given("backbone stages", "stages"))
    }

    /// Where the run stands.
    pub fn progress(&self) -> Progress<'a> {
        Progress {
            epoch: self.epoch,
            epochs: self.epochs,
            iteration: self.iteration,
            iterations: self.iterations,
            milestones: self.milestones,
        }
    }
}

fn not_given(what: &str, need: &str) -> Error {
    Error::mismatch("step", format!("the teacher's {what} is not there; the loop must look at needs().{need}"))
}

/// The backbones' outputs C2 to C5, before any pyramid.
#[derive(Clone, Copy)]
pub struct Stages<'a> {
    /// The student's, with its graph.
    pub student: &'a FeaturePyramid,
    /// The teacher's.
    pub teacher: &'a FeaturePyramid,
}

/// A set of RoIs, and what both heads say of it.
#[derive(Clone, Copy)]
pub struct RoiSet<'a> {
    /// The RoIs, their labels and matched ground truths.
    pub rois: &'a SampledRois,
    /// The student's head on them, with its graph.
    pub student: &'a BoxHeadOutput,
    /// The teacher's head on them.
    pub teacher: &'a BoxHeadOutput,
}

/// What of the teacher a method reads, so that a loop need not compute the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// The teacher's pyramid.
    pub features: bool,
    /// The teacher's box head on the student's RoIs (the loop then runs its pyramid, too).
    pub head: bool,
    /// Both backbones' stages.
    pub stages: bool,
    /// RoIs from the teacher's proposals, with both heads on them.
    pub proposals: bool,
}

/// Channels of what a method may tap in one model, finest level first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels {
    /// Of the pyramid, P2 to P6.
    pub fpn: Vec<usize>,
    /// Of the backbone's stages, C2 to C5.
    pub stages: Vec<usize>,
}

impl Channels {
    /// Those of a detector.
    pub fn of(config: &FasterRcnnConfig) -> Self {
        Self {
            fpn: vec![config.fpn_channels; docent_detect::config::LEVELS],
            stages: config.backbone.channels().to_vec(),
        }
    }
}

/// One term of a distillation loss.
#[derive(Debug, Clone)]
pub struct Term {
    /// Its name in logs: `feat`, `cls`, `reg`.
    pub name: &'static str,
    /// The loss before its weight; a scalar, shape `[]`. Without a graph where the weight is 0.
    pub raw: Tensor,
    /// Its weight, before the decay.
    pub weight: f64,
}

impl Term {
    /// The loss before its weight, as a number.
    ///
    /// # Errors
    /// If `raw` is not a scalar of f32.
    pub fn value(&self) -> Result<f64> {
        Ok(f64::from(self.raw.to_scalar::<f32>()?))
    }
}

/// What a method gives back for one step.
#[derive(Debug, Clone)]
pub struct DistillOutput {
    /// The terms, each with its weight.
    pub terms: Vec<Term>,
    /// The factor over all terms: r(t) times the warm-up.
    pub decay: f64,
    /// Further numbers for the log, by name.
    pub stats: Vec<(&'static str, f64)>,
}

impl DistillOutput {
    /// `decay * sum of weight * raw`, to be added to the detection loss.
    ///
    /// A term whose weight times decay is 0 is left out of the sum. It is not multiplied by 0: so nothing of it is in
    /// the graph that
    /// `backward` walks, no gradient is added anywhere, and the other gradients keep their very bits (a 0 times
    /// infinity cannot spoil them either). When every term is left out, the result is a constant 0; added to the
    /// detection loss it changes neither its value nor its gradients, so distillation at weight 0 *is* plain
    /// training. The parameters of a method that only a left-out term reads (the adapters, for the feature term) then
    /// have no entry in the gradients.
    ///
    /// # Shapes
    /// Returns a scalar, shape `[]`.
    ///
    /// # Errors
    /// A term that is not a scalar.
    pub fn total(&self) -> Result<Tensor> {
        let mut total: Option<Tensor> = None;
        for term in &self.terms {
            if term.raw.rank() != 0 {
                return Err(Error::mismatch(
                    "distillation loss",
                    format!("term `{}` has shape {:?}; a scalar is needed", term.name, term.raw.dims()),
                ));
            }
            let factor = self.decay * term.weight;
            if factor == 0.0 {
                continue;
            }
            let weighted = (&term.raw * factor)?;
            total = Some(match total {
                None => weighted,
                Some(sum) => (sum + weighted)?,
            });
        }
        match total {
            Some(total) => Ok(total),
            None => {
                let device = self.terms.first().map_or(&Device::Cpu, |term| term.raw.device());
                Ok(Tensor::zeros((), DType::F32, device)?)
            }
        }
    }

    /// One of [`DistillOutput::stats`].
    pub fn stat(&self, name: &str) -> Option<f64> {
        self.stats.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    /// Every number of the step by name, for a log: `raw_{term}` and `weighted_{term}` (weight and decay applied) for
    /// each term, `decay`, then the stats.
    ///
    /// # Errors
    /// A term that is not a scalar of f32.
    pub fn report(&self) -> Result<Vec<(String, f64)>> {
        let mut report = Vec::with_capacity(2 * self.terms.len() + 1 + self.stats.len());
        for term in &self.terms {
            let raw = term.value()?;
            let factor = self.decay * term.weight;
            report.push((format!("raw_{}", term.name), raw));
            report.push((format!("weighted_{}", term.name), if factor == 0.0 { 0.0 } else { factor * raw }));
        }
        report.push(("decay".to_string(), self.decay));
        report.extend(self.stats.iter().map(|(name, value)| ((*name).to_string(), *value)));
        Ok(report)
    }
}

/// A distillation method.
///
/// A loop asks what it [needs](Distiller::needs), gives the optimizer its [parameters](Distiller::params), and adds the
/// [total](DistillOutput::total) of its [loss](Distiller::loss) to the student's detection loss. It knows nothing
/// else of the method.
pub trait Distiller: Send {
    /// The method's name, for logs and manifests.
    fn name(&self) -> &str;

    /// What of the teacher the method reads.
    fn needs(&self) -> Needs;

    /// The method's own parameters by name, in a fixed order; they are trained with the student and dropped afterwards.
    fn params(&self) -> Vec<(String, Tensor)>;

    /// The loss of one step.
    ///
    /// # Errors
    /// Inputs that do not fit each other, or an operation that failed.
    fn loss(&self, step: &StepContext<'_>) -> Result<DistillOutput>;
}
