//! labelme: a JSON file for each image, with shapes.

use serde::Deserialize;

use crate::box_reading::BoxReading;
use crate::error::{Error, Result};
use crate::loose::{Loose, plain_json, without_nan};
use crate::open::data_folder::{DataFolder, Plan};
use crate::open::index::IndexedFile;
use crate::open::labelled::{Labelled, LabelledObject, in_use, plan as plan_labelled, read_each};
use crate::open::sniff::{FileFormat, format_of};
use crate::open_options::Format;
use crate::outline::around;
use crate::text_file::{decode, encoding_named};

/// What one file says.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelmeFile {
    /// `imagePath`, where it is there.
    pub image: Option<String>,
    /// Width and height, where they are there.
    pub size: Option<(u32, u32)>,
    /// The class and the box `[x, y, width, height]` in pixels of each shape with an area.
    pub objects: Vec<(String, [f64; 4])>,
    /// How many shapes have no area: points and lines.
    pub without_area: usize,
}

#[derive(Deserialize)]
struct FileIn {
    shapes: Vec<ShapeIn>,
    #[serde(default, rename = "imagePath")]
    image_path: Loose,
    #[serde(default, rename = "imageHeight")]
    height: Loose,
    #[serde(default, rename = "imageWidth")]
    width: Loose,
}

#[derive(Deserialize)]
struct ShapeIn {
    #[serde(default)]
    label: Loose,
    #[serde(default)]
    points: Vec<Vec<Loose>>,
    #[serde(default)]
    shape_type: Loose,
    /// Shapes of one group and label are parts of one object.
    #[serde(default)]
    group_id: Loose,
}

/// Reads one labelme file's bytes. The box of a polygon, of a circle (its centre and a point on it) and of a mask is the one around it;
/// points and lines have no area and are counted.
///
/// # Errors
/// What is wrong: no JSON object with `shapes`, a shape without a label or with points that are no numbers.
///
/// ```
/// let json = br#"{"shapes": [{"label": "cat", "points": [[9, 7], [1, 2]], "shape_type": "rectangle"}], "imagePath": "a.jpg"}"#;
/// let file = docent_coco::parse_labelme(json)?;
/// assert_eq!(file.objects, [("cat".to_owned(), [1.0, 2.0, 8.0, 5.0])]);
/// # Ok::<(), String>(())
/// ```
pub fn parse_labelme(bytes: &[u8]) -> std::result::Result<LabelmeFile, String> {
    let plain = plain_json(bytes);
    let file: FileIn = serde_json::from_slice(&plain)
        .or_else(|e| serde_json::from_slice(&without_nan(&plain)).map_err(|_| e))
        .map_err(|e| format!("no labelme file: {e}"))?;
    let (mut objects, mut without_area) = (Vec::new(), 0);
    let mut groups: Vec<(String, &Loose, usize)> = Vec::new();
    for (i, shape) in file.shapes.iter().enumerate() {
        let label = shape.label.text().filter(|label| !label.is_empty());
        let label = label.ok_or_else(|| format!("shapes[{i}] has no label"))?;
        let number =
            |value: &Loose| value.number().ok_or_else(|| format!("shapes[{i}] ({label}): a coordinate is no number"));
        let points: Vec<f64> = shape.points.iter().flatten().map(number).collect::<std::result::Result<_, _>>()?;
        if shape.points.iter().any(|p| p.len() != 2) {
            return Err(format!("shapes[{i}] ({label}): a point has not two coordinates"));
        }
        let kind = shape.shape_type.text().unwrap_or_default();
        let bbox = match kind.as_str() {
            "point" | "points" | "line" | "linestrip" => None,
            "circle" => match points[..] {
                [x, y, a, b] => {
                    let r = (a - x).hypot(b - y);
                    Some([x - r, y - r, 2.0 * r, 2.0 * r])
                }
                _ => return Err(format!("shapes[{i}] ({label}): a circle has two points")),
            },
            "" | "rectangle" | "polygon" | "rotation" | "mask" | "ellipse" | "cuboid" => around(&points),
            other => return Err(format!("shapes[{i}] ({label}): shape_type {other:?} is not read")),
        };
        match bbox {
            Some(bbox) if shape.group_id != Loose::None && kind == "polygon" => {
                match groups.iter().find(|(l, g, _)| *l == label && **g == shape.group_id) {
                    Some((_, _, first)) => {
                        let (_, whole): &mut (String, [f64; 4]) = &mut objects[*first];
                        let corners = [*whole, bbox].map(|[x, y, w, h]| [x, y, x + w, y + h]).concat();
                        *whole = around(&corners).unwrap_or(bbox);
                    }
                    None => {
                        groups.push((label.clone(), &shape.group_id, objects.len()));
                        objects.push((label, bbox));
                    }
                }
            }
            Some(bbox) => objects.push((label, bbox)),
            None => without_area += 1,
        }
    }
    let size = file.width.pixels().zip(file.height.pixels());
    Ok(LabelmeFile { image: file.image_path.text().filter(|p| !p.is_empty()), size, objects, without_area })
}

