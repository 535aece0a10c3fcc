//! Colour and texture: the patterns of backgrounds and fills, and the canvas they are laid on.

use super::draw::Draw;
use super::figure::{GRID, Stamp};
use super::knobs;
use super::object::Class;

/// RGB on the scale 0..255, not yet clamped.
pub(super) type Color = [f32; 3];

/// A texture: a number in about [-1, 1] for each point of the image.
#[derive(Clone, Debug)]
enum Pattern {
    Flat,
    /// Rises along `axis`, from -1 to 1 over `length` pixels around `origin`.
    Gradient {
        axis: [f32; 2],
        origin: [f32; 2],
        length: f32,
    },
    /// Bands across `axis`; `edge` 1 is a triangle wave, more is sharper.
    Stripes {
        axis: [f32; 2],
        period: f32,
        phase: f32,
        edge: f32,
    },
    /// Two such waves multiplied.
    Checker {
        axis: [f32; 2],
        period: f32,
        phase: f32,
        edge: f32,
    },
    /// Smooth value noise of one, two or three octaves.
    Noise {
        seed: u32,
        cell: f32,
        octaves: u32,
    },
}

/// A colour that varies by a pattern: `base + pattern * swing`.
#[derive(Clone, Debug)]
pub(super) struct Paint {
    base: Color,
    swing: Color,
    pattern: Pattern,
}

impl Paint {
    /// A paint around `base` with a random pattern of the given amplitude, its features about `scale` pixels long.
    pub(super) fn textured(draw: &mut Draw, base: Color, amplitude: f32, scale: f32) -> Self {
        let swing = draw.direction3().map(|x| x * amplitude);
        let axis = draw.direction();
        let origin = [draw.span((0.0, 160.0)), draw.span((0.0, 160.0))];
        let period = scale * draw.span((0.3, 1.0));
        let (phase, edge) = (draw.unit(), draw.span((1.0, 5.0)));
        let pattern = match draw.whole((0, 9)) {
            0 => Pattern::Flat,
            1 | 2 => Pattern::Gradient { axis, origin, length: scale * draw.span((1.0, 2.0)) },
            3 | 4 => Pattern::Stripes { axis, period, phase, edge },
            5 => Pattern::Checker { axis, period, phase, edge },
            _ => Pattern::Noise { seed: draw.bits(), cell: period, octaves: draw.whole((1, 3)) as u32 },
        };
        Self { base, swing, pattern }
    }

    /// The colour at a point.
    pub(super) fn at(&self, x: f32, y: f32) -> Color {
        let value = match self.pattern {
            Pattern::Flat => 0.0,
            Pattern::Gradient { axis, origin, length } => {
                let along = (x - origin[0]) * axis[0] + (y - origin[1]) * axis[1];
                (2.0 * along / length).clamp(-1.0, 1.0)
            }
            Pattern::Stripes { axis, period, phase, edge } => wave((x * axis[0] + y * axis[1]) / period + phase, edge),
            Pattern::Checker { axis, period, phase, edge } => {
                wave((x * axis[0] + y * axis[1]) / period + phase, edge)
                    * wave((y * axis[0] - x * axis[1]) / period + phase, edge)
            }
            Pattern::Noise { seed, cell, octaves } => {
                let (mut sum, mut weight, mut total, mut cell) = (0.0, 1.0, 0.0, cell);
                for octave in 0..octaves {
                    sum += weight * value_noise(seed.wrapping_add(octave), x / cell, y / cell);
                    total += weight;
                    weight *= 0.5;
                    cell *= 0.5;
                }
                sum / total
            }
        };
        [0, 1, 2].map(|c| self.base[c] + value * self.swing[c])
    }
}

/// A wave of period 1 between -1 and 1: straight flanks, the steeper the larger `edge`.
fn wave(at: f32, edge: f32) -> f32 {
    let triangle = (2.0 * (at - at.floor()) - 1.0).abs() * 2.0 - 1.0;
    (triangle * edge).clamp(-1.0, 1.0)
}

