//! Another program's weights, or a checkpoint, made a checkpoint or a backbone file of ours.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use docent_coco::{Category, Resize};
use docent_detect::backbone::BackboneConfig;
use docent_detect::{Detector, FasterRcnn, FasterRcnnConfig, Normalize, setters};
use docent_tensor::with_f32;
use serde_json::Value;

use super::backbone::{BackboneInfo, backbone_metadata, backbone_tensors, check_backbone, inside_backbone};
use super::coco;
use super::content::{Content, DetectorFile};
use crate::checkpoint::{CheckpointMeta, save_checkpoint};
use crate::error::{Error, Result};
use crate::hint::with_hint;
use crate::params::ParamStore;
use crate::weights::WeightFile;

/// What a file is converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// A checkpoint: for predict, eval, `init.from` and as a teacher.
    Detector,
    /// A backbone's file: for `init.backbone`.
    Backbone,
}

/// How a file is converted.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// Default: a detector's file stays one, a classifier's becomes a backbone's.
    pub to: Option<Target>,
    /// Settings that shapes do not tell, as `key=value` over the detector's config (`backbone.norm_eps=0`,
    /// `anchors.sizes=[16,32,64,128,256]`).
    pub set: Vec<String>,
    /// Categories of the classes 1, 2, ..; default those of a checkpoint, COCO's for 91 classes, else numbers.
    pub categories: Option<Vec<Category>>,
    /// Leave out the classes that stand for COCO's unused ids, as a data set has none of them.
    pub drop_unused: bool,
    /// Weights of two and more dimensions as f16: half the size. Norms and biases, whose range f16 does not hold, stay f32.
    pub f16: bool,
}

setters!(ConvertOptions {
    to: impl Into<Option<Target>>,
    set: Vec<String>,
    categories: impl Into<Option<Vec<Category>>>,
    drop_unused: bool,
    f16: bool,
});

/// A converted file before it is written.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Converted {
    /// What it became.
    pub target: Target,
    /// Its tensors.
    pub tensors: BTreeMap<String, Tensor>,
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
    /// What a person should know of it.
    pub notes: Vec<String>,
}

impl Converted {
    /// Writes it, whole or not at all, and returns its SHA-256.
    ///
    /// # Errors
    /// The system's.
    pub fn save(&self, path: &Path) -> Result<String> {
        save_checkpoint(path, &self.tensors, &self.metadata)
    }
}

/// Converts `file`, read from `path`.
///
/// # Errors
/// A file whose content is not recognised, or whose tensors are not exactly those of its architecture (all are listed); settings
/// or categories that do not fit.
pub fn convert(path: &Path, file: WeightFile, options: &ConvertOptions) -> Result<Converted> {
    let content = Content::of(path, &file)?;
    let is_backbone = matches!(content, Content::Backbone { .. });
    let target = options.to.unwrap_or(if is_backbone { Target::Backbone } else { Target::Detector });
    let mut source = BTreeMap::from([("source_sha256".to_owned(), file.sha256.clone())]);
    if let Some(name) = path.file_name() {
        source.insert("source".to_owned(), name.to_string_lossy().into_owned());
    }
    let saturated = file.saturated.clone();
    let mut converted = match content {
        Content::Backbone { config, info, classifier } if target == Target::Backbone => {
            backbone(path, file, config, &info, classifier, options)?
        }
        // For a file that is no detector either, this says what it is.
        _ => detector(path, file, target, options)?,
    };
    if !saturated.is_empty() {
        converted.notes.push(format!("infinite variances in {} (such a channel is constant)", saturated.join(", ")));
    }
    for (key, value) in source {
        converted.metadata.entry(key).or_insert(value);
    }
    if options.f16 {
        halve(path, &mut converted.tensors)?;
    }
    Ok(converted)
}

fn detector(path: &Path, file: WeightFile, target: Target, options: &ConvertOptions) -> Result<Converted> {
    let DetectorFile { config, mut tensors, meta, mut notes } = DetectorFile::new(path, file)?;
    let config = with_settings(path, config.faster_rcnn()?, &options.set)?;
    let probe = ParamStore::probe(&Device::Cpu);
    let model = FasterRcnn::new(&config, probe.var_builder()).map_err(|e| Error::file(path, e.to_string()))?;
    let (counts, wanted) = (model.layers().batch_counts(), probe.shapes());
    tensors.retain(|name, _| wanted.contains_key(name) || !counts.contains(name));
    probe.check(&tensors).into_result(path.display().to_string())?;
    if target == Target::Backbone {
        let tensors = inside_backbone(tensors);
        let metadata = backbone_metadata(path, &config.backbone, &config.normalize)?;
        return Ok(Converted { target, tensors, metadata, notes });
    }
    let known = options.categories.clone().or_else(|| meta.as_ref().map(|m| m.categories.clone()));
    let mut categories = match known {
        Some(categories) => categories,
        None if config.classes == coco::CLASSES => {
            notes.push("91 classes: COCO's, a class is its category's id".to_owned());
            coco::categories()
        }
        None => {
            notes.push(
                "the file names no categories, so they are numbered: --categories ANNOTATIONS.json names them"
                    .to_owned(),
            );
            (1..config.classes as u64).map(|id| Category { id, name: format!("class {id}") }).collect()
        }
    };
    if categories.len() + 1 != config.classes {
        let what = format!("{} categories for {} classes (the background is one)", categories.len(), config.classes);
        return Err(Error::file(path, what));
    }
    let mut config = config;
    if options.drop_unused {
        let kept: Vec<usize> = (0..categories.len()).filter(|&i| !coco::is_unused(&categories[i])).collect();
        notes.push(format!(
            "{} classes without a category left out; the others' scores grow by what these would have had",
            categories.len() - kept.len()
        ));
        keep_classes(&mut tensors, &kept)?;
        categories = kept.iter().map(|&i| categories[i].clone()).collect();
        config.classes = categories.len() + 1;
    } else if categories.iter().any(coco::is_unused) {
        notes.push(
            "COCO's ten unused ids are classes too, as in PyTorch; as a teacher on COCO's data it needs --drop-unused"
                .to_owned(),
        );
    }
    let (resize, recipe, step) = match &meta {
        Some(meta) => (meta.resizing(path)?, meta.recipe.as_str(), meta.step),
        None => (Resize::default(), "converted", 0),
    };
    let meta = CheckpointMeta::new(&config.into(), &categories, &resize, recipe, step)?;
    Ok(Converted { target, tensors, metadata: meta.to_map()?, notes })
}

