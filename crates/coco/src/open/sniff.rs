//! What a file of annotations is, by its first bytes: whose JSON, whose XML, whose CSV.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::image_reader::IMAGE_EXTENSIONS;
use crate::open::index::extension_of;
use crate::open_options::Format;
use crate::table_header::{cells, tells_boxes};
use crate::text_file::decode;

/// How much of a file is looked at.
const SNIFFED: u64 = 1 << 18;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileFormat {
    /// Annotations in this format.
    Of(Format),
    /// Annotations that are not read, by the name of their format.
    NotRead(&'static str),
    /// No annotations that are known.
    Other,
}

/// Looks into a `.json`, `.xml` or `.csv` file. A file that cannot be read is no annotation; whoever reads it by name gets the error.
pub(crate) fn format_of(path: &Path) -> FileFormat {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SNIFFED).read_to_end(&mut bytes));
    if read.is_err() {
        return FileFormat::Other;
    }
    let text = decode(&bytes, None);
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    match extension.as_str() {
        // COCO's own name: a file of it that is empty or cut is a fault, not another format.
        "json" if name.starts_with("instances_") => FileFormat::Of(Format::Coco),
        "json" => format_of_json(&text, bytes.len() as u64 == SNIFFED),
        "xml" => format_of_xml(&text),
        "csv" => format_of_csv(&text),
        _ => FileFormat::Other,
    }
}

/// Tells JSON by the keys of its outermost objects; `cut` where the text is only the start of the file.
fn format_of_json(text: &str, cut: bool) -> FileFormat {
    let Keys { list, outer, inner, open } = keys(text);
    let cut = cut || open;
    let has = |set: &BTreeSet<String>, names: &[&str]| names.iter().all(|name| set.contains(*name));
    if list {
        // Keys of a list's objects.
        return if has(&outer, &["image_id", "category_id"]) {
            FileFormat::NotRead("detections or annotations without their images (COCO's results form)")
        } else if has(&outer, &["image", "annotations"]) {
            FileFormat::NotRead("CreateML JSON")
        } else if has(&outer, &["data"]) && (has(&outer, &["annotations"]) || has(&outer, &["completions"])) {
            FileFormat::NotRead("Label Studio's raw JSON (export as COCO or YOLO)")
        } else if has(&outer, &["name", "labels"]) {
            FileFormat::NotRead("BDD100K JSON")
        } else {
            FileFormat::Other
        };
    }
    let coco = ["images", "annotations", "categories"].iter().filter(|key| outer.contains(**key)).count();
    if coco >= 2 || (coco == 1 && cut) {
        // Files without objects: captions have no categories, image_info no annotations.
        return if coco == 3 || cut {
            FileFormat::Of(Format::Coco)
        } else if !outer.contains("categories") && text.contains("\"category_id\"") {
            FileFormat::NotRead("COCO JSON without `categories` (add that list: the id and the name of each class)")
        } else {
            FileFormat::NotRead("COCO JSON without boxes")
        };
    }
    if has(&outer, &["shapes"])
        && (has(&outer, &["imagePath"]) || has(&outer, &["imageHeight"]) || has(&outer, &["version"]))
    {
        return FileFormat::Of(Format::Labelme);
    }
    if outer.contains("_via_img_metadata") || (has(&inner, &["filename", "regions"])) {
        return FileFormat::Of(Format::Via);
    }
    if has(&outer, &["project", "view"]) && (outer.contains("file") || outer.contains("metadata")) {
        return FileFormat::NotRead("VIA 3 JSON (export as COCO)");
    }
    if has(&outer, &["objects", "size"]) {
        return FileFormat::NotRead("Supervisely JSON (export as COCO)");
    }
    if has(&outer, &["items", "categories"]) {
        return FileFormat::NotRead("Datumaro JSON (export as COCO)");
    }
    FileFormat::Other
}

fn format_of_xml(text: &str) -> FileFormat {
    let mut text = text.to_owned();
    while let Some((before, after)) = text.split_once("<!--") {
        text = format!("{before}{}", after.split_once("-->").map_or("", |(_, rest)| rest));
    }
    // The first element: after `<` comes neither `?` nor `!`.
    let root =
        text.match_indices('<').map(|(i, _)| &text[i + 1..]).find(|rest| rest.starts_with(|c: char| c.is_alphabetic()));
    let name: String =
        root.unwrap_or_default().chars().take_while(|c| c.is_alphanumeric() || "_-:".contains(*c)).collect();
    match name.as_str() {
        "annotation" => FileFormat::Of(Format::Voc),
        "annotations" if text.contains("<image") => {
            FileFormat::NotRead("CVAT's XML (export as COCO, YOLO or PASCAL VOC)")
        }
        "dataset" if text.contains("<images") => FileFormat::NotRead("dlib's XML"),
        _ => FileFormat::Other,
    }
}

