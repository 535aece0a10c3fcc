//! The lines of YOLO's label files, and what their columns mean.

use crate::box_reading::BoxReading;
use crate::outline::around;

/// One line: a class and numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct YoloRow {
    /// The class, from 0.
    pub class: u64,
    /// What follows the class.
    pub numbers: Vec<f64>,
    /// The line in the file, from 1.
    pub line: u32,
}

/// Reads a label file's text: its lines, and each line that is none with what is wrong with it. Empty lines are passed over.
///
/// ```
/// let (rows, broken) = docent_coco::parse_yolo("0 0.5 0.5 0.25 0.5\n1 0.1 0.1\n");
/// assert_eq!(rows[0].numbers, [0.5, 0.5, 0.25, 0.5]);
/// assert_eq!(broken[0].0, 2);
/// ```
pub fn parse_yolo(text: &str) -> (Vec<YoloRow>, Vec<(u32, String)>) {
    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    // Old Macs end lines in a carriage return alone.
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
    for (line, text) in (1u32..).zip(text.lines()) {
        match row(text, line) {
            Ok(Some(row)) => rows.push(row),
            Ok(None) => {}
            Err(what) => broken.push((line, what)),
        }
    }
    (rows, broken)
}

fn row(text: &str, line: u32) -> Result<Option<YoloRow>, String> {
    // Some tools separate by commas.
    let mut words = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    let Some(class) = words.next() else { return Ok(None) };
    // Some tools write every number as a float.
    let class = class.strip_suffix(".0").unwrap_or(class);
    let class: u64 = match class.parse() {
        Ok(class) if class < u64::from(u32::MAX) => class,
        _ => return Err(format!("its class is {class:?}; a class is a whole number from 0")),
    };
    let number = |word: &str| {
        word.parse::<f64>().ok().filter(|v| v.is_finite()).ok_or_else(|| format!("{word:?} is no finite number"))
    };
    let numbers: Vec<f64> = words.map(number).collect::<Result<_, _>>()?;
    if numbers.len() < 4 {
        return Err(format!(
            "{} numbers after the class; a box has 4 (centre x, centre y, width, height), a polygon an even number from 6",
            numbers.len()
        ));
    }
    Ok(Some(YoloRow { class, numbers, line }))
}

/// What follows the class on the lines of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Columns {
    /// Four numbers are a box, six and more a polygon.
    BoxOrPolygon,
    /// A box, then key points: so many numbers in all.
    Pose { numbers: usize },
    /// A box, then a confidence.
    ConfidenceLast,
    /// A confidence, then a box.
    ConfidenceFirst,
    /// The four corners of a turned box from this place on, and a confidence before or behind them.
    TurnedConfidence { corners: usize },
}

impl Columns {
    /// Tells the columns from all lines of a data set and its `kpt_shape`.
    ///
    /// # Errors
    /// Why it cannot be told, and what to do.
    pub fn of(rows: &[&YoloRow], kpt_shape: Option<[usize; 2]>) -> Result<Self, (String, String)> {
        let with_more: Vec<&YoloRow> = rows.iter().filter(|row| row.numbers.len() > 4).copied().collect();
        let Some(length) = most_common_length(&with_more) else { return Ok(Self::BoxOrPolygon) };
        if let Some([points, values]) = kpt_shape {
            let numbers = 4 + points * values;
            if most(&with_more, |row| is_inside(&row.numbers[..4])) {
                return Ok(Self::Pose { numbers });
            }
            let problem = format!(
                "kpt_shape in data.yaml says that each line is a box and {points} key points, and the first four numbers of most lines are \
                 no box inside the image"
            );
            return Err((problem, "correct kpt_shape, or take it out if the lines are polygons".to_owned()));
        }
        if length == 5 && with_more.len() == rows.len() {
            return confidence(rows);
        }
        if length == 9 {
            let turned = |at: usize| {
                most(&with_more, |r| {
                    r.numbers.len() == 9 && is_share(r.numbers[8 - 8 * at]) && is_turned(&r.numbers[at..at + 8])
                })
            };
            if let Some(corners) = [0, 1].into_iter().find(|at| turned(*at)) {
                return Ok(Self::TurnedConfidence { corners });
            }
        }
        let same: Vec<&YoloRow> = with_more.into_iter().filter(|row| row.numbers.len() == length).collect();
        if length == 6
            && most(&same, |r| is_inside(&r.numbers) && is_share(r.numbers[4]) && r.numbers[5].fract() == 0.0)
        {
            return Err((
                "the lines hold a box, a confidence and a whole number (the id of a track?), as predictions do"
                    .to_owned(),
                "take the two last columns out of the files".to_owned(),
            ));
        }
        let pose = |values: usize| {
            length >= 6 && (length - 4).is_multiple_of(values) && most(&same, |row| is_pose(&row.numbers, values))
        };
        let Some(values) = [3, 2].into_iter().find(|values| pose(*values)) else { return Ok(Self::BoxOrPolygon) };
        let points = (length - 4) / values;
        Err((
            format!(
                "most lines have {length} numbers after the class, of which the first four are a box around the points that follow: these \
                 look like key points (a pose data set), and might be polygons"
            ),
            format!("say which in data.yaml: kpt_shape: [{points}, {values}] for key points, which are passed over"),
        ))
    }

