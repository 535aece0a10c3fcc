//! What the four numbers of a box mean, and how well a data set's numbers fit each meaning.

use serde::{Deserialize, Serialize};

use crate::checks::{OUTSIDE_TOLERANCE, is_outside};

/// What the four numbers of a box mean. Each format has its own reading; tools that write another are common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxReading {
    /// PASCAL VOC's: the first and the last pixel that belong to the object, counted from 1. `x1 = xmin - 1`, `x2 = xmax`, so that
    /// a box of `1..=width` covers the whole image.
    Pixels,
    /// Left, top, right and bottom edge in pixels, counted from 0, as they stand.
    Edges,
    /// COCO's: left, top, width and height in pixels.
    Xywh,
    /// Centre x, centre y, width and height in pixels.
    Centers,
    /// YOLO's: centre x, centre y, width and height as shares of the image's width and height.
    CenterShares,
    /// Left, top, width and height as shares.
    XywhShares,
    /// Left, top, right and bottom edge as shares.
    EdgeShares,
    /// Top, left, bottom and right edge in pixels, counted from 0: rows before columns, as TensorFlow orders them.
    EdgesYx,
}

impl BoxReading {
    /// Every reading.
    pub const ALL: [Self; 8] = [
        Self::Edges,
        Self::Xywh,
        Self::CenterShares,
        Self::EdgeShares,
        Self::XywhShares,
        Self::Centers,
        Self::EdgesYx,
        Self::Pixels,
    ];

    /// As the command line and recipes spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pixels => "pixels",
            Self::Edges => "edges",
            Self::Xywh => "xywh",
            Self::Centers => "centers",
            Self::CenterShares => "center_shares",
            Self::XywhShares => "xywh_shares",
            Self::EdgeShares => "edge_shares",
            Self::EdgesYx => "edges_yx",
        }
    }

    /// What the four numbers are, in words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Pixels => "corners: first and last pixel, counted from 1",
            Self::Edges => "corners (x1, y1, x2, y2) in pixels, counted from 0",
            Self::Xywh => "left, top, width and height in pixels",
            Self::Centers => "centre, width and height in pixels",
            Self::CenterShares => "centre, width and height as shares (0 to 1) of the image",
            Self::XywhShares => "left, top, width and height as shares (0 to 1) of the image",
            Self::EdgeShares => "corners (x1, y1, x2, y2) as shares (0 to 1) of the image",
            Self::EdgesYx => "corners with rows first (y1, x1, y2, x2) in pixels",
        }
    }

    /// Whether the numbers are shares of the image's sides.
    pub(crate) fn is_shares(self) -> bool {
        matches!(self, Self::CenterShares | Self::XywhShares | Self::EdgeShares)
    }

    /// Whether the numbers are corners, which can be swapped.
    fn has_corners(self) -> bool {
        matches!(self, Self::Pixels | Self::Edges | Self::EdgeShares | Self::EdgesYx)
    }

    /// `[x, y, width, height]` in pixels of an image of this size. Sides come out negative where corners are swapped.
    ///
    /// Under `Pixels` two equal coordinates give a side of 0, not of one pixel: annotators leave that where they click by accident.
    pub fn bbox(self, [a, b, c, d]: [f64; 4], width: f64, height: f64) -> [f64; 4] {
        let side = |min: f64, max: f64| if max == min { (min - 1.0, 0.0) } else { (min - 1.0, max - min + 1.0) };
        match self {
            Self::Pixels => {
                let ((x, w), (y, h)) = (side(a, c), side(b, d));
                [x, y, w, h]
            }
            Self::Edges => [a, b, c - a, d - b],
            Self::Xywh => [a, b, c, d],
            Self::Centers => [a - c / 2.0, b - d / 2.0, c, d],
            Self::CenterShares => [(a - c / 2.0) * width, (b - d / 2.0) * height, c * width, d * height],
            Self::XywhShares => [a * width, b * height, c * width, d * height],
            Self::EdgesYx => [b, a, d - b, c - a],
            Self::EdgeShares => [a * width, b * height, (c - a) * width, (d - b) * height],
        }
    }

    /// [`Self::bbox`] with swapped corners put in order, and whether they were swapped.
    ///
    /// A negative width or height of the other readings is turned round where the box then lies in the image: some tools write it
    /// for a box that was drawn from right to left.
    pub fn ordered_bbox(self, numbers: [f64; 4], width: f64, height: f64) -> ([f64; 4], bool) {
        let [a, b, c, d] = numbers;
        if self.has_corners() {
            let ordered = [a.min(c), b.min(d), a.max(c), b.max(d)];
            return (self.bbox(ordered, width, height), ordered != numbers && numbers.iter().all(|v| v.is_finite()));
        }
        let [x, y, w, h] = self.bbox(numbers, width, height);
        if w >= 0.0 && h >= 0.0 {
            return ([x, y, w, h], false);
        }
        let turned = [x.min(x + w), y.min(y + h), w.abs(), h.abs()];
        if fits(turned, width, height) { (turned, true) } else { ([x, y, w, h], false) }
    }
}

/// Whether four numbers that should be pixels are all shares: no object is that small.
pub(crate) fn are_shares(numbers: &[f64; 4]) -> bool {
    numbers.iter().all(|v| (0.0..=1.0).contains(v))
}

