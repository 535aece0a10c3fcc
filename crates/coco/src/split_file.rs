//! One COCO annotation file made two: a training and a held-out one, by a share, with everything that the file says of its images.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::atomic::write_atomic;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::loose::{Loose, plain_json};
use crate::open::hold_out::{held_out, places};
use crate::policy::CheckConfig;
use crate::setters::setters;

/// How a file is split.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SplitConfig {
    /// The share of images, between 0 and 1, that is held out. Default 0.2.
    pub val_share: f64,
    /// Whether each class's images are split by the share, so that rare classes get their part of both splits. An image counts for
    /// the rarest class in it. Default `false`: each image by itself, so that it stays on its side whatever is added to the data.
    pub stratify: bool,
    /// What is done about faults in the file.
    pub checks: CheckConfig,
}

setters!(SplitConfig { val_share: f64, stratify: bool, checks: CheckConfig });

impl Default for SplitConfig {
    fn default() -> Self {
        Self { val_share: 0.2, stratify: false, checks: CheckConfig::default() }
    }
}

/// One of the two.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitJson {
    /// The annotation file's text: every key of the source, with the images and annotations of this split, each as it stood there.
    pub json: String,
    /// Number of images.
    pub images: usize,
    /// Number of annotations.
    pub annotations: usize,
}

impl SplitJson {
    /// Writes the file, whole or not at all, making its folder where that is missing. A file that is there already stays.
    ///
    /// # Errors
    /// A file that is there; a folder or file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        if path.exists() {
            return Err(Error::Config(format!(
                "{} is there already; choose another folder, or take it away",
                path.display()
            )));
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| Error::file("create", parent, e))?;
        }
        write_atomic(path, self.json.as_bytes())
    }
}

