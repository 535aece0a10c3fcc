//! Building a recipe's detector: architecture, first weights, what stays frozen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use docent_detect::backbone::BackboneConfig;
use docent_detect::layers::{LayerKind, LayerList};
use docent_detect::{Detector, DetectorConfig, Normalize, Registry};
use docent_model::import::{DetectorFile, backbone_tensors, check_backbone};
use docent_model::{ParamStore, StrictReport, WeightFile, read_weights};
use docent_train::name_matches;

use crate::error::{Error, Result};
use crate::manifest::FileHash;
use crate::recipe::{InitRecipe, ModelRecipe};

/// A detector and the store of its tensors.
pub struct Built {
    /// The detector.
    pub model: Arc<dyn Detector>,
    /// Its parameters and buffers.
    pub store: ParamStore,
    /// The file of first weights, where there was one.
    pub init: Option<FileHash>,
    /// What a log should say of that file.
    pub notes: Vec<String>,
}

/// Builds `recipe`'s detector for `classes` (background included) with first weights from its file or from `seed`.
///
/// What belongs to a file's weights (mean, std, eps, the stride's place) replaces the recipe's values.
///
/// # Errors
/// When `registry` does not hold the architecture, when the file does not hold exactly the backbone's or the detector's tensors, apart
/// from what `init.skip` names, or when something would be frozen that holds random numbers.
pub fn build(recipe: &ModelRecipe, classes: usize, seed: u64, registry: &Registry) -> Result<Built> {
    if recipe.init.backbone.is_none() && recipe.init.from.is_none() {
        let (model, _) = without_weights(&with_classes(&recipe.model, classes)?, registry)?;
        refuse_frozen_random(&recipe.init, model.layers())?;
    }
    build_for_timing(recipe, classes, seed, registry)
}

/// [`build`] for a model that will not learn anything: where its file of first weights is missing, random ones stand in, frozen
/// or not.
///
/// # Errors
/// When a file that is given does not hold exactly the backbone's tensors.
pub(crate) fn build_for_timing(recipe: &ModelRecipe, classes: usize, seed: u64, registry: &Registry) -> Result<Built> {
    let mut config = with_classes(&recipe.model, classes)?;
    let init = &recipe.init;
    let (model, wanted) = without_weights(&config, registry)?;
    let store = ParamStore::new(seed, &Device::Cpu).with_layers(model.layers(), init.freeze_at);
    let Some(path) = init.backbone.as_ref().or(init.from.as_ref()) else {
        let model = registry.detector(&config, store.var_builder())?;
        let stand_in = "first weights: none given, so random ones stand in for the file";
        let notes = if init.required { vec![stand_in.to_owned()] } else { Vec::new() };
        return Ok(Built { model, store, init: None, notes });
    };
    let file = read_weights(path)?;
    let (sha256, saturated) = (file.sha256.clone(), file.saturated.clone());
    let mut notes = vec![format!("first weights: {}", path.display())];
    let tensors = if init.backbone.is_some() {
        adopt_backbone_info(path, &file, &mut config)?;
        notes.extend(file.notes.iter().map(|note| format!("first weights: {note}")));
        let tensors = backbone_tensors(file.tensors);
        // Everything that does not fit is listed before anything is built.
        check_backbone(path, &wanted, model.layers(), &tensors)?;
        tensors
    } else {
        let source = DetectorFile::new(path, file)?;
        adopt_detector_settings(&source.config, &mut config);
        notes.extend(source.notes.iter().map(|note| format!("first weights: {note}")));
        skip_tensors(path, source.tensors, &init.skip, (&wanted, model.layers()), &mut notes)?
    };
    store.load(tensors);
    let model = registry.detector(&config, store.var_builder())?;
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

/// The detector with zeros in place of weights, and the store that has noted its tensors.
pub(crate) fn without_weights(config: &DetectorConfig, registry: &Registry) -> Result<(Arc<dyn Detector>, ParamStore)> {
    let store = ParamStore::probe(&Device::Cpu);
    Ok((registry.detector(config, store.var_builder())?, store))
}

/// What the metadata of a backbone's file says of its weights, where the architecture has a place for it.
fn adopt_backbone_info(path: &Path, file: &WeightFile, config: &mut DetectorConfig) -> Result<()> {
    let info = file.backbone_info(path)?;
    let Ok(config) = config.faster_rcnn_mut() else { return Ok(()) };
    if let (Some(mean), Some(std)) = (info.mean, info.std) {
        config.normalize = Normalize { mean, std };
    }
    info.adopt(&mut config.backbone);
    Ok(())
}

/// What belongs to a detector's weights, of the file's settings.
fn adopt_detector_settings(source: &DetectorConfig, config: &mut DetectorConfig) {
    let (Ok(source), Ok(config)) = (source.faster_rcnn(), config.faster_rcnn_mut()) else { return };
    config.normalize = source.normalize;
    if let Some(eps) = source.backbone.norm_eps() {
        config.backbone.set_norm_eps(eps);
    }
    if let BackboneConfig::ResNet(c) = &source.backbone {
        config.backbone.set_stride_in_1x1(c.stride_in_1x1);
    }
}

/// The tensors of a whole detector's file that `skip` leaves in, checked against those that the model has.
fn skip_tensors(
    path: &Path,
    mut tensors: BTreeMap<String, Tensor>,
    skip: &[String],
    (wanted, layers): (&ParamStore, &LayerList),
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, Tensor>> {
    let (wanted, counts) = (wanted.shapes(), layers.batch_counts());
    for pattern in skip {
        if !wanted.keys().chain(tensors.keys()).any(|name| name_matches(pattern, name)) {
            return Err(Error::Recipe(format!("init.skip: no tensor's name fits `{pattern}`")));
        }
    }
    let skipped = |name: &str| skip.iter().any(|pattern| name_matches(pattern, name));
    let before = tensors.len();
    tensors.retain(|name, _| !skipped(name));
    if tensors.len() < before {
        notes.push(format!(
            "first weights: {} tensors skipped, which start at their own first values",
            before - tensors.len()
        ));
    }
    let report = StrictReport::compare(&wanted, &tensors).tolerating(|n| skipped(n) || counts.contains(n));
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
pub(crate) fn with_classes(config: &DetectorConfig, classes: usize) -> Result<DetectorConfig> {
    let mut config = config.clone();
    if config.classes() != 0 && config.classes() != classes {
        return Err(Error::Recipe(format!(
            "model.classes is {}, but the data has {} categories, {classes} with the background; leave the field out",
            config.classes(),
            classes - 1
        )));
    }
    config.set_classes(classes);
    Ok(config)
}

fn refuse_frozen_random(init: &InitRecipe, layers: &LayerList) -> Result<()> {
    let frozen_norm = layers.iter().any(|layer| matches!(layer.kind, LayerKind::BatchNorm { frozen: true, .. }));
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
    use docent_detect::FasterRcnnConfig;
    use docent_detect::layers::NormKind;

    use super::*;

    #[test]
    fn nothing_random_is_frozen() {
        let config = FasterRcnnConfig::default().classes(0);
        assert_eq!(config.backbone.norm(), Some(NormKind::FrozenBatchNorm));
        let recipe = ModelRecipe { model: config.into(), init: InitRecipe::default() };
        let Err(error) = build(&recipe, 3, 0, &Registry::builtin()) else { panic!("frozen random statistics") };
        assert!(error.to_string().contains("--weights"), "{error}");
    }
}
