//! The settings of task-adaptive distillation: one flat table, each field with its default and meaning.

use docent_detect::setters;
use serde::{Deserialize, Serialize};

use crate::context::Channels;
use crate::error::{Error, Result};

/// Values of the foreground mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskKind {
    /// A 2-D Gaussian over each ground-truth box, zero outside it. \[paper\]
    #[default]
    Gaussian,
    /// 1 inside each ground-truth box, 0 outside. \[ours\]
    Binary,
    /// 1 everywhere, padding and background too; the boxes, `levels` and `grid` play no part. \[ours\]
    Ones,
}

/// On which pyramid levels a box is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelRule {
    /// On every level. \[ours\]
    #[default]
    All,
    /// On the one level that [`crate::mask::level_of`] names by the box's scale. \[ours\]
    ByScale,
}

/// How a box meets the grid of a level's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GridRule {
    /// Cell centres `(j + 0.5) * stride` against the real-valued box; the cell under the box's centre is always 1.
    /// \[ours\]
    #[default]
    CellCenter,
    /// The box's corners divided by the stride and truncated, half-open; a box that holds no cell after that is not
    /// painted. \[ours\]
    IntBox,
}

/// How the levels' sums are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelNorm {
    /// Each level divided by its own `N_l C`, then the mean over the levels with `N_l > 0`. \[ours\]
    #[default]
    PerLevelMean,
    /// All levels' sums together, divided once by `C * sum_l N_l`. \[ours\]
    Global,
    /// Each level divided by its own `N_l C`, then the sum over the levels. \[ours\]
    Sum,
}

/// What the feature term compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureSource {
    /// The FPN's outputs, P2 to P6. \[ours\]
    #[default]
    Fpn,
    /// The backbone's stages, C2 to C5; each adapter maps to its own stage's channels in the teacher. \[ours\]
    Stages,
}

/// Whose proposals the head terms are computed on. The student's own losses always use the student's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProposalSource {
    /// The student's, shared with the teacher. \[paper\]
    #[default]
    StudentToTeacher,
    /// The teacher's, through the student's matcher and sampler, as a second set of RoIs for the head terms alone.
    /// \[ours\]
    TeacherToStudent,
    /// Both sets; each head term is the mean of its values on the two. \[ours\]
    Both,
}

/// The layer on the student's feature map before it meets the teacher's; dropped after training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdaptationLayer {
    /// A 3x3 convolution with bias, one a level, no ReLU. \[ours\]
    #[default]
    Conv3x3,
    /// The same, then ReLU. \[ours\]
    Conv3x3Relu,
    /// A 1x1 convolution with bias, one a level. \[ours\]
    Conv1x1,
    /// Nothing; refused where student and teacher differ in channels. \[ours\]
    None,
}

/// Which RoIs the classification term reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClsSelect {
    /// The foreground (positive) RoIs. \[paper\]
    #[default]
    Positives,
    /// The positives whose label is the teacher's most probable class. \[ours\]
    TeacherCorrect,
    /// The positives on which the teacher gives the label a higher probability than the student does. \[ours\]
    TeacherBetter,
    /// All sampled RoIs; the sum is divided by their number. \[ours\]
    All,
}

/// The classification term's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClsLoss {
    /// Binary cross-entropy of softmax probabilities, class by class, the teacher's as target. \[ours\]
    #[default]
    Bce,
    /// Kullback-Leibler divergence at temperature T, times T². \[ours\]
    Kl,
    /// Cross-entropy with the teacher's probabilities at temperature T, times T². \[ours\]
    SoftCe,
}

/// By what the classification term's sum is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClsNorm {
    /// `max(1, number of positives)`, whichever of them are selected (with `cls_select = all`: the number of RoIs).
    /// \[ours\]
    #[default]
    Positives,
    /// `max(1, number of sampled RoIs)`. \[ours\]
    Sampled,
}

/// Which positive RoIs the box term reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegGate {
    /// IoU of the teacher's refined box against IoU of the proposal itself. \[paper, Eq. (5)\]
    #[default]
    TeacherVsProposal,
    /// IoU of the teacher's refined box against IoU of the student's refined box. \[ours\]
    TeacherVsStudent,
    /// Both conditions. \[ours\]
    Both,
    /// Every positive. \[ours\]
    None,
}

