//! Augmentation beyond the flip: sizes, crops and colours, each drawn by a key of its own.
//!
//! Everything is off by default, and every draw is keyed by (seed, purpose, epoch, image id): to turn one change on moves no
//! other draw, and neither threads nor a resume do.

use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::dataset::has_area;
use crate::error::{Error, Result};
use crate::jitter::ColourJitter;
use crate::resize::Resize;
use crate::rng;
use crate::setters::setters;

/// Regions that are drawn before a crop is given up.
const TRIES: usize = 10;

/// Changes of training images. The order: crop, flip, colours, resize.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Augment {
    /// Shortest sides in pixels, of which each batch draws one in place of `resize.shortest`; `resize.longest` grows and shrinks
    /// with it. All images of a batch share it, so that they are padded no more than without. Empty, the default: the one size.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scales: Vec<u32>,
    /// Cuts a region out, which the resize then brings to full size: objects come nearer. Absent: the whole image, always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<ScaleCrop>,
    /// Moves the colours. Absent: they stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<ColourJitter>,
}

setters!(Augment {
    scales: Vec<u32>,
    crop: impl Into<Option<ScaleCrop>>,
    jitter: impl Into<Option<ColourJitter>>,
});

/// A random region of the image's own shape.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ScaleCrop {
    /// The probability that an image is cropped. Default 0.5.
    pub probability: f64,
    /// The region's sides as a share of the image's are drawn evenly between these two. Default `[0.5, 1.0]`.
    pub scale: [f64; 2],
    /// A box stays, clipped, when at least this share of its area lies in the region; less of it, and the object counts as
    /// background. Default 0.3. 0 keeps every box of which anything is seen.
    pub min_visible: f64,
}

setters!(ScaleCrop { probability: f64, scale: [f64; 2], min_visible: f64 });

impl Default for ScaleCrop {
    fn default() -> Self {
        Self { probability: 0.5, scale: [0.5, 1.0], min_visible: 0.3 }
    }
}

impl Augment {
    /// Whether nothing is changed.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// A value out of range, by name.
    pub fn validate(&self) -> Result<()> {
        let max = crate::image_reader::MAX_SIDE;
        if let Some(side) = self.scales.iter().find(|side| **side == 0 || **side > max) {
            return Err(Error::Config(format!("augment.scales has {side}; a side lies between 1 and {max} pixels")));
        }
        self.crop.as_ref().map_or(Ok(()), ScaleCrop::validate)?;
        self.jitter.as_ref().map_or(Ok(()), ColourJitter::validate)
    }

    /// The size that batch `batch` of an epoch is brought to.
    pub fn resize_of(&self, resize: &Resize, seed: u64, epoch: u64, batch: u64) -> Resize {
        if self.scales.is_empty() {
            return *resize;
        }
        let drawn = self.scales[rng::below(&mut rng::keyed(seed, "scale", epoch, batch), self.scales.len())];
        let (shortest, longest) = (u64::from(resize.shortest.max(1)), u64::from(resize.longest));
        let grown = (longest * u64::from(drawn) + shortest / 2) / shortest;
        let longest = u32::try_from(grown).unwrap_or(u32::MAX).clamp(1, crate::image_reader::MAX_SIDE);
        Resize { shortest: drawn, longest, ..*resize }
    }
}

