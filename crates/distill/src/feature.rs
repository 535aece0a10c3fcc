//! The feature term: masked imitation of the teacher's pyramid through one adapter a level.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use candle_nn::init::{FanInOut, Init, NonLinearity, NormalOrUniform};
use docent_detect::FeaturePyramid;
use docent_ops::{BiasOrResidual, Conv2dParams, conv2d, loss::masked_l2};

use crate::config::{AdaptationLayer, LevelNorm};
use crate::error::{Error, Result};
use crate::mask::LevelMask;

/// One layer a level from the student's channels to the teacher's; dropped after training.
#[derive(Debug, Clone)]
pub struct Adapters {
    kind: AdaptationLayer,
    layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
struct Layer {
    weight: Tensor,
    bias: Tensor,
}

impl Adapters {
    /// Takes `adapt.{level}.weight` and `adapt.{level}.bias` from `vb`, for each level that `student` and `teacher` list the
    /// channels of.
    ///
    /// Where `vb` draws the values: the weight uniform in `±sqrt(3/fan_in)` (Kaiming, a = 1), the bias 0, as
    /// torchvision's FPN draws its output convolutions. \[ours\] With [`AdaptationLayer::None`] nothing is taken.
    ///
    /// # Shapes
    /// Weight `[teacher, student, k, k]`, bias `[teacher]`.
    ///
    /// # Errors
    /// [`Error::Config`] for [`AdaptationLayer::None`] between unequal channels, [`Error::Mismatch`] for unequal numbers of levels, or a
    /// name that `vb` does not have.
    pub fn new(kind: AdaptationLayer, student: &[usize], teacher: &[usize], vb: VarBuilder<'_>) -> Result<Self> {
        if student.len() != teacher.len() {
            let (s, t) = (student.len(), teacher.len());
            return Err(Error::mismatch("feature term", format!("the student has {s} levels, the teacher {t}")));
        }
        let k = match kind {
            AdaptationLayer::Conv3x3 | AdaptationLayer::Conv3x3Relu => 3,
            AdaptationLayer::Conv1x1 => 1,
            AdaptationLayer::None if student == teacher => return Ok(Self::none()),
            AdaptationLayer::None => {
                return Err(Error::config(
                    "adaptation_layer",
                    format!(
                        "\"none\" needs equal channels, but the student's maps have {student:?} and the teacher's \
                         {teacher:?}; take \"conv1x1\" or \"conv3x3\""
                    ),
                ));
            }
        };
        let kaiming_a1 = Init::Kaiming {
            dist: NormalOrUniform::Uniform,
            fan: FanInOut::FanIn,
            // Gain 1: sqrt(2/(1 + a²)) at a = 1.
            non_linearity: NonLinearity::Linear,
        };
        let layers = student
            .iter()
            .zip(teacher)
            .enumerate()
            .map(|(level, (&student, &teacher))| {
                let vb = vb.pp("adapt").pp(level);
                let weight = vb.get_with_hints((teacher, student, k, k), "weight", kaiming_a1)?;
                let bias = vb.get_with_hints(teacher, "bias", Init::Const(0.0))?;
                Ok(Layer { weight, bias })
            })
            .collect::<Result<_>>()?;
        Ok(Self { kind, layers })
    }

    /// No adapter: the maps meet as they are.
    pub fn none() -> Self {
        Self { kind: AdaptationLayer::None, layers: Vec::new() }
    }

    /// The student's map of one level, as the teacher's map is compared with it.
    ///
    /// # Shapes
    /// `[B, C_student, H, W]` to `[B, C_teacher, H, W]`.
    ///
    /// # Errors
    /// A level that has no adapter, or the convolution's own error.
    pub fn forward(&self, level: usize, x: &Tensor) -> Result<Tensor> {
        if self.kind == AdaptationLayer::None {
            return Ok(x.clone());
        }
        let layer = self.layers.get(level).ok_or_else(|| {
            Error::mismatch("feature term", format!("level {level} has no adapter; {} were made", self.layers.len()))
        })?;
        let (relu, padding) = match self.kind {
            AdaptationLayer::Conv3x3 => (false, 1),
            AdaptationLayer::Conv3x3Relu => (true, 1),
            AdaptationLayer::Conv1x1 | AdaptationLayer::None => (false, 0),
        };
        let params = Conv2dParams { padding, ..Default::default() };
        Ok(conv2d(x, &layer.weight, BiasOrResidual::Bias(&layer.bias), None, relu, &params)?)
    }

