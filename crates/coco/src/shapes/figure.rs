//! Outlines and strokes: which points of the plane they cover, and their stamp on the pixel grid.
//!
//! An outline lives in its own coordinates, where it about fills the unit circle; a [`Pose`] puts it into the image. Each pixel
//! has 4 x 4 samples, so a stamp is 16 bits a pixel: coverage for the paint, and exact arithmetic of what hides what.

use super::draw::Draw;
use super::knobs;

/// Samples along a pixel's side.
pub(super) const GRID: usize = 4;

/// Where and how an outline stands: centre, direction of its first axis, and both radii, in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pose {
    pub(super) center: [f32; 2],
    pub(super) axis: [f32; 2],
    pub(super) radii: [f32; 2],
}

impl Pose {
    /// The point in the outline's own coordinates.
    fn local(&self, x: f32, y: f32) -> [f32; 2] {
        let (dx, dy) = (x - self.center[0], y - self.center[1]);
        let [c, s] = self.axis;
        [(c * dx + s * dy) / self.radii[0], (c * dy - s * dx) / self.radii[1]]
    }
}

/// A closed shape of the unit circle's size.
#[derive(Clone, Debug)]
pub(super) enum Outline {
    /// The unit disc.
    Disc,
    /// The unit disc with a hole of this radius.
    Ring { hole: f32 },
    /// A square of half-side [`SQUARE`].
    Square,
    /// An equilateral triangle, its corners on the circle of radius [`TRIANGLE`].
    Triangle,
    /// A polygon with these corners, in order.
    Polygon(Vec<[f32; 2]>),
    /// Two bars across each other, of this half-width.
    Cross { arm: f32 },
    /// Two bars that meet in a corner: no class.
    Angle { arm: f32 },
    /// Discs grown together (centre and radius): no class.
    Blob(Vec<([f32; 2], f32)>),
}

/// Half-side of the square: its area is near the disc's.
const SQUARE: f32 = 0.84;
/// Radius of the triangle's corners, for the same reason.
const TRIANGLE: f32 = 1.2;
/// Radius of a star's points.
const STAR: f32 = 1.15;

impl Outline {
    /// A star with 4, 5 or 6 points (any other number gives 5) and this inner radius.
    pub(super) fn star(points: usize, waist: f32) -> Self {
        // Cosine and sine of half the angle between two points.
        let (points, step) = match points {
            4 => (4, [std::f32::consts::FRAC_1_SQRT_2; 2]),
            6 => (6, [0.866_025_4, 0.5]),
            _ => (5, [0.809_017, 0.587_785_24]),
        };
        let mut corners = Vec::with_capacity(2 * points);
        let mut at = [0.0f32, -1.0f32];
        for k in 0..2 * points {
            let radius = if k % 2 == 0 { STAR } else { STAR * waist };
            corners.push([radius * at[0], radius * at[1]]);
            at = [at[0] * step[0] - at[1] * step[1], at[0] * step[1] + at[1] * step[0]];
        }
        Self::Polygon(corners)
    }

    /// Whether the outline covers the point of its own coordinates.
    fn contains(&self, [u, v]: [f32; 2]) -> bool {
        match self {
            Self::Disc => u * u + v * v <= 1.0,
            Self::Ring { hole } => {
                let square = u * u + v * v;
                square <= 1.0 && square >= hole * hole
            }
            Self::Square => u.abs() <= SQUARE && v.abs() <= SQUARE,
            Self::Triangle => {
                // Three half-planes at distance TRIANGLE / 2 from the centre.
                let side = 0.866_025_4 * u.abs();
                v <= TRIANGLE * 0.5 && side - v * 0.5 <= TRIANGLE * 0.5
            }
            Self::Polygon(corners) => {
                let mut inside = false;
                let mut from = corners.last().copied().unwrap_or([0.0; 2]);
                for &to in corners {
                    if (from[1] > v) != (to[1] > v) {
                        let cross = from[0] + (to[0] - from[0]) * (v - from[1]) / (to[1] - from[1]);
                        inside ^= u < cross;
                    }
                    from = to;
                }
                inside
            }
            Self::Cross { arm } => (u.abs() <= *arm && v.abs() <= 1.0) || (v.abs() <= *arm && u.abs() <= 1.0),
            Self::Angle { arm } => {
                let (u, v) = (u + 0.75, v + 0.75);
                u >= 0.0 && v >= 0.0 && u <= 1.5 && v <= 1.5 && (u <= 1.6 * arm || v <= 1.6 * arm)
            }
            Self::Blob(discs) => {
                discs.iter().any(|([x, y], radius)| (u - x) * (u - x) + (v - y) * (v - y) <= radius * radius)
            }
        }
    }
}

