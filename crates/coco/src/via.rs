//! VIA 2, the VGG Image Annotator: one JSON file with the regions of many images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::box_reading::BoxReading;
use crate::error::{Error, Result};
use crate::loose::{plain_json, without_nan};
use crate::open::coco::{Part, plan_files};
use crate::open::data_folder::{DataFolder, Plan, broken};
use crate::open::index::IndexedFile;
use crate::open::labelled::LabelledObject;
use crate::open::named::{NamedImage, NamedImages, numbered};
use crate::open::sniff::{FileFormat, format_of};
use crate::open_options::Format;
use crate::outline::around;

/// The attributes whose value is taken for the class, the first that a region has; else its only attribute. Attributes that have a value
/// in no region of the file are passed over.
const CLASS_ATTRIBUTES: [&str; 6] = ["class", "label", "type", "name", "category", "object"];

/// The class of regions without attributes, where no region of the file has any.
const ONLY_CLASS: &str = "object";

/// One image of a VIA file.
#[derive(Debug, Clone, PartialEq)]
pub struct ViaImage {
    /// As the file gives it.
    pub filename: String,
    /// The class and the box `[x, y, width, height]` in pixels of each region with an area.
    pub objects: Vec<(String, [f64; 4])>,
    /// The attributes that tell the classes, each with the number of its objects.
    pub class_attributes: BTreeMap<String, usize>,
    /// What is wrong with the other regions.
    pub faults: Vec<String>,
    /// How many regions are points or lines, which have no box.
    pub without_area: usize,
}

#[derive(Deserialize)]
struct ImageIn {
    filename: String,
    #[serde(default)]
    regions: Value,
}

#[derive(Deserialize)]
struct RegionIn {
    #[serde(default)]
    shape_attributes: BTreeMap<String, Value>,
    #[serde(default)]
    region_attributes: BTreeMap<String, Value>,
}

/// Reads a VIA project or its exported annotations.
///
/// # Errors
/// Bytes that are no such JSON.
///
/// ```
/// let json = br#"{"a.jpg9": {"filename": "a.jpg", "size": 9, "regions": [{"region_attributes": {"type": "cat"},
///     "shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}}]}}"#;
/// let images = docent_coco::parse_via(json)?;
/// assert_eq!(images[0].objects, [("cat".to_owned(), [1.0, 2.0, 3.0, 4.0])]);
/// # Ok::<(), String>(())
/// ```
pub fn parse_via(bytes: &[u8]) -> std::result::Result<Vec<ViaImage>, String> {
    let plain = plain_json(bytes);
    let parse = |bytes: &[u8]| serde_json::from_slice::<serde_json::Map<String, Value>>(bytes);
    let mut file = parse(&plain)
        .or_else(|e| parse(&without_nan(&plain)).map_err(|_| e))
        .map_err(|e| format!("no VIA file: {e}"))?;
    let images = match file.remove("_via_img_metadata") {
        Some(Value::Object(images)) => images,
        Some(_) => return Err("no VIA file: _via_img_metadata is no object".to_owned()),
        None => file,
    };
    let mut read = Vec::with_capacity(images.len());
    for (key, value) in images {
        let image: ImageIn =
            serde_json::from_value(value).map_err(|e| format!("no VIA file: the entry {key:?}: {e}"))?;
        // VIA 1 numbers the regions.
        let regions: Vec<Value> = match image.regions {
            Value::Array(regions) => regions,
            Value::Object(regions) => regions.into_iter().map(|(_, region)| region).collect(),
            Value::Null => Vec::new(),
            _ => return Err(format!("no VIA file: the regions of {key:?} are no list")),
        };
        let mut image = Image { filename: image.filename, ..Image::default() };
        for (i, region) in regions.into_iter().enumerate() {
            match region_of(region) {
                Ok(Some(region)) => image.regions.push((i, region)),
                Ok(None) => image.without_area += 1,
                Err(what) => image.faults.push((i, what)),
            }
        }
        read.push(image);
    }
    // An attribute that nobody filled in tells no class: VIA's own default is `unknown`.
    let all = read.iter().flat_map(|image| &image.regions).flat_map(|(_, region)| &region.attributes);
    let told: BTreeSet<String> = all.filter(|(_, value)| is_set(value)).map(|(name, _)| name.clone()).collect();
    let mut images: Vec<ViaImage> = read.into_iter().map(|image| image.with_classes(&told)).collect();
    // A file without attributes knows one class; in another file such a region is not finished.
    let classed = images.iter().flat_map(|image| &image.objects).any(|(class, _)| !class.is_empty());
    for image in &mut images {
        let ViaImage { filename, objects, faults, .. } = image;
        if classed {
            let nameless = objects.iter().filter(|(class, _)| class.is_empty()).count();
            objects.retain(|(class, _)| !class.is_empty());
            if nameless > 0 {
                faults.push(format!("{filename}: {nameless} regions have no class"));
            }
        } else {
            objects.iter_mut().for_each(|(class, _)| class.push_str(ONLY_CLASS));
        }
    }
    Ok(images)
}

