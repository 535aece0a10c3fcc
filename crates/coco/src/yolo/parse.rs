//! One text file of YOLO's.

/// How far a share may lie outside 0..1 before it is taken for something else than a share: a box half outside its image is a
/// finding, a coordinate in pixels is a mistake.
const MOST: f64 = 1.5;

/// One line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct YoloObject {
    /// The class, from 0.
    pub class: u64,
    /// Left, top, right and bottom as shares of the image's width and height.
    pub corners: [f64; 4],
    /// The line in the file, from 1.
    pub line: u32,
}

impl YoloObject {
    /// `[x, y, width, height]` in pixels of an image of this size.
    pub fn bbox(&self, width: u32, height: u32) -> [f64; 4] {
        let (w, h) = (f64::from(width), f64::from(height));
        let [x1, y1, x2, y2] = self.corners;
        [x1 * w, y1 * h, (x2 - x1) * w, (y2 - y1) * h]
    }
}

/// Reads a label file's bytes: its objects, and each line that is none with what is wrong with it. Empty lines are passed over.
///
/// ```
/// let (objects, broken) = docent_coco::parse_yolo(b"0 0.5 0.5 0.25 0.5\n1 0.1 0.1\n");
/// assert_eq!(objects[0].bbox(100, 50), [37.5, 12.5, 25.0, 25.0]);
/// assert_eq!(broken[0].0, 2);
/// ```
pub fn parse_yolo(text: &[u8]) -> (Vec<YoloObject>, Vec<(u32, String)>) {
    let (mut objects, mut broken) = (Vec::new(), Vec::new());
    for (line, bytes) in (1u32..).zip(text.split(|b| *b == b'\n')) {
        match std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8: {e}")).and_then(|text| object(text, line)) {
            Ok(Some(object)) => objects.push(object),
            Ok(None) => {}
            Err(what) => broken.push((line, what)),
        }
    }
    (objects, broken)
}

fn object(text: &str, line: u32) -> Result<Option<YoloObject>, String> {
    let words: Vec<&str> = text.trim_start_matches('\u{feff}').split_whitespace().collect();
    let Some((class, rest)) = words.split_first() else { return Ok(None) };
    // Some tools write every number as a float.
    let class = class.strip_suffix(".0").unwrap_or(class);
    let class: u64 = match class.parse() {
        Ok(class) if class < u64::from(u32::MAX) => class,
        _ => return Err(format!("its class is {class:?}; a class is a whole number from 0")),
    };
    let numbers: Vec<f64> = rest.iter().map(|word| number(word)).collect::<Result<_, _>>()?;
    let corners = match numbers[..] {
        [cx, cy, w, h] => [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0],
        // A polygon has three points or more.
        _ if numbers.len() >= 6 && numbers.len().is_multiple_of(2) => around(&numbers),
        _ => {
            return Err(format!(
                "{} numbers after the class; a box has 4 (centre x, centre y, width, height), a polygon an even number from 6",
                numbers.len()
            ));
        }
    };
    Ok(Some(YoloObject { class, corners, line }))
}

fn number(word: &str) -> Result<f64, String> {
    match word.parse::<f64>() {
        Ok(value) if value.abs() <= MOST => Ok(value),
        Ok(value) if value.is_finite() => {
            Err(format!("{word} is no share of an image's side; divide pixels by the image's width and height"))
        }
        _ => Err(format!("{word:?} is no finite number")),
    }
}

/// The box around a polygon's points.
fn around(points: &[f64]) -> [f64; 4] {
    let start = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
    points.chunks_exact(2).fold(start, |b, p| [b[0].min(p[0]), b[1].min(p[1]), b[2].max(p[0]), b[3].max(p[1])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_tools_write_them() {
        let text = b"\xEF\xBB\xBF2 0.5 0.25 0.5 0.5\r\n\n  0.0 0.1 0.1 0.2 0.2 \n1 0.1 0.2 0.5 0.2 0.5 0.75 0.1 0.75\n";
        let (objects, broken) = parse_yolo(text);
        assert_eq!(broken, []);
        let all: Vec<_> = objects.iter().map(|o| (o.class, o.line)).collect();
        assert_eq!(all, [(2, 1), (0, 3), (1, 4)]);
        assert_eq!(objects[0].corners, [0.25, 0.0, 0.75, 0.5]);
        assert_eq!(objects[2].corners, [0.1, 0.2, 0.5, 0.75]);
        assert_eq!(objects[0].bbox(8, 4), [2.0, 0.0, 4.0, 2.0]);
    }

    #[test]
    fn each_broken_line_says_why() {
        for (line, part) in [
            ("cat 0.5 0.5 0.1 0.1", "\"cat\""),
            ("-1 0.5 0.5 0.1 0.1", "whole number"),
            ("1.5 0.5 0.5 0.1 0.1", "whole number"),
            ("0 0.5 0.5 0.1", "3 numbers"),
            ("0 0.5 0.5 0.1 0.1 0.9", "5 numbers"),
            ("0 0.5 0.5 0.1 x", "\"x\""),
            ("0 0.5 0.5 nan 0.1", "finite"),
            ("0 320 240 64 48", "divide pixels"),
            ("0 1e999 0.5 0.1 0.1", "finite"),
        ] {
            let text = format!("0 0.5 0.5 0.1 0.1\n{line}\n");
            let (objects, broken) = parse_yolo(text.as_bytes());
            assert_eq!((objects.len(), broken.len(), broken[0].0), (1, 1, 2), "{line}");
            assert!(broken[0].1.contains(part), "{line}: {}", broken[0].1);
        }
        assert!(parse_yolo(b"\xff 1 2").1[0].1.contains("UTF-8"));
        assert_eq!(parse_yolo(b""), (vec![], vec![]));
    }
}