/// Something with a definite extent in the image.
#[derive(Clone, Debug)]
pub(super) enum Figure {
    /// An outline in a pose; with `half`, only its half on the positive side of the second axis.
    Solid { pose: Pose, outline: Outline, half: bool },
    /// Straight strokes with round ends: from, to, all of one half-width, in pixels.
    Strokes { lines: Vec<[[f32; 2]; 2]>, radius: f32 },
}

impl Figure {
    fn contains(&self, x: f32, y: f32) -> bool {
        match self {
            Self::Solid { pose, outline, half } => {
                let at = pose.local(x, y);
                (!half || at[1] >= 0.0) && outline.contains(at)
            }
            Self::Strokes { lines, radius } => lines.iter().any(|[a, b]| {
                let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
                let (px, py) = (x - a[0], y - a[1]);
                let square = (dx * dx + dy * dy).max(1e-6);
                let t = ((px * dx + py * dy) / square).clamp(0.0, 1.0);
                let (ex, ey) = (px - t * dx, py - t * dy);
                ex * ex + ey * ey <= radius * radius
            }),
        }
    }

    /// Bounds that surely hold the figure: left, top, right, bottom.
    fn bounds(&self) -> [f32; 4] {
        match self {
            Self::Solid { pose, .. } => {
                // No outline reaches further than 1.25 from its centre.
                let reach = 1.25 * pose.radii[0].max(pose.radii[1]);
                let [x, y] = pose.center;
                [x - reach, y - reach, x + reach, y + reach]
            }
            Self::Strokes { lines, radius } => {
                let mut bounds = [f32::MAX, f32::MAX, f32::MIN, f32::MIN];
                for &[x, y] in lines.iter().flatten() {
                    bounds[0] = bounds[0].min(x - radius);
                    bounds[1] = bounds[1].min(y - radius);
                    bounds[2] = bounds[2].max(x + radius);
                    bounds[3] = bounds[3].max(y + radius);
                }
                bounds
            }
        }
    }

    /// The samples of a `width` x `height` image that the figure covers.
    pub(super) fn stamp(&self, width: usize, height: usize) -> Stamp {
        let [left, top, right, bottom] = self.bounds();
        if left > right {
            return Stamp::default();
        }
        let (left, top) = (left.floor() as i32, top.floor() as i32);
        let (right, bottom) = (right.floor() as i32 + 1, bottom.floor() as i32 + 1);
        let clip = |at: i32, side: usize| at.clamp(0, side as i32) as usize;
        let (x0, y0) = (clip(left, width), clip(top, height));
        let (x1, y1) = (clip(right, width), clip(bottom, height));
        let mut stamp =
            Stamp { x0, y0, width: x1 - x0, height: y1 - y0, bits: vec![0; (x1 - x0) * (y1 - y0)], whole: 0 };
        for y in top..bottom {
            for x in left..right {
                let mut bits = 0u16;
                for k in 0..GRID * GRID {
                    let sx = x as f32 + (2 * (k % GRID) + 1) as f32 * (0.5 / GRID as f32);
                    let sy = y as f32 + (2 * (k / GRID) + 1) as f32 * (0.5 / GRID as f32);
                    bits |= u16::from(self.contains(sx, sy)) << k;
                }
                stamp.whole += bits.count_ones();
                if bits != 0 && (x0 as i32..x1 as i32).contains(&x) && (y0 as i32..y1 as i32).contains(&y) {
                    let at = (y as usize - y0) * stamp.width + (x as usize - x0);
                    stamp.bits[at] = bits;
                }
            }
        }
        stamp
    }
}

