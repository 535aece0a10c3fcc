//! Building a recipe's detector: architecture, first weights, what stays frozen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{Device, Tensor};
use docent_detect::{BackboneConfig, FasterRcnn, FasterRcnnConfig, NormKind, Normalize};

use crate::import::{DetectorFile, check_backbone};
use crate::manifest::FileHash;
use crate::optim::matches;
use crate::params::ParamStore;
use crate::recipe::{InitRecipe, ModelRecipe};
use crate::weights::{BACKBONE_PREFIX, StrictReport, WeightFile, backbone_tensors, read_weights};
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
/// What belongs to a file's weights (mean, std, eps, stride place) replaces the recipe's values.
///
/// # Errors
/// When the file does not hold exactly the backbone's or the detector's tensors, apart from what `init.skip` names, or when
/// something would be frozen that holds random numbers.
pub fn build(recipe: &ModelRecipe, classes: usize, seed: u64) -> Result<Built> {
    if recipe.init.backbone.is_none() && recipe.init.from.is_none() {
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
        let (prefixes, config) = (config.backbone.frozen_prefixes(init.freeze_at), config.clone());
        move |name| {
            let below = name.strip_prefix(BACKBONE_PREFIX);
            config.is_buffer(name) || below.is_some_and(|n| prefixes.iter().any(|p| n.starts_with(p.as_str())))
        }
    });
    let Some(path) = init.backbone.as_ref().or(init.from.as_ref()) else {
        let model = FasterRcnn::new(&config, store.var_builder())?;
        let stand_in = "first weights: none given, so random ones stand in for the file";
        let notes = if init.required { vec![stand_in.to_owned()] } else { Vec::new() };
        return Ok(Built { model, store, init: None, notes });
    };
    let file = read_weights(path)?;
    let (sha256, saturated) = (file.sha256.clone(), file.saturated.clone());
    let mut notes = vec![format!("first weights: {}", path.display())];
    let tensors = if init.backbone.is_some() {
        let info = file.backbone_info(path)?;
        if let (Some(mean), Some(std)) = (info.mean, info.std) {
            config.normalize = Normalize { mean, std };
        }
        info.adopt(&mut config.backbone);
        notes.extend(file.notes.iter().map(|note| format!("first weights: {note}")));
        let tensors = backbone_tensors(file.tensors);
        // Everything that does not fit is listed before anything is built.
        check_backbone(path, &config, &tensors)?;
        tensors
    } else {
        from_detector(path, file, &init.skip, &mut config, &mut notes)?
    };
    store.load(tensors);
    let model = FasterRcnn::new(&config, store.var_builder())?;
    if let [first, ..] = store.frozen_but_drawn().as_slice() {
        return Err(Error::Recipe(format!(
            "`{first}` is frozen, but not in {}, or skipped: a frozen layer over random numbers would never learn",
            path.display()
        )));
    }
    if !saturated.is_empty() {
        notes.push(format!(
            "first weights: infinite variances in {} (such a channel is constant)",
            saturated.join(", ")
        ));
    }
    let init = FileHash { path: path.display().to_string(), sha256 };
    Ok(Built { model, store, init: Some(init), notes })
}

/// The tensors of a whole detector's file that `skip` leaves in, checked against `config`, which adopts what belongs to them.
fn from_detector(
    path: &Path,
    file: WeightFile,
    skip: &[String],
    config: &mut FasterRcnnConfig,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, Tensor>> {
    let source = DetectorFile::new(path, file)?;
    config.normalize = source.config.normalize;
    config.backbone.set_norm_eps(source.config.backbone.norm_eps());
    if let BackboneConfig::ResNet(c) = &source.config.backbone {
        config.backbone.set_stride_place(c.stride_place);
    }
    notes.extend(source.notes.into_iter().map(|note| format!("first weights: {note}")));
    let probe = ParamStore::probe(&Device::Cpu);
    FasterRcnn::new(config, probe.var_builder())?;
    let wanted = probe.shapes();
    for pattern in skip {
        if !wanted.keys().chain(source.tensors.keys()).any(|name| matches(pattern, name)) {
            return Err(Error::Recipe(format!("init.skip: no tensor's name fits `{pattern}`")));
        }
    }
    let skipped = |name: &str| skip.iter().any(|pattern| matches(pattern, name));
    let mut tensors = source.tensors;
    let before = tensors.len();
    tensors.retain(|name, _| !skipped(name));
    if tensors.len() < before {
        notes.push(format!(
            "first weights: {} tensors skipped, which start at their own first values",
            before - tensors.len()
        ));
    }
    let report =
        StrictReport::compare(&wanted, &tensors).tolerating(|n| skipped(n) || n.ends_with("num_batches_tracked"));
    if report.is_empty() {
        return Ok(tensors);
    }
    let names = report.missing.iter().chain(&report.unexpected).chain(report.wrong_shape.iter().map(|w| &w.0));
    let layers: BTreeSet<String> =
        names.map(|n| format!("\"{}.*\"", n.rsplit_once('.').map_or(n.as_str(), |(layer, _)| layer))).collect();
    let layers: Vec<String> = layers.into_iter().take(8).collect();
    Err(Error::Recipe(format!(
        "init.from {} does not fit the model:\n{report}\n  what shall start anew is named so: init.skip = [{}]",
        path.display(),
        layers.join(", ")
    )))
}

/// The recipe's architecture for this data's number of classes.
pub(crate) fn with_classes(config: &FasterRcnnConfig, classes: usize) -> Result<FasterRcnnConfig> {
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

fn refuse_frozen_random(init: &InitRecipe, config: &FasterRcnnConfig) -> Result<()> {
    let frozen_norm = config.backbone.norm() == NormKind::FrozenBatchNorm;
    if init.required || init.freeze_at > 0 || frozen_norm {
        return Err(Error::Recipe(
            "this model starts from pre-trained weights, and a frozen layer over random ones would never learn: name \
             their file in init.backbone (the teacher's: --weights FILE) or init.from"
                .to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_random_is_frozen() {
        let mut recipe = ModelRecipe { model: FasterRcnnConfig::default(), init: InitRecipe::default() };
        recipe.model.classes = 0;
        assert_eq!(recipe.model.backbone.norm(), NormKind::FrozenBatchNorm);
        let Err(error) = build(&recipe, 3, 0) else { panic!("frozen random statistics were accepted") };
        assert!(error.to_string().contains("--weights"), "{error}");
    }
}