/// A region with an area.
struct Region {
    attributes: BTreeMap<String, Value>,
    bbox: [f64; 4],
}

/// An image whose regions have no classes yet; regions and faults with their positions.
#[derive(Default)]
struct Image {
    filename: String,
    regions: Vec<(usize, Region)>,
    faults: Vec<(usize, String)>,
    without_area: usize,
}

impl Image {
    /// Gives each region the class that one of the attributes in `told` names.
    fn with_classes(self, told: &BTreeSet<String>) -> ViaImage {
        let Self { filename, regions, mut faults, without_area } = self;
        let (mut objects, mut class_attributes) = (Vec::new(), BTreeMap::new());
        for (i, Region { mut attributes, bbox }) in regions {
            attributes.retain(|name, _| told.contains(name));
            match class_of(&attributes) {
                Ok(Some((name, class))) => {
                    *class_attributes.entry(name.to_owned()).or_default() += 1;
                    objects.push((class, bbox));
                }
                Ok(None) => objects.push((String::new(), bbox)),
                Err(what) => faults.push((i, what)),
            }
        }
        faults.sort_by_key(|(i, _)| *i);
        let faults = faults.into_iter().map(|(i, what)| format!("{filename}, regions[{i}]: {what}")).collect();
        ViaImage { filename, objects, class_attributes, faults, without_area }
    }
}

/// Whether somebody has given an attribute a value.
fn is_set(value: &Value) -> bool {
    let is_word = |text: &str| !["", "unknown", "undefined"].contains(&text.trim().to_lowercase().as_str());
    match value {
        Value::Null => false,
        Value::String(text) => is_word(text),
        Value::Object(options) => options.iter().any(|(option, on)| *on == Value::Bool(true) && is_word(option)),
        _ => true,
    }
}

/// The attributes and the box of a region; `None` for a shape without area.
fn region_of(region: Value) -> std::result::Result<Option<Region>, String> {
    let RegionIn { shape_attributes: shape, region_attributes: attributes } =
        serde_json::from_value(region).map_err(|e| e.to_string())?;
    let number =
        |value: &Value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|v| v.is_finite());
    let get = |key: &str| shape.get(key).and_then(number).ok_or_else(|| format!("its shape has no number {key}"));
    let list = |key: &str| -> std::result::Result<Vec<f64>, String> {
        let values = shape.get(key).and_then(Value::as_array).ok_or_else(|| format!("its shape has no list {key}"))?;
        values.iter().map(|v| number(v).ok_or_else(|| format!("{key} holds {v}"))).collect()
    };
    let name = shape.get("name").and_then(Value::as_str).unwrap_or_default();
    let bbox = match name {
        "rect" => [get("x")?, get("y")?, get("width")?, get("height")?],
        "circle" => {
            let (x, y, r) = (get("cx")?, get("cy")?, get("r")?);
            [x - r, y - r, 2.0 * r, 2.0 * r]
        }
        "ellipse" => {
            let (x, y, a, b) = (get("cx")?, get("cy")?, get("rx")?, get("ry")?);
            let (sin, cos) = shape.get("theta").and_then(number).unwrap_or(0.0).sin_cos();
            // Half the sides of the box around a turned ellipse.
            let (w, h) = ((a * cos).hypot(b * sin), (a * sin).hypot(b * cos));
            [x - w, y - h, 2.0 * w, 2.0 * h]
        }
        "polygon" => {
            let (xs, ys) = (list("all_points_x")?, list("all_points_y")?);
            if xs.len() != ys.len() {
                return Err(format!("{} x and {} y", xs.len(), ys.len()));
            }
            let points: Vec<f64> = xs.into_iter().zip(ys).flat_map(|(x, y)| [x, y]).collect();
            around(&points).ok_or("a polygon needs points")?
        }
        "point" | "polyline" => return Ok(None),
        other => return Err(format!("its shape is {other:?}, which is not read")),
    };
    Ok(Some(Region { attributes, bbox }))
}

