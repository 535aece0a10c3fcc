//! FitNets: the student's maps regress the teacher's, everywhere alike.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use docent_detect::setters;
use docent_ops::loss::masked_l2;
use serde::{Deserialize, Serialize};

use super::shared::{by_level, check_weight, mean, undecayed};
use crate::config::AdaptationLayer;
use crate::context::{Channels, StepContext};
use crate::distiller::{DistillOutput, Distiller, Needs};
use crate::error::Result;
use crate::feature::Adapters;

/// Settings of [`Fitnets`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FitnetsConfig {
    /// Weight of the hint; 0.64, which gives an element the weight that `task_adaptive` gives it. \[ours\]
    pub weight: f64,
    /// The regressor; `conv3x3`. \[paper: convolutional\]
    pub adaptation_layer: AdaptationLayer,
}

setters!(FitnetsConfig { weight: f64, adaptation_layer: AdaptationLayer });

impl Default for FitnetsConfig {
    fn default() -> Self {
        Self { weight: 0.64, adaptation_layer: AdaptationLayer::Conv3x3 }
    }
}

impl FitnetsConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`crate::Error::Config`] names the setting.
    pub fn validate(&self) -> Result<()> {
        check_weight("weight", self.weight)
    }
}

/// Hints of A. Romero, N. Ballas, S. Ebrahimi Kahou, A. Chassang, C. Gatta and Y. Bengio, *FitNets: Hints for Thin Deep
/// Nets*, ICLR 2015, arXiv 1412.6550.
///
/// ```text
/// L_HT = 1/2 || u(x) - r(v(x)) ||²                                        [paper, Eq. (3)]
/// L    = mean over levels of 1/(2 B C H W) * sum over all elements of (r(S) - T)²   [ours]
/// ```
/// u is the teacher's hint layer, v the student's guided one, r a convolutional regressor. \[ours\]: the hint is the FPN's
/// output on every level, the sum is a mean over elements, padding included, and the hint stands beside the detection loss
/// from the first step on (the paper trains in two stages, and distils the classifier in the second).
#[derive(Debug, Clone)]
pub struct Fitnets {
    config: FitnetsConfig,
    adapters: Adapters,
}

impl Fitnets {
    /// Checks the settings and takes the regressors from `vb`.
    ///
    /// # Errors
    /// A setting that means nothing, or a name that `vb` does not have.
    pub fn new(config: &FitnetsConfig, student: &Channels, teacher: &Channels, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            adapters: Adapters::new(config.adaptation_layer, &student.fpn, &teacher.fpn, vb)?,
            config: config.clone(),
        })
    }
}

impl Distiller for Fitnets {
    fn name(&self) -> &str {
        "fitnets"
    }

    fn needs(&self) -> Needs {
        Needs { pyramid: true, ..Needs::default() }
    }

    fn params(&self) -> Vec<(String, Tensor)> {
        self.adapters.params()
    }

    /// Term `hint`.
    fn loss(&self, step: &StepContext<'_>) -> Result<DistillOutput> {
        let terms = by_level(step.pyramids()?, &self.adapters, |_, s, t| {
            let (b, c, h, w) = t.dims4()?;
            let everywhere = vec![1.0; b * h * w];
            Ok(Some(masked_l2(s, t, &everywhere, 2.0 * (b * c * h * w) as f32)?))
        })?;
        Ok(undecayed(vec![("hint", mean(&terms)?, self.config.weight)], Vec::new()))
    }
}
