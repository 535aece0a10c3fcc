//! Which backbone, and what the rest of the program asks of it: channels, norm, names.

use super::{NormKind, ResNetConfig, StridePlace};
use crate::{Error, Result, norm};
use serde::{Deserialize, Serialize};

/// The widest backbone, by its width multiplier: a damaged file must not ask for more memory than there is.
pub(crate) const MAX_WIDTH: f64 = 16.0;

/// Stem and stages: the most that [`BackboneConfig::frozen_prefixes`] can count.
pub const FREEZABLE: usize = 5;

/// The backbone: a table with an `arch` (`resnet`, which is the default and is not written out, or `mobilenet_v2`) and
/// that architecture's fields.
///
/// ```
/// use docent_detect::BackboneConfig;
///
/// let resnet: BackboneConfig = serde_json::from_str(r#"{"depth": 18}"#).unwrap();
/// assert_eq!(resnet.channels(), [64, 128, 256, 512]);
/// let mobile: BackboneConfig = serde_json::from_str(r#"{"arch": "mobilenet_v2", "width": 0.5}"#).unwrap();
/// assert_eq!(mobile.channels(), [16, 16, 48, 160]);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum BackboneConfig {
    /// [`crate::resnet`]
    ResNet(ResNetConfig),
    /// [`crate::mobilenet`]
    MobileNetV2(MobileNetV2Config),
}

/// The MobileNetV2 backbone (Sandler et al., CVPR 2018) in torchvision's form.
#[derive(Debug, Clone, PartialEq)]
pub struct MobileNetV2Config {
    /// Multiplies every layer's channels, which are then rounded to a multiple of 8 ([`make_divisible`]). Default 1.
    pub width: f64,
    /// The norm. Default frozen BatchNorm.
    pub norm: NormKind,
    /// Added to the variance. Default 1e-5.
    pub norm_eps: f64,
}

impl Default for MobileNetV2Config {
    fn default() -> Self {
        Self { width: 1.0, norm: NormKind::FrozenBatchNorm, norm_eps: 1e-5 }
    }
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self::ResNet(ResNetConfig::default())
    }
}

impl From<ResNetConfig> for BackboneConfig {
    fn from(cfg: ResNetConfig) -> Self {
        Self::ResNet(cfg)
    }
}

impl From<MobileNetV2Config> for BackboneConfig {
    fn from(cfg: MobileNetV2Config) -> Self {
        Self::MobileNetV2(cfg)
    }
}

impl BackboneConfig {
    /// Channels of C2, C3, C4 and C5.
    pub fn channels(&self) -> [usize; 4] {
        match self {
            Self::ResNet(c) => c.channels(),
            Self::MobileNetV2(c) => c.channels(),
        }
    }

    /// The norm of every layer.
    pub fn norm(&self) -> NormKind {
        match self {
            Self::ResNet(c) => c.norm,
            Self::MobileNetV2(c) => c.norm,
        }
    }

    /// What is added to the variance.
    pub fn norm_eps(&self) -> f64 {
        match self {
            Self::ResNet(c) => c.norm_eps,
            Self::MobileNetV2(c) => c.norm_eps,
        }
    }

    /// Another value to add to the variance: it belongs to the weights.
    pub fn set_norm_eps(&mut self, eps: f64) {
        match self {
            Self::ResNet(c) => c.norm_eps = eps,
            Self::MobileNetV2(c) => c.norm_eps = eps,
        }
    }

    /// Another place of the stride, which belongs to the weights too; only a ResNet has one.
    pub fn set_stride_place(&mut self, place: StridePlace) {
        if let Self::ResNet(c) = self {
            c.stride_place = place;
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field with a value that it cannot have.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::ResNet(c) => c.validate(),
            Self::MobileNetV2(c) => c.validate(),
        }
    }

    /// Names, below `backbone.body.`, of what is frozen: with `at` = 0 nothing, 1 the stem, 2 the stem and the stage that
    /// gives C2, and so on up to [`FREEZABLE`]. A name belongs to it when it starts with one of these.
    pub fn frozen_prefixes(&self, at: usize) -> Vec<String> {
        let parts: [Vec<String>; FREEZABLE] = match self {
            Self::ResNet(_) => std::array::from_fn(|i| match i {
                0 => vec!["conv1.".to_owned(), "bn1.".to_owned()],
                i => vec![format!("layer{i}.")],
            }),
            Self::MobileNetV2(_) => {
                let taps = crate::mobilenet::TAPS;
                let first = |i: usize| if i == 1 { 1 } else { taps[i - 2] + 1 };
                std::array::from_fn(|i| match i {
                    0 => vec!["0.".to_owned()],
                    i => (first(i)..=taps[i - 1]).map(|n| format!("{n}.")).collect(),
                })
            }
        };
        parts.into_iter().take(at).flatten().collect()
    }