/// The class that the attributes of a region tell, and the attribute that tells it.
fn class_of(attributes: &BTreeMap<String, Value>) -> std::result::Result<Option<(&str, String)>, String> {
    let usual =
        CLASS_ATTRIBUTES.iter().find_map(|name| attributes.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)));
    let (key, value) = match (usual, attributes.len()) {
        (Some(found), _) => found,
        (None, 0) => return Ok(None),
        (None, 1) => attributes.iter().next().ok_or("no attribute")?,
        (None, _) => {
            let keys: Vec<&str> = attributes.keys().map(String::as_str).collect();
            return Err(format!(
                "several attributes ({}), and none is called {}",
                keys.join(", "),
                CLASS_ATTRIBUTES.join(", ")
            ));
        }
    };
    let class = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        // A checkbox holds each option that is ticked.
        Value::Object(options) => {
            let ticked: Vec<&String> =
                options.iter().filter(|(_, on)| **on == Value::Bool(true)).map(|(o, _)| o).collect();
            match ticked[..] {
                [one] => one.clone(),
                [] => String::new(),
                _ => return Err(format!("its attribute {key} has several values")),
            }
        }
        Value::Null => String::new(),
        other => return Err(format!("its attribute {key} is {other}")),
    };
    Ok((!class.is_empty()).then_some((key.as_str(), class)))
}

/// The VIA files of a folder.
pub(crate) fn files<'i>(source: &DataFolder<'i>) -> Vec<&'i IndexedFile> {
    source.annotation_files(&["json"]).filter(|f| format_of(&f.path) == FileFormat::Of(Format::Via)).collect()
}

/// Plans a folder's VIA files.
///
/// # Errors
/// As [`plan_files`].
pub(crate) fn plan(source: &DataFolder<'_>, notes: &mut Vec<String>) -> Result<Plan> {
    plan_files(source, &files(source), read, notes)
}