/// The samples a figure covers inside the image, 16 bits a pixel, over the rectangle of its bounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Stamp {
    /// First column of the rectangle.
    pub(super) x0: usize,
    /// First row.
    pub(super) y0: usize,
    pub(super) width: usize,
    pub(super) height: usize,
    /// Bit `4 * row + column` of each pixel, row-major.
    pub(super) bits: Vec<u16>,
    /// Samples of the whole figure, with what lies outside the image.
    pub(super) whole: u32,
}

impl Stamp {
    /// The pixels of the rectangle: column and row in the image, and the samples covered.
    pub(super) fn pixels(&self) -> impl Iterator<Item = (usize, usize, u16)> + '_ {
        let width = self.width.max(1);
        self.bits.iter().enumerate().map(move |(i, &bits)| (self.x0 + i % width, self.y0 + i / width, bits))
    }

    /// Samples covered inside the image.
    pub(super) fn count(&self) -> u32 {
        self.bits.iter().map(|bits| bits.count_ones()).sum()
    }

    fn bits_at(&self, x: usize, y: usize) -> u16 {
        let inside = x >= self.x0 && y >= self.y0 && x < self.x0 + self.width && y < self.y0 + self.height;
        if inside { self.bits[(y - self.y0) * self.width + (x - self.x0)] } else { 0 }
    }

    /// The samples that are left when `over` is laid on top.
    pub(super) fn hidden_by(&self, over: &Stamp) -> Stamp {
        let bits = self.pixels().map(|(x, y, bits)| bits & !over.bits_at(x, y)).collect();
        Stamp { bits, ..*self }
    }

    /// Share of the whole figure that is covered here.
    pub(super) fn share(&self) -> f32 {
        self.count() as f32 / self.whole.max(1) as f32
    }

    /// Tight bounds `[left, top, right, bottom]` in pixels, to a quarter of one, over the samples of pixels that show at least
    /// [`knobs::MIN_SAMPLES`] of them; none if no pixel does.
    pub(super) fn tight(&self) -> Option<[f64; 4]> {
        let mut bounds: Option<[usize; 4]> = None;
        for (x, y, bits) in self.pixels() {
            if bits.count_ones() < knobs::MIN_SAMPLES {
                continue;
            }
            for k in (0..GRID * GRID).filter(|k| bits >> k & 1 == 1) {
                let (x, y) = (x * GRID + k % GRID, y * GRID + k / GRID);
                let [l, t, r, b] = bounds.unwrap_or([x, y, x + 1, y + 1]);
                bounds = Some([l.min(x), t.min(y), r.max(x + 1), b.max(y + 1)]);
            }
        }
        bounds.map(|bounds| bounds.map(|at| at as f64 / GRID as f64))
    }
}