/// The box term's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegLoss {
    /// Smooth L1 with beta 1 on the 4 encoded deltas, summed. \[ours\]
    #[default]
    SmoothL1,
    /// Absolute difference of the 4 deltas, summed. \[ours\]
    L1,
    /// Squared difference of the 4 deltas, summed. \[ours\]
    L2,
    /// `1 - GIoU` of both decoded boxes (student's coder, unclipped). \[ours\]
    Giou,
}

/// By what the box term's sum is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegNorm {
    /// `max(1, number of RoIs the gate lets through)`. \[ours\]
    #[default]
    Gated,
    /// `max(1, number of sampled RoIs)`. \[ours\]
    Sampled,
}

/// The form of the factor r(t) over all three terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayKind {
    /// From 1 down in equal steps. \[paper: gradually reduced, per epoch; the linear form is stated by DWPose, which
    /// credits this paper\]
    #[default]
    Linear,
    /// Half a cosine. \[ours\]
    Cosine,
    /// 1, 0.1, 0.01, ... at the learning rate's milestones. \[ours\]
    Step,
    /// Always 1. \[ours\]
    None,
}

/// What t counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayUnit {
    /// Epochs. \[paper\]
    #[default]
    Epoch,
    /// Optimizer steps. \[ours\]
    Iteration,
}

/// Settings of task-adaptive distillation. The defaults are the method as docs/method.md states it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TaskAdaptiveConfig {
    /// Weight of the feature term; 0.32. \[ours\]
    pub w_feat: f64,
    /// Weight of the classification term; 0.25. \[ours\]
    pub w_cls: f64,
    /// Weight of the box term; 0.25. \[ours\]
    pub w_reg: f64,
    /// The foreground mask; `gaussian`.
    pub mask: MaskKind,
    /// The levels a box is painted on; `all`.
    pub levels: LevelRule,
    /// For `levels = "by_scale"`: a box of side `base * 2^l` pixels, of the network's input, is the smallest of level l;
    /// smaller ones than `base` go to level 0. 56 fits images of 800 pixels: scale it with the input.
    pub base: f32,
    /// How a box meets the grid; `cell_center`.
    pub grid: GridRule,
    /// How the levels are normalised; `per_level_mean`.
    pub level_norm: LevelNorm,
    /// What the feature term compares; `fpn`.
    pub feature_source: FeatureSource,
    /// The adapter; `conv3x3`.
    pub adaptation_layer: AdaptationLayer,
    /// Whose proposals the head terms see; `student_to_teacher`.
    pub proposal_source: ProposalSource,
    /// RoIs of the classification term; `positives`.
    pub cls_select: ClsSelect,
    /// Form of the classification term; `bce`.
    pub cls_loss: ClsLoss,
    /// Temperature of `kl` and `soft_ce`; 1. Any other value is refused with `bce`.
    pub temperature: f32,
    /// Divisor of the classification term; `positives`.
    pub cls_norm: ClsNorm,
    /// RoIs of the box term; `teacher_vs_proposal`.
    pub reg_gate: RegGate,
    /// How much higher the teacher's IoU must be: `IoU_t > IoU + margin`; 0.
    pub gate_margin: f32,
    /// Form of the box term; `smooth_l1`.
    pub reg_loss: RegLoss,
    /// Divisor of the box term; `gated`.
    pub reg_norm: RegNorm,
    /// Form of r(t); `linear`.
    pub decay: DecayKind,
    /// What t counts; `epoch`.
    pub decay_unit: DecayUnit,
    /// Value that `linear` and `cosine` would reach one unit after the last; 0.
    pub decay_end: f64,
    /// Steps over which a factor rises from 0 to 1, times r(t); 0 is no warm-up.
    pub warmup_iters: usize,
}

