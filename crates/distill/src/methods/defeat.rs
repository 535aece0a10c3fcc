//! DeFeat: objects and background apart, in the maps and in the classifier.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use docent_detect::setters;
use docent_ops::loss::masked_l2;
use serde::{Deserialize, Serialize};

use super::shared::{by_level, check_weight, mean, undecayed};
use crate::class::class_loss;
use crate::config::{AdaptationLayer, ClsLoss, GridRule, LevelRule, MaskKind};
use crate::context::{Channels, StepContext};
use crate::distiller::{DistillOutput, Distiller, Needs, Stat};
use crate::error::{Error, Result};
use crate::feature::Adapters;
use crate::mask::{MaskRule, masks};

/// Settings of [`Defeat`]. All weights and temperatures are \[ours\].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DefeatConfig {
    /// Weight of the maps inside objects; 0.64.
    pub alpha_obj: f64,
    /// Weight of the maps outside; 0.64.
    pub alpha_bg: f64,
    /// Weight of the classes of positive RoIs; 0.25.
    pub beta_obj: f64,
    /// Weight of the classes of background RoIs; 0.25.
    pub beta_bg: f64,
    /// Temperature of positive RoIs; 1.
    pub t_obj: f32,
    /// Temperature of background RoIs; 1.
    pub t_bg: f32,
    /// The adaptation layer; `conv3x3`.
    pub adaptation_layer: AdaptationLayer,
}

setters!(DefeatConfig {
    alpha_obj: f64,
    alpha_bg: f64,
    beta_obj: f64,
    beta_bg: f64,
    t_obj: f32,
    t_bg: f32,
    adaptation_layer: AdaptationLayer,
});

impl Default for DefeatConfig {
    fn default() -> Self {
        Self {
            alpha_obj: 0.64,
            alpha_bg: 0.64,
            beta_obj: 0.25,
            beta_bg: 0.25,
            t_obj: 1.0,
            t_bg: 1.0,
            adaptation_layer: AdaptationLayer::Conv3x3,
        }
    }
}

impl DefeatConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting.
    pub fn validate(&self) -> Result<()> {
        for (field, weight) in [
            ("alpha_obj", self.alpha_obj),
            ("alpha_bg", self.alpha_bg),
            ("beta_obj", self.beta_obj),
            ("beta_bg", self.beta_bg),
        ] {
            check_weight(field, weight)?;
        }
        for (field, temperature) in [("t_obj", self.t_obj), ("t_bg", self.t_bg)] {
            if !temperature.is_finite() || temperature <= 0.0 {
                return Err(Error::config(
                    field,
                    format!("{temperature} is not a temperature; give a positive number"),
                ));
            }
        }
        Ok(())
    }
}

/// Decoupled features of J. Guo, K. Han, Y. Wang, H. Wu, X. Chen, C. Xu and C. Xu, *Distilling Object Detectors via
/// Decoupled Features*, CVPR 2021, arXiv 2103.14475.
///
/// ```text
/// L_feat = a_obj/(2 N_obj) sum M (adapt(S) - T)²  +  a_bg/(2 N_bg) sum (1 - M) (adapt(S) - T)²        [paper]
/// L_cls  = b_obj/K_obj sum_obj KL(t || s; T_obj)  +  b_bg/K_bg sum_bg KL(t || s; T_bg)                 [paper]
/// ```
/// M is 1 inside the ground-truth boxes; RoIs are the student's, and both heads see them. \[ours\]: N counts elements
/// (cells times channels); every box is painted on every level, by its cells' centres; the mean over levels; the KL times
/// T²; the teacher's probabilities are the target.
#[derive(Debug, Clone)]
pub struct Defeat {
    config: DefeatConfig,
    adapters: Adapters,
}

/// Boxes as they are, on every level.
const RULE: MaskRule =
    MaskRule { kind: MaskKind::Binary, levels: LevelRule::All, base: 56.0, grid: GridRule::CellCenter };

impl Defeat {
    /// Checks the settings and takes the adaptation layers from `vb`.
    ///
    /// # Errors
    /// A setting that means nothing, or a name that `vb` does not have.
    pub fn new(config: &DefeatConfig, student: &Channels, teacher: &Channels, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            adapters: Adapters::new(config.adaptation_layer, &student.fpn, &teacher.fpn, vb)?,
            config: config.clone(),
        })
    }
}

impl Distiller for Defeat {
    fn name(&self) -> &str {
        "defeat"
    }

    fn needs(&self) -> Needs {
        Needs { pyramid: true, regions: true, ..Needs::default() }
    }

    fn params(&self) -> Vec<(String, Tensor)> {
        self.adapters.params()
    }

    /// Terms `feat_obj`, `feat_bg`, `cls_obj`, `cls_bg`. Stats `mask_sum` and `positives`.
    fn loss(&self, step: &StepContext<'_>) -> Result<DistillOutput> {
        let config = &self.config;
        let set = step.student_set()?;
        set.check()?;
        let masks = masks(&RULE, step.pyramids()?.0, step.targets)?;
        let mut outside = Vec::new();
        let inside = by_level(step.pyramids()?, &self.adapters, |level, s, t| {
            let Some(mask) = masks.get(level) else { return Ok(None) };
            let channels = t.dim(1)? as f64;
            let part = |values: &[f32], sum: f64| -> Result<Option<Tensor>> {
                if sum == 0.0 {
                    return Ok(None);
                }
                Ok(Some(masked_l2(s, t, values, (2.0 * sum * channels) as f32)?))
            };
            let rest: Vec<f32> = mask.values.iter().map(|m| 1.0 - m).collect();
            outside.extend(part(&rest, rest.len() as f64 - mask.sum)?);
            part(&mask.values, mask.sum)
        })?;
        let rows = |wanted: bool| -> Vec<usize> {
            let labels = set.rois.labels.iter().enumerate();
            labels.filter(|(_, label)| (**label > 0) == wanted).map(|(row, _)| row).collect()
        };
        let class = |rows: &[usize], temperature| {
            let normalizer = rows.len().max(1) as f32;
            let (s, t) = (&set.student.class_logits, &set.teacher.class_logits);
            class_loss(s, t, rows, ClsLoss::Kl, temperature, normalizer)
        };
        let (positives, negatives) = (rows(true), rows(false));
        let terms = vec![
            ("feat_obj", mean(&inside)?, config.alpha_obj),
            ("feat_bg", mean(&outside)?, config.alpha_bg),
            ("cls_obj", class(&positives, config.t_obj)?, config.beta_obj),
            ("cls_bg", class(&negatives, config.t_bg)?, config.beta_bg),
        ];
        let sum = masks.iter().map(|m| m.sum).sum();
        Ok(undecayed(terms, vec![Stat::sum("mask_sum", sum), Stat::sum("positives", positives.len() as f64)]))
    }
}