/// A blob: three to five discs that overlap, drawn at random. Its edge is round, yet it is no disc.
pub(super) fn blob(draw: &mut Draw) -> Outline {
    let discs = draw.whole((3, 5));
    let [mut x, mut y] = [-0.45f32, 0.0f32];
    let mut parts = Vec::with_capacity(discs);
    for _ in 0..discs {
        parts.push(([x.clamp(-0.55, 0.55), y.clamp(-0.55, 0.55)], draw.span((0.22, 0.42))));
        x += draw.span((0.15, 0.5));
        y += draw.span((-0.5, 0.5));
    }
    Outline::Blob(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn solid(outline: Outline, center: [f32; 2], radius: f32) -> Figure {
        let pose = Pose { center, axis: [1.0, 0.0], radii: [radius; 2] };
        Figure::Solid { pose, outline, half: false }
    }

    #[test]
    fn areas_are_those_of_the_formulas() {
        let area = |outline| solid(outline, [50.0, 50.0], 30.0).stamp(100, 100).count() as f64 / (16.0 * 900.0);
        let near = |found: f64, want: f64| assert!((found / want - 1.0).abs() < 0.01, "{found} for {want}");
        near(area(Outline::Disc), std::f64::consts::PI);
        near(area(Outline::Ring { hole: 0.5 }), std::f64::consts::PI * 0.75);
        near(area(Outline::Square), 4.0 * 0.84 * 0.84);
        near(area(Outline::Triangle), 0.75 * 3f64.sqrt() * 1.44);
        near(area(Outline::Cross { arm: 0.25 }), 2.0 * 2.0 * 0.5 - 0.25);
        // A star of n points is 2n triangles over the angle pi/n.
        for n in [4usize, 5, 6] {
            let angle = std::f64::consts::PI / n as f64;
            near(area(Outline::star(n, 0.5)), n as f64 * angle.sin() * 0.5 * 1.15 * 1.15);
        }
    }

    #[test]
    fn the_box_of_a_disc_is_its_diameter_wherever_it_stands() {
        for (x, y) in [(20.0, 20.0), (20.3, 21.7), (33.5, 28.25)] {
            let [l, t, r, b] = solid(Outline::Disc, [x, y], 10.0).stamp(64, 64).tight().unwrap();
            let want = [x - 10.0, y - 10.0, x + 10.0, y + 10.0].map(f64::from);
            for (found, want) in [l, t, r, b].into_iter().zip(want) {
                assert!((found - want).abs() <= 0.5, "{found} for {want}");
            }
        }
    }

    #[test]
    fn what_lies_outside_counts_as_hidden() {
        let stamp = solid(Outline::Disc, [0.0, 32.0], 10.0).stamp(64, 64);
        assert!((stamp.share() - 0.5).abs() < 0.02, "{}", stamp.share());
        assert_eq!(stamp.tight().unwrap()[0], 0.0);
        let outside = solid(Outline::Disc, [-40.0, 32.0], 10.0).stamp(64, 64);
        assert_eq!((outside.count(), outside.tight()), (0, None));
        assert!(outside.whole > 0);
    }

    #[test]
    fn hiding_takes_the_samples_away_and_moves_the_box() {
        let under = solid(Outline::Square, [32.0, 32.0], 10.0).stamp(64, 64);
        // Covers everything left of x = 32.
        let over = solid(Outline::Square, [32.0 - 0.84 * 30.0, 32.0], 30.0).stamp(64, 64);
        let left = under.hidden_by(&over);
        assert!((left.share() - 0.5).abs() < 0.03, "{}", left.share());
        assert!((left.tight().unwrap()[0] - 32.0).abs() <= 0.25);
        assert_eq!(under.hidden_by(&under).count(), 0);
        assert_eq!(under.hidden_by(&Stamp::default()).count(), under.count());
    }

    #[test]
    fn a_specks_pixel_does_not_stretch_the_box() {
        let mut stamp = solid(Outline::Square, [32.0, 32.0], 10.0).stamp(64, 64);
        let before = stamp.tight();
        stamp.bits[0] = 0b111;
        assert_eq!(stamp.tight(), before);
        stamp.bits[0] = 0b1111;
        assert_ne!(stamp.tight(), before);
    }

    #[test]
    fn a_stroke_has_its_length_and_width() {
        let figure = Figure::Strokes { lines: vec![[[10.0, 10.0], [30.0, 10.0]]], radius: 2.0 };
        let area = f64::from(figure.stamp(64, 64).count()) / 16.0;
        let want = 20.0 * 4.0 + std::f64::consts::PI * 4.0;
        assert!((area / want - 1.0).abs() < 0.03, "{area} for {want}");
        let nothing = Figure::Strokes { lines: vec![], radius: 2.0 };
        assert_eq!(nothing.stamp(64, 64).count(), 0);
    }
}