    /// The adapters' parameters by name, `adapt.{level}.weight` and `adapt.{level}.bias`, in order of level.
    pub fn params(&self) -> Vec<(String, Tensor)> {
        let named = |(level, layer): (usize, &Layer)| {
            [
                (format!("adapt.{level}.weight"), layer.weight.clone()),
                (format!("adapt.{level}.bias"), layer.bias.clone()),
            ]
        };
        self.layers.iter().enumerate().flat_map(named).collect()
    }
}

/// The feature term.
///
/// `L_feat = mean over levels l with N_l > 0 of 1/(N_l C) * sum over batch, cells, channels of M (adapt(S) - T)²`,
/// `N_l` the
/// mask's sum on level l, C the teacher's channels on it. [`LevelNorm`] names the other normalisations.
///
/// A level whose mask is empty is not computed: it adds 0, and its adapter gets no gradient. Without any mask the
/// term is exactly 0. The teacher's maps never get a gradient.
///
/// # Shapes
/// Per level: student `[B, C_student, H, W]`, teacher `[B, C_teacher, H, W]`, mask `[B, H, W]`. Returns a scalar,
/// shape `[]`.
///
/// # Errors
/// [`Error::Mismatch`] where the pyramids differ in levels, batch or size.
pub fn feature_loss(
    student: &FeaturePyramid,
    teacher: &FeaturePyramid,
    masks: &[LevelMask],
    adapters: &Adapters,
    norm: LevelNorm,
) -> Result<Tensor> {
    check_pyramids(student, teacher, masks.len())?;
    let levels = student.levels.iter().zip(&teacher.levels).zip(masks).enumerate();
    let used = masks.iter().filter(|m| m.sum > 0.0).count();
    let whole: f64 = masks.iter().map(|m| m.sum).sum();
    let mut total: Option<Tensor> = None;
    for (level, ((s, t), mask)) in levels.filter(|(_, (_, mask))| mask.sum > 0.0) {
        let channels = t.dim(1)? as f64;
        let normalizer = match norm {
            LevelNorm::PerLevelMean => mask.sum * channels * used as f64,
            LevelNorm::Global => whole * channels,
            LevelNorm::Sum => mask.sum * channels,
        };
        let term = masked_l2(&adapters.forward(level, s)?, t, &mask.values, normalizer as f32)?;
        total = Some(match total {
            None => term,
            Some(sum) => (sum + term)?,
        });
    }
    match (total, student.levels.first()) {
        (Some(total), _) => Ok(total),
        (None, Some(map)) => Ok(Tensor::zeros((), DType::F32, map.device())?),
        (None, None) => Err(Error::mismatch("feature term", "the pyramids have no level")),
    }
}

pub(crate) fn check_pyramids(student: &FeaturePyramid, teacher: &FeaturePyramid, masks: usize) -> Result<()> {
    let (s, t) = (&student.levels, &teacher.levels);
    if s.len() != t.len() || s.len() != masks {
        return Err(Error::mismatch(
            "feature term",
            format!(
                "the student has {} levels, the teacher {}, the mask {masks}; they must be one to one",
                s.len(),
                t.len()
            ),
        ));
    }
    for (level, (s, t)) in s.iter().zip(t).enumerate() {
        let ((bs, _, hs, ws), (bt, _, ht, wt)) = (s.dims4()?, t.dims4()?);
        if (bs, hs, ws) != (bt, ht, wt) {
            return Err(Error::mismatch(
                "feature term",
                format!(
                    "level {level} is {:?} in the student and {:?} in the teacher; both must see one batch, padded \
                     alike, at equal strides",
                    s.dims(),
                    t.dims()
                ),
            ));
        }
    }
    Ok(())
}
