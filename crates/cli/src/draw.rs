//! Boxes and labels on an image.

use std::ops::Range;

use docent_coco::Rgb8;
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// What is drawn of one object.
pub struct Mark {
    /// xyxy in the image's pixels.
    pub bbox: [f32; 4],
    /// Index of the colour.
    pub class: usize,
    /// Text at the box; none where it is empty.
    pub label: String,
}

/// Colours that are told apart on photographs, also by most colour-blind eyes.
const COLOURS: [[u8; 3]; 8] = [
    [230, 159, 0],
    [86, 180, 233],
    [0, 158, 115],
    [240, 228, 66],
    [0, 114, 178],
    [213, 94, 0],
    [204, 121, 167],
    [255, 255, 255],
];

/// Letters are at least 16 pixels high, so that an image with labels should have at least so many at its longer side.
const READABLE: usize = 480;

/// The image with its marks, the first of them on top. A small one is enlarged by a whole factor first, so that its labels can be
/// read and do not cover it.
pub fn drawn(image: &Rgb8, marks: &[Mark]) -> Rgb8 {
    let factor = READABLE.div_ceil(image.width.max(image.height).max(1)).max(1);
    let mut image = enlarged(image, factor);
    let place = |m: &Mark| Mark { bbox: m.bbox.map(|v| v * factor as f32), class: m.class, label: m.label.clone() };
    draw(&mut image, &marks.iter().map(place).collect::<Vec<_>>());
    image
}

/// Draws the marks into the image, the first on top: it gets the first choice of a place for its label too.
pub fn draw(image: &mut Rgb8, marks: &[Mark]) {
    // Lines and letters grow with the image, so that they can be read at any size.
    let short = image.width.min(image.height);
    let line = (short / 250).max(2);
    let letters = Letters::of_height(short / 30);
    for mark in marks.iter().rev() {
        frame(image, mark.bbox, line, colour(mark.class));
    }
    let mut taken: Vec<Area> = Vec::new();
    let mut labels = Vec::new();
    for mark in marks.iter().filter(|m| !m.label.is_empty()) {
        let area = place(image, mark, &letters, line, &taken);
        taken.push(area.clone());
        labels.push((area, mark));
    }
    for (area, mark) in labels.into_iter().rev() {
        letters.write(image, area.0.start, area.1.start, &mark.label, colour(mark.class));
    }
}

/// Columns and rows.
type Area = (Range<usize>, Range<usize>);

fn colour(class: usize) -> [u8; 3] {
    COLOURS[class % COLOURS.len()]
}

/// Every pixel as a square of `factor`.
fn enlarged(image: &Rgb8, factor: usize) -> Rgb8 {
    let mut data = Vec::with_capacity(image.data.len() * factor * factor);
    for row in image.data.chunks_exact((image.width * 3).max(1)) {
        let wide: Vec<u8> = row.chunks_exact(3).flat_map(|pixel| pixel.repeat(factor)).collect();
        (0..factor).for_each(|_| data.extend_from_slice(&wide));
    }
    Rgb8 { width: image.width * factor, height: image.height * factor, data }
}

/// Where a label goes: above its box, inside it, below it; the first of these that lies in the image and on no other label, else
/// the first that lies in the image.
fn place(image: &Rgb8, mark: &Mark, letters: &Letters, line: usize, taken: &[Area]) -> Area {
    let (width, height) = letters.size(&mark.label);
    let [x1, y1, x2, y2] = mark.bbox.map(|v| v.max(0.0) as usize);
    let below = |y: usize| y + height <= image.height;
    let (left, right) = (x1, (x2 + 1).saturating_sub(width));
    let above = y1.checked_sub(height);
    let inside = Some(y1 + line).filter(|&y| below(y));
    let under = Some(y2 + 1).filter(|&y| below(y));
    let places = [(left, above), (left, inside), (left, under), (right, above), (right, inside), (right, under)];
    let areas: Vec<Area> = places
        .into_iter()
        .filter_map(|(x, y)| {
            let (x, y) = (x.min(image.width.saturating_sub(width)), y?);
            Some((x..x + width, y..y + height))
        })
        .collect();
    let free = |area: &&Area| taken.iter().all(|other| !overlap(area, other));
    let first = areas.iter().find(free).or(areas.first());
    first.cloned().unwrap_or((left..left + width, 0..height))
}