/// The labelme files of a folder.
pub(crate) fn files<'i>(source: &DataFolder<'i>) -> Vec<&'i IndexedFile> {
    source.annotation_files(&["json"]).filter(|f| format_of(&f.path) == FileFormat::Of(Format::Labelme)).collect()
}

/// Reads all labelme files of a folder and plans its split.
///
/// # Errors
/// A folder without such files; files that cannot be read.
pub(crate) fn plan(source: &DataFolder<'_>, notes: &mut Vec<String>) -> Result<Plan> {
    let files = files(source);
    if files.is_empty() {
        return Err(Error::Folder {
            dir: source.index.root.clone(),
            problem: "no labelme annotations".to_owned(),
            looked_for: "JSON files with shapes and imagePath, in this folder or below it".to_owned(),
            found: crate::open::index::some_of(&source.index.top_names()),
            hint: "name the folder that holds the JSON files and the images",
        });
    }
    let encoding = source.options.read.encoding.as_deref().map(encoding_named).transpose()?;
    let without_area = std::sync::atomic::AtomicUsize::new(0);
    let (files, findings) = read_each(in_use(files, notes), |_, bytes| {
        let text = encoding.map(|encoding| decode(bytes, Some(encoding)).into_owned());
        let file = parse_labelme(text.as_ref().map_or(bytes, |text| text.as_bytes()))?;
        without_area.fetch_add(file.without_area, std::sync::atomic::Ordering::Relaxed);
        let object = |(class, [x, y, w, h]): (String, [f64; 4])| LabelledObject {
            class,
            numbers: [x, y, x + w, y + h],
            // Corners in pixels, as the folder's reading has them: a tool that writes shares is told from it.
            reading: None,
            crowd: false,
            line: 0,
        };
        Ok((file.image, file.size, file.objects.into_iter().map(object).collect()))
    })?;
    let without_area = without_area.into_inner();
    if without_area > 0 {
        notes.push(format!("{without_area} shapes are points or lines, which have no box; they are left out"));
    }
    plan_labelled(source, Labelled { files, findings, reading: BoxReading::Edges, what: "JSON" }, notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_become_boxes() {
        let json = r#"{"version": "5", "imagePath": "..\\images\\a.jpg", "imageWidth": 64, "imageHeight": "48", "shapes": [
            {"label": "a", "shape_type": "polygon", "points": [[1, 2], [5, 2], [3, 8]]},
            {"label": "b", "shape_type": "circle", "points": [[10, 10], [13, 14]]},
            {"label": 7, "points": [[4, 4], [2, 1]]},
            {"label": "p", "shape_type": "point", "points": [[4, 4]]},
            {"label": "g", "shape_type": "polygon", "group_id": 1, "points": [[1, 1], [3, 1], [3, 3]]},
            {"label": "g", "shape_type": "polygon", "group_id": 1, "points": [[6, 5], [9, 5], [9, 8]]}]}"#;
        let file = parse_labelme(json.as_bytes()).unwrap();
        assert_eq!(
            (file.image.as_deref(), file.size, file.without_area),
            (Some("..\\images\\a.jpg"), Some((64, 48)), 1)
        );
        let boxes = [
            ("a", [1.0, 2.0, 4.0, 6.0]),
            ("b", [5.0, 5.0, 10.0, 10.0]),
            ("7", [2.0, 1.0, 2.0, 3.0]),
            ("g", [1.0, 1.0, 8.0, 7.0]),
        ];
        assert_eq!(file.objects, boxes.map(|(name, bbox)| (name.to_owned(), bbox)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (json, part) in [
            ("[]", "no labelme file"),
            (r#"{"shapes": [{"points": [[1, 2], [3, 4]]}]}"#, "no label"),
            (r#"{"shapes": [{"label": "a", "points": [[1, "x"], [3, 4]]}]}"#, "coordinate"),
            (r#"{"shapes": [{"label": "a", "points": [[1, 2, 3], [3]]}]}"#, "two coordinates"),
            (r#"{"shapes": [{"label": "a", "shape_type": "spline", "points": [[1, 2], [3, 4]]}]}"#, "spline"),
        ] {
            let error = parse_labelme(json.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
