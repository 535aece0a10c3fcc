//! Weights of other programs: what a file is of, and the same weights as a checkpoint or backbone file of ours.
//!
//! ```no_run
//! use std::path::Path;
//! use docent_model::import::{ConvertOptions, convert};
//! use docent_model::read_weights;
//!
//! let path = Path::new("fasterrcnn_resnet50_fpn_coco.pth");
//! let converted = convert(path, read_weights(path)?, &ConvertOptions::default())?;
//! converted.save(Path::new("coco.safetensors"))?;
//! # Ok::<(), docent_model::Error>(())
//! ```

mod coco;
mod deduce;
pub(crate) mod foreign;
pub(crate) mod names;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use docent_coco::{Category, Resize};
use docent_detect::backbone::BackboneConfig;
use docent_detect::layers::{LayerList, NormKind};
use docent_detect::{Detector, DetectorConfig, FasterRcnn, FasterRcnnConfig, Normalize};
use docent_tensor::with_f32;
use serde_json::Value;

use crate::checkpoint::{CheckpointMeta, save_checkpoint};
use crate::params::ParamStore;
use crate::error::{Error, Result};
use crate::hint::with_hint;
use crate::weights::{BackboneInfo, WeightFile, backbone_tensors, is_classifier};
use names::BACKBONE_PREFIX;

/// What the tensors of a file are of.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A checkpoint that this program wrote.
    Checkpoint(Box<CheckpointMeta>),
    /// torchvision's Faster R-CNN with a pyramid.
    Detector {
        /// What its shapes tell.
        config: Box<FasterRcnnConfig>,
        /// Names of older versions of torchvision: the form of the COCO_V1 files, whose frozen BatchNorm has an epsilon of 0.
        old_names: usize,
    },
    /// A classification network, or its backbone alone.
    Backbone {
        /// What its shapes tell, and its metadata.
        config: BackboneConfig,
        /// Mean and deviation, stride place and epsilon from its metadata.
        info: BackboneInfo,
        /// Names of its classifier.
        classifier: Vec<String>,
    },
    /// Neither; why.
    Unknown(String),
}

impl Content {
    /// Tells what `file` is of.
    ///
    /// # Errors
    /// Metadata of a checkpoint or a backbone that does not parse; two spellings of one name.
    pub fn of(path: &Path, file: &WeightFile) -> Result<Self> {
        // Other programs write a format too: `pt`.
        if file.metadata.get("format").is_some_and(|format| format.starts_with("docent")) {
            return Ok(Self::Checkpoint(Box::new(CheckpointMeta::from_map(path, &file.metadata)?)));
        }
        let (tensors, old_names) = up_to_date(path, file.tensors.clone())?;
        if let Some(foreign) = foreign::architecture(&names_of(&tensors)) {
            return Ok(Self::Unknown(format!("its names are {foreign}")));
        }
        if tensors.keys().any(|n| n.starts_with("roi_heads.") || n.starts_with("rpn.")) {
            return Ok(match deduce::detector(&tensors) {
                Ok(mut config) => {
                    if old_names > 0 && config.backbone.norm() == Some(NormKind::FrozenBatchNorm) {
                        config.backbone.set_norm_eps(0.0);
                    }
                    Self::Detector { config: Box::new(config), old_names }
                }
                Err(why) => Self::Unknown(why),
            });
        }
        let info = file.backbone_info(path)?;
        let classifier = file.tensors.keys().filter(|n| is_classifier(n)).cloned().collect();
        Ok(match deduce::backbone(&backbone_tensors(file.tensors.clone()), BACKBONE_PREFIX) {
            Ok(mut config) => {
                info.adopt(&mut config);
                Self::Backbone { config, info, classifier }
            }
            Err(why) => Self::Unknown(format!("{why}; names begin with {}", file.top_level_names().join(", "))),
        })
    }

    /// One line for a person.
    pub fn describe(&self) -> String {
        match self {
            Self::Checkpoint(meta) => {
                format!(
                    "docent checkpoint, recipe {}, step {}, {} categories",
                    meta.recipe,
                    meta.step,
                    meta.categories.len()
                )
            }
            Self::Detector { config, old_names } => {
                let (c, form) = (config, if *old_names > 0 { ", older names (COCO_V1's form)" } else { "" });
                format!(
                    "torchvision detector: Faster R-CNN, {} with {}, {} pyramid channels, {} classes{form}",
                    c.backbone,
                    c.backbone.norm().map_or_else(|| "another norm".to_owned(), norm_name),
                    c.fpn_channels,
                    c.classes
                )
            }
            Self::Backbone { config, info, classifier } => {
                let form = if info.stride_in_1x1 == Some(true) { "MSRA's form" } else { "torchvision's form" };
                let classifier = if classifier.is_empty() { "without" } else { "with" };
                format!("backbone: {config}, {form}, {classifier} classifier")
            }
            Self::Unknown(why) => format!("not recognised: {why}"),
        }
    }
}