/// Whether a box is a plausible object of its image: finite, at least a pixel wide and high, and inside.
fn fits([x, y, w, h]: [f64; 4], width: f64, height: f64) -> bool {
    let inside = |from: f64, side: f64, whole: f64| {
        from >= -OUTSIDE_TOLERANCE && side >= 1.0 && from + side <= whole + OUTSIDE_TOLERANCE
    };
    inside(x, w, width) && inside(y, h, height)
}

/// Whether left, top, width and height reach over the image's border, and would be a box inside it as corners.
pub(crate) fn look_like_corners(numbers: &[f64; 4], width: f64, height: f64) -> bool {
    is_outside(numbers, width, height) && fits(BoxReading::Edges.bbox(*numbers, width, height), width, height)
}

/// The numbers of one box and the size of its image.
pub(crate) type Measured = ([f64; 4], f64, f64);

/// What a data set's numbers say about the reading in use.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReadingCheck {
    /// Boxes in all.
    pub boxes: usize,
    /// Those that fit the reading in use as they stand.
    pub fitting: usize,
    /// Those that fit it once swapped corners are put in order.
    pub fitting_ordered: usize,
    /// Other readings that nearly all boxes fit, the best first, each with the number that fit.
    pub others: Vec<(BoxReading, usize)>,
    /// Boxes with a coordinate below 1, where the reading counts from 1.
    pub zeros: usize,
}

impl ReadingCheck {
    /// Counts the boxes that fit `reading`, and looks for others where a tenth or more do not.
    pub fn of(boxes: &[Measured], reading: BoxReading) -> Self {
        let fit =
            |r: BoxReading, (n, w, h): &Measured| (r.is_shares() || !are_shares(n)) && fits(r.bbox(*n, *w, *h), *w, *h);
        let count = |r: BoxReading| boxes.iter().filter(|b| fit(r, b)).count();
        let fitting = count(reading);
        let fits_ordered = |(n, w, h): &&Measured| {
            (reading.is_shares() || !are_shares(n)) && fits(reading.ordered_bbox(*n, *w, *h).0, *w, *h)
        };
        let fitting_ordered = boxes.iter().filter(fits_ordered).count();
        let mut others = Vec::new();
        if 10 * (boxes.len() - fitting) >= boxes.len() && !boxes.is_empty() {
            others = BoxReading::ALL
                .into_iter()
                // Pixels differ from edges by one pixel: what fits one fits the other.
                .filter(|r| {
                    *r != reading
                        && *r != BoxReading::Pixels
                        && !(reading == BoxReading::Pixels && *r == BoxReading::Edges)
                })
                .map(|r| (r, count(r)))
                // Nearly all fit, and far fewer do not than under the reading in use: some boxes reach over the border in any data.
                .filter(|(_, n)| 20 * n >= 17 * boxes.len() && 3 * (boxes.len() - n) <= boxes.len() - fitting)
                .collect();
            others.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        }
        let zero = |n: &[f64; 4]| n[0].min(n[2]) < 1.0 || n[1].min(n[3]) < 1.0;
        let zeros = if reading == BoxReading::Pixels { boxes.iter().filter(|(n, _, _)| zero(n)).count() } else { 0 };
        Self { boxes: boxes.len(), fitting, fitting_ordered, others, zeros }
    }

    /// What was seen and the flags that decide, where a guess could put boxes in the wrong place; else `None`.
    pub fn complaint(&self, reading: BoxReading) -> Option<(String, String)> {
        let Self { boxes, fitting, fitting_ordered, others, zeros } = self;
        if let [(best, best_count), rest @ ..] = &others[..] {
            let mut problem = format!(
                "{} of {boxes} boxes do not fit their images when read as {}; read as {}, {best_count} of {boxes} fit",
                boxes - fitting,
                reading.meaning(),
                best.meaning()
            );
            for (other, count) in rest {
                problem.push_str(&format!("; read as {}, {count}", other.meaning()));
            }
            let flags: Vec<String> = others.iter().map(|(r, _)| format!("--boxes {}", r.name())).collect();
            let hint = format!(
                "say what the numbers are: {} (or --boxes {}, if they are correct as they stand)",
                flags.join(" or "),
                reading.name()
            );
            return Some((problem, hint));
        }
        // A few boxes over the border are a matter for the checks; most of them are none.
        if 2 * fitting_ordered < *boxes {
            let problem = format!(
                "{} of {boxes} boxes do not fit their images when read as {}, and no other reading fits them",
                boxes - fitting_ordered,
                reading.meaning()
            );
            let hint = format!(
                "are the boxes of images of another size, or of other images? (--boxes {} takes them as they stand; docs/data.md lists the \
                 readings)",
                reading.name()
            );
            return Some((problem, hint));
        }
        if *zeros > 0 {
            let problem = format!(
                "{zeros} of {boxes} boxes hold a coordinate of 0 or less, which does not occur where pixels are counted from 1"
            );
            let hint = "say what the numbers are: --boxes edges (counted from 0), or --boxes pixels, if they are correct as they stand";
            return Some((problem, hint.to_owned()));
        }
        None
    }
}