    /// A line for a run's log.
    pub fn note(self, rows: usize) -> Option<String> {
        match self {
            Self::BoxOrPolygon => None,
            Self::Pose { .. } => Some(format!("key points follow the box on {rows} lines; they are passed over")),
            Self::TurnedConfidence { corners } => Some(format!(
                "{rows} lines have a column {} the four corners, a confidence as predictions have; it is passed over",
                if corners == 0 { "after" } else { "before" }
            )),
            Self::ConfidenceLast | Self::ConfidenceFirst => {
                let place = if self == Self::ConfidenceLast { "after" } else { "before" };
                Some(format!(
                    "{rows} lines have a sixth column {place} the box, a confidence as predictions have; it is passed over (if it is the \
                     angle of a turned box, the boxes are wrong)"
                ))
            }
        }
    }

    /// A line's box: its numbers, and their reading where these are not the folder's.
    pub fn object(self, row: &YoloRow) -> Result<([f64; 4], Option<BoxReading>), String> {
        let four = |at: usize| {
            let mut numbers = [0.0; 4];
            numbers.copy_from_slice(&row.numbers[at..at + 4]);
            numbers
        };
        match (self, row.numbers.len()) {
            (_, 4) => Ok((four(0), None)),
            (Self::Pose { numbers }, n) if n == numbers => Ok((four(0), None)),
            (Self::Pose { numbers }, n) => Err(format!(
                "{n} numbers after the class; kpt_shape in data.yaml asks for {numbers} (or 4, without key points)"
            )),
            (Self::ConfidenceLast, 5) => Ok((four(0), None)),
            (Self::ConfidenceFirst, 5) => Ok((four(1), None)),
            (Self::TurnedConfidence { corners }, 9) => outline(&row.numbers[corners..corners + 8]),
            (_, n) if n >= 6 && n.is_multiple_of(2) => outline(&row.numbers),
            (_, n) => Err(format!(
                "{n} numbers after the class; a box has 4 (centre x, centre y, width, height), a polygon an even number from 6; key points \
                 need kpt_shape in data.yaml, a confidence stands on every line or on none"
            )),
        }
    }
}

/// The box around points.
fn outline(points: &[f64]) -> Result<([f64; 4], Option<BoxReading>), String> {
    let bbox = around(points).ok_or("a polygon whose points are no numbers")?;
    Ok((bbox, Some(BoxReading::XywhShares)))
}

/// How far a share may lie over the border: tools round.
const ROUNDING: f64 = 0.02;

/// Whether four numbers are the centre and the sides of a box inside the image.
fn is_inside(b: &[f64]) -> bool {
    let inside = |c: f64, s: f64| s > 0.0 && c - s / 2.0 >= -ROUNDING && c + s / 2.0 <= 1.0 + ROUNDING;
    inside(b[0], b[2]) && inside(b[1], b[3])
}

/// Whether a condition holds for at least four of five rows, and there are some.
fn most(rows: &[&YoloRow], holds: impl Fn(&YoloRow) -> bool) -> bool {
    let count = rows.iter().filter(|row| holds(row)).count();
    count > 0 && 5 * count >= 4 * rows.len()
}

/// The number of numbers that most rows have.
fn most_common_length(rows: &[&YoloRow]) -> Option<usize> {
    let mut counts = std::collections::BTreeMap::new();
    rows.iter().for_each(|row| *counts.entry(row.numbers.len()).or_insert(0usize) += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(length, _)| length)
}

fn is_share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

/// Whether the first four numbers are a box inside the image, and most of the points that follow (of `values` numbers each) lie in it: a
/// hand may reach out of the box. A point that nobody marked is 0, 0. Four corners of a turned box are none of that.
fn is_pose(numbers: &[f64], values: usize) -> bool {
    let [x, y, w, h] = [numbers[0], numbers[1], numbers[2], numbers[3]];
    if is_turned(numbers) {
        return false;
    }
    let near = |p: f64, c: f64, s: f64| (p - c).abs() <= s / 2.0 + ROUNDING;
    let visible = |p: &[f64]| values < 3 || p[2] == 2.0 || is_share(p[2]);
    let inside = |p: &&[f64]| (p[0] == 0.0 && p[1] == 0.0) || (near(p[0], x, w) && near(p[1], y, h));
    let points: Vec<&[f64]> = numbers[4..].chunks_exact(values).collect();
    is_inside(numbers)
        && points.iter().all(|p| visible(p))
        && 2 * points.iter().filter(|p| inside(p)).count() >= points.len()
}

