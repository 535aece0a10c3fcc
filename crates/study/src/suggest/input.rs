//! The size that images are brought to.
//!
//! Rule: small boxes set it. The box that 5% of all boxes are smaller than shall have a side of [`SMALL`] pixels, four cells of P2;
//! more is time without a finding, less loses objects. The shorter side is held between [`LEAST`] and [`MOST`], never enlarged past
//! the images' own beyond [`LEAST`], and rounded up to a multiple of 32, C5's stride.

use docent_coco::{Dataset, Distribution, Resize, ResizeRule};

/// Wanted side of a small box, in pixels.
pub const SMALL: f64 = 16.0;
/// The shorter side at least, in pixels: below it P5 has fewer than 4 rows.
pub const LEAST: f64 = 128.0;
/// The shorter side at most, in pixels: beyond it a CPU takes seconds an image.
pub const MOST: f64 = 640.0;
/// C5's stride.
const MULTIPLE: f64 = 32.0;

/// A chosen size.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct InputSize {
    /// As the recipe has it.
    pub resize: Resize,
    /// The images' median shorter and longer side.
    original: (f64, f64),
    /// Side of the small box, in pixels of its image, and resized.
    small: (f64, f64),
}

impl InputSize {
    /// Fits the size to a split, which must hold a box.
    pub fn fit(train: &Dataset) -> Self {
        let (mut shorter, mut longer, mut aspects, mut sides) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for i in 0..train.len() {
            let image = train.image(i);
            let (short, long) = (f64::from(image.width.min(image.height)), f64::from(image.width.max(image.height)));
            shorter.push(short);
            longer.push(long);
            aspects.push(long / short);
            // As a share of the shorter side: images of different size are brought to one.
            let side = |b: &[f32; 4]| (f64::from(b[2] - b[0]) * f64::from(b[3] - b[1])).sqrt() / short;
            sides.extend(train.ground_truth(i).boxes.iter().map(side));
        }
        let original = (Distribution::of(&shorter).median, Distribution::of(&longer).median);
        let share = Distribution::of(&sides).p5.max(1e-4);
        let most = MOST.min(original.0.max(LEAST));
        let wanted = (SMALL / share).clamp(LEAST, most);
        let shortest = (wanted / MULTIPLE).ceil() * MULTIPLE;
        let aspect = Distribution::of(&aspects).p95.min(2.0);
        let longest = (shortest * aspect / MULTIPLE).ceil() * MULTIPLE;
        let resize = Resize::default().shortest(shortest as u32).longest(longest as u32).rule(ResizeRule::Antialias);
        let scale = (shortest / original.0).min(longest / original.1);
        let small = (share * original.0, share * original.0 * scale);
        Self { resize, original, small }
    }

    /// Pixels of a usual image after resizing.
    pub fn pixels(&self) -> f64 {
        let scale = self.scale();
        self.original.0 * self.original.1 * scale * scale
    }

    fn scale(&self) -> f64 {
        let longest = f64::from(self.resize.longest) / self.original.1;
        (f64::from(self.resize.shortest) / self.original.0).min(longest)
    }

    /// The size in words.
    pub fn reason(&self) -> String {
        let (short, long) = self.original;
        let scale = self.scale();
        let mut text = format!(
            "Images are {long:.0}x{short:.0} (median, longer side first) and become {:.0}x{:.0}: 95% of the boxes are then larger \
             than {:.0}x{:.0} pixels, where {SMALL:.0} are wanted ({:.0} in the original).",
            (long * scale).floor(),
            (short * scale).floor(),
            self.small.1,
            self.small.1,
            self.small.0
        );
        if self.small.1 < SMALL / 2.0 {
            text += " That is small: objects below 8 pixels are mostly missed. Cut the images into tiles, or raise the size and wait.";
        } else if self.small.1 > 2.0 * SMALL {
            text += &format!(" Smaller input than {LEAST:.0} pixels a side leaves the pyramid too few cells.");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use docent_coco::{Annotation, Category, Image};

    /// `n` images of one size with one square box each.
    fn set(width: u32, height: u32, side: f64) -> Dataset {
        let images = (1..=20).map(|id| Image { id, file_name: format!("{id}.png"), width, height }).collect();
        let bbox = [1.0, 1.0, side, side];
        let boxes =
            (1..=20).map(|id| Annotation { id, image_id: id, category_id: 1, bbox, area: side * side, iscrowd: false });
        let categories = vec![Category { id: 1, name: "x".into() }];
        Dataset::from_parts("made", "x", images, boxes.collect(), categories).unwrap()
    }

    fn fit(width: u32, height: u32, side: f64) -> (u32, u32) {
        let size = InputSize::fit(&set(width, height, side));
        (size.resize.shortest, size.resize.longest)
    }

    #[test]
    fn small_boxes_set_the_size() {
        // 36 of 480 pixels become 16 at 213, rounded up.
        assert_eq!(fit(640, 480, 36.0), (224, 320));
        assert_eq!(fit(480, 640, 36.0), (224, 320), "the same upright");
        // Big boxes need little, small ones no more than the images have or a CPU bears.
        assert_eq!(fit(640, 480, 300.0), (128, 192));
        assert_eq!(fit(640, 480, 4.0), (480, 640));
        assert_eq!(fit(4000, 3000, 20.0), (640, 864));
        // Small images are enlarged to the least and no further.
        assert_eq!(fit(64, 48, 10.0), (128, 192));
    }

    #[test]
    fn the_words_hold_the_figures() {
        let text = InputSize::fit(&set(640, 480, 36.0)).reason();
        assert!(text.contains("640x480") && text.contains("298x224") && text.contains("36 in the original"), "{text}");
        let text = InputSize::fit(&set(4000, 3000, 20.0)).reason();
        assert!(text.contains("tiles"), "{text}");
        let size = InputSize::fit(&set(640, 480, 36.0));
        assert!((size.pixels() - 640.0 * 480.0 * (224f64 / 480.0).powi(2)).abs() < 1.0);
    }
}