    /// Whether the tensor of this name lies in a norm layer: `..bn1.weight`, `..downsample.1.bias`,
    /// `backbone.body.4.conv.3.weight`.
    pub fn belongs_to_norm(&self, name: &str) -> bool {
        match self {
            Self::ResNet(_) => norm::belongs_to_norm(name),
            Self::MobileNetV2(_) => name.strip_prefix("backbone.body.").is_some_and(crate::mobilenet::belongs_to_norm),
        }
    }
}

impl std::fmt::Display for BackboneConfig {
    /// `ResNet-18, width 0.5`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = match self {
            Self::ResNet(c) => {
                write!(f, "ResNet-{}", c.depth)?;
                c.width
            }
            Self::MobileNetV2(c) => {
                f.write_str("MobileNetV2")?;
                c.width
            }
        };
        if width == 1.0 { Ok(()) } else { write!(f, ", width {width}") }
    }
}

/// `v` rounded to a multiple of 8, at least 8, and never less than nine tenths of `v`: torchvision's `_make_divisible`.
pub fn make_divisible(v: f64) -> usize {
    const DIVISOR: usize = 8;
    let rounded = ((v + DIVISOR as f64 / 2.0).max(0.0) as usize / DIVISOR * DIVISOR).max(DIVISOR);
    if (rounded as f64) < 0.9 * v { rounded + DIVISOR } else { rounded }
}

impl MobileNetV2Config {
    /// Channels of C2, C3, C4 and C5: the outputs of features 3, 6, 13 and 17.
    pub fn channels(&self) -> [usize; 4] {
        [24.0, 32.0, 96.0, 320.0].map(|c| make_divisible(c * self.width))
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field with a value that it cannot have.
    pub fn validate(&self) -> Result<()> {
        if !(self.width > 0.0 && self.width <= MAX_WIDTH) {
            return Err(Error::config(
                "backbone.width",
                format!("{} does not lie above 0 and up to {MAX_WIDTH}", self.width),
            ));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(Error::config("backbone.norm_eps", format!("{} is not a finite number from 0", self.norm_eps)));
        }
        if let NormKind::GroupNorm { groups } = self.norm
            && !matches!(groups, 1 | 2 | 4 | 8)
        {
            return Err(Error::config(
                "backbone.norm.group_norm.groups",
                format!("{groups}: every layer has a multiple of 8 channels, so 1, 2, 4 and 8 divide them all"),
            ));
        }
        Ok(())
    }
}

/// A backbone as it stands in a file: every architecture's fields, of which each takes its own.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    arch: Option<Arch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    depth: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    norm: Option<NormKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    norm_eps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stride_place: Option<StridePlace>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Arch {
    #[serde(rename = "resnet")]
    ResNet,
    #[serde(rename = "mobilenet_v2")]
    MobileNetV2,
}

impl TryFrom<Written> for BackboneConfig {
    type Error = String;

    fn try_from(w: Written) -> std::result::Result<Self, String> {
        match w.arch.unwrap_or(Arch::ResNet) {
            Arch::ResNet => {
                let d = ResNetConfig::default();
                Ok(Self::ResNet(ResNetConfig {
                    depth: w.depth.unwrap_or(d.depth),
                    width: w.width.unwrap_or(d.width),
                    norm: w.norm.unwrap_or(d.norm),
                    norm_eps: w.norm_eps.unwrap_or(d.norm_eps),
                    stride_place: w.stride_place.unwrap_or(d.stride_place),
                }))
            }
            Arch::MobileNetV2 => {
                for (given, field) in [(w.depth.is_some(), "depth"), (w.stride_place.is_some(), "stride_place")] {
                    if given {
                        return Err(format!(
                            "`{field}` is a ResNet's field; mobilenet_v2 has width, norm and norm_eps"
                        ));
                    }
                }
                let d = MobileNetV2Config::default();
                Ok(Self::MobileNetV2(MobileNetV2Config {
                    width: w.width.unwrap_or(d.width),
                    norm: w.norm.unwrap_or(d.norm),
                    norm_eps: w.norm_eps.unwrap_or(d.norm_eps),
                }))
            }
        }
    }
}

