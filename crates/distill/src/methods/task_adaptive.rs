//! Task-adaptive distillation: the three terms and their decay behind the [`Distiller`] trait.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use docent_detect::FeaturePyramid;

use crate::boxes::{BoxRow, box_loss, convert_deltas};
use crate::class::{class_loss, select_rows, teacher_entropy, values};
use crate::config::{ClsNorm, ClsSelect, FeatureSource, ProposalSource, RegNorm, TaskAdaptiveConfig};
use crate::context::{Channels, RoiSet, StepContext};
use crate::decay::{Decay, warmup_factor};
use crate::distiller::{DistillOutput, Distiller, Needs, Stat, Term};
use crate::error::{Error, Result};
use crate::feature::{Adapters, feature_loss};
use crate::gate::{GateRow, box_gate, class_deltas, gated_share};
use crate::mask::{LevelMask, MaskRule, masks};

/// The method of R. Sun, F. Tang, X. Zhang, H. Xiong and Q. Tian, *Distilling Object Detectors with Task Adaptive
/// Regularization* (arXiv 2006.13108), as docs/method.md reads it.
#[derive(Debug, Clone)]
pub struct TaskAdaptive {
    config: TaskAdaptiveConfig,
    adapters: Adapters,
    decay: Decay,
    rule: MaskRule,
}

impl TaskAdaptive {
    /// Checks the settings and takes the adapters `adapt.{level}.weight` and `adapt.{level}.bias` from `vb`, one for each
    /// level of the maps that the feature term compares.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting that means nothing, or a name that `vb` does not have.
    pub fn new(
        config: &TaskAdaptiveConfig,
        student: &Channels,
        teacher: &Channels,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            adapters: Adapters::new(
                config.adaptation_layer,
                config.source_channels(student),
                config.source_channels(teacher),
                vb,
            )?,
            decay: Decay::from_config(config),
            rule: MaskRule::from_config(config),
            config: config.clone(),
        })
    }

    /// The settings.
    pub fn config(&self) -> &TaskAdaptiveConfig {
        &self.config
    }

    /// What the feature term compares: the student's and the teacher's maps.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the step does not hold them.
    pub fn maps<'a>(&self, step: &StepContext<'a>) -> Result<(&'a FeaturePyramid, &'a FeaturePyramid)> {
        match self.config.feature_source {
            FeatureSource::Fpn => step.pyramids(),
            FeatureSource::Stages => step.stages(),
        }
    }

    /// Each level's mask over the batch.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the targets are not one an image.
    pub fn masks(&self, step: &StepContext<'_>) -> Result<Vec<LevelMask>> {
        masks(&self.rule, self.maps(step)?.0, step.targets)
    }

    /// The RoIs of the head terms.
    fn sets<'a>(&self, step: &StepContext<'a>) -> Result<Vec<RoiSet<'a>>> {
        let sets = match self.config.proposal_source {
            ProposalSource::StudentToTeacher => vec![step.student_set()?],
            ProposalSource::TeacherToStudent => vec![step.teacher_set()?],
            ProposalSource::Both => vec![step.student_set()?, step.teacher_set()?],
        };
        sets.iter().try_for_each(RoiSet::check)?;
        Ok(sets)
    }

    /// The classification term, raw, and the least value that it can take.
    fn class_term(&self, set: &RoiSet<'_>) -> Result<(Tensor, f64)> {
        let config = &self.config;
        let (student, teacher) = (&set.student.class_logits, &set.teacher.class_logits);
        let (labels, positives) = (&set.rois.labels, &set.rois.positives);
        let rows = select_rows(config.cls_select, student, teacher, labels, positives)?;
        let count = match (config.cls_select, config.cls_norm) {
            (ClsSelect::All, _) | (_, ClsNorm::Sampled) => labels.len(),
            (_, ClsNorm::Positives) => positives.len(),
        };
        let normalizer = count.max(1) as f32;
        let raw = class_loss(student, teacher, &rows, config.cls_loss, config.temperature, normalizer)?;
        let least = teacher_entropy(teacher, &rows, config.cls_loss, config.temperature, normalizer)?;
        Ok((raw, least))
    }

    /// The box term, raw, and the gate of each positive.
    fn box_term(&self, step: &StepContext<'_>, set: &RoiSet<'_>) -> Result<(Tensor, Vec<bool>)> {
        let config = &self.config;
        let rows = gate_rows(step, set)?;
        let gate = box_gate(config.reg_gate, config.gate_margin, &rows, &set.student_coder, &set.teacher_coder);
        let open = |((row, &roi), _): ((&GateRow, &usize), &bool)| BoxRow {
            row: roi,
            label: set.rois.labels[roi],
            proposal: row.proposal,
            teacher: convert_deltas(&row.teacher, &row.proposal, &set.teacher_coder, &set.student_coder),
        };
        let gated: Vec<BoxRow> =
            rows.iter().zip(&set.rois.positives).zip(&gate).filter(|(_, open)| **open).map(open).collect();
        let count = match config.reg_norm {
            RegNorm::Gated => gated.len(),
            RegNorm::Sampled => set.rois.labels.len(),
        };
        let raw = box_loss(&set.student.box_deltas, &gated, config.reg_loss, &set.student_coder, count.max(1) as f32)?;
        Ok((raw, gate))
    }
}