fn read(source: &DataFolder<'_>, path: &Path, below: Option<&str>, notes: &mut Vec<String>) -> Result<Part> {
    let bytes = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
    let images = parse_via(&bytes).map_err(|what| Error::Config(format!("{}: {what}", path.display())))?;
    let without_area: usize = images.iter().map(|image| image.without_area).sum();
    let mut said = Vec::new();
    if without_area > 0 {
        said.push(format!("{}: {without_area} regions are points or lines, which have no box", path.display()));
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, count) in images.iter().flat_map(|image| &image.class_attributes) {
        *counts.entry(name).or_default() += count;
    }
    if !counts.is_empty() {
        let counts: Vec<String> = counts.iter().map(|(name, count)| format!("{name:?} ({count} regions)")).collect();
        said.push(format!("{}: the classes are the values of the attribute {}", path.display(), counts.join(" and ")));
    }
    let findings = images.iter().flat_map(|i| &i.faults).map(|what| broken(path, what.clone())).collect();
    // A class that no attribute tells is ours.
    let nameless = images.iter().flat_map(|i| &i.objects).any(|(class, _)| class == ONLY_CLASS);
    if nameless && images.iter().flat_map(|i| &i.objects).all(|(class, _)| class == ONLY_CLASS) {
        said.push(format!(
            "{}: no region has an attribute that names its class; the class is called {ONLY_CLASS}",
            path.display()
        ));
    }
    let object = |(class, numbers): &(String, [f64; 4])| LabelledObject {
        class: class.clone(),
        numbers: *numbers,
        reading: None,
        crowd: false,
        line: 0,
    };
    let images = images
        .iter()
        .map(|i| NamedImage {
            name: i.filename.clone(),
            size: None,
            role: None,
            objects: i.objects.iter().map(object).collect(),
        })
        .collect();
    let read = NamedImages { images, findings, notes: said, reading: BoxReading::Xywh };
    Ok(numbered(source, path, below, &bytes, read, notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_become_boxes() {
        let region = |shape: &str, attributes: &str| {
            format!(r#"{{"shape_attributes": {shape}, "region_attributes": {attributes}}}"#)
        };
        let regions = [
            region(r#"{"name": "rect", "x": 1, "y": "2", "width": 3, "height": 4}"#, r#"{"Class": "a", "note": "x"}"#),
            region(r#"{"name": "circle", "cx": 10, "cy": 10, "r": 2}"#, r#"{"kind": {"b": true, "c": false}}"#),
            region(r#"{"name": "polygon", "all_points_x": [1, 5, 3], "all_points_y": [2, 2, 9]}"#, r#"{"label": 7}"#),
            region(r#"{"name": "ellipse", "cx": 10, "cy": 10, "rx": 4, "ry": 2, "theta": 0}"#, r#"{"type": "a"}"#),
            region(r#"{"name": "point", "cx": 1, "cy": 1}"#, "{}"),
            region(r#"{"name": "rect", "x": 1}"#, r#"{"type": "a"}"#),
            region(r#"{"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}"#, r#"{"u": "a", "v": "b"}"#),
        ];
        let list =
            format!(r#"{{"_via_img_metadata": {{"k": {{"filename": "a.jpg", "regions": [{}]}}}}}}"#, regions.join(","));
        let images = parse_via(list.as_bytes()).unwrap();
        let boxes = [
            ("a", [1.0, 2.0, 3.0, 4.0]),
            ("b", [8.0, 8.0, 4.0, 4.0]),
            ("7", [1.0, 2.0, 4.0, 7.0]),
            ("a", [6.0, 8.0, 8.0, 4.0]),
        ];
        assert_eq!(images[0].objects, boxes.map(|(name, bbox)| (name.to_owned(), bbox)));
        assert_eq!((images[0].without_area, images[0].faults.len()), (1, 2));
        // VIA 1: regions by number, without any class.
        let one = format!(
            r#"{{"k": {{"filename": "a.jpg", "regions": {{"0": {}}}}}}}"#,
            regions[0].replace("Class", "x").replace(r#""x": "a", "note": "x""#, "")
        );
        assert_eq!(parse_via(one.as_bytes()).unwrap()[0].objects[0].0, "object");
        for bad in ["[]", "{\"a\": 1}", "{\"_via_img_metadata\": 3}", ""] {
            assert!(parse_via(bad.as_bytes()).unwrap_err().contains("no VIA file"), "{bad}");
        }
    }

    #[test]
    fn an_attribute_that_nobody_filled_in_tells_no_class() {
        let region = |attributes: &str| {
            format!(
                r#"{{"shape_attributes": {{"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}}, "region_attributes": {attributes}}}"#
            )
        };
        let read = |regions: &[&str]| {
            let regions: Vec<String> = regions.iter().map(|r| region(r)).collect();
            let text = format!(r#"{{"k": {{"filename": "a.jpg", "regions": [{}]}}}}"#, regions.join(","));
            let image = parse_via(text.as_bytes()).unwrap().remove(0);
            assert_eq!(image.faults, [""; 0]);
            let classes: Vec<String> = image.objects.into_iter().map(|(class, _)| class).collect();
            (classes, image.class_attributes.into_keys().collect::<Vec<_>>())
        };
        let all = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        assert_eq!(
            read(&[r#"{"name": "bolt", "type": "unknown"}"#, r#"{"name": "nut", "type": ""}"#]),
            (all(&["bolt", "nut"]), all(&["name"]))
        );
        assert_eq!(
            read(&[r#"{"part": "bolt", "class": {"unknown": true, "a": false}}"#]),
            (all(&["bolt"]), all(&["part"]))
        );
        // One region with a value is enough.
        assert_eq!(
            read(&[r#"{"name": "bolt", "type": "unknown"}"#, r#"{"name": "nut", "type": "metal"}"#]),
            (all(&["unknown", "metal"]), all(&["type"]))
        );
        assert_eq!(read(&[r#"{"type": "unknown"}"#]), (all(&["object"]), all(&[])));
    }
}