setters!(TaskAdaptiveConfig {
    w_feat: f64,
    w_cls: f64,
    w_reg: f64,
    mask: MaskKind,
    levels: LevelRule,
    base: f32,
    grid: GridRule,
    level_norm: LevelNorm,
    feature_source: FeatureSource,
    adaptation_layer: AdaptationLayer,
    proposal_source: ProposalSource,
    cls_select: ClsSelect,
    cls_loss: ClsLoss,
    temperature: f32,
    cls_norm: ClsNorm,
    reg_gate: RegGate,
    gate_margin: f32,
    reg_loss: RegLoss,
    reg_norm: RegNorm,
    decay: DecayKind,
    decay_unit: DecayUnit,
    decay_end: f64,
    warmup_iters: usize,
});

impl Default for TaskAdaptiveConfig {
    fn default() -> Self {
        Self {
            w_feat: 0.32,
            w_cls: 0.25,
            w_reg: 0.25,
            mask: MaskKind::default(),
            levels: LevelRule::default(),
            base: 56.0,
            grid: GridRule::default(),
            level_norm: LevelNorm::default(),
            feature_source: FeatureSource::default(),
            adaptation_layer: AdaptationLayer::default(),
            proposal_source: ProposalSource::default(),
            cls_select: ClsSelect::default(),
            cls_loss: ClsLoss::default(),
            temperature: 1.0,
            cls_norm: ClsNorm::default(),
            reg_gate: RegGate::default(),
            gate_margin: 0.0,
            reg_loss: RegLoss::default(),
            reg_norm: RegNorm::default(),
            decay: DecayKind::default(),
            decay_unit: DecayUnit::default(),
            decay_end: 0.0,
            warmup_iters: 0,
        }
    }
}

impl TaskAdaptiveConfig {
    /// Checks that every value means something, and that none would be ignored without a word.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting and says what to do.
    pub fn validate(&self) -> Result<()> {
        let weights = [("w_feat", self.w_feat), ("w_cls", self.w_cls), ("w_reg", self.w_reg)];
        for (field, weight) in weights {
            if !weight.is_finite() || weight < 0.0 {
                return Err(Error::config(
                    field,
                    format!("{weight} is not a weight; give a finite number of at least 0"),
                ));
            }
        }
        if !self.base.is_finite() || self.base <= 0.0 {
            return Err(Error::config(
                "base",
                format!("{} is not a side in pixels; give a positive number (56 at 800-pixel images)", self.base),
            ));
        }
        if !self.temperature.is_finite() || self.temperature <= 0.0 {
            return Err(Error::config(
                "temperature",
                format!("{} is not a temperature; give a positive number", self.temperature),
            ));
        }
        if self.cls_loss == ClsLoss::Bce && self.temperature != 1.0 {
            return Err(Error::config(
                "temperature",
                format!(
                    "{} has no meaning with cls_loss = \"bce\"; leave it at 1, or take \"kl\" or \"soft_ce\"",
                    self.temperature
                ),
            ));
        }
        if !self.gate_margin.is_finite() || self.gate_margin.abs() > 1.0 {
            return Err(Error::config(
                "gate_margin",
                format!("{} is not a difference of two IoUs; give a number from -1 to 1", self.gate_margin),
            ));
        }
        if self.reg_gate == RegGate::None && self.gate_margin != 0.0 {
            return Err(Error::config(
                "gate_margin",
                "has no meaning with reg_gate = \"none\"; leave it at 0, or name a gate",
            ));
        }
        if !(0.0..=1.0).contains(&self.decay_end) {
            return Err(Error::config(
                "decay_end",
                format!("{} is not a value the factor can end at; give a number from 0 to 1", self.decay_end),
            ));
        }
        if matches!(self.decay, DecayKind::Step | DecayKind::None) && self.decay_end != 0.0 {
            return Err(Error::config(
                "decay_end",
                "belongs to decay = \"linear\" and \"cosine\"; leave it at 0 with any other",
            ));
        }
        self.refuse_the_unread()
    }

