//! The header of a CSV file of boxes: which columns hold the box, and under which names tools write them.

use crate::box_reading::BoxReading;

pub(crate) const XMIN: &[&str] = &["xmin", "x_min", "x1", "left"];
pub(crate) const YMIN: &[&str] = &["ymin", "y_min", "y1", "top"];
pub(crate) const XMAX: &[&str] = &["xmax", "x_max", "x2", "right"];
pub(crate) const YMAX: &[&str] = &["ymax", "y_max", "y2", "bottom"];
const BOX_WIDTH: &[&str] = &["w", "box_width", "bbox_width", "width"];
const BOX_HEIGHT: &[&str] = &["h", "box_height", "bbox_height", "height"];

/// The columns of a box, each under its names, and what they mean where their names tell. The first that a file has count.
type BoxColumns = (&'static [&'static [&'static str]], Option<BoxReading>);
const BOXES: [BoxColumns; 5] = [
    (&[XMIN, YMIN, XMAX, YMAX], Some(BoxReading::Edges)),
    (&[XMIN, YMIN, BOX_WIDTH, BOX_HEIGHT], Some(BoxReading::Xywh)),
    (
        &[&["x_center", "xcenter", "cx"], &["y_center", "ycenter", "cy"], BOX_WIDTH, BOX_HEIGHT],
        Some(BoxReading::Centers),
    ),
    // A corner or the centre.
    (&[&["x"], &["y"], BOX_WIDTH, BOX_HEIGHT], None),
    (&[&["bbox", "box", "bounding_box"]], None),
];

/// Where the first of the names stands that a header has: the names' own order decides where a file has two of them.
pub(crate) fn position<S: AsRef<str>>(header: &[S], names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| header.iter().position(|h| h.as_ref().eq_ignore_ascii_case(name)))
}

/// The columns of the boxes, and what their numbers are where the names tell.
pub(crate) fn box_columns<S: AsRef<str>>(header: &[S]) -> Option<(Vec<usize>, Option<BoxReading>)> {
    // Beside one far edge, width and height are the image's, and the other edge is lacking.
    let has_far_edge = position(header, XMAX).or(position(header, YMAX)).is_some();
    BOXES[..if has_far_edge { 1 } else { BOXES.len() }].iter().find_map(|(columns, reading)| {
        let at: Option<Vec<usize>> = columns.iter().map(|names| position(header, names)).collect();
        at.map(|at| (at, *reading))
    })
}

/// The names of the columns in a header, in lower case.
pub(crate) fn cells(header: &str) -> Vec<String> {
    header.split([',', ';', '\t']).map(|cell| cell.trim().trim_matches('"').to_lowercase()).collect()
}

/// Whether the names of a header's columns tell what a box's numbers are; `None` where it is no table of boxes. One that lacks a column
/// is one: whoever reads it says which.
pub(crate) fn tells_boxes(header: &[String]) -> Option<bool> {
    let columns = box_columns(header);
    let edges = [XMIN, YMIN, XMAX, YMAX].iter().filter(|names| position(header, names).is_some()).count();
    let names_images =
        header.iter().any(|cell| ["file", "image", "img", "path"].iter().any(|word| cell.contains(word)));
    match columns {
        Some((_, Some(_))) => Some(true),
        // Other tables have an x and a y too.
        Some((_, None)) => names_images.then_some(false),
        None => (names_images && edges >= 2).then_some(false),
    }
}
