//! Boxes and labels on a picture.

use docent_coco::Rgb8;
use font8x8::{BASIC_FONTS, UnicodeFonts};

/// What is drawn of one object.
pub struct Mark {
    /// xyxy in the picture's pixels.
    pub bbox: [f32; 4],
    /// Index of the colour.
    pub class: usize,
    /// Text above the box.
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

/// Draws the marks, the last on top.
pub fn draw(image: &mut Rgb8, marks: &[Mark]) {
    // Lines and letters grow with the picture, so that they can be read at any size.
    let scale = (image.width.min(image.height) / 400).max(1);
    for mark in marks {
        let colour = COLOURS[mark.class % COLOURS.len()];
        frame(image, mark.bbox, scale, colour);
    }
    for mark in marks {
        let colour = COLOURS[mark.class % COLOURS.len()];
        let (x, y) = (mark.bbox[0].max(0.0) as usize, mark.bbox[1].max(0.0) as usize);
        let height = 9 * scale;
        // Inside the box where there is no room above it.
        let y = if y >= height { y - height } else { y + scale };
        text(image, x, y, scale, &mark.label, colour);
    }
}

fn put(image: &mut Rgb8, x: usize, y: usize, colour: [u8; 3]) {
    if x < image.width && y < image.height {
        let at = (y * image.width + x) * 3;
        image.data[at..at + 3].copy_from_slice(&colour);
    }
}

fn fill(image: &mut Rgb8, x: std::ops::Range<usize>, y: std::ops::Range<usize>, colour: [u8; 3]) {
    for row in y {
        for column in x.clone() {
            put(image, column, row, colour);
        }
    }
}

fn frame(image: &mut Rgb8, bbox: [f32; 4], width: usize, colour: [u8; 3]) {
    let limit = |v: f32, side: usize| (v.max(0.0).round() as usize).min(side.saturating_sub(1));
    let (x1, x2) = (limit(bbox[0], image.width), limit(bbox[2], image.width));
    let (y1, y2) = (limit(bbox[1], image.height), limit(bbox[3], image.height));
    fill(image, x1..x2 + 1, y1..y1 + width, colour);
    fill(image, x1..x2 + 1, (y2 + 1).saturating_sub(width)..y2 + 1, colour);
    fill(image, x1..x1 + width, y1..y2 + 1, colour);
    fill(image, (x2 + 1).saturating_sub(width)..x2 + 1, y1..y2 + 1, colour);
}

/// Black letters on a ground of `colour`, 8 x 8 dots of `scale` pixels each.
fn text(image: &mut Rgb8, x: usize, y: usize, scale: usize, text: &str, colour: [u8; 3]) {
    let width = text.chars().count() * 8 * scale;
    let x = x.min(image.width.saturating_sub(width));
    fill(image, x..x + width, y..y + 9 * scale, colour);
    for (i, letter) in text.chars().enumerate() {
        let Some(rows) = BASIC_FONTS.get(letter).or_else(|| BASIC_FONTS.get('?')) else { continue };
        for (row, bits) in rows.iter().enumerate() {
            for column in (0..8).filter(|c| bits & (1 << c) != 0) {
                let (px, py) = (x + (i * 8 + column) * scale, y + row * scale);
                fill(image, px..px + scale, py..py + scale, [0, 0, 0]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_outside_the_picture_do_no_harm() {
        let mut image = Rgb8::filled(20, 10, [9, 9, 9]);
        let mark = |bbox| Mark { bbox, class: 0, label: "cell é 0.99".into() };
        draw(&mut image, &[mark([-5.0, -5.0, 50.0, 50.0]), mark([19.5, 9.5, 19.9, 9.9]), mark([3.0, 3.0, 3.0, 3.0])]);
        assert_eq!(image.data.len(), 600);
        // The frame is held inside the picture (drawn again, for the letters lie over it).
        draw(&mut image, &[Mark { bbox: [-5.0, -5.0, 50.0, 50.0], class: 0, label: String::new() }]);
        for (x, y) in [(0, 0), (19, 0), (0, 9), (19, 9)] {
            assert_eq!(image.pixel(x, y), COLOURS[0], "{x},{y}");
        }
    }

    #[test]
    fn a_frame_is_where_the_box_is() {
        let mut image = Rgb8::filled(60, 40, [0, 0, 0]);
        draw(&mut image, &[Mark { bbox: [10.0, 20.0, 30.0, 35.0], class: 1, label: String::new() }]);
        for (x, y) in [(10, 20), (30, 20), (10, 35), (30, 35), (20, 20), (10, 30)] {
            assert_eq!(image.pixel(x, y), COLOURS[1], "{x},{y}");
        }
        for (x, y) in [(9, 20), (31, 35), (20, 30), (20, 36)] {
            assert_eq!(image.pixel(x, y), [0, 0, 0], "{x},{y}");
        }
    }
}