/// Splits a COCO annotation file's bytes in training and held-out; `path` names them in messages.
///
/// Without `stratify` an image is held out if its place, a hash of its file name, lies below the share: as
/// [`split_by_name`](crate::split_by_name). With it, each class's images are sorted by the same place, and the first ones are held out.
///
/// # Errors
/// Bytes that are no COCO file, faults whose policy is `error`, a share outside 0 to 1, a split without an image.
///
/// ```
/// use docent_coco::{SplitConfig, split_json};
/// let images: Vec<String> =
///     (1..=50).map(|id| format!(r#"{{"id":{id},"file_name":"{id}.png","width":9,"height":9,"licence":3}}"#)).collect();
/// let json = format!(r#"{{"info":"mine","images":[{}],"annotations":[],"categories":[]}}"#, images.join(","));
/// let [train, val] = split_json(json.as_bytes(), "all.json".as_ref(), &SplitConfig::default())?;
/// assert_eq!((train.images + val.images, val.images > 0), (50, true));
/// let packed: String = val.json.split_whitespace().collect();
/// assert!(packed.contains(r#""licence":3"#) && packed.contains(r#""info":"mine""#));
/// # Ok::<(), docent_coco::Error>(())
/// ```
pub fn split_json(bytes: &[u8], path: &Path, config: &SplitConfig) -> Result<[SplitJson; 2]> {
    let share = config.val_share;
    if !(share > 0.0 && share < 1.0) {
        return Err(Error::Config(format!(
            "the held-out share is {share}; it must lie between 0 and 1, both excluded"
        )));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let dataset = Dataset::from_json(bytes, path, folder, &config.checks)?;
    let names: Vec<&str> = dataset.images().iter().map(|image| image.file_name.as_str()).collect();
    let held: HashSet<usize> =
        if config.stratify { by_class(&dataset, &names, share) } else { held_out(&names, share)? };
    if held.is_empty() || held.len() == dataset.len() {
        return Err(Error::Config(format!(
            "{}: {} of {} images would be held out at a share of {share}; name another share",
            path.display(),
            held.len(),
            dataset.len()
        )));
    }
    let sides = names.iter().enumerate().map(|(i, name)| (*name, held.contains(&i))).collect();
    write(bytes, path, &sides)
}

/// Images by their place, id and position.
type Stratum = Vec<(f64, u64, usize)>;

/// Positions of the images that are held out when each class is split by itself.
fn by_class(dataset: &Dataset, names: &[&str], share: f64) -> HashSet<usize> {
    let classes = |i: usize| dataset.annotations(i).iter().map(|a| a.category_id).collect::<HashSet<u64>>();
    let mut images_of: HashMap<u64, usize> = HashMap::new();
    for i in 0..dataset.len() {
        for class in classes(i) {
            *images_of.entry(class).or_default() += 1;
        }
    }
    let places = places(names);
    // Images without objects are a stratum of their own.
    let mut strata: BTreeMap<Option<(usize, u64)>, Stratum> = BTreeMap::new();
    for (i, place) in places.into_iter().enumerate() {
        let rarest = classes(i).into_iter().map(|class| (images_of[&class], class)).min();
        strata.entry(rarest).or_default().push((place, dataset.image(i).id, i));
    }
    let (mut seen, mut held_out) = (0, HashSet::new());
    for mut stratum in strata.into_values() {
        stratum.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        seen += stratum.len();
        // What rounding leaves of one stratum goes to the next.
        let due = ((share * seen as f64).round() as usize).saturating_sub(held_out.len());
        held_out.extend(stratum.into_iter().take(due).map(|(_, _, i)| i));
    }
    held_out
}

/// What of an entry tells whose it is.
#[derive(Deserialize)]
struct ImageEntry {
    #[serde(default)]
    id: Loose,
    #[serde(default)]
    file_name: Loose,
}

#[derive(Deserialize)]
struct AnnotationEntry {
    #[serde(default)]
    image_id: Loose,
}

/// An id as text, the same for `1`, `1.0` and `"1"`.
fn key(id: &Loose) -> Option<String> {
    id.whole().map(|id| id.to_string()).or_else(|| id.text())
}

/// Copies the entries of each side as they stand; `held_out` by file name.
fn write(bytes: &[u8], path: &Path, held_out: &HashMap<&str, bool>) -> Result<[SplitJson; 2]> {
    let wrong = |source| Error::Json { path: path.to_owned(), expected: "a COCO annotation file", source };
    let plain = plain_json(bytes);
    let file: BTreeMap<String, &RawValue> = serde_json::from_slice(&plain).map_err(wrong)?;
    let list = |key: &str| -> Result<Vec<&RawValue>> {
        file.get(key).map_or(Ok(Vec::new()), |raw| serde_json::from_str(raw.get()).map_err(wrong))
    };
    let mut sides: [[Vec<&str>; 2]; 2] = Default::default();
    let mut side_of: HashMap<String, usize> = HashMap::new();
    for raw in list("images")? {
        let Ok(image) = serde_json::from_str::<ImageEntry>(raw.get()) else { continue };
        let (Some(id), Some(name)) = (key(&image.id), image.file_name.text()) else { continue };
        let Some(&held) = held_out.get(name.as_str()) else { continue };
        if side_of.insert(id, usize::from(held)).is_none() {
            sides[usize::from(held)][0].push(raw.get());
        }
    }
    for raw in list("annotations")? {
        let Ok(annotation) = serde_json::from_str::<AnnotationEntry>(raw.get()) else { continue };
        if let Some(&side) = key(&annotation.image_id).and_then(|id| side_of.get(&id)) {
            sides[side][1].push(raw.get());
        }
    }
    let rest: Vec<String> = file
        .iter()
        .filter(|(key, _)| !["images", "annotations"].contains(&key.as_str()))
        .map(|(key, raw)| Ok(format!(",\n{}: {}", serde_json::to_string(key).map_err(wrong)?, raw.get())))
        .collect::<Result<_>>()?;
    let text = |[images, annotations]: [Vec<&str>; 2]| SplitJson {
        json: format!(
            "{{\"images\": [\n{}\n],\n\"annotations\": [\n{}\n]{}}}\n",
            images.join(",\n"),
            annotations.join(",\n"),
            rest.concat()
        ),
        images: images.len(),
        annotations: annotations.len(),
    };
    Ok(sides.map(text))
}