impl ScaleCrop {
    /// Checks ranges.
    ///
    /// # Errors
    /// A probability or share outside 0..=1, a scale of 0 or one that does not rise.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in [("probability", self.probability), ("min_visible", self.min_visible)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Config(format!("augment.crop.{name} is {value}; it must lie between 0 and 1")));
            }
        }
        let [low, high] = self.scale;
        if !(low > 0.0 && low <= high && high <= 1.0) {
            return Err(Error::Config(format!(
                "augment.crop.scale is [{low}, {high}]; it must be two rising shares of a side, above 0 and at most 1"
            )));
        }
        Ok(())
    }

    /// Draws whether and where an image of `width` x `height` pixels is cropped: `[x, y, width, height]` in whole pixels.
    ///
    /// A region that would leave no box of an image that has some is drawn anew, ten times at most; then the image stays whole.
    pub fn draw(&self, rng: &mut impl RngCore, width: usize, height: usize, boxes: &[[f32; 4]]) -> Option<[usize; 4]> {
        if rng::unit_f64(rng) >= self.probability {
            return None;
        }
        let [low, high] = self.scale;
        (0..TRIES).find_map(|_| {
            let share = low + (high - low) * rng::unit_f64(rng);
            let [w, h] = [width, height].map(|side| ((side as f64 * share).round() as usize).clamp(1, side.max(1)));
            let [x, y] = [(width, w), (height, h)].map(|(side, cut)| rng::below(rng, side.saturating_sub(cut) + 1));
            let region = [x, y, w, h];
            let keeps = boxes.is_empty() || boxes.iter().any(|b| self.clip(b, region).is_some());
            keeps.then_some(region)
        })
    }

    /// The part of a box that lies in the region, in the region's own pixels; None where too little of it is seen.
    pub fn clip(&self, bbox: &[f32; 4], [x, y, w, h]: [usize; 4]) -> Option<[f32; 4]> {
        let (x, y, w, h) = (x as f32, y as f32, w as f32, h as f32);
        let [x1, y1, x2, y2] = *bbox;
        let clipped = [(x1 - x).clamp(0.0, w), (y1 - y).clamp(0.0, h), (x2 - x).clamp(0.0, w), (y2 - y).clamp(0.0, h)];
        let area = |b: &[f32; 4]| f64::from(b[2] - b[0]) * f64::from(b[3] - b[1]);
        (has_area(&clipped) && area(&clipped) >= self.min_visible * area(bbox)).then_some(clipped)
    }

    /// Of boxes and labels, what is seen of them in the region.
    pub(crate) fn clip_all(&self, region: [usize; 4], boxes: &[[f32; 4]], labels: &[u32]) -> (Vec<[f32; 4]>, Vec<u32>) {
        boxes.iter().zip(labels).filter_map(|(b, &label)| Some((self.clip(b, region)?, label))).unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_stays_by_its_visible_share() {
        let crop = ScaleCrop { min_visible: 0.3, ..ScaleCrop::default() };
        let region = [10, 20, 30, 40];
        // Inside; a half to the left; three tenths exactly; a little less; outside; touching the border.
        for (bbox, want) in [
            ([12.0, 25.0, 20.0, 30.0], Some([2.0, 5.0, 10.0, 10.0])),
            ([0.0, 20.0, 20.0, 30.0], Some([0.0, 0.0, 10.0, 10.0])),
            ([3.0, 20.0, 13.0, 30.0], Some([0.0, 0.0, 3.0, 10.0])),
            ([2.9, 20.0, 12.9, 30.0], None),
            ([50.0, 25.0, 60.0, 30.0], None),
            ([0.0, 25.0, 10.0, 30.0], None),
        ] {
            assert_eq!(crop.clip(&bbox, region), want, "{bbox:?}");
        }
        let any = ScaleCrop { min_visible: 0.0, ..crop };
        assert!(any.clip(&[2.0, 20.0, 10.5, 30.0], region).is_some(), "anything that is seen");
        assert!(any.clip(&[2.0, 20.0, 10.0, 30.0], region).is_none(), "but no box without area");
    }

    #[test]
    fn sizes_come_from_the_list_and_the_bound_goes_with_them() {
        let resize = Resize { shortest: 240, longest: 320, ..Resize::default() };
        let augment = Augment { scales: vec![120, 240, 300], ..Augment::default() };
        let mut seen = std::collections::BTreeSet::new();
        for batch in 0..100 {
            let drawn = augment.resize_of(&resize, 1, 2, batch);
            assert_eq!(drawn, augment.resize_of(&resize, 1, 2, batch));
            seen.insert((drawn.shortest, drawn.longest));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(120, 160), (240, 320), (300, 400)]);
        assert_eq!(Augment::default().resize_of(&resize, 1, 2, 3), resize);
        let whole = Resize { shortest: 1, longest: u32::MAX, ..resize };
        assert_eq!(augment.resize_of(&whole, 0, 0, 0).longest, crate::image_reader::MAX_SIDE);
    }

    #[test]
    fn bad_settings_are_named() {
        let crop = |crop| Augment { crop: Some(crop), ..Augment::default() };
        let default = ScaleCrop::default();
        for (bad, name) in [
            (Augment { scales: vec![240, 0], ..Augment::default() }, "scales"),
            (crop(ScaleCrop { probability: 1.1, ..default }), "probability"),
            (crop(ScaleCrop { min_visible: f64::NAN, ..default }), "min_visible"),
            (crop(ScaleCrop { scale: [0.0, 1.0], ..default }), "scale"),
            (crop(ScaleCrop { scale: [0.8, 0.5], ..default }), "scale"),
            (crop(ScaleCrop { scale: [0.8, 1.5], ..default }), "scale"),
        ] {
            assert!(bad.validate().unwrap_err().to_string().contains(name), "{bad:?}");
        }
        assert!(Augment::default().is_off() && !crop(default).is_off());
    }
}