/// Random values on the whole points of the plane, in between by Perlin's curve 3t² - 2t³.
fn value_noise(seed: u32, x: f32, y: f32) -> f32 {
    let (x0, y0) = (x.floor(), y.floor());
    let curve = |t: f32| t * t * (3.0 - 2.0 * t);
    let (tx, ty) = (curve(x - x0), curve(y - y0));
    let (i, j) = (x0 as i32, y0 as i32);
    let row = |j: i32| {
        let (a, b) = (lattice(seed, i, j), lattice(seed, i.wrapping_add(1), j));
        a + (b - a) * tx
    };
    let (a, b) = (row(j), row(j.wrapping_add(1)));
    a + (b - a) * ty
}

/// A value in [-1, 1) for a whole point: its coordinates multiplied by odd constants, mixed by shifts (as in MurmurHash3's last
/// step).
fn lattice(seed: u32, i: i32, j: i32) -> f32 {
    let mut h = seed ^ (i as u32).wrapping_mul(0x9e37_79b1) ^ (j as u32).wrapping_mul(0x85eb_ca77);
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^= h >> 16;
    (h >> 8) as f32 * (1.0 / 8_388_608.0) - 1.0
}

/// The scene's light before the camera: row-major RGB.
#[derive(Clone, Debug)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) pixels: Vec<Color>,
}

impl Canvas {
    /// A canvas with a random background: a texture, and a finer one over it.
    pub(super) fn background(draw: &mut Draw, width: usize, height: usize) -> Self {
        let base = [0; 3].map(|_: i32| draw.span((45.0, 210.0)));
        let amplitude = draw.span(knobs::BACKGROUND_TEXTURE);
        let scale = draw.log_span((12.0, 120.0));
        let coarse = Paint::textured(draw, base, amplitude, scale);
        let amplitude = draw.span(knobs::BACKGROUND_GRAIN);
        let fine = Paint::textured(draw, [0.0; 3], amplitude, 12.0);
        let mut pixels = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let (x, y) = (x as f32 + 0.5, y as f32 + 0.5);
                let (a, b) = (coarse.at(x, y), fine.at(x, y));
                pixels.push([a[0] + b[0], a[1] + b[1], a[2] + b[2]]);
            }
        }
        Self { width, height, pixels }
    }

    /// The mean colour under a stamp, each pixel weighted by its coverage; mid-grey under an empty one.
    pub(super) fn mean_under(&self, stamp: &Stamp) -> Color {
        let (mut sum, mut weight) = ([0.0f32; 3], 0.0f32);
        for (x, y, bits) in stamp.pixels().filter(|(.., bits)| *bits != 0) {
            let (pixel, samples) = (self.pixels[y * self.width + x], bits.count_ones() as f32);
            for c in 0..3 {
                sum[c] += pixel[c] * samples;
            }
            weight += samples;
        }
        if weight == 0.0 { [128.0; 3] } else { sum.map(|x| x / weight) }
    }

    /// Lays paint on the stamp's samples; a pixel covered in part keeps its colour in the rest.
    pub(super) fn lay(&mut self, stamp: &Stamp, paint: &Paint) {
        for (x, y, bits) in stamp.pixels().filter(|(.., bits)| *bits != 0) {
            let cover = bits.count_ones() as f32 * (1.0 / (GRID * GRID) as f32);
            let color = paint.at(x as f32 + 0.5, y as f32 + 0.5);
            let pixel = &mut self.pixels[y * self.width + x];
            for c in 0..3 {
                pixel[c] += (color[c] - pixel[c]) * cover;
            }
        }
    }
}

/// A colour near the class's own and its distance from `under`, unless that is less than `least`.
pub(super) fn class_color(draw: &mut Draw, class: Class, under: Color, least: f32) -> Option<(Color, f32)> {
    let spread = knobs::COLOR_SPREAD;
    let color = knobs::COLORS[class as usize].map(|c| (c + draw.span((-spread, spread))).clamp(10.0, 245.0));
    let reached = distance(color, under);
    (reached >= least).then_some((color, reached))
}

