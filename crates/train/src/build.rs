//! Building a recipe's detector: architecture, first weights, what stays frozen.

use candle_core::Device;
use docent_detect::{FasterRcnn, FasterRcnnConfig, NormKind, Normalize, StridePlace};

use crate::manifest::FileHash;
use crate::params::ParamStore;
use crate::recipe::{InitRecipe, ModelRecipe};
use crate::weights::{BACKBONE_PREFIX, backbone_tensors, read_safetensors};
use crate::{Error, Result};

/// A detector and the store of its tensors.
pub struct Built {
    /// The detector.
    pub model: FasterRcnn,
    /// Its parameters and buffers.
    pub store: ParamStore,
    /// The file of first weights, where there was one.
    pub init: Option<FileHash>,
    /// What a log should say of that file.
    pub notes: Vec<String>,
}

/// Builds `recipe`'s detector for `classes` (background included) with first weights from its file or from `seed`.
///
/// A file's metadata (mean, std, eps, stride place) replaces the recipe's values: they belong to the weights.
///
/// # Errors
/// When the file does not hold exactly the backbone's tensors, or when something would be frozen that holds random numbers.
pub fn build(recipe: &ModelRecipe, classes: usize, seed: u64) -> Result<Built> {
    if recipe.init.backbone.is_none() {
        refuse_frozen_random(&recipe.init, &recipe.model)?;
    }
    build_for_timing(recipe, classes, seed)
}

/// [`build`] for a model that will not learn anything: where its file of first weights is missing, random ones stand in, frozen
/// or not.
///
/// # Errors
/// When a file that is given does not hold exactly the backbone's tensors.
pub(crate) fn build_for_timing(recipe: &ModelRecipe, classes: usize, seed: u64) -> Result<Built> {
    let mut config = with_classes(&recipe.model, classes)?;
    let init = &recipe.init;
    let store = ParamStore::new(seed, &Device::Cpu).with_frozen({
        // Besides what the recipe freezes: every tensor of a frozen BatchNorm, its affine too, as in torchvision.
        let (prefixes, config) = (frozen_prefixes(init.freeze_at), config.clone());
        move |name| config.is_buffer(name) || prefixes.iter().any(|p| name.starts_with(p.as_str()))
    });
    let Some(path) = &init.backbone else {
        let model = FasterRcnn::new(&config, store.var_builder())?;
        let stand_in = "first weights: none given, so random ones stand in for the file";
        let notes = if init.required { vec![stand_in.to_owned()] } else { Vec::new() };
        return Ok(Built { model, store, init: None, notes });
    };
    let file = read_safetensors(path)?;
    adopt_metadata(&mut config, &file.backbone_info(path)?);
    let tensors = backbone_tensors(file.tensors);
    // Everything that does not fit is listed before anything is built.
    let probe = ParamStore::probe(&Device::Cpu);
    FasterRcnn::new(&config, probe.var_builder())?;
    probe
        .check(&tensors)
        .tolerating(|name| !name.starts_with(BACKBONE_PREFIX) || name.ends_with("num_batches_tracked"))
        .into_result(format!("backbone weights {}", path.display()))?;
    store.load(tensors);
    let model = FasterRcnn::new(&config, store.var_builder())?;
    let mut notes = vec![format!("first weights: {}", path.display())];
    if !file.saturated.is_empty() {
        notes.push(format!(
            "first weights: infinite variances in {} (such a channel is constant)",
            file.saturated.join(", ")
        ));
    }
    let init = FileHash { path: path.display().to_string(), sha256: file.sha256 };
    Ok(Built { model, store, init: Some(init), notes })
}

/// The recipe's architecture for this data's number of classes.
fn with_classes(config: &FasterRcnnConfig, classes: usize) -> Result<FasterRcnnConfig> {
    let mut config = config.clone();
    if config.classes != 0 && config.classes != classes {
        return Err(Error::Recipe(format!(
            "model.classes is {}, but the data has {} categories, {classes} with the background; leave the field out",
            config.classes,
            classes - 1
        )));
    }
    config.classes = classes;
    config.validate()?;
    Ok(config)
}

/// Names below which everything is frozen: `at` = 1 the stem, 2 the stem and layer1, and so on.
fn frozen_prefixes(at: usize) -> Vec<String> {
    let stem = ["conv1.".to_owned(), "bn1.".to_owned()];
    let stages = (1..at).map(|n| format!("layer{n}."));
    stem.into_iter().filter(|_| at > 0).chain(stages).map(|part| format!("{BACKBONE_PREFIX}{part}")).collect()
}

fn refuse_frozen_random(init: &InitRecipe, config: &FasterRcnnConfig) -> Result<()> {
    let frozen_norm = config.backbone.norm() == NormKind::FrozenBatchNorm;
    if init.required || init.freeze_at > 0 || frozen_norm {
        return Err(Error::Recipe(
            "this model starts from pre-trained weights, and a frozen layer over random ones would never learn: name \
             their file in init.backbone (the teacher's: --weights FILE)"
                .to_owned(),
        ));
    }
    Ok(())
}

fn adopt_metadata(config: &mut FasterRcnnConfig, info: &crate::weights::BackboneInfo) {
    if let (Some(mean), Some(std)) = (info.mean, info.std) {
        config.normalize = Normalize { mean, std };
    }
    if let Some(eps) = info.eps {
        config.backbone.set_norm_eps(eps);
    }
    if let Some(first) = info.stride_in_1x1 {
        config.backbone.set_stride_place(if first { StridePlace::In1x1 } else { StridePlace::In3x3 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freezing_counts_the_stem_first() {
        assert!(frozen_prefixes(0).is_empty());
        assert_eq!(frozen_prefixes(1), ["backbone.body.conv1.", "backbone.body.bn1."]);
        assert_eq!(frozen_prefixes(3)[2..], ["backbone.body.layer1.", "backbone.body.layer2."]);
    }

    #[test]
    fn nothing_random_is_frozen() {
        let mut recipe = ModelRecipe { model: FasterRcnnConfig::default(), init: InitRecipe::default() };
        recipe.model.classes = 0;
        assert_eq!(recipe.model.backbone.norm(), NormKind::FrozenBatchNorm);
        let Err(error) = build(&recipe, 3, 0) else { panic!("frozen random statistics were accepted") };
        assert!(error.to_string().contains("--weights"), "{error}");
    }
}
