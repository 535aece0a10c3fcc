//! What is drawn for one image, what that makes of its pixels and boxes, and the key of these pixels.

use crate::dataset::has_area;
use crate::error::Result;
use crate::jitter::ColourChange;
use crate::resize::{Planes, ResizeRule, resized};
use crate::rgb8::Rgb8;

/// Every drawn parameter of one image's augmentation, and its size afterwards. The pixels of a [`TrainItem`](crate::TrainItem) are made
/// from those of the image file by this alone, in the order of the fields. A new augmentation gets a field here, and with it is part of
/// [`ImageKey`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Transform {
    /// The region that is cut out, `[x, y, width, height]` in pixels of the original image; without a crop the whole image.
    pub region: [usize; 4],
    /// Whether the region is mirrored left to right.
    pub flip: bool,
    /// Changes of the colours, in order.
    pub colours: Vec<ColourChange>,
    /// Height and width in pixels that the region is resized to.
    pub size: (usize, usize),
    /// How it is resized.
    pub rule: ResizeRule,
}

/// Identifies the pixels of a [`TrainItem`](crate::TrainItem) without looking at them: items of one data set with equal keys have equal
/// [`Planes`].
///
/// To cache what a model computes from an image, add to the key what it does not know: the model, and the height and width that the
/// image's batch is padded to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ImageKey {
    /// The image's id in the annotations.
    pub image_id: u64,
    /// Height and width of the original image in pixels, before any crop.
    pub original: (usize, usize),
    /// What was drawn for it, and its size afterwards.
    pub transform: Transform,
}

impl Transform {
    /// Nothing but a resize of an image of `original` height and width to `size`.
    pub fn resize(original: (usize, usize), size: (usize, usize), rule: ResizeRule) -> Self {
        Self { region: [0, 0, original.1, original.0], flip: false, colours: Vec::new(), size, rule }
    }

    /// The image's new pixels.
    pub(crate) fn pixels(&self, mut image: Rgb8) -> Result<Planes> {
        if self.region != [0, 0, image.width, image.height] {
            image = cut(&image, self.region);
        }
        if self.flip {
            image.flip_horizontal();
        }
        for change in &self.colours {
            change.apply(&mut image);
        }
        resized(&image, self.size, self.rule)
    }

    /// Boxes in pixels of the region, mirrored and scaled as the image is; one that has no area left in f32 is dropped with its label.
    pub(crate) fn boxes(&self, boxes: &[[f32; 4]], labels: &[u32]) -> (Vec<[f32; 4]>, Vec<u32>) {
        let ([_, _, region_width, region_height], (height, width)) = (self.region, self.size);
        let region_width = region_width as f32;
        let sy = height as f32 / region_height as f32;
        let sx = width as f32 / region_width;
        boxes
            .iter()
            .zip(labels)
            .map(|(&[x1, y1, x2, y2], &label)| {
                let (x1, x2) = if self.flip { (region_width - x2, region_width - x1) } else { (x1, x2) };
                ([x1 * sx, y1 * sy, x2 * sx, y2 * sy], label)
            })
            .filter(|(b, _)| has_area(b))
            .unzip()
    }
}

impl ImageKey {
    /// The key of an image of `original` height and width.
    pub fn new(image_id: u64, original: (usize, usize), transform: Transform) -> Self {
        Self { image_id, original, transform }
    }
}

/// The pixels of a region that lies in the image.
fn cut(image: &Rgb8, [x, y, width, height]: [usize; 4]) -> Rgb8 {
    let rows = image.data.chunks_exact((image.width * 3).max(1)).skip(y).take(height);
    Rgb8 { width, height, data: rows.flat_map(|row| &row[x * 3..(x + width) * 3]).copied().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_of_a_region_are_the_images() {
        let image = Rgb8 { width: 5, height: 4, data: (0..60).collect() };
        let part = cut(&image, [1, 2, 3, 2]);
        assert_eq!((part.width, part.height, part.data.len()), (3, 2, 18));
        for (x, y) in [(0, 0), (2, 0), (0, 1), (2, 1)] {
            assert_eq!(part.pixel(x, y), image.pixel(x + 1, y + 2));
        }
        assert_eq!(cut(&image, [0, 0, 5, 4]), image);
    }
}