/// Distance of two colours in RGB.
fn distance(a: Color, b: Color) -> f32 {
    let d = [0, 1, 2].map(|c| a[c] - b[c]);
    (d[0] * d[0] + d[1] * d[1] + d[2] * d[2]).sqrt()
}

/// A colour that stands off from `under` by a distance of the span, as far as the scale's ends allow.
pub(super) fn contrasting(draw: &mut Draw, under: Color, contrast: (f32, f32)) -> (Color, f32) {
    let wanted = draw.span(contrast);
    let mut best = ([128.0f32; 3], -1.0f32);
    for _ in 0..4 {
        let way = draw.direction3();
        for sign in [1.0, -1.0] {
            let color = [0, 1, 2].map(|c| (under[c] + sign * wanted * way[c]).clamp(10.0, 245.0));
            let reached = distance(color, under);
            if reached >= 0.95 * wanted {
                return (color, wanted);
            }
            if reached > best.1 {
                best = (color, reached);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stay_within_their_amplitude() {
        let mut draw = Draw::new(0, "test", 0, 0);
        for _ in 0..200 {
            let paint = Paint::textured(&mut draw, [100.0; 3], 30.0, 40.0);
            for k in 0..200 {
                let color = paint.at((k * 37 % 160) as f32, (k * 53 % 160) as f32);
                let square: f32 = color.iter().map(|c| (c - 100.0) * (c - 100.0)).sum();
                assert!(square.sqrt() <= 30.01, "{paint:?} gives {color:?}");
            }
        }
    }

    #[test]
    fn value_noise_meets_its_lattice_and_is_smooth() {
        assert_eq!(value_noise(7, 3.0, -2.0), lattice(7, 3, -2));
        assert_ne!(lattice(7, 3, -2), lattice(8, 3, -2));
        for k in 0..400 {
            let x = k as f32 * 0.05 - 10.0;
            assert!((value_noise(1, x, 0.3) - value_noise(1, x + 0.01, 0.3)).abs() < 0.04);
        }
        let mean: f32 = (0..4096).map(|k| lattice(5, k % 64, k / 64)).sum::<f32>() / 4096.0;
        assert!(mean.abs() < 0.04, "{mean}");
    }

    #[test]
    fn a_contrasting_colour_stands_off() {
        let mut draw = Draw::new(0, "test", 0, 1);
        for k in 0..500 {
            let under = [0, 1, 2].map(|c| ((k * 31 + c * 97) % 256) as f32);
            let (color, reached) = contrasting(&mut draw, under, (40.0, 100.0));
            let found = distance(color, under);
            assert!(found >= 0.94 * reached && reached >= 25.0, "{under:?} {color:?} {reached}");
            let class = Class::ALL[k % 6];
            match class_color(&mut draw, class, under, 60.0) {
                Some((color, reached)) => assert!(reached >= 60.0 && distance(color, under) == reached),
                None => assert!(distance(knobs::COLORS[class as usize], under) < 60.0 + 1.8 * knobs::COLOR_SPREAD),
            }
        }
    }

    #[test]
    fn half_covered_pixels_are_half_painted() {
        let mut canvas = Canvas { width: 2, height: 1, pixels: vec![[100.0; 3]; 2] };
        let stamp = Stamp { x0: 0, y0: 0, width: 2, height: 1, bits: vec![0x00ff, 0xffff], whole: 24 };
        assert_eq!(canvas.mean_under(&stamp), [100.0; 3]);
        let paint = Paint { base: [200.0, 0.0, 100.0], swing: [9.0; 3], pattern: Pattern::Flat };
        canvas.lay(&stamp, &paint);
        assert_eq!(canvas.pixels, [[150.0, 50.0, 100.0], [200.0, 0.0, 100.0]]);
        assert_eq!(canvas.mean_under(&Stamp::default()), [128.0; 3]);
    }
}
