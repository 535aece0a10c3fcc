//! The box around an outline: COCO's polygons and run-length encoded masks.

use serde::Deserialize;

use crate::loose::Loose;

/// `[x, y, width, height]` around the points `x1, y1, x2, y2, ..`; `None` for fewer than two points, or a number that is not finite.
pub(crate) fn around(points: &[f64]) -> Option<[f64; 4]> {
    if points.len() < 4 || points.len() % 2 != 0 || points.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let start = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
    let [x1, y1, x2, y2] =
        points.chunks_exact(2).fold(start, |b, p| [b[0].min(p[0]), b[1].min(p[1]), b[2].max(p[0]), b[3].max(p[1])]);
    Some([x1, y1, x2 - x1, y2 - y1])
}

/// A mask in COCO's run-length code: runs of pixels outside and inside in turn, column by column.
#[derive(Deserialize)]
struct Rle {
    counts: Counts,
    /// Height and width.
    size: [Loose; 2],
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Runs(Vec<u64>),
    Packed(String),
}

/// Numbers, or lists of them to any depth: polygons as tools nest them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Points {
    Nested(Vec<Points>),
    Value(Loose),
}

impl Points {
    /// All numbers, in their order; `None` where something is no number.
    fn flat(&self, out: &mut Vec<f64>) -> Option<()> {
        match self {
            Self::Nested(points) => points.iter().try_for_each(|point| point.flat(out)),
            Self::Value(value) => value.number().map(|number| out.push(number)),
        }
    }
}

/// The box around a `segmentation` in COCO's JSON: polygons, one polygon, points in pairs, or a mask, which must have the image's size
/// (width and height) where that is known.
pub(crate) fn box_of_segmentation(json: &str, image: Option<(u32, u32)>) -> Option<[f64; 4]> {
    if json.trim_start().starts_with('[') {
        let points: Points = serde_json::from_str(json).ok()?;
        let mut numbers = Vec::new();
        points.flat(&mut numbers)?;
        return around(&numbers);
    }
    let Rle { counts, size } = serde_json::from_str(json).ok()?;
    if image.is_some_and(|(width, height)| (size[0].pixels(), size[1].pixels()) != (Some(height), Some(width))) {
        return None;
    }
    let runs = match counts {
        Counts::Runs(runs) => runs,
        Counts::Packed(text) => unpacked(text.as_bytes())?,
    };
    box_of_runs(&runs, size[0].whole()?, size[1].whole()?)
}

/// The runs of COCO's packed text: groups of five bits from the lowest, 48 added, bit 5 set where more follow; from the
/// fourth run on, the difference to the run two before.
fn unpacked(text: &[u8]) -> Option<Vec<u64>> {
    let mut runs: Vec<i64> = Vec::new();
    let mut bytes = text.iter();
    while let Some(&first) = bytes.next() {
        let (mut value, mut shift, mut byte) = (0i64, 0u32, first);
        loop {
            let bits = i64::from(byte.checked_sub(48)?);
            if bits > 63 || shift > 55 {
                return None;
            }
            value |= (bits & 31) << shift;
            shift += 5;
            if bits & 32 == 0 {
                if bits & 16 != 0 {
                    value |= -1 << shift;
                }
                break;
            }
            byte = *bytes.next()?;
        }
        if runs.len() > 2 {
            value = value.checked_add(runs[runs.len() - 2])?;
        }
        runs.push(value);
    }
    runs.into_iter().map(|run| u64::try_from(run).ok()).collect()
}

fn box_of_runs(runs: &[u64], height: u64, width: u64) -> Option<[f64; 4]> {
    if height == 0 || width == 0 {
        return None;
    }
    let (mut at, mut inside) = (0u64, false);
    let mut corners: Option<[u64; 4]> = None;
    for &run in runs {
        let end = at.checked_add(run)?;
        if inside && run > 0 {
            let (first, last) = (at / height, (end - 1) / height);
            // A run over the end of a column touches the image's top and bottom.
            let (top, bottom) = if first == last { (at % height, (end - 1) % height) } else { (0, height - 1) };
            let b = corners.unwrap_or([first, top, last, bottom]);
            corners = Some([b[0].min(first), b[1].min(top), b[2].max(last), b[3].max(bottom)]);
        }
        at = end;
        inside = !inside;
    }
    let [x1, y1, x2, y2] = corners.filter(|_| at <= height.checked_mul(width).unwrap_or(0))?;
    Some([x1 as f64, y1 as f64, (x2 - x1 + 1) as f64, (y2 - y1 + 1) as f64])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polygons_and_masks_give_their_boxes() {
        assert_eq!(box_of_segmentation("[[1, 2, 5, 2, 5, 8]]", None), Some([1.0, 2.0, 4.0, 6.0]));
        assert_eq!(box_of_segmentation("[[1, 2, 5, 2, 5, 8], [0, 3, 1, 3, 1, 4]]", None), Some([0.0, 2.0, 5.0, 6.0]));
        assert_eq!(box_of_segmentation("[1, 2, 5, 2, 5, 8]", None), Some([1.0, 2.0, 4.0, 6.0]));
        // A mask of 4 rows and 5 columns with the pixels of rows 1 and 2 in columns 2 and 3: 9 outside, 2 in, 2 outside, 2 in, 5.
        let runs = r#"{"size": [4, 5], "counts": [9, 2, 2, 2, 5]}"#;
        assert_eq!(box_of_segmentation(runs, None), Some([2.0, 1.0, 2.0, 2.0]));
        assert_eq!(box_of_segmentation(runs, Some((5, 4))), Some([2.0, 1.0, 2.0, 2.0]));
        assert_eq!(box_of_segmentation(runs, Some((4, 5))), None);
        assert_eq!(box_of_segmentation(r#"[[[1, 2], ["5", 2], [5, 8]]]"#, None), Some([1.0, 2.0, 4.0, 6.0]));
        // The same packed: 9, 2, 2, 2 - 2, 5 - 2, each with 48 added.
        assert_eq!(box_of_segmentation(r#"{"size": [4, 5], "counts": "92203"}"#, None), Some([2.0, 1.0, 2.0, 2.0]));
        for none in [
            "null",
            "[]",
            "[[]]",
            "[[1, 2]]",
            "{}",
            r#"{"size": [4, 5], "counts": [20]}"#,
            r#"{"size": [0, 0], "counts": [0, 5]}"#,
        ] {
            assert_eq!(box_of_segmentation(none, None), None, "{none}");
        }
        assert_eq!(box_of_segmentation(r#"{"size": [4, 5], "counts": "~~~~~~~~~~~~~~~~"}"#, None), None);
    }
}