impl From<BackboneConfig> for Written {
    fn from(cfg: BackboneConfig) -> Self {
        match cfg {
            // Without `arch`: recipes and checkpoints from before there was another one read the same.
            BackboneConfig::ResNet(c) => Self {
                arch: None,
                depth: Some(c.depth),
                width: Some(c.width),
                norm: Some(c.norm),
                norm_eps: Some(c.norm_eps),
                stride_place: Some(c.stride_place),
            },
            BackboneConfig::MobileNetV2(c) => Self {
                arch: Some(Arch::MobileNetV2),
                width: Some(c.width),
                norm: Some(c.norm),
                norm_eps: Some(c.norm_eps),
                ..Self::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<BackboneConfig, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_resnet_is_written_as_ever_and_both_come_back() {
        let resnet = BackboneConfig::default();
        let text = serde_json::to_string(&resnet).unwrap();
        assert_eq!(text, serde_json::to_string(&ResNetConfig::default()).unwrap());
        assert_eq!(read(&text).unwrap(), resnet);
        assert_eq!(read(r#"{"arch": "resnet"}"#).unwrap(), resnet);
        let mobile = MobileNetV2Config { width: 0.75, norm: NormKind::BatchNorm, norm_eps: 1e-3 }.into();
        let text = serde_json::to_string(&mobile).unwrap();
        assert!(text.contains(r#""arch":"mobilenet_v2""#), "{text}");
        assert_eq!(read(&text).unwrap(), mobile);
    }

    #[test]
    fn another_architectures_field_is_refused_by_name() {
        let message = read(r#"{"arch": "mobilenet_v2", "depth": 18}"#).unwrap_err().to_string();
        assert!(message.contains("`depth`"), "{message}");
        assert!(read(r#"{"arch": "mobilenet_v3"}"#).unwrap_err().to_string().contains("`mobilenet_v2`"));
        assert!(read(r#"{"deep": 18}"#).unwrap_err().to_string().contains("unknown field `deep`"));
    }

    // torchvision 0.29's `_make_divisible(v, 8)`.
    #[test]
    fn channels_are_rounded_as_torchvision_rounds_them() {
        let given = [1.0, 8.0, 11.9, 12.0, 16.8, 18.0, 20.0, 33.6, 44.8, 72.0, 1792.0];
        assert_eq!(given.map(make_divisible), [8, 8, 16, 16, 16, 24, 24, 32, 48, 72, 1792]);
        let channels = |width| MobileNetV2Config { width, ..Default::default() }.channels();
        assert_eq!(channels(1.0), [24, 32, 96, 320]);
        assert_eq!(channels(1.4), [32, 48, 136, 448]);
        assert_eq!(channels(0.25), [8, 8, 24, 80]);
    }

    #[test]
    fn freezing_counts_the_stem_first_and_then_the_stages() {
        let resnet = BackboneConfig::default();
        assert!(resnet.frozen_prefixes(0).is_empty());
        assert_eq!(resnet.frozen_prefixes(1), ["conv1.", "bn1."]);
        assert_eq!(resnet.frozen_prefixes(3)[2..], ["layer1.", "layer2."]);
        let mobile = BackboneConfig::MobileNetV2(MobileNetV2Config::default());
        assert_eq!(mobile.frozen_prefixes(1), ["0."]);
        assert_eq!(mobile.frozen_prefixes(3), ["0.", "1.", "2.", "3.", "4.", "5.", "6."]);
        assert_eq!(mobile.frozen_prefixes(FREEZABLE).len(), 18);
    }

    #[test]
    fn values_that_cannot_be_are_named() {
        let message = |c: MobileNetV2Config| c.validate().unwrap_err().to_string();
        assert!(message(MobileNetV2Config { width: 0.0, ..Default::default() }).contains("backbone.width"));
        assert!(message(MobileNetV2Config { norm_eps: -1.0, ..Default::default() }).contains("norm_eps"));
        let groups = NormKind::GroupNorm { groups: 3 };
        assert!(message(MobileNetV2Config { norm: groups, ..Default::default() }).contains("8 divide"));
    }
}
