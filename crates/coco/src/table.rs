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
use crate::table_header::{XMAX, XMIN, YMAX, YMIN, box_columns, position};
use crate::text_file::{decode, encoding_named};

/// One line of a CSV file.
#[derive(Debug, Clone, PartialEq)]
pub struct CsvRow {
    /// The image, as the file gives it.
    pub filename: String,
    /// Width and height, where they are there.
    pub size: Option<(u32, u32)>,
    /// The class and the four numbers of its box, in the order of the columns xmin, ymin, xmax, ymax (or those in their place);
    /// `None` for an image without objects.
    pub object: Option<(String, [f64; 4])>,
    /// What the numbers are; `None` where the columns' names leave it open (`x`, `y`, `width`, `height`; `bbox`).
    pub reading: Option<BoxReading>,
    /// The part of the split (`train`, `val`), where the file has a column for it.
    pub split: Option<String>,
    /// From 1.
    pub line: u32,
}

/// The columns that are read, each under the names that tools give it.
const COLUMNS: [(&str, &[&str]); 5] = [
    ("filename", &["filename", "file_name", "file", "image", "image_name", "image_path", "img", "path"]),
    ("width", &["image_width", "img_width", "width"]),
    ("height", &["image_height", "img_height", "height"]),
    ("class", &["class_name", "label_name", "class", "label", "name", "category"]),
    ("split", &["split", "subset", "set", "usage"]),
];

/// Rows, and each line that is none with what is wrong with it.
type Rows = (Vec<CsvRow>, Vec<(u32, String)>);

/// Reads a CSV file with a header: `filename,width,height,class,xmin,ymin,xmax,ymax` in any order (and other names that tools give
/// these), separated by commas, semicolons or tabs. Width and height may be missing. In place of the last two `w` and `h` may stand, and
/// in place of all four one column `bbox`.
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
    let header: Vec<&str> = header.iter().collect();
    let lacks = |column: &str| format!("no column {column} (found {})", header.join(", "));
    let (of_box, reading) = box_columns(&header).ok_or_else(|| {
        let corners = [("xmin", XMIN), ("ymin", YMIN), ("xmax", XMAX), ("ymax", YMAX)];
        lacks(corners.iter().find(|(_, names)| position(&header, names).is_none()).map_or("xmin", |(name, _)| name))
    })?;
    let mut at = HashMap::new();
    for (column, names) in COLUMNS {
        // A column is the image's width or the box's, not both.
        match position(&header, names).filter(|position| !of_box.contains(position)) {
            Some(position) => _ = at.insert(column, position),
            None if ["width", "height", "split"].contains(&column) => {}
            None => return Err(lacks(column)),
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
        let of_box: Vec<(&str, &str)> =
            of_box.iter().map(|&i| (header[i], record.get(i).unwrap_or_default())).collect();
        match row(&field, &of_box, line) {
            Ok(row) => rows.push(CsvRow { reading, ..row }),
            Err(what) => broken.push((line, what)),
        }
    }
    Ok((rows, broken))
}

fn row<'r>(
    field: &impl Fn(&str) -> &'r str,
    of_box: &[(&str, &str)],
    line: u32,
) -> std::result::Result<CsvRow, String> {
    let filename = field("filename").to_owned();
    if filename.is_empty() {
        return Err("no filename".to_owned());
    }
    let pixels = |column| field(column).parse::<f64>().ok().filter(|v| *v >= 1.0 && *v < 1e9).map(|v| v.round() as u32);
    let class = field("class").to_owned();
    let split = Some(field("split").to_owned()).filter(|split| !split.is_empty());
    let size = pixels("width").zip(pixels("height"));
    let row = CsvRow { filename, size, object: None, reading: None, split, line };
    if class.is_empty() && of_box.iter().all(|(_, text)| text.is_empty()) {
        return Ok(row);
    }
    if class.is_empty() {
        return Err("no class".to_owned());
    }
    let number = |(column, text): &(&str, &str)| {
        let value = text.parse::<f64>().ok().filter(|v| v.is_finite());
        value.ok_or_else(|| format!("{column} is {text:?}, which is no number"))
    };
    let numbers: Vec<f64> = match of_box {
        // One column holds all: `[1, 2, 3, 4]`.
        [(column, text)] => {
            let words = text.split(|c: char| c.is_whitespace() || "[](),;".contains(c)).filter(|word| !word.is_empty());
            words.map(|word| number(&(column, word))).collect::<std::result::Result<_, _>>()?
        }
        columns => columns.iter().map(number).collect::<std::result::Result<_, _>>()?,
    };
    let numbers: [f64; 4] =
        numbers.try_into().map_err(|n: Vec<f64>| format!("{} holds {} numbers; a box has 4", of_box[0].0, n.len()))?;
    Ok(CsvRow { object: Some((class, numbers)), ..row })
}

