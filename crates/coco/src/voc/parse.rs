//! One XML file of PASCAL VOC.

use roxmltree::{Document, Node};

use super::VocBoxes;

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

impl VocObject {
    /// `[x, y, width, height]` in pixels.
    ///
    /// Two equal coordinates give a side of 0 under either reading. `Pixels` would make it one pixel, but what annotators leave
    /// there is a click, not an object.
    pub fn bbox(&self, boxes: VocBoxes) -> [f64; 4] {
        let [xmin, ymin, xmax, ymax] = self.corners;
        let side = |min: f64, max: f64| match boxes {
            VocBoxes::Edges => (min, max - min),
            VocBoxes::Pixels if max > min => (min - 1.0, max - min + 1.0),
            VocBoxes::Pixels => (min - 1.0, max - min),
        };
        let ((x, width), (y, height)) = (side(xmin, xmax), side(ymin, ymax));
        [x, y, width, height]
    }
}

/// Reads one XML file's bytes.
///
/// # Errors
/// What is wrong, and in which line: no XML (in UTF-8, without a DTD), another root than `<annotation>`, an object without a name or
/// box, a coordinate that is no finite number.
///
/// ```
/// let xml = "<annotation><filename>a.jpg</filename><size><width>9</width><height>7</height></size>
///     <object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>7</ymax></bndbox></object></annotation>";
/// let file = docent_coco::parse_voc(xml.as_bytes())?;
/// assert_eq!(file.objects[0].bbox(docent_coco::VocBoxes::Pixels), [0.0, 0.0, 9.0, 7.0]);
/// # Ok::<(), String>(())
/// ```
pub fn parse_voc(xml: &[u8]) -> std::result::Result<VocFile, String> {
    let text = std::str::from_utf8(xml).map_err(|e| format!("not UTF-8: {e}"))?;
    let document = Document::parse(text).map_err(|e| e.to_string())?;
    let root = document.root_element();
    if !root.has_tag_name("annotation") {
        return Err(format!("its root is <{}>, not <annotation>", root.tag_name().name()));
    }
    let size = child(root, "size");
    let side = |name: &str| -> Parsed<u32> {
        let Some(node) = size.and_then(|size| child(size, name)) else { return Ok(0) };
        let value = number(node)?;
        // Some tools write 640.0.
        if value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value) {
            Ok(value as u32)
        } else {
            Err(at(node, &format!("{value} is no number of pixels")))
        }
    };
    let mut objects = Vec::new();
    // Counted on from object to object: from the start each time would be quadratic.
    let (mut line, mut upto) = (1, 0);
    for node in root.children().filter(|n| n.has_tag_name("object")) {
        let start = node.range().start;
        line += xml[upto..start].iter().filter(|byte| **byte == b'\n').count() as u32;
        upto = start;
        objects.push(object(node, line)?);
    }
    Ok(VocFile {
        filename: child(root, "filename").map(text_of).filter(|name| !name.is_empty()).map(str::to_owned),
        size: (side("width")?, side("height")?),
        objects,
    })
}

/// Something that was read, or what is wrong with it.
type Parsed<T> = std::result::Result<T, String>;

fn object(node: Node<'_, '_>, line: u32) -> Parsed<VocObject> {
    let name = text_of(need(node, "name")?);
    if name.is_empty() {
        return Err(at(node, "<object> with an empty <name>"));
    }
    let bndbox = need(node, "bndbox")?;
    let mut corners = [0.0; 4];
    for (corner, key) in corners.iter_mut().zip(["xmin", "ymin", "xmax", "ymax"]) {
        *corner = number(need(bndbox, key)?)?;
    }
    let difficult = child(node, "difficult").map(text_of).unwrap_or_default();
    Ok(VocObject { name: name.to_owned(), corners, difficult: difficult == "1", line })
}

fn child<'a, 'input>(parent: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    parent.children().find(|node| node.has_tag_name(name))
}

fn need<'a, 'input>(parent: Node<'a, 'input>, name: &str) -> Parsed<Node<'a, 'input>> {
    child(parent, name).ok_or_else(|| at(parent, &format!("<{}> without <{name}>", parent.tag_name().name())))
}

fn text_of<'a>(node: Node<'a, '_>) -> &'a str {
    node.text().unwrap_or_default().trim()
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
