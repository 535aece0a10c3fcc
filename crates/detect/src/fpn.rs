//! The feature pyramid: lateral 1x1 convolutions, a top-down path by nearest neighbours, 3x3 convolutions, and P6.

use candle_nn::Init;
use candle_nn::init::{FanInOut, NonLinearity, NormalOrUniform};

use crate::layers::{Conv2d, Conv2dConfig, ModelBuilder};
use crate::{Error, FeaturePyramid, FeatureSpec, Mode, Result};

/// torchvision's initialisation of the pyramid: Kaiming, uniform, by fan-in, `a = 1` (gain 1).
const KAIMING_LINEAR: Init =
    Init::Kaiming { dist: NormalOrUniform::Uniform, fan: FanInOut::FanIn, non_linearity: NonLinearity::Linear };

/// A feature pyramid over any number of backbone levels.
#[derive(Debug, Clone)]
pub struct Fpn {
    inner: Vec<Conv2d>,
    layer: Vec<Conv2d>,
    outputs: Vec<FeatureSpec>,
}

impl Fpn {
    /// Takes `inner_blocks.{l}.0` and `layer_blocks.{l}.0` from `builder`; `inputs` are the backbone's maps.
    ///
    /// # Errors
    /// A backbone without a map; a parameter that is missing or has another shape.
    pub fn new(inputs: &[FeatureSpec], channels: usize, builder: &ModelBuilder<'_>) -> Result<Self> {
        let Some(last) = inputs.last() else { return Err(Error::input("fpn", "the backbone has no map")) };
        let convs = |folder: &str, kernel: usize| {
            inputs
                .iter()
                .enumerate()
                .map(|(l, input)| {
                    let c_in = if kernel == 1 { input.channels } else { channels };
                    let config = Conv2dConfig::new(c_in, channels, kernel).bias(KAIMING_LINEAR);
                    Conv2d::new(&config, &builder.pp(folder).pp(l).pp(0).on_maps(&[input.stride]))
                })
                .collect::<Result<Vec<_>>>()
        };
        let strides = inputs.iter().map(|input| input.stride).chain([2 * last.stride]);
        let level = |(l, stride)| FeatureSpec { name: format!("p{l}"), stride, channels };
        let (inner, layer) = (convs("inner_blocks", 1)?, convs("layer_blocks", 3)?);
        Ok(Self { inner, layer, outputs: (2..).zip(strides).map(level).collect() })
    }

    /// Name, stride and channels of each level, finest first.
    pub fn outputs(&self) -> &[FeatureSpec] {
        &self.outputs
    }

    /// C2 .. C5 to P2 .. P5 of the same sizes and P6, every second cell of P5.
    ///
    /// # Errors
    /// Another number of levels than at construction, or levels of other channels.
    pub fn forward(&self, features: &FeaturePyramid, mode: Mode) -> Result<FeaturePyramid> {
        let n = self.inner.len();
        if features.levels.len() != n {
            return Err(Error::input(
                "fpn",
                format!("{} backbone levels given, this pyramid has {n}", features.levels.len()),
            ));
        }
        let mut levels = Vec::with_capacity(n + 1);
        let mut top = None;
        for ((inner, layer), c) in self.inner.iter().zip(&self.layer).zip(&features.levels).rev() {
            let lateral = inner.forward(c, false, mode)?;
            let merged = match &top {
                None => lateral,
                Some(t) => {
                    let merged = docent_ops::upsample_nearest_add(t, &lateral)?;
                    docent_tensor::release(lateral)?;
                    merged
                }
            };
            levels.push(layer.forward(&merged, false, mode)?);
            top = Some(merged);
        }
        levels.reverse();
        if let Some(last) = levels.last() {
            let p6 = docent_ops::subsample(last, 2)?;
            levels.push(p6);
        }
        Ok(FeaturePyramid::new(levels, &self.outputs))
    }
}