fn names_of(tensors: &BTreeMap<String, Tensor>) -> Vec<&str> {
    tensors.keys().map(String::as_str).collect()
}

fn norm_name(norm: NormKind) -> String {
    match norm {
        NormKind::BatchNorm => "BatchNorm".to_owned(),
        NormKind::FrozenBatchNorm => "frozen BatchNorm".to_owned(),
        NormKind::GroupNorm { groups } => format!("GroupNorm of {groups}"),
    }
}

fn up_to_date(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<(BTreeMap<String, Tensor>, usize)> {
    names::up_to_date(tensors).map_err(|name| Error::file(path, format!("two tensors come to the name `{name}`")))
}

/// A detector from a file, whoever wrote it.
pub struct DetectorFile {
    /// Its architecture and settings.
    pub config: DetectorConfig,
    /// Its tensors under present names.
    pub tensors: BTreeMap<String, Tensor>,
    /// What a checkpoint of ours says of itself.
    pub meta: Option<CheckpointMeta>,
    /// What a person should know of it.
    pub notes: Vec<String>,
}

impl DetectorFile {
    /// Reads the detector in `file`.
    ///
    /// # Errors
    /// A file of something else; two tensors that come to one name.
    pub fn new(path: &Path, file: WeightFile) -> Result<Self> {
        match Content::of(path, &file)? {
            Content::Checkpoint(meta) => {
                let config = meta.detector(path)?;
                Ok(Self { config, tensors: file.tensors, meta: Some(*meta), notes: file.notes })
            }
            Content::Detector { config, old_names } => {
                let (tensors, _) = up_to_date(path, file.tensors)?;
                let mut notes = file.notes;
                if old_names > 0 {
                    notes.push(format!("{old_names} names of older versions of torchvision brought up to date"));
                }
                if config.backbone.norm() == Some(NormKind::FrozenBatchNorm) {
                    let eps = config.backbone.norm_eps().unwrap_or_default();
                    notes.push(if eps == 0.0 {
                        "BatchNorm's epsilon is 0, as files with these older names want it".to_owned()
                    } else {
                        format!(
                            "BatchNorm's epsilon is {eps}, torchvision's own; the COCO_V1 weights, saved again under present \
                             names, want 0: --set backbone.norm_eps=0"
                        )
                    });
                }
                Ok(Self { config: DetectorConfig::FasterRcnn(config), tensors, meta: None, notes })
            }
            unknown @ Content::Unknown(_) => Err(Error::file(path, unknown.describe())),
            other => Err(Error::file(path, format!("a detector is needed; {}", other.describe()))),
        }
    }
}

/// What a file is converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A checkpoint: for predict, eval, `init.from` and as a teacher.
    Detector,
    /// A backbone's file: for `init.backbone`.
    Backbone,
}

/// How a file is converted.
#[derive(Debug, Clone, Default)]
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

/// A converted file before it is written.
#[derive(Debug, Clone)]
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
    let meta = match meta {
        Some(meta) => CheckpointMeta::new(&DetectorConfig::from(config), &categories, &meta.resize, &meta.recipe, meta.step)?,
        None => CheckpointMeta::new(&DetectorConfig::from(config), &categories, &Resize::default(), "converted", 0)?,
    };
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
    let whole = FasterRcnnConfig { backbone: config, normalize, ..FasterRcnnConfig::default() };
    let whole = with_settings(path, &whole, &options.set)?;
    let tensors = backbone_tensors(file.tensors);
    let probe = ParamStore::probe(&Device::Cpu);
    let model = FasterRcnn::new(&whole, probe.var_builder()).map_err(|e| Error::file(path, e.to_string()))?;
    check_backbone(path, &probe, model.layers(), &tensors)?;
    let tensors = inside_backbone(tensors);
    let metadata = backbone_metadata(path, &whole.backbone, &whole.normalize)?;
    Ok(Converted { target: Target::Backbone, tensors, metadata, notes })
}

/// The backbone's tensors, without its prefix.
fn inside_backbone(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
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

/// The metadata that [`BackboneInfo`] reads.
fn backbone_metadata(path: &Path, config: &BackboneConfig, normalize: &Normalize) -> Result<BTreeMap<String, String>> {
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

impl BackboneInfo {
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