fn backbone(
    path: &Path,
    file: WeightFile,
    config: BackboneConfig,
    info: &BackboneInfo,
    classifier: Vec<String>,
    options: &ConvertOptions,
) -> Result<Converted> {
    let mut notes = file.notes;
    if !classifier.is_empty() {
        notes.push(format!("left out: {}", classifier.join(", ")));
    }
    let normalize = match (info.mean, info.std) {
        (Some(mean), Some(std)) => Normalize { mean, std },
        _ => {
            notes.push(
                "it names no mean and deviation: torchvision's of ImageNet, and its stride in the 3x3".to_owned(),
            );
            Normalize::imagenet()
        }
    };
    let whole = FasterRcnnConfig::default().backbone(config).normalize(normalize);
    let whole = with_settings(path, &whole, &options.set)?;
    let tensors = backbone_tensors(file.tensors);
    let probe = ParamStore::probe(&Device::Cpu);
    let model = FasterRcnn::new(&whole, probe.var_builder()).map_err(|e| Error::file(path, e.to_string()))?;
    check_backbone(path, &probe, model.layers(), &tensors)?;
    let tensors = inside_backbone(tensors);
    let metadata = backbone_metadata(path, &whole.backbone, &whole.normalize)?;
    Ok(Converted { target: Target::Backbone, tensors, metadata, notes })
}

/// `config` with `key=value` settings; a value is read as JSON, and as a string where that fails.
fn with_settings(path: &Path, config: &FasterRcnnConfig, settings: &[String]) -> Result<FasterRcnnConfig> {
    let mut table = serde_json::to_value(config).map_err(|e| Error::json(path, e))?;
    for setting in settings {
        let bad = |why: &str| Error::config("--set", format!("{setting}: {why}"));
        let (key, value) = setting.split_once('=').ok_or_else(|| bad("write it as key.subkey=value"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        let (mut at, mut keys) = (&mut table, key.trim().split('.').peekable());
        while let Some(key) = keys.next() {
            let fields = at.as_object_mut().ok_or_else(|| bad("a value, not a table, stands before the last key"))?;
            if keys.peek().is_none() {
                fields.insert(key.to_owned(), value);
                break;
            }
            at = fields.entry(key).or_insert_with(|| Value::Object(serde_json::Map::new()));
        }
    }
    let config: FasterRcnnConfig =
        serde_json::from_value(table).map_err(|e| Error::config("--set", with_hint(&e.to_string())))?;
    config.validate()?;
    Ok(config)
}

/// Keeps the background and the classes `kept` (0 is the first after the background) of the predictors' rows.
fn keep_classes(tensors: &mut BTreeMap<String, Tensor>, kept: &[usize]) -> Result<()> {
    let classes: Vec<u32> = std::iter::once(0).chain(kept.iter().map(|&k| k as u32 + 1)).collect();
    let boxes: Vec<u32> = classes.iter().flat_map(|c| 4 * c..4 * c + 4).collect();
    for (layer, rows) in [("cls_score", &classes), ("bbox_pred", &boxes)] {
        for leaf in ["weight", "bias"] {
            if let Some(tensor) = tensors.get_mut(&format!("roi_heads.box_predictor.{layer}.{leaf}")) {
                let rows = Tensor::new(rows.as_slice(), &Device::Cpu)?;
                *tensor = tensor.index_select(&rows, 0)?;
            }
        }
    }
    Ok(())
}

/// Turns weights of two and more dimensions into f16.
fn halve(path: &Path, tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
    for (name, tensor) in tensors.iter_mut().filter(|(_, t)| t.rank() >= 2) {
        let half = tensor.to_dtype(DType::F16)?;
        if !with_f32(&half.to_dtype(DType::F32)?, |v| v.iter().all(|v| v.is_finite()))? {
            return Err(Error::file(path, format!("tensor `{name}` has values beyond f16's 65,504: leave --f16 out")));
        }
        *tensor = half;
    }
    Ok(())
}