fn format_of_csv(text: &str) -> FileFormat {
    let cells = cells(text.lines().next().unwrap_or_default());
    let is_image = |cell: &String| IMAGE_EXTENSIONS.contains(&extension_of(cell).as_str());
    let numbers = cells.iter().filter(|cell| cell.parse::<f64>().is_ok()).count();
    if tells_boxes(&cells).is_some() {
        FileFormat::Of(Format::Csv)
    } else if cells.iter().any(|cell| cell == "region_shape_attributes") {
        FileFormat::NotRead("VIA's CSV (save the project, or export as JSON)")
    } else if numbers >= 4 && cells.iter().any(is_image) {
        FileFormat::NotRead(
            "CSV without a header (write the columns' names into its first line: filename,class,xmin,ymin,xmax,ymax)",
        )
    } else {
        FileFormat::Other
    }
}

struct Keys {
    /// Whether the outermost value is a list; then `outer` holds its objects' keys.
    list: bool,
    outer: BTreeSet<String>,
    inner: BTreeSet<String>,
    /// Whether the text ends before its outermost value does.
    open: bool,
}

/// The keys of the two outermost levels, as far as the text goes.
fn keys(text: &str) -> Keys {
    let bytes = text.as_bytes();
    let list = text.trim_start().starts_with('[');
    let mut keys = Keys { list, outer: BTreeSet::new(), inner: BTreeSet::new(), open: false };
    let outermost = if list { 2 } else { 1 };
    let (mut depth, mut at) = (0usize, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let start = at + 1;
                let mut end = start;
                while end < bytes.len() && bytes[end] != b'"' {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                at = end;
                let is_key = bytes
                    .get(end + 1..)
                    .is_some_and(|rest| rest.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b':'));
                if let (true, Some(key)) = (is_key, text.get(start..end)) {
                    if depth == outermost {
                        keys.outer.insert(key.to_owned());
                    } else if depth == outermost + 1 {
                        keys.inner.insert(key.to_owned());
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    keys.open = depth > 0;
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_by_its_keys() {
        for (text, kind) in [
            (
                r#"{"info": {"images": 1}, "images": [], "annotations": [], "categories": []}"#,
                FileFormat::Of(Format::Coco),
            ),
            (r#"{"images": [], "annotations": [{"caption": "x"}]}"#, FileFormat::NotRead("COCO JSON without boxes")),
            (
                r#"{"images": [], "annotations": [{"category_id": 1}]}"#,
                FileFormat::NotRead(
                    "COCO JSON without `categories` (add that list: the id and the name of each class)",
                ),
            ),
            (
                r#"{"version": "5", "shapes": [{"label": "a"}], "imagePath": "x\"y.jpg"}"#,
                FileFormat::Of(Format::Labelme),
            ),
            (r#"{"a.jpg12": {"filename": "a.jpg", "regions": []}}"#, FileFormat::Of(Format::Via)),
            (r#"{"_via_settings": {}, "_via_img_metadata": {}}"#, FileFormat::Of(Format::Via)),
            (r#"[{"image": "a.jpg", "annotations": []}]"#, FileFormat::NotRead("CreateML JSON")),
            (r#"{"name": "package", "version": "1"}"#, FileFormat::Other),
            ("[1, 2]", FileFormat::Other),
            ("", FileFormat::Other),
        ] {
            assert_eq!(format_of_json(text, false), kind, "{text}");
        }
        assert_eq!(format_of_json(r#"{"images": [{"id": 1}, {"#, true), FileFormat::Of(Format::Coco));
    }

    #[test]
    fn xml_and_csv_are_told_by_their_heads() {
        assert_eq!(
            format_of_xml("<?xml version=\"1.0\"?><!-- <a> --><annotation verified=\"yes\">"),
            FileFormat::Of(Format::Voc)
        );
        assert!(matches!(format_of_xml("<annotations><version>1.1</version><image id=\"0\">"), FileFormat::NotRead(_)));
        assert_eq!(format_of_xml("<project>"), FileFormat::Other);
        assert_eq!(format_of_csv("filename,width,height,class,xmin,ymin,xmax,ymax\n"), FileFormat::Of(Format::Csv));
        assert_eq!(format_of_csv("image;label;bbox\n"), FileFormat::Of(Format::Csv));
        assert_eq!(format_of_csv("filename,class,x,y,width,height\n"), FileFormat::Of(Format::Csv));
        assert!(matches!(format_of_csv("a/b.jpg,1,2,9,7,cat\n"), FileFormat::NotRead(_)));
        for other in ["name;age\n", "filename,width,height\n", "x,y\n", "a.jpg,cat\n"] {
            assert_eq!(format_of_csv(other), FileFormat::Other, "{other}");
        }
    }
}
