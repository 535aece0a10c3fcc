//! A backbone's weights: their names, and how they want to be used.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use docent_detect::Normalize;
use docent_detect::backbone::BackboneConfig;
use docent_detect::layers::LayerList;

use super::foreign;
use super::names::{BACKBONE_PREFIX, names_of};
use crate::error::{Error, Result};
use crate::params::ParamStore;

/// How a backbone's weights want to be used, from its file's metadata. What the file does not say is `None`.
///
/// The two common forms of ImageNet weights differ in all of it, and the wrong choice runs without an error: torchvision's has
/// deviations of about 0.229 and its stride in the 3x3; the MSRA form has 1/255 and its stride in the first 1x1.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct BackboneInfo {
    /// Mean of R, G, B for pixels in 0..1.
    pub mean: Option<[f32; 3]>,
    /// Deviation of R, G, B for pixels in 0..1.
    pub std: Option<[f32; 3]>,
    /// BatchNorm's epsilon.
    pub eps: Option<f64>,
    /// Does a bottleneck block stride in its first 1x1 convolution?
    pub stride_in_1x1: Option<bool>,
    /// Where the weights come from.
    pub source: Option<String>,
}

impl BackboneInfo {
    /// Reads `mean`, `std`, `bn_eps`, `stride_in_1x1`, `source`, and checks `channels` (RGB) and `scale` (0..1) where they stand.
    ///
    /// # Errors
    /// A value that does not parse or cannot be right (a deviation of 0); channels other than RGB, a scale other than 0..1.
    pub fn from_metadata(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Self> {
        let bad = |key: &str, want: &str| {
            let value = metadata.get(key).map_or("", String::as_str);
            Error::file(path, format!("metadata `{key}` = `{value}`: {want}"))
        };
        for (key, want) in [("channels", "RGB"), ("scale", "0..1")] {
            if metadata.get(key).is_some_and(|v| v != want) {
                return Err(bad(key, &format!("only {want} is read; convert the first convolution")));
            }
        }
        let triple = |key: &str| -> Result<Option<[f32; 3]>> {
            let Some(text) = metadata.get(key) else { return Ok(None) };
            let values: [f32; 3] =
                serde_json::from_str(text).map_err(|_| bad(key, "three numbers are needed, as [r, g, b]"))?;
            if values.iter().all(|v| v.is_finite()) { Ok(Some(values)) } else { Err(bad(key, "not finite")) }
        };
        let std = triple("std")?;
        if std.is_some_and(|s| s.iter().any(|v| *v <= 0.0)) {
            return Err(bad("std", "must be above 0"));
        }
        let mean = triple("mean")?;
        for (key, there, other) in [("mean", mean.is_some(), std.is_some()), ("std", std.is_some(), mean.is_some())] {
            if there && !other {
                return Err(bad(key, "`mean` and `std` stand for each other; give both or none"));
            }
        }
        let eps = match metadata.get("bn_eps") {
            None => None,
            Some(text) => match text.trim().parse::<f64>() {
                Ok(eps) if eps.is_finite() && eps >= 0.0 => Some(eps),
                _ => return Err(bad("bn_eps", "a number of at least 0 is needed")),
            },
        };
        let stride_in_1x1 = match metadata.get("stride_in_1x1").map(String::as_str) {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => return Err(bad("stride_in_1x1", "true or false is needed")),
        };
        Ok(Self { mean, std, eps, stride_in_1x1, source: metadata.get("source").cloned() })
    }

    /// Gives a backbone's config the epsilon and the stride's place that the weights want.
    pub fn adopt(&self, config: &mut BackboneConfig) {
        if let Some(eps) = self.eps {
            config.set_norm_eps(eps);
        }
        if let Some(first) = self.stride_in_1x1 {
            config.set_stride_in_1x1(first);
        }
    }
}

/// The metadata that [`BackboneInfo`] reads.
pub(super) fn backbone_metadata(
    path: &Path,
    config: &BackboneConfig,
    normalize: &Normalize,
) -> Result<BTreeMap<String, String>> {
    let json = |v: &[f32; 3]| serde_json::to_string(v).map_err(|e| Error::json(path, e));
    let mut map = BTreeMap::from([
        ("mean".to_owned(), json(&normalize.mean)?),
        ("std".to_owned(), json(&normalize.std)?),
        ("bn_eps".to_owned(), config.norm_eps().unwrap_or_default().to_string()),
        ("channels".to_owned(), "RGB".to_owned()),
        ("scale".to_owned(), "0..1".to_owned()),
    ]);
    if let BackboneConfig::ResNet(c) = config {
        map.insert("stride_in_1x1".to_owned(), c.stride_in_1x1.to_string());
    }
    Ok(map)
}

/// Beginnings of the names that a classification network has and a detector's backbone has not: the classifier, and
/// MobileNetV2's last 1x1 layer before it.
const CLASSIFIER: [&str; 3] = ["fc.", "classifier.", "features.18."];

/// Does this tensor of a classification network stay out of a detector's backbone?
pub(super) fn is_classifier(name: &str) -> bool {
    CLASSIFIER.iter().any(|c| name.starts_with(c))
}

/// The tensors of a classification network as a detector's backbone asks for them: without the classifier, and with `backbone.body.`
/// before every other name, in the place of MobileNetV2's `features.`.
pub fn backbone_tensors(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let inside = tensors.into_iter().filter(|(name, _)| !is_classifier(name));
    let renamed = inside.map(|(name, tensor)| {
        let short = name.strip_prefix("features.").unwrap_or(&name);
        (format!("{BACKBONE_PREFIX}{short}"), tensor)
    });
    renamed.collect()
}

/// The backbone's tensors, without its prefix.
pub(super) fn inside_backbone(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let inside = |(name, tensor): (String, Tensor)| Some((name.strip_prefix(BACKBONE_PREFIX)?.to_owned(), tensor));
    tensors.into_iter().filter_map(inside).collect()
}

/// Checks that `tensors`, read from `path`, are exactly those of a detector's backbone. `store` has noted the detector's tensors and
/// `layers` are its layers. A count of batches may lack or be too many: nothing reads it.
///
/// # Errors
/// Names of another program; tensors that lack, are too many or have another shape (all are listed).
pub fn check_backbone(
    path: &Path,
    store: &ParamStore,
    layers: &LayerList,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<()> {
    if let Some(foreign) = foreign::architecture(&names_of(tensors)) {
        return Err(Error::file(path, format!("its names are {foreign}")));
    }
    let counts = layers.batch_counts();
    store
        .check(tensors)
        .tolerating(|name| !name.starts_with(BACKBONE_PREFIX) || counts.contains(name))
        .into_result(format!("backbone weights {}", path.display()))
}
