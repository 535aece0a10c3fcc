//! PKD: the correlation of both models' maps, whatever their scale.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use docent_detect::setters;
use docent_ops::loss::{FusedLoss, fused};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::shared::{by_level, check_weight, mean, undecayed};
use crate::class::values;
use crate::config::AdaptationLayer;
use crate::context::{Channels, StepContext};
use crate::distiller::{DistillOutput, Distiller, Needs};
use crate::error::{Error, Result};
use crate::feature::Adapters;

/// Keeps a constant channel from dividing by 0.
const EPS: f64 = 1e-6;

/// Settings of [`Pkd`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PkdConfig {
    /// Weight of the term; 6, on the mean over levels. \[ours\]
    pub weight: f64,
    /// A layer before the comparison; `none`, refused where the channels differ. \[ours\]
    pub adaptation_layer: AdaptationLayer,
}

setters!(PkdConfig { weight: f64, adaptation_layer: AdaptationLayer });

impl Default for PkdConfig {
    fn default() -> Self {
        Self { weight: 6.0, adaptation_layer: AdaptationLayer::None }
    }
}

impl PkdConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting.
    pub fn validate(&self) -> Result<()> {
        check_weight("weight", self.weight)
    }
}

/// Distillation by Pearson's correlation coefficient, of W. Cao, Y. Zhang, J. Gao, A. Cheng, K. Cheng and J. Cheng, *PKD:
/// General Distillation Framework for Object Detectors via Pearson Correlation Coefficient*, NeurIPS 2022, arXiv 2207.02039.
///
/// ```text
/// s^ = (s - mean s)/std s ,  t^ = (t - mean t)/std t              [paper: maps of zero mean and unit variance]
/// L  = 1/(2m) * sum (s^ - t^)²  =  1 - r(s, t)                     [paper: m elements]
/// ```
/// \[ours\]: mean and deviation of each channel over batch and cells, the deviation of a population, with 1e-6 added; the loss
/// is the mean over channels, then over levels.
#[derive(Debug, Clone)]
pub struct Pkd {
    config: PkdConfig,
    adapters: Adapters,
}

impl Pkd {
    /// Checks the settings and takes the adapters, if any, from `vb`.
    ///
    /// # Errors
    /// A setting that means nothing, channels that differ without an adapter, or a name that `vb` does not have.
    pub fn new(config: &PkdConfig, student: &Channels, teacher: &Channels, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            adapters: Adapters::new(config.adaptation_layer, &student.fpn, &teacher.fpn, vb)?,
            config: config.clone(),
        })
    }
}

impl Distiller for Pkd {
    fn name(&self) -> &str {
        "pkd"
    }

    fn needs(&self) -> Needs {
        Needs { pyramid: true, ..Needs::default() }
    }

    fn params(&self) -> Vec<(String, Tensor)> {
        self.adapters.params()
    }

    /// Term `pearson`.
    fn loss(&self, step: &StepContext<'_>) -> Result<DistillOutput> {
        let terms = by_level(step.pyramids()?, &self.adapters, |_, s, t| {
            let (batch, channels, h, w) = t.dims4()?;
            if s.dims() != t.dims() {
                return Err(Error::mismatch(
                    "correlation term",
                    format!("the student is {:?} and the teacher {:?}; adapt one to the other", s.dims(), t.dims()),
                ));
            }
            let shape = Shape { batch, channels, plane: h * w };
            if shape.count() == 0 || channels == 0 {
                return Ok(None);
            }
            let teacher = values(t)?;
            let teacher = (0..channels).map(|c| shape.normalised(&teacher, c).0).collect();
            // Half a mean over elements.
            let normalizer = 2.0 * (shape.count() * channels) as f32;
            Ok(Some(fused(s, Correlation { shape, teacher }, normalizer)?))
        })?;
        Ok(undecayed(vec![("pearson", mean(&terms)?, self.config.weight)], Vec::new()))
    }
}

/// How a `[B, C, H, W]` lies in memory.
#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    channels: usize,
    plane: usize,
}

impl Shape {
    /// Elements of one channel over the batch.
    fn count(&self) -> usize {
        self.batch * self.plane
    }

    /// Each image's plane of a channel.
    fn planes(self, channel: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        (0..self.batch).map(move |b| {
            let start = (b * self.channels + channel) * self.plane;
            start..start + self.plane
        })
    }

    /// A channel with zero mean and unit variance, image after image, and its deviation before that.
    fn normalised(self, x: &[f32], channel: usize) -> (Vec<f64>, f64) {
        let mut out: Vec<f64> = self.planes(channel).flat_map(|r| x[r].iter().map(|v| f64::from(*v))).collect();
        let n = out.len().max(1) as f64;
        let mean = out.iter().sum::<f64>() / n;
        out.iter_mut().for_each(|v| *v -= mean);
        let deviation = (out.iter().map(|v| v * v).sum::<f64>() / n).sqrt();
        out.iter_mut().for_each(|v| *v /= deviation + EPS);
        (out, deviation)
    }
}

/// `sum (s^ - t^)²`; the teacher's normalised channels are plain data.
struct Correlation {
    shape: Shape,
    teacher: Vec<Vec<f64>>,
}

impl FusedLoss for Correlation {
    const NAME: &'static str = "distill-pearson";

    fn sum(&self, x: &[f32]) -> docent_ops::Result<f64> {
        let channel = |(c, teacher): (usize, &Vec<f64>)| {
            let (student, _) = self.shape.normalised(x, c);
            student.iter().zip(teacher).map(|(s, t)| (s - t) * (s - t)).sum::<f64>()
        };
        let sums: Vec<f64> = self.teacher.par_iter().enumerate().map(channel).collect();
        Ok(sums.iter().sum())
    }

    /// With `g = dL/ds^`, `z = s^ * (d + eps)` the centred values and d the deviation:
    /// `dL/ds_j = (g_j - mean g)/(d + eps) - z_j/(n d) * sum_i g_i z_i/(d + eps)²`.
    fn gradient(&self, x: &[f32], scale: f32, dx: &mut [f32]) -> docent_ops::Result<()> {
        let channel = |(c, teacher): (usize, &Vec<f64>)| {
            let (student, deviation) = self.shape.normalised(x, c);
            let n = student.len() as f64;
            let wide = deviation + EPS;
            let g: Vec<f64> = student.iter().zip(teacher).map(|(s, t)| 2.0 * f64::from(scale) * (s - t)).collect();
            let mean = g.iter().sum::<f64>() / n;
            let along = g.iter().zip(&student).map(|(g, s)| g * s).sum::<f64>();
            // A constant channel's deviation has no slope to follow.
            let pull = if deviation > 0.0 { along / (n * deviation) } else { 0.0 };
            g.iter().zip(&student).map(|(g, s)| ((g - mean) / wide - pull * s) as f32).collect::<Vec<f32>>()
        };
        let gradients: Vec<Vec<f32>> = self.teacher.par_iter().enumerate().map(channel).collect();
        for (c, gradient) in gradients.iter().enumerate() {
            for (range, part) in self.shape.planes(c).zip(gradient.chunks(self.shape.plane)) {
                dx[range].copy_from_slice(part);
            }
        }
        Ok(())
    }
}
