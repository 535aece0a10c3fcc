//! CSV with a line for each object, as TensorFlow's tutorials and Roboflow write it.

use std::collections::HashMap;
use std::path::Path;

use crate::box_reading::BoxReading;
use crate::error::{Error, Result};
use crate::open::coco::{Part, plan_files};
use crate::open::data_folder::{DataFolder, Plan, broken};
use crate::open::index::IndexedFile;
use crate::open::labelled::LabelledObject;
use crate::open::named::{NamedImage, NamedImages, numbered};
use crate::open::roles::Role;
use crate::open::sniff::{FileFormat, format_of};
use crate::open_options::Format;
use crate::text_file::{decode, encoding_named};

/// One line of a CSV file.
#[derive(Debug, Clone, PartialEq)]
pub struct CsvRow {
    /// The image, as the file gives it.
    pub filename: String,
    /// Width and height, where they are there.
    pub size: Option<(u32, u32)>,
    /// The class and the four numbers in the order xmin, ymin, xmax, ymax; `None` for an image without objects.
    pub object: Option<(String, [f64; 4])>,
    /// The part of the split (`train`, `val`), where the file has a column for it.
    pub split: Option<String>,
    /// From 1.
    pub line: u32,
}

/// The columns that are read, each under the names that tools give it.
const COLUMNS: [(&str, &[&str]); 9] = [
    ("filename", &["filename", "file_name", "file", "image", "image_name", "image_path", "img", "path"]),
    ("width", &["width", "image_width", "img_width"]),
    ("height", &["height", "image_height", "img_height"]),
    ("class", &["class_name", "label_name", "class", "label", "name", "category"]),
    ("xmin", &["xmin", "x_min", "x1", "left"]),
    ("ymin", &["ymin", "y_min", "y1", "top"]),
    ("xmax", &["xmax", "x_max", "x2", "right"]),
    ("ymax", &["ymax", "y_max", "y2", "bottom"]),
    ("split", &["split", "subset", "set", "usage"]),
];

/// Rows, and each line that is none with what is wrong with it.
type Rows = (Vec<CsvRow>, Vec<(u32, String)>);

/// Reads a CSV file with a header: `filename,width,height,class,xmin,ymin,xmax,ymax` in any order (and other names that tools give
/// these), separated by commas, semicolons or tabs. Width and height may be missing.
///
/// # Errors
/// A header without one of the columns.
///
/// ```
/// let (rows, broken) = docent_coco::parse_csv("filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,1,2,9,7\na.jpg,cat,1,x,9,7\n")?;
/// assert_eq!(rows[0].object, Some(("cat".to_owned(), [1.0, 2.0, 9.0, 7.0])));
/// assert_eq!(broken[0].0, 3);
/// # Ok::<(), String>(())
/// ```
pub fn parse_csv(text: &str) -> std::result::Result<Rows, String> {
    // The reader counts a line's number wrong where it ends in two characters.
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let first = text.lines().next().unwrap_or_default();
    let delimiter = [b',', b';', b'\t'].into_iter().max_by_key(|d| first.bytes().filter(|b| b == d).count());
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter.unwrap_or(b','))
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let header = reader.headers().map_err(|e| e.to_string())?.clone();
    let mut at = HashMap::new();
    for (column, names) in COLUMNS {
        // The names' own order decides where a file has two of them.
        let found = names.iter().find_map(|name| header.iter().position(|h| h.eq_ignore_ascii_case(name)));
        match found {
            Some(position) => {
                at.insert(column, position);
            }
            None if ["width", "height", "split"].contains(&column) => {}
            None => return Err(format!("no column {column} (found {})", header.iter().collect::<Vec<_>>().join(", "))),
        }
    }
    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(e) => {
                let line = e.position().map_or(0, |p| p.line() as u32);
                broken.push((line, e.to_string()));
                continue;
            }
        };
        let line = record.position().map_or(0, |p| p.line() as u32);
        let field = |column: &str| at.get(column).and_then(|&i| record.get(i)).unwrap_or_default();
        match row(&field, line) {
            Ok(row) => rows.push(row),
            Err(what) => broken.push((line, what)),
        }
    }
    Ok((rows, broken))
}

