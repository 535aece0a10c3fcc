//! The feature pyramid: lateral 1x1 convolutions, a top-down path by nearest neighbours, 3x3 convolutions, and P6.

use crate::config::STRIDES;
use crate::layers::{Conv, KAIMING_LINEAR};
use crate::{BackboneFeatures, Error, Features, Result};
use candle_nn::VarBuilder;

/// A feature pyramid over any number of backbone levels.
#[derive(Debug, Clone)]
pub struct Fpn {
    inner: Vec<Conv>,
    layer: Vec<Conv>,
}

impl Fpn {
    /// Takes `inner_blocks.{l}.0` and `layer_blocks.{l}.0` from `vb`; `inputs` are the channels of C2 .. C5.
    ///
    /// # Errors
    /// A parameter that is missing or has another shape.
    pub fn new(inputs: &[usize], channels: usize, vb: VarBuilder) -> Result<Self> {
        let convs = |folder: &str, kernel: usize| {
            inputs
                .iter()
                .enumerate()
                .map(|(l, &c)| {
                    let c_in = if kernel == 1 { c } else { channels };
                    Conv::new((c_in, channels, kernel, 1), true, KAIMING_LINEAR, &vb.pp(folder).pp(l).pp(0))
                })
                .collect::<Result<Vec<_>>>()
        };
        Ok(Self { inner: convs("inner_blocks", 1)?, layer: convs("layer_blocks", 3)? })
    }

    /// C2 .. C5 to P2 .. P5 of the same sizes and P6, every second cell of P5.
    ///
    /// # Errors
    /// Another number of levels than at construction, or levels of other channels.
    pub fn forward(&self, features: &BackboneFeatures) -> Result<Features> {
        let n = self.inner.len();
        if features.levels.len() != n || n + 1 > STRIDES.len() {
            return Err(Error::input(
                "fpn",
                format!("{} backbone levels given, this pyramid has {n}", features.levels.len()),
            ));
        }
        let mut levels = Vec::with_capacity(n + 1);
        let mut top = None;
        for ((inner, layer), c) in self.inner.iter().zip(&self.layer).zip(&features.levels).rev() {
            let lateral = inner.forward(c, false)?;
            let merged = match &top {
                None => lateral,
                Some(t) => {
                    let merged = docent_ops::upsample_nearest_add(t, &lateral)?;
                    docent_tensor::release(lateral)?;
                    merged
                }
            };
            levels.push(layer.forward(&merged, false)?);
            top = Some(merged);
        }
        levels.reverse();
        if let Some(last) = levels.last() {
            let p6 = docent_ops::subsample(last, 2)?;
            levels.push(p6);
        }
        let strides = STRIDES[..levels.len()].to_vec();
        Ok(Features { levels, strides })
    }

    pub(crate) fn detached(&self) -> Self {
        let all = |convs: &[Conv]| convs.iter().map(Conv::detached).collect();
        Self { inner: all(&self.inner), layer: all(&self.layer) }
    }
}
