//! One XML file of PASCAL VOC.

use std::borrow::Cow;

use encoding_rs::Encoding;
use roxmltree::{Document, Node, ParsingOptions};

use crate::outline::around;
use crate::text_file::{decode, utf16_without_mark};

/// What one XML file says.
#[derive(Debug, Clone, PartialEq)]
pub struct VocFile {
    /// `<filename>`, where it is there and not empty.
    pub filename: Option<String>,
    /// `<size>`: width, height; 0 where the file says nothing.
    pub size: (u32, u32),
    /// In the order of the file.
    pub objects: Vec<VocObject>,
}

/// One `<object>`; what else it holds (pose, parts, truncated) is passed over.
#[derive(Debug, Clone, PartialEq)]
pub struct VocObject {
    /// The class.
    pub name: String,
    /// `xmin`, `ymin`, `xmax`, `ymax` as they stand in the file, finite.
    pub corners: [f64; 4],
    /// Whether it is marked difficult.
    pub difficult: bool,
    /// The line in the file, from 1.
    pub line: u32,
}

/// Reads one XML file's bytes. They are in the encoding of their byte order mark, or the one that the XML declares, or `encoding`, or
/// UTF-8.
///
/// # Errors
/// What is wrong, and in which line: no XML, a DTD with entities, another root than `<annotation>`, an object without a name or box, a
/// coordinate that is no finite number, a class that cannot be read in the encoding.
///
/// ```
/// let xml = "<annotation><filename>a.jpg</filename><size><width>9</width><height>7</height></size>
///     <object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>7</ymax></bndbox></object></annotation>";
/// let file = docent_coco::parse_voc(xml.as_bytes(), None)?;
/// assert_eq!(file.objects[0].corners, [1.0, 1.0, 9.0, 7.0]);
/// # Ok::<(), String>(())
/// ```
pub fn parse_voc(xml: &[u8], encoding: Option<&'static Encoding>) -> std::result::Result<VocFile, String> {
    let text = text_of_xml(xml, encoding)?;
    if text.contains("<!ENTITY") {
        return Err("its DTD defines entities, which are not read; take the DTD out".to_owned());
    }
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    // Some exporters leave a blank line before the declaration.
    let text = text.trim_start();
    let document = Document::parse_with_options(text, options).map_err(|e| e.to_string())?;
    let root = document.root_element();
    if !root.has_tag_name("annotation") {
        return Err(format!("its root is <{}>, not <annotation>", root.tag_name().name()));
    }
    let size = child(root, "size");
    let side = |name: &str| -> Parsed<u32> {
        let Some(node) = size.and_then(|size| child(size, name)) else { return Ok(0) };
        let Ok(value) = number(node) else { return Ok(0) };
        // Some tools write 640.0, or -1 for what they do not know.
        Ok(if (0.5..=f64::from(u32::MAX)).contains(&value) { value.round() as u32 } else { 0 })
    };
    let mut objects = Vec::new();
    // Counted on from object to object: from the start each time would be quadratic.
    let (mut line, mut upto) = (1, 0);
    for node in root.children().filter(|n| n.has_tag_name("object")) {
        // LabelMe's web tool keeps what was deleted.
        if child(node, "deleted").is_some_and(|n| text_of(n) == "1") {
            continue;
        }
        let start = node.range().start;
        line += text.as_bytes()[upto..start].iter().filter(|byte| **byte == b'\n').count() as u32;
        upto = start;
        objects.push(object(node, line)?);
    }
    Ok(VocFile {
        // A name that cannot be read in the encoding is none; the file's own name tells the image.
        filename: child(root, "filename")
            .map(text_of)
            .filter(|name| !name.is_empty() && !name.contains(char::REPLACEMENT_CHARACTER)),
        size: (side("width")?, side("height")?),
        objects,
    })
}

/// Something that was read, or what is wrong with it.
type Parsed<T> = std::result::Result<T, String>;