fn row<'r>(field: &impl Fn(&str) -> &'r str, line: u32) -> std::result::Result<CsvRow, String> {
    let filename = field("filename").to_owned();
    if filename.is_empty() {
        return Err("no filename".to_owned());
    }
    let pixels = |column| field(column).parse::<f64>().ok().filter(|v| *v >= 1.0 && *v < 1e9).map(|v| v.round() as u32);
    let corners = ["xmin", "ymin", "xmax", "ymax"];
    let class = field("class").to_owned();
    let split = Some(field("split").to_owned()).filter(|split| !split.is_empty());
    if class.is_empty() && corners.iter().all(|c| field(c).is_empty()) {
        return Ok(CsvRow { filename, size: pixels("width").zip(pixels("height")), object: None, split, line });
    }
    if class.is_empty() {
        return Err("no class".to_owned());
    }
    let mut numbers = [0.0; 4];
    for (number, column) in numbers.iter_mut().zip(corners) {
        let text = field(column);
        let value = text.parse::<f64>().ok().filter(|v| v.is_finite());
        *number = value.ok_or_else(|| format!("{column} is {text:?}, which is no number"))?;
    }
    Ok(CsvRow { filename, size: pixels("width").zip(pixels("height")), object: Some((class, numbers)), split, line })
}

/// The CSV files of a folder that list objects.
pub(crate) fn files<'i>(source: &DataFolder<'i>) -> Vec<&'i IndexedFile> {
    source.index.with_extension(&["csv"]).filter(|f| format_of(&f.path) == FileFormat::Of(Format::Csv)).collect()
}

/// Plans a folder's CSV files.
///
/// # Errors
/// As [`plan_files`].
pub(crate) fn plan(source: &DataFolder<'_>, notes: &mut Vec<String>) -> Result<Plan> {
    plan_files(source, &files(source), read, notes)
}

fn read(source: &DataFolder<'_>, path: &Path, below: Option<&str>, notes: &mut Vec<String>) -> Result<Part> {
    let bytes = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
    let encoding = source.options.read.encoding.as_deref().map(encoding_named).transpose()?;
    let text = decode(&bytes, encoding);
    let (rows, bad) = parse_csv(&text).map_err(|what| Error::Config(format!("{}: {what}", path.display())))?;
    let mut findings: Vec<_> =
        bad.into_iter().map(|(line, what)| broken(path, format!("line {line}: {what}"))).collect();
    let mut images: Vec<NamedImage> = Vec::new();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for row in rows {
        if row.object.as_ref().is_some_and(|(class, _)| class.contains(char::REPLACEMENT_CHARACTER)) {
            let what = format!(
                "line {}: the class is not UTF-8; name the file's encoding with --encoding windows-1252",
                row.line
            );
            findings.push(broken(path, what));
            continue;
        }
        let i = *by_name.entry(row.filename.clone()).or_insert_with(|| {
            let role = row.split.as_deref().and_then(Role::of_word);
            images.push(NamedImage { name: row.filename, size: row.size, role, objects: Vec::new() });
            images.len() - 1
        });
        images[i].objects.extend(row.object.map(|(class, numbers)| LabelledObject {
            class,
            numbers,
            reading: None,
            crowd: false,
            line: row.line,
        }));
    }
    let read = NamedImages { images, findings, notes: Vec::new(), reading: BoxReading::Edges };
    Ok(numbered(source, path, below, &bytes, read, notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_in_any_order_and_spelling() {
        let (rows, broken) = parse_csv(
            "\u{feff}Label;x1;y1;x2;y2;Image_Path;width;height\r\ncat;1;2;9;7;\"a b.jpg\";64.0;48\r\n;;;;;c.jpg;;\r\n",
        )
        .unwrap();
        assert_eq!(broken, []);
        assert_eq!((rows[0].filename.as_str(), rows[0].size, rows[0].line), ("a b.jpg", Some((64, 48)), 2));
        assert_eq!(rows[0].object, Some(("cat".to_owned(), [1.0, 2.0, 9.0, 7.0])));
        assert_eq!((rows[1].filename.as_str(), &rows[1].object, rows[1].size), ("c.jpg", &None, None));
    }

    #[test]
    fn what_is_wrong_names_its_line() {
        let head = "filename,class,xmin,ymin,xmax,ymax\n";
        for (line, part) in [
            ("a.jpg,cat,1,2,3\n", "ymax"),
            ("a.jpg,cat,1,2,nan,4\n", "xmax"),
            (",cat,1,2,3,4\n", "filename"),
            ("a.jpg,,1,2,3,4\n", "class"),
        ] {
            let (rows, broken) = parse_csv(&format!("{head}{line}")).unwrap();
            assert!(rows.is_empty() && broken[0].0 == 2 && broken[0].1.contains(part), "{line}: {broken:?}");
        }
        assert!(parse_csv("filename,class,xmin,ymin,xmax\n").unwrap_err().contains("ymax"));
        assert!(parse_csv("").is_err());
    }
}