fn overlap(a: &Area, b: &Area) -> bool {
    let apart = |a: &Range<usize>, b: &Range<usize>| a.end <= b.start || b.end <= a.start;
    !apart(&a.0, &b.0) && !apart(&a.1, &b.1)
}

fn fill(image: &mut Rgb8, x: Range<usize>, y: Range<usize>, colour: [u8; 3]) {
    let x = x.start.min(image.width)..x.end.min(image.width);
    for row in y.start..y.end.min(image.height) {
        let at = row * image.width;
        for pixel in image.data[3 * (at + x.start)..3 * (at + x.end)].chunks_exact_mut(3) {
            pixel.copy_from_slice(&colour);
        }
    }
}

/// A frame inside the box, with a dark line inside it that keeps it visible on a ground of its own colour.
fn frame(image: &mut Rgb8, bbox: [f32; 4], width: usize, colour: [u8; 3]) {
    let limit = |v: f32, side: usize| (v.max(0.0).round() as usize).min(side.saturating_sub(1));
    let (x1, x2) = (limit(bbox[0], image.width), limit(bbox[2], image.width));
    let (y1, y2) = (limit(bbox[1], image.height), limit(bbox[3], image.height));
    let mut ring = |inset: usize, width: usize, colour| {
        let (x1, y1) = (x1 + inset, y1 + inset);
        let (x2, y2) = (x2.saturating_sub(inset), y2.saturating_sub(inset));
        if x1 > x2 || y1 > y2 {
            return;
        }
        fill(image, x1..x2 + 1, y1..(y1 + width).min(y2 + 1), colour);
        fill(image, x1..x2 + 1, (y2 + 1).saturating_sub(width).max(y1)..y2 + 1, colour);
        fill(image, x1..(x1 + width).min(x2 + 1), y1..y2 + 1, colour);
        fill(image, (x2 + 1).saturating_sub(width).max(x1)..x2 + 1, y1..y2 + 1, colour);
    };
    ring(width, 1, [20, 20, 20]);
    ring(0, width, colour);
}

/// One size of letters.
struct Letters {
    raster: RasterHeight,
    /// Pixels for a raster's dot.
    scale: usize,
}

/// Free columns on either side of a text.
const PADDING: usize = 2;

impl Letters {
    /// The size that is nearest to `pixels`, and can be read.
    fn of_height(pixels: usize) -> Self {
        let (raster, scale) = match pixels {
            0..20 => (RasterHeight::Size16, 1),
            20..28 => (RasterHeight::Size24, 1),
            _ => (RasterHeight::Size32, (pixels / 32).max(1)),
        };
        Self { raster, scale }
    }

    /// Width and height of a text on its ground.
    fn size(&self, text: &str) -> (usize, usize) {
        let letter = get_raster_width(FontWeight::Bold, self.raster);
        ((text.chars().count() * letter + 2 * PADDING) * self.scale, self.raster.val() * self.scale)
    }

