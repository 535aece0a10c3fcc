//! FGFI: imitation where anchors come near to an object.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use docent_detect::setters;
use docent_ops::loss::masked_l2;
use docent_ops::{BoxXyxy, boxes};
use serde::{Deserialize, Serialize};

use super::shared::{by_level, check_weight, mean, undecayed};
use crate::config::AdaptationLayer;
use crate::context::{Channels, StepContext};
use crate::distiller::{DistillOutput, Distiller, Needs, Stat};
use crate::error::{Error, Result};
use crate::feature::Adapters;

/// Settings of [`Fgfi`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FgfiConfig {
    /// Weight of the imitation; 0.01. \[paper\]
    pub weight: f64,
    /// Fraction of an object's best IoU that an anchor must exceed; 0.5. \[paper\]
    pub psi: f32,
    /// The adaptation layer; `conv3x3`. \[paper: convolutional\]
    pub adaptation_layer: AdaptationLayer,
}

setters!(FgfiConfig { weight: f64, psi: f32, adaptation_layer: AdaptationLayer });

impl Default for FgfiConfig {
    fn default() -> Self {
        Self { weight: 0.01, psi: 0.5, adaptation_layer: AdaptationLayer::Conv3x3 }
    }
}

impl FgfiConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.psi) {
            return Err(Error::config("psi", format!("{} is not a fraction; give a number from 0 to 1", self.psi)));
        }
        check_weight("weight", self.weight)
    }
}

/// Fine-grained feature imitation of T. Wang, L. Yuan, X. Zhang and J. Feng, *Distilling Object Detectors with Fine-grained
/// Feature Imitation*, CVPR 2019, arXiv 1906.03609.
///
/// ```text
/// I_ij = 1 where, for some object and some anchor at (i, j):  IoU(anchor, object) > psi * max over anchors of IoU(., object)
/// L    = 1/(2 N_p) * sum_ij I_ij sum_c (adapt(S) - T)²_cij ,   N_p = sum_ij I_ij                 [paper]
/// ```
/// \[ours\]: with a pyramid, each level has its own best IoU and its own N_p (over the batch), and the loss is the mean over
/// the levels with a cell in the mask; anchors are the student's, unclipped, and the adaptation layer has no ReLU.
#[derive(Debug, Clone)]
pub struct Fgfi {
    config: FgfiConfig,
    adapters: Adapters,
}

impl Fgfi {
    /// Checks the settings and takes the adaptation layers from `vb`.
    ///
    /// # Errors
    /// A setting that means nothing, or a name that `vb` does not have.
    pub fn new(config: &FgfiConfig, student: &Channels, teacher: &Channels, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            adapters: Adapters::new(config.adaptation_layer, &student.fpn, &teacher.fpn, vb)?,
            config: config.clone(),
        })
    }
}

/// The imitation mask of one image on one level of `cells` cells: 1 where an anchor passes `psi` times an object's best IoU on
/// this level, 0 elsewhere. `anchors` are in the order (cell, anchor), as many at each cell.
pub fn imitation_mask(anchors: &[BoxXyxy], cells: usize, objects: &[BoxXyxy], psi: f32) -> Vec<f32> {
    let mut mask = vec![0.0; cells];
    let per_cell = anchors.len() / cells.max(1);
    for object in objects {
        let ious: Vec<f32> = anchors.iter().map(|anchor| boxes::iou(anchor, object)).collect();
        let bar = psi * ious.iter().copied().fold(0.0, f32::max);
        for (cell, near) in mask.iter_mut().zip(ious.chunks(per_cell.max(1))) {
            if near.iter().any(|&iou| iou > bar) {
                *cell = 1.0;
            }
        }
    }
    mask
}

impl Distiller for Fgfi {
    fn name(&self) -> &str {
        "fgfi"
    }

    fn needs(&self) -> Needs {
        Needs { pyramid: true, ..Needs::default() }
    }

    fn params(&self) -> Vec<(String, Tensor)> {
        self.adapters.params()
    }

    /// Term `imitation`. Stat `mask_sum`: the mask's cells over batch and levels.
    fn loss(&self, step: &StepContext<'_>) -> Result<DistillOutput> {
        let anchors = step.student.dense.map_or(&[][..], |dense| &dense.anchors);
        let mut sum = 0.0;
        let terms = by_level(step.pyramids()?, &self.adapters, |level, s, t| {
            let (b, _, h, w) = t.dims4()?;
            let anchors = anchors.get(level).map_or(&[][..], Vec::as_slice);
            if anchors.is_empty() || !anchors.len().is_multiple_of(h * w) || step.targets.len() != b {
                return Err(Error::mismatch(
                    "imitation mask",
                    format!(
                        "level {level} of {h}x{w} cells has {} anchors, and a batch of {b} has {} targets; give the \
                         student's anchors, as many for each cell, and one set of targets an image",
                        anchors.len(),
                        step.targets.len()
                    ),
                ));
            }
            let of = |boxes: &[BoxXyxy]| imitation_mask(anchors, h * w, boxes, self.config.psi);
            let mask: Vec<f32> = step.targets.iter().flat_map(|target| of(&target.boxes)).collect();
            let cells: f32 = mask.iter().sum();
            sum += f64::from(cells);
            if cells == 0.0 {
                return Ok(None);
            }
            Ok(Some(masked_l2(s, t, &mask, 2.0 * cells)?))
        })?;
        Ok(undecayed(vec![("imitation", mean(&terms)?, self.config.weight)], vec![Stat::sum("mask_sum", sum)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_holds_the_cells_whose_anchors_come_near() {
        // Two cells with two anchors each; the object is the first anchor of cell 0, IoU 0.6 with the second of cell 1.
        let anchors = [[0., 0., 10., 10.], [50., 50., 60., 60.], [5., 0., 15., 10.], [0., 0., 10., 6.]];
        let object = [0., 0., 10., 10.];
        assert_eq!(imitation_mask(&anchors, 2, &[object], 0.5), [1.0, 1.0]);
        assert_eq!(imitation_mask(&anchors, 2, &[object], 0.7), [1.0, 0.0]);
        assert_eq!(imitation_mask(&anchors, 2, &[object], 1.0), [0.0, 0.0], "nothing passes its own best");
        assert_eq!(imitation_mask(&anchors, 2, &[[80., 80., 90., 90.]], 0.5), [0.0, 0.0], "no anchor near at all");
        assert_eq!(imitation_mask(&anchors, 2, &[], 0.5), [0.0, 0.0]);
        // A far object's own best is what counts, not another object's.
        assert_eq!(imitation_mask(&anchors, 2, &[[54., 54., 70., 70.], object], 0.7), [1.0, 0.0]);
    }
}