/// Whether numbers are the four corners of a turned box: both diagonals have the same centre.
fn is_turned(numbers: &[f64]) -> bool {
    let same = |a: f64, b: f64| (a - b).abs() <= ROUNDING;
    match *numbers {
        [x1, y1, x2, y2, x3, y3, x4, y4] => same(x1 + x3, x2 + x4) && same(y1 + y3, y2 + y4),
        _ => false,
    }
}

/// Which of five columns is the confidence: the box is in the other four.
fn confidence(rows: &[&YoloRow]) -> Result<Columns, (String, String)> {
    let last = rows.iter().filter(|r| is_share(r.numbers[4]) && is_inside(&r.numbers[..4])).count();
    let first = rows.iter().filter(|r| is_share(r.numbers[0]) && is_inside(&r.numbers[1..])).count();
    let nearly_all = |n: usize| 20 * (rows.len() - n) <= rows.len();
    match (nearly_all(last), nearly_all(first)) {
        (true, false) => Ok(Columns::ConfidenceLast),
        (false, true) => Ok(Columns::ConfidenceFirst),
        (false, false) if rows.iter().all(|r| r.numbers[4].fract() == 0.0 && is_inside(&r.numbers[..4])) => Err((
            "every line has a sixth column of whole numbers after the box: the ids of tracks, or the angles of turned boxes in degrees"
                .to_owned(),
            "take that column out of the files if it is the id of a track; export turned boxes as four corners".to_owned(),
        )),
        (both, _) => Err((
            format!(
                "every line has a sixth column, a confidence or the angle of a turned box; {}",
                if both {
                    "both the first and the last column could be it"
                } else {
                    "but no four columns are boxes inside their images"
                }
            ),
            "take that column out of the files; boxes that are turned have to be exported without their angle"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<YoloRow> {
        let (rows, broken) = parse_yolo(text);
        assert_eq!(broken, []);
        rows
    }

    fn columns(text: &str, kpt_shape: Option<[usize; 2]>) -> Result<Columns, (String, String)> {
        Columns::of(&rows(text).iter().collect::<Vec<_>>(), kpt_shape)
    }

    #[test]
    fn lines_as_tools_write_them() {
        let rows = rows("\u{feff}2 0.5 0.25 0.5 0.5\r\n\n  0.0 0.1 0.1 0.2 0.2 \n1,0.1,0.2,0.5,0.2\n");
        let all: Vec<_> = rows.iter().map(|r| (r.class, r.line)).collect();
        assert_eq!(all, [(2, 1), (0, 3), (1, 4)]);
        for (line, part) in [
            ("cat 0.5 0.5 0.1 0.1", "\"cat\""),
            ("-1 0.5 0.5 0.1 0.1", "whole number"),
            ("1.5 0.5 0.5 0.1 0.1", "whole number"),
            ("0 0.5 0.5 0.1", "3 numbers"),
            ("0 0.5 0.5 0.1 x", "\"x\""),
            ("0 0.5 0.5 nan 0.1", "finite"),
            ("0 1e999 0.5 0.1 0.1", "finite"),
        ] {
            let (good, broken) = parse_yolo(&format!("0 0.5 0.5 0.1 0.1\n{line}\n"));
            assert_eq!((good.len(), broken.len(), broken[0].0), (1, 1, 2), "{line}");
            assert!(broken[0].1.contains(part), "{line}: {}", broken[0].1);
        }
        assert_eq!(parse_yolo(""), (vec![], vec![]));
    }

    #[test]
    fn what_follows_the_box_is_told_apart() {
        let boxes = "0 0.3 0.3 0.2 0.2\n1 0.7 0.6 0.2 0.4\n";
        assert_eq!(columns(boxes, None), Ok(Columns::BoxOrPolygon));
        // A triangle and a square.
        let polygons = "0 0.1 0.1 0.4 0.1 0.4 0.9\n1 0.5 0.5 0.9 0.5 0.9 0.9 0.5 0.9\n";
        assert_eq!(columns(polygons, None), Ok(Columns::BoxOrPolygon));
        let object = Columns::BoxOrPolygon.object(&rows(polygons)[0]).unwrap();
        let wanted = [0.1, 0.1, 0.30000000000000004, 0.8];
        assert_eq!(object, (wanted, Some(BoxReading::XywhShares)));
        // Turned boxes are polygons of four points, all over the image.
        let turned = "0 0.1 0.8 0.2 0.7 0.3 0.8 0.2 0.9\n0 0.8 0.1 0.9 0.2 0.8 0.3 0.7 0.2\n";
        assert_eq!(columns(turned, None), Ok(Columns::BoxOrPolygon));
        // Key points: 2 of 3 numbers, 4 of 2 numbers.
        let three = "0 0.3 0.3 0.2 0.2 0.25 0.25 2 0.35 0.35 2\n1 0.7 0.6 0.2 0.4 0.7 0.5 2 0 0 0\n";
        assert_eq!(columns(three, Some([2, 3])), Ok(Columns::Pose { numbers: 10 }));
        assert!(columns(three, None).unwrap_err().1.contains("kpt_shape: [2, 3]"));
        let two = "0 0.3 0.3 0.2 0.2 0.22 0.27 0.39 0.31\n1 0.7 0.6 0.2 0.4 0.7 0.5 0.7 0.7\n";
        assert!(columns(two, None).unwrap_err().1.contains("kpt_shape: [2, 2]"));
        let pose = Columns::Pose { numbers: 10 };
        assert_eq!(pose.object(&rows(three)[0]).unwrap().0, [0.3, 0.3, 0.2, 0.2]);
        assert!(pose.object(&rows(polygons)[0]).is_err());
        // One key point outside its box, and a line without any, change nothing.
        let reaching = format!("{three}0 0.3 0.3 0.2 0.2 0.25 0.25 2 0.55 0.35 2\n0 0.3 0.3 0.2 0.2\n");
        assert!(columns(&reaching, None).unwrap_err().1.contains("kpt_shape: [2, 3]"));
        // Polygons under a kpt_shape that is not theirs.
        assert!(columns(turned, Some([2, 2])).unwrap_err().0.contains("kpt_shape"));
        // A box, a confidence, the id of a track.
        assert!(columns("0 0.3 0.3 0.2 0.2 0.9 7\n1 0.7 0.6 0.2 0.4 0.8 12\n", None).unwrap_err().0.contains("track"));
        assert!(columns("0 0.3 0.3 0.2 0.2 7\n1 0.7 0.6 0.2 0.4 12\n", None).unwrap_err().0.contains("ids of tracks"));
        // Turned boxes with a confidence behind or before them.
        let corners = ["0.1 0.8 0.2 0.7 0.3 0.8 0.2 0.9", "0.8 0.1 0.9 0.2 0.8 0.3 0.7 0.2"];
        let behind = columns(&format!("0 {} 0.9\n0 {} 0.8\n", corners[0], corners[1]), None).unwrap();
        assert_eq!(behind, Columns::TurnedConfidence { corners: 0 });
        let before = format!("0 0.97 {}\n0 0.88 {}\n", corners[0], corners[1]);
        let columns_before = columns(&before, None).unwrap();
        assert_eq!(columns_before, Columns::TurnedConfidence { corners: 1 });
        let (bbox, reading) = columns_before.object(&rows(&before)[0]).unwrap();
        assert_eq!((bbox.map(|v| (v * 1e6).round()), reading), ([1e5, 7e5, 2e5, 2e5], Some(BoxReading::XywhShares)));
        // Lines that end in a carriage return alone.
        assert_eq!(rows("0 0.3 0.3 0.2 0.2\r1 0.7 0.6 0.2 0.4\r").len(), 2);
        // Confidences behind and before the box.
        let last = "0 0.3 0.3 0.2 0.2 0.9\n1 0.7 0.6 0.2 0.4 0.8\n";
        assert_eq!(columns(last, None), Ok(Columns::ConfidenceLast));
        let first = "0 0.9 0.3 0.3 0.2 0.2\n1 0.8 0.7 0.6 0.2 0.4\n";
        assert_eq!(columns(first, None), Ok(Columns::ConfidenceFirst));
        assert_eq!(Columns::ConfidenceFirst.object(&rows(first)[1]).unwrap().0, [0.7, 0.6, 0.2, 0.4]);
        for unclear in ["0 0.5 0.5 0.5 0.5 0.5\n", "0 0.3 0.3 0.2 0.2 7.5\n"] {
            assert!(columns(unclear, None).unwrap_err().0.contains("confidence"), "{unclear}");
        }
        // On some lines alone it is a fault of these lines.
        assert_eq!(columns("0 0.3 0.3 0.2 0.2\n0 0.3 0.3 0.2 0.2 0.9\n", None), Ok(Columns::BoxOrPolygon));
        assert!(Columns::BoxOrPolygon.object(&rows("0 0.3 0.3 0.2 0.2 0.9\n")[0]).unwrap_err().contains("5 numbers"));
    }
}