    /// Writes on a ground of `colour`, black or white by what can be read there.
    fn write(&self, image: &mut Rgb8, x: usize, y: usize, text: &str, colour: [u8; 3]) {
        let (width, height) = self.size(text);
        fill(image, x..x + width, y..y + height, colour);
        // The eye's weights of red, green and blue (Rec. 601).
        let [r, g, b] = colour.map(u32::from);
        let ink: u8 = if 299 * r + 587 * g + 114 * b > 128_000 { 0 } else { 255 };
        let mut left = x + PADDING * self.scale;
        for letter in text.chars() {
            let raster = |c| get_raster(c, FontWeight::Bold, self.raster);
            let Some(raster) = raster(letter).or_else(|| raster('?')) else { continue };
            for (row, dots) in raster.raster().iter().enumerate() {
                for (column, &dot) in dots.iter().enumerate().filter(|(_, dot)| **dot > 0) {
                    let (px, py) = (left + column * self.scale, y + row * self.scale);
                    let mixed = colour.map(|c| {
                        let mix = u32::from(c) * (255 - u32::from(dot)) + u32::from(ink) * u32::from(dot);
                        u8::try_from(mix / 255).unwrap_or(u8::MAX)
                    });
                    fill(image, px..px + self.scale, py..py + self.scale, mixed);
                }
            }
            left += raster.width() * self.scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(bbox: [f32; 4], class: usize, label: &str) -> Mark {
        Mark { bbox, class, label: label.to_owned() }
    }

    #[test]
    fn marks_outside_the_image_do_no_harm() {
        let mut image = Rgb8::filled(20, 10, [9, 9, 9]);
        let boxes = [[-5.0, -5.0, 50.0, 50.0], [19.5, 9.5, 19.9, 9.9], [3.0, 3.0, 3.0, 3.0], [90.0, 90.0, 99.0, 99.0]];
        draw(&mut image, &boxes.map(|b| mark(b, 0, "cell é 細胞 0.99")));
        assert_eq!(image.data.len(), 600);
        // The frame is held inside the image (drawn again, for the letters lie over it).
        draw(&mut image, &[mark(boxes[0], 0, "")]);
        for (x, y) in [(0, 0), (19, 0), (0, 9), (19, 9)] {
            assert_eq!(image.pixel(x, y), COLOURS[0], "{x},{y}");
        }
        assert_eq!(drawn(&Rgb8::filled(0, 0, [0; 3]), &[mark(boxes[0], 0, "x")]).data.len(), 0);
    }

    #[test]
    fn a_frame_is_where_the_box_is() {
        let mut image = Rgb8::filled(60, 40, [0, 0, 0]);
        draw(&mut image, &[mark([10.0, 20.0, 30.0, 35.0], 1, "")]);
        for (x, y) in [(10, 20), (30, 20), (10, 35), (30, 35), (20, 20), (10, 30)] {
            assert_eq!(image.pixel(x, y), COLOURS[1], "{x},{y}");
        }
        for (x, y) in [(9, 20), (31, 35), (20, 30), (20, 36)] {
            assert_eq!(image.pixel(x, y), [0, 0, 0], "{x},{y}");
        }
        // A small image is enlarged, its boxes with it.
        let large = drawn(&Rgb8::filled(60, 40, [0, 0, 0]), &[mark([10.0, 20.0, 30.0, 35.0], 1, "")]);
        assert_eq!((large.width, large.height), (480, 320));
        assert_eq!((large.pixel(80, 160), large.pixel(79, 160)), (COLOURS[1], [0, 0, 0]));
    }

    #[test]
    fn labels_are_legible_and_keep_off_each_other() {
        let letters = Letters::of_height(0);
        let (width, height) = letters.size("a 0.50");
        assert!(height == 16 && width < 60, "{width}x{height}");
        // Ink and ground are far apart on every colour.
        for class in 0..COLOURS.len() {
            let mut image = Rgb8::filled(width, height, [0; 3]);
            letters.write(&mut image, 0, 0, "a 0.50", colour(class));
            let ground = colour(class).map(i32::from);
            let far = |p: &[u8]| p.iter().zip(ground).map(|(a, b)| (i32::from(*a) - b).abs()).max() > Some(90);
            assert!(image.data.chunks_exact(3).filter(|p| far(p)).count() > 80, "class {class}");
        }
        // Two marks on one box: the second label goes inside the box.
        let image = Rgb8::filled(300, 200, [0; 3]);
        let marks = [mark([50.0, 60.0, 250.0, 180.0], 0, "first"), mark([50.0, 60.0, 250.0, 180.0], 1, "second")];
        let first = place(&image, &marks[0], &letters, 2, &[]);
        let second = place(&image, &marks[1], &letters, 2, std::slice::from_ref(&first));
        assert_eq!((first.1.clone(), second.1.start), (44..60, 62));
        assert!(!overlap(&first, &second));
        // No room above: inside.
        assert_eq!(place(&image, &mark([5.0, 3.0, 90.0, 90.0], 0, "x"), &letters, 2, &[]).1.start, 5);
    }
}
