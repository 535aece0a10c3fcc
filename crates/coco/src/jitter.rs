//! Colour jitter: brightness, contrast, saturation and hue, by torchvision's definitions.

use std::hash::{Hash, Hasher};

use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::rgb8::Rgb8;
use crate::rng;
use crate::setters::setters;

/// How far colours may move; 0, each field's default, leaves that property alone.
///
/// The draws are those of torchvision's `v2.ColorJitter(brightness, contrast, saturation, hue)`: each property's factor is drawn
/// evenly from its interval, and the four changes are made in random order. What a change does to 8-bit RGB is torchvision's too,
/// its truncation to whole levels included.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ColourJitter {
    /// b: every value times a factor from `max(0, 1 - b)` to `1 + b`.
    pub brightness: f64,
    /// c: a blend with the image's mean grey, the image's share from `max(0, 1 - c)` to `1 + c`.
    pub contrast: f64,
    /// s: a blend with the pixel's own grey, the image's share from `max(0, 1 - s)` to `1 + s`.
    pub saturation: f64,
    /// h, at most 0.5: the hue turned by -h to h of a whole turn.
    pub hue: f64,
}

setters!(ColourJitter { brightness: f64, contrast: f64, saturation: f64, hue: f64 });

/// One change of an image's colours. Two are equal if their factors have the same bits.
#[derive(Debug, Clone, Copy)]
pub enum ColourChange {
    /// Every value times this.
    Brightness(f64),
    /// The image's share beside its mean grey.
    Contrast(f64),
    /// The image's share beside each pixel's grey.
    Saturation(f64),
    /// Share of a turn of the hue, -0.5 to 0.5.
    Hue(f64),
}

impl ColourJitter {
    /// Checks ranges.
    ///
    /// # Errors
    /// A value that is negative or not finite, a hue above 0.5.
    pub fn validate(&self) -> Result<()> {
        for (name, value, most) in [
            ("brightness", self.brightness, f64::MAX),
            ("contrast", self.contrast, f64::MAX),
            ("saturation", self.saturation, f64::MAX),
            ("hue", self.hue, 0.5),
        ] {
            if !(0.0..=most).contains(&value) {
                let bound = if most == 0.5 { " and at most 0.5" } else { " and finite" };
                return Err(Error::Config(format!("augment.jitter.{name} is {value}; it must be at least 0{bound}")));
            }
        }
        Ok(())
    }

    /// Draws the changes of one image, in the order in which they are made. Properties at 0 are left out, but drawn all the same: to
    /// turn one on does not move the others.
    pub fn draw(&self, rng: &mut impl RngCore) -> Vec<ColourChange> {
        let mut order = [0, 1, 2, 3];
        rng::shuffle(rng, &mut order);
        let mut between = |low: f64, high: f64| low + (high - low) * rng::unit_f64(rng);
        let mut factor = |amount: f64| between((1.0 - amount).max(0.0), 1.0 + amount);
        let [brightness, contrast, saturation] = [self.brightness, self.contrast, self.saturation].map(&mut factor);
        let hue = between(-self.hue, self.hue);
        let changes = [
            (self.brightness, ColourChange::Brightness(brightness)),
            (self.contrast, ColourChange::Contrast(contrast)),
            (self.saturation, ColourChange::Saturation(saturation)),
            (self.hue, ColourChange::Hue(hue)),
        ];
        order.into_iter().map(|i| changes[i]).filter(|(amount, _)| *amount > 0.0).map(|(_, change)| change).collect()
    }
}

impl ColourChange {
    /// Which change it is, and the bits of its factor.
    fn bits(self) -> (u8, u64) {
        match self {
            Self::Brightness(factor) => (0, factor.to_bits()),
            Self::Contrast(factor) => (1, factor.to_bits()),
            Self::Saturation(factor) => (2, factor.to_bits()),
            Self::Hue(turn) => (3, turn.to_bits()),
        }
    }

    /// Changes the image in place.
    pub fn apply(self, image: &mut Rgb8) {
        match self {
            Self::Brightness(factor) => map_values(image, |v| level(v * factor as f32)),
            Self::Contrast(factor) => {
                let greys = image.data.chunks_exact(3).map(|pixel| u64::from(grey(pixel) as u8));
                let mean = greys.sum::<u64>() as f64 / (image.data.len() / 3).max(1) as f64;
                let (own, other) = (factor as f32, (1.0 - factor) as f32 * mean as f32);
                map_values(image, |v| level(v * own + other));
            }
            Self::Saturation(factor) => {
                let (own, other) = (factor as f32, (1.0 - factor) as f32);
                for pixel in image.data.chunks_exact_mut(3) {
                    let grey = other * grey(pixel);
                    pixel.iter_mut().for_each(|v| *v = level(f32::from(*v) * own + grey));
                }
            }
            Self::Hue(turn) => {
                for pixel in image.data.chunks_exact_mut(3) {
                    turn_hue(pixel, turn as f32);
                }
            }
        }
    }
}

impl PartialEq for ColourChange {
    fn eq(&self, other: &Self) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for ColourChange {}

impl Hash for ColourChange {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits().hash(state);
    }
}

/// Every value through `f`, which is asked once for each level.
fn map_values(image: &mut Rgb8, f: impl Fn(f32) -> u8) {
    let table: [u8; 256] = std::array::from_fn(|v| f(v as f32));
    image.data.iter_mut().for_each(|v| *v = table[usize::from(*v)]);
}

/// Clamped to 0..255 and truncated.
fn level(v: f32) -> u8 {
    v.clamp(0.0, 255.0) as u8
}

/// A pixel's grey as a whole level: ITU-R 601's weights, rounded down.
fn grey(pixel: &[u8]) -> f32 {
    (f32::from(pixel[0]) * 0.2989 + f32::from(pixel[1]) * 0.587 + f32::from(pixel[2]) * 0.114).floor()
}