    /// Settings that another one leaves unread.
    fn refuse_the_unread(&self) -> Result<()> {
        let default = Self::default();
        let no_box = self.mask == MaskKind::Ones;
        let no_slope = matches!(self.decay, DecayKind::Step | DecayKind::None);
        let all_rois = self.cls_select == ClsSelect::All;
        let unread = [
            (self.levels == LevelRule::All && self.base != default.base, "base", "levels = \"all\""),
            (no_box && self.levels != default.levels, "levels", "mask = \"ones\", which paints no box"),
            (no_box && self.grid != default.grid, "grid", "mask = \"ones\", which paints no box"),
            (
                all_rois && self.cls_norm != default.cls_norm,
                "cls_norm",
                "cls_select = \"all\", which divides by all RoIs",
            ),
            (no_slope && self.decay_unit != default.decay_unit, "decay_unit", "decay = \"step\" or \"none\""),
        ];
        match unread.into_iter().find(|(unread, ..)| *unread) {
            Some((_, field, with)) => Err(Error::config(field, format!("has no meaning with {with}; leave it out"))),
            None => Ok(()),
        }
    }

    /// The channels of the maps that the feature term reads.
    pub(crate) fn source_channels<'a>(&self, channels: &'a Channels) -> &'a [usize] {
        match self.feature_source {
            FeatureSource::Fpn => &channels.fpn,
            FeatureSource::Stages => &channels.stages,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut TaskAdaptiveConfig), field: &str) {
        let mut config = TaskAdaptiveConfig::default();
        change(&mut config);
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains(&format!("`{field}`")), "{message}");
    }

    #[test]
    fn the_defaults_are_the_method_and_pass() {
        let config = TaskAdaptiveConfig::default();
        config.validate().unwrap();
        assert_eq!((config.w_feat, config.w_cls, config.w_reg), (0.32, 0.25, 0.25));
        let empty: TaskAdaptiveConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(empty, config);
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        refused(|c| c.w_cls = -0.1, "w_cls");
        refused(|c| c.w_feat = f64::NAN, "w_feat");
        refused(|c| c.base = 0.0, "base");
        refused(|c| c.temperature = 2.0, "temperature");
        refused(|c| c.gate_margin = 1.5, "gate_margin");
        refused(
            |c| {
                c.reg_gate = RegGate::None;
                c.gate_margin = 0.1;
            },
            "gate_margin",
        );
        refused(|c| c.base = 16.8, "base");
        refused(|c| (c.mask, c.levels) = (MaskKind::Ones, LevelRule::ByScale), "levels");
        refused(|c| (c.mask, c.grid) = (MaskKind::Ones, GridRule::IntBox), "grid");
        refused(|c| (c.cls_select, c.cls_norm) = (ClsSelect::All, ClsNorm::Sampled), "cls_norm");
        refused(|c| (c.decay, c.decay_unit) = (DecayKind::None, DecayUnit::Iteration), "decay_unit");
        refused(|c| c.decay_end = 1.1, "decay_end");
        refused(
            |c| {
                c.decay = DecayKind::Step;
                c.decay_end = 0.1;
            },
            "decay_end",
        );
    }

    #[test]
    fn temperature_belongs_to_the_soft_losses() {
        for cls_loss in [ClsLoss::Kl, ClsLoss::SoftCe] {
            TaskAdaptiveConfig { cls_loss, temperature: 3.0, ..Default::default() }.validate().unwrap();
        }
    }

    #[test]
    fn names_are_the_documented_ones_and_strangers_are_refused() {
        let text = r#"{"mask":"binary","levels":"by_scale","grid":"int_box","level_norm":"global",
            "feature_source":"stages","proposal_source":"both","adaptation_layer":"conv3x3_relu","cls_select":"teacher_better","cls_loss":"soft_ce","cls_norm":"sampled",
            "reg_gate":"teacher_vs_student",
            "reg_loss":"giou","reg_norm":"gated","decay":"cosine","decay_unit":"iteration"}"#;
        let config: TaskAdaptiveConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.adaptation_layer, AdaptationLayer::Conv3x3Relu);
        let back: TaskAdaptiveConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(back, config);
        for stranger in [
            r#"{"feature_source":"rpn"}"#,
            r#"{"proposal_source":"none"}"#,
            r#"{"w_fest":1}"#,
            r#"{"adaptation_layer":"conv5x5"}"#,
        ] {
            assert!(serde_json::from_str::<TaskAdaptiveConfig>(stranger).is_err(), "{stranger}");
        }
    }
}