/// The mean of one term over the sets of RoIs. One set's value is passed on as it is, to the bit.
fn mean(values: Vec<Tensor>) -> Result<Tensor> {
    let count = values.len();
    let sum = values.into_iter().map(Ok).reduce(|a: candle_core::Result<Tensor>, b| a? + b?);
    let sum = sum.unwrap_or_else(|| Tensor::zeros((), DType::F32, &Device::Cpu))?;
    Ok(if count > 1 { (sum / count as f64)? } else { sum })
}

/// The positives as the gate sees them, in their order.
fn gate_rows(step: &StepContext<'_>, set: &RoiSet<'_>) -> Result<Vec<GateRow>> {
    let classes = set.student.class_logits.dim(1)?;
    let (student, teacher) = (&set.student.box_deltas, &set.teacher.box_deltas);
    if student.dims() != teacher.dims() || student.dim(1)? != 4 * classes {
        return Err(Error::mismatch(
            "box term",
            format!(
                "deltas are {:?} in the student and {:?} in the teacher; both need [R, 4 * {classes}]",
                student.dims(),
                teacher.dims()
            ),
        ));
    }
    let (student, teacher) = (values(student)?, values(teacher)?);
    let rois = set.rois;
    let row = |&r: &usize| {
        let (image, proposal) = rois.rois[r];
        let image = *step.sizes.get(image).ok_or_else(|| {
            Error::mismatch("box term", format!("RoI {r} lies on image {image} of a batch of {}", step.sizes.len()))
        })?;
        Ok(GateRow {
            proposal,
            gt_box: rois.matched_gt_boxes[r],
            image,
            teacher: class_deltas(&teacher, classes, r, rois.labels[r])?,
            student: class_deltas(&student, classes, r, rois.labels[r])?,
        })
    };
    rois.positives.iter().map(row).collect()
}

impl Distiller for TaskAdaptive {
    fn name(&self) -> &str {
        "task_adaptive"
    }

    /// What `feature_source` and `proposal_source` name, whatever the weights: a term at weight 0 is still computed and reported.
    fn needs(&self) -> Needs {
        let TaskAdaptiveConfig { feature_source, proposal_source, .. } = &self.config;
        Needs {
            stages: *feature_source == FeatureSource::Stages,
            pyramid: *feature_source == FeatureSource::Fpn,
            regions: *proposal_source != ProposalSource::TeacherToStudent,
            teacher_regions: *proposal_source != ProposalSource::StudentToTeacher,
            ..Needs::default()
        }
    }

    fn params(&self) -> Vec<(String, Tensor)> {
        self.adapters.params()
    }

    /// Terms `feat`, `cls`, `reg`. Stats:
    ///
    /// - `mask_sum`: the mask's sum over batch, cells and levels;
    /// - `teacher_entropy`, `cls_excess`: the least value the classification term can take, and how far above it is;
    /// - `positives`, `gated`, `gated_share`: positive RoIs, those the gate lets through, and their ratio, over all the
    ///   sets of RoIs that `proposal_source` names;
    /// - `warmup`: the warm-up's part of `decay`.
    fn loss(&self, step: &StepContext<'_>) -> Result<DistillOutput> {
        let config = &self.config;
        let sets = self.sets(step)?;
        let (student, teacher) = self.maps(step)?;
        let masks = self.masks(step)?;
        let feat = feature_loss(student, teacher, &masks, &self.adapters, config.level_norm)?;
        let (mut cls, mut reg, mut gate, mut entropy) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
        for set in &sets {
            let (value, least) = self.class_term(set)?;
            cls.push(value);
            entropy += least / sets.len() as f64;
            let (value, open) = self.box_term(step, set)?;
            reg.push(value);
            gate.extend(open);
        }
        let (cls, reg) = (mean(cls)?, mean(reg)?);
        let warmup = warmup_factor(step.progress.iteration, config.warmup_iters);
        let decay = self.decay.factor(&step.progress) * warmup;
        let terms: Vec<Term> = [("feat", feat, config.w_feat), ("cls", cls, config.w_cls), ("reg", reg, config.w_reg)]
            .into_iter()
            .map(|(name, raw, weight)| {
                // What will not be summed need not keep its graph alive.
                let raw = if weight * decay == 0.0 { raw.detach() } else { raw };
                Term { name, raw, weight }
            })
            .collect();
        let excess = terms[1].value()? - entropy;
        let stats = vec![
            Stat::sum("mask_sum", masks.iter().map(|m| m.sum).sum()),
            Stat::mean("teacher_entropy", entropy),
            Stat::mean("cls_excess", excess),
            Stat::sum("positives", gate.len() as f64),
            Stat::sum("gated", gate.iter().filter(|open| **open).count() as f64),
            Stat::mean("gated_share", gated_share(&gate)),
            Stat::mean("warmup", warmup),
        ];
        Ok(DistillOutput { terms, decay, stats })
    }
}