/// The CSV files of a folder that list objects.
pub(crate) fn files<'i>(source: &DataFolder<'i>) -> Vec<&'i IndexedFile> {
    source.annotation_files(&["csv"]).filter(|f| format_of(&f.path) == FileFormat::Of(Format::Csv)).collect()
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
    let reading = rows.first().map_or(Some(BoxReading::Edges), |row| row.reading);
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
    let reading = match (reading, source.options.read.boxes) {
        (Some(reading), _) | (None, Some(reading)) => reading,
        (None, None) => {
            return Err(Error::Undecided {
                path: path.to_owned(),
                problem: "its columns do not tell what the four numbers of a box are (x and y may be a corner or the centre)".to_owned(),
                hint: "say it: --boxes xywh (left, top, width, height), --boxes centers or --boxes edges (two corners); or call the \
                       columns xmin, ymin, xmax, ymax"
                    .to_owned(),
            });
        }
    };
    let read = NamedImages { images, findings, notes: Vec::new(), reading };
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
        for (header, lacking) in [
            ("filename,class,xmin,ymin,xmax", "ymax"),
            ("filename,width,height,class,xmin,ymin,xmax", "ymax"),
            ("class,xmin,ymin,xmax,ymax", "filename"),
            ("image_id,width,height,bbox,source", "filename"),
            ("filename,x,y,w,h", "class"),
        ] {
            let error = parse_csv(&format!("{header}\n")).unwrap_err();
            assert!(error.contains(&format!("no column {lacking}")), "{header}: {error}");
        }
        assert!(parse_csv("").is_err());
    }

    #[test]
    fn boxes_in_other_columns() {
        let read = |text: &str| {
            let (rows, broken) = parse_csv(text).unwrap();
            assert_eq!(broken, [], "{text}");
            (rows[0].reading, rows[0].size, rows[0].object.clone().unwrap().1)
        };
        let numbers = [1.0, 2.0, 9.0, 7.0];
        for (text, reading, size) in [
            ("file,class,left,top,width,height\na.jpg,cat,1,2,9,7\n", Some(BoxReading::Xywh), None),
            (
                "file,class,image_width,image_height,x_min,y_min,w,h\na.jpg,cat,64,48,1,2,9,7\n",
                Some(BoxReading::Xywh),
                Some((64, 48)),
            ),
            ("file,class,cx,cy,w,h\na.jpg,cat,1,2,9,7\n", Some(BoxReading::Centers), None),
            ("file,class,x,y,width,height\na.jpg,cat,1,2,9,7\n", None, None),
            ("file,class,width,height,bbox\na.jpg,cat,64,48,\"[1, 2.0, 9 7]\"\n", None, Some((64, 48))),
        ] {
            assert_eq!(read(text), (reading, size, numbers), "{text}");
        }
        let (_, broken) = parse_csv("file,class,bbox\na.jpg,cat,\"1,2,3\"\nb.jpg,cat,\"1,2,x,4\"\n").unwrap();
        assert!(broken[0].1.contains("bbox holds 3 numbers") && broken[1].1.contains("\"x\""), "{broken:?}");
    }
}