/// Through HSV and back.
fn turn_hue(pixel: &mut [u8], turn: f32) {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(|v| f32::from(v) * (1.0 / 255.0));
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let range = max - min;
    if range == 0.0 {
        return;
    }
    let saturation = range / max;
    let [rc, gc, bc] = [r, g, b].map(|v| (max - v) / range);
    // The sextant of the largest channel; the red one goes first where two are equal.
    let hue = if max == r {
        bc - gc
    } else if max == g {
        2.0 + rc - bc
    } else {
        4.0 + gc - rc
    };
    let hue = ((hue * (1.0 / 6.0) + 1.0) % 1.0 + turn).rem_euclid(1.0);
    let sextant = (hue * 6.0).floor();
    let f = hue * 6.0 - sextant;
    let p = (max * (1.0 - saturation)).clamp(0.0, 1.0);
    let q = (max * (1.0 - saturation * f)).clamp(0.0, 1.0);
    let t = (max * (1.0 - saturation + saturation * f)).clamp(0.0, 1.0);
    // A hue that rounds to a whole turn is the first sextant again.
    let turned = match sextant as u8 % 6 {
        0 => [max, t, p],
        1 => [q, max, p],
        2 => [p, max, t],
        3 => [p, q, max],
        4 => [t, p, max],
        _ => [max, p, q],
    };
    // Just under 256, as torchvision's conversion: 1 becomes 255, and equal steps of the unit interval become levels.
    for (v, unit) in pixel.iter_mut().zip(turned) {
        *v = (unit * 255.999) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(jitter: ColourJitter, id: u64) -> Vec<ColourChange> {
        jitter.draw(&mut rng::keyed(3, "jitter", 0, id))
    }

    #[test]
    fn factors_stay_in_their_intervals_and_every_order_comes() {
        let jitter = ColourJitter { brightness: 0.4, contrast: 1.5, saturation: 0.2, hue: 0.1 };
        let mut orders = std::collections::BTreeSet::new();
        let mut seen = [(f64::MAX, f64::MIN); 4];
        for id in 0..2000 {
            let changes = draw(jitter, id);
            let parts = changes.iter().map(|change| match *change {
                ColourChange::Brightness(f) => (0, f),
                ColourChange::Contrast(f) => (1, f),
                ColourChange::Saturation(f) => (2, f),
                ColourChange::Hue(f) => (3, f),
            });
            let parts: Vec<(usize, f64)> = parts.collect();
            for &(i, f) in &parts {
                seen[i] = (seen[i].0.min(f), seen[i].1.max(f));
            }
            orders.insert(parts.iter().map(|p| p.0).collect::<Vec<_>>());
        }
        assert_eq!(orders.len(), 24);
        for ((low, high), (from, to)) in seen.into_iter().zip([(0.6, 1.4), (0.0, 2.5), (0.8, 1.2), (-0.1, 0.1)]) {
            let near = 0.01 * (to - from);
            assert!((from..from + near).contains(&low) && (to - near..to).contains(&high), "{low} {high}");
        }
    }

    #[test]
    fn one_property_does_not_move_another() {
        let all = ColourJitter { brightness: 0.4, contrast: 0.3, saturation: 0.2, hue: 0.1 };
        for id in 0..20 {
            let without = draw(ColourJitter { contrast: 0.0, ..all }, id);
            let mut with = draw(all, id);
            with.retain(|change| !matches!(change, ColourChange::Contrast(_)));
            assert_eq!(with, without);
        }
        assert!(draw(ColourJitter::default(), 1).is_empty());
    }

    #[test]
    fn changes_of_nothing_change_nothing_and_ends_are_ends() {
        let data: Vec<u8> = (0..=255).flat_map(|v: u8| [v, v.wrapping_mul(7), 255 - v]).collect();
        let image = Rgb8 { width: 16, height: 16, data };
        let after = |change: ColourChange| {
            let mut changed = image.clone();
            change.apply(&mut changed);
            changed
        };
        for same in [
            ColourChange::Brightness(1.0),
            ColourChange::Contrast(1.0),
            ColourChange::Saturation(1.0),
            ColourChange::Hue(0.0),
        ] {
            // Through HSV and back a value may come out a level lower.
            let most = if matches!(same, ColourChange::Hue(_)) { 1 } else { 0 };
            let worst = after(same).data.iter().zip(&image.data).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst.is_some_and(|w| w <= most), "{same:?}: {worst:?}");
        }
        assert!(after(ColourChange::Brightness(0.0)).data.iter().all(|v| *v == 0));
        let grey = after(ColourChange::Saturation(0.0));
        assert!(grey.data.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]));
        let flat = after(ColourChange::Contrast(0.0));
        assert!(flat.data.iter().all(|v| *v == flat.data[0]));
        // A third of a turn sends red to green.
        let mut red = Rgb8::filled(1, 1, [200, 10, 10]);
        ColourChange::Hue(1.0 / 3.0).apply(&mut red);
        assert_eq!(red.pixel(0, 0), [10, 200, 10]);
    }

    #[test]
    fn bad_settings_are_named() {
        let good = ColourJitter { brightness: 2.0, contrast: 0.0, saturation: 1.0, hue: 0.5 };
        good.validate().unwrap();
        for (bad, name) in [
            (ColourJitter { brightness: -0.1, ..good }, "brightness"),
            (ColourJitter { contrast: f64::NAN, ..good }, "contrast"),
            (ColourJitter { saturation: f64::INFINITY, ..good }, "saturation"),
            (ColourJitter { hue: 0.6, ..good }, "hue"),
        ] {
            assert!(bad.validate().unwrap_err().to_string().contains(name));
        }
    }
}