fn object(node: Node<'_, '_>, line: u32) -> Parsed<VocObject> {
    for part in ["name", "bndbox"] {
        if node.children().filter(|n| n.has_tag_name(part)).count() > 1 {
            return Err(at(node, &format!("an <object> with more than one <{part}>")));
        }
    }
    let name = text_of(need(node, "name")?);
    let name = name.as_str();
    if name.is_empty() {
        return Err(at(node, "<object> with an empty <name>"));
    }
    if name.contains(char::REPLACEMENT_CHARACTER) {
        let what = format!(
            "<name> {name:?} is not UTF-8; declare the file's encoding in its first line (<?xml version=\"1.0\" \
             encoding=\"windows-1252\"?>), or name it with --encoding windows-1252 (or gbk, shift_jis, whichever it is)"
        );
        return Err(at(node, &what));
    }
    if child(node, "robndbox").is_some() && child(node, "bndbox").is_none() {
        return Err(at(node, "an oriented box (<robndbox>) is not read; export axis-aligned boxes"));
    }
    let mut corners = [0.0; 4];
    match (child(node, "bndbox"), child(node, "polygon")) {
        // LabelMe's web tool and RectLabel outline objects.
        (None, Some(polygon)) => {
            let points = points(polygon)?;
            let [x, y, w, h] = around(&points).ok_or_else(|| at(polygon, "a <polygon> without points"))?;
            corners = [x, y, x + w, y + h];
        }
        _ => {
            let bndbox = need(node, "bndbox")?;
            for (corner, key) in corners.iter_mut().zip(["xmin", "ymin", "xmax", "ymax"]) {
                *corner = number(need(bndbox, key)?)?;
            }
        }
    }
    let difficult = child(node, "difficult").map(text_of).unwrap_or_default();
    let difficult = match difficult.to_lowercase().as_str() {
        "" | "0" | "false" | "no" => false,
        "1" | "true" | "yes" => true,
        other => return Err(at(node, &format!("<difficult> holds {other:?}; it is 0 or 1"))),
    };
    Ok(VocObject { name: name.to_owned(), corners, difficult, line })
}

/// The XML as text. What cannot be read in its encoding is U+FFFD: much of a file is not read at all.
fn text_of_xml<'a>(xml: &'a [u8], encoding: Option<&'static Encoding>) -> Parsed<Cow<'a, str>> {
    if Encoding::for_bom(xml).is_some() || utf16_without_mark(xml).is_some() {
        return Ok(decode(xml, None));
    }
    let head = &xml[..xml.len().min(256)];
    let head = String::from_utf8_lossy(head);
    let declaration = head.trim_start().strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")).map(|(d, _)| d);
    let declared = declaration.and_then(|d| d.split_once("encoding")).and_then(|(_, rest)| {
        let rest = rest.trim_start().strip_prefix('=')?.trim_start();
        let quote = rest.chars().next().filter(|c| *c == '"' || *c == '\'')?;
        rest[1..].split_once(quote).map(|(name, _)| name)
    });
    let Some(name) = declared else { return Ok(decode(xml, encoding)) };
    match Encoding::for_label(name.as_bytes()) {
        // Who writes that it is UTF-16 into a file of single bytes is mistaken: the declaration itself could be read.
        Some(e) if e == encoding_rs::UTF_16LE || e == encoding_rs::UTF_16BE => Ok(decode(xml, encoding)),
        // Bytes that make whole characters in UTF-8 are UTF-8, whatever an editor left in the first line.
        Some(_) if std::str::from_utf8(xml).is_ok() => Ok(decode(xml, None)),
        Some(declared) => Ok(decode(xml, Some(declared))),
        None => Err(format!(
            "its declared encoding {name:?} is not known; correct the first line, or write the file in UTF-8"
        )),
    }
}

fn child<'a, 'input>(parent: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    parent.children().find(|node| node.has_tag_name(name))
}

fn need<'a, 'input>(parent: Node<'a, 'input>, name: &str) -> Parsed<Node<'a, 'input>> {
    child(parent, name).ok_or_else(|| at(parent, &format!("<{}> without <{name}>", parent.tag_name().name())))
}

/// The text of an element, comments apart.
fn text_of(node: Node<'_, '_>) -> String {
    let text: String = node.children().filter(Node::is_text).filter_map(|n| n.text()).collect();
    text.trim().to_owned()
}

/// The points of a `<polygon>`: `<pt><x>..</x><y>..</y></pt>`, or `<x1>`, `<y1>`, `<x2>`, ...
fn points(polygon: Node<'_, '_>) -> Parsed<Vec<f64>> {
    let is_number = |n: &Node<'_, '_>| n.is_element() && n.tag_name().name().starts_with(['x', 'y']);
    polygon.descendants().filter(is_number).map(number).collect()
}

fn number(node: Node<'_, '_>) -> Parsed<f64> {
    let text = text_of(node);
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(at(node, &format!("<{}> holds {text:?}, which is no finite number", node.tag_name().name()))),
    }
}

fn at(node: Node<'_, '_>, what: &str) -> String {
    format!("line {}: {what}", node.document().text_pos_at(node.range().start).row)
}
