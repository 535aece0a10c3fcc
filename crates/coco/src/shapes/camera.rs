//! The camera: shading, blur, gain, the light's colour and noise turn a canvas into an 8-bit image.

use super::draw::Draw;
use super::knobs;
use super::paint::{Canvas, Color};
use crate::rgb8::Rgb8;

/// Takes the image.
pub(super) fn expose(draw: &mut Draw, canvas: &Canvas) -> Rgb8 {
    let (width, height) = (canvas.width, canvas.height);
    let mut pixels = canvas.pixels.clone();
    let axis = draw.direction();
    let shade = draw.span(knobs::SHADING);
    if draw.chance(knobs::BLUR_CHANCE) {
        for _ in 0..draw.whole(knobs::BLUR_PASSES) {
            blur(&mut pixels, width, height);
        }
    }
    let gain = draw.span(knobs::GAIN);
    let cast = [0; 3].map(|_: i32| draw.span(knobs::CAST));
    let offset = draw.span(knobs::OFFSET);
    let noise = draw.span(knobs::NOISE);
    // From -1 to 1 across the image, for any direction.
    let reach = 0.5 * (width as f32 * axis[0].abs() + height as f32 * axis[1].abs());
    let mut data = Vec::with_capacity(3 * width * height);
    for (i, pixel) in pixels.iter().enumerate() {
        let (x, y) = ((i % width) as f32 + 0.5, (i / width) as f32 + 0.5);
        let along = (x - 0.5 * width as f32) * axis[0] + (y - 0.5 * height as f32) * axis[1];
        let light = 1.0 + 0.5 * shade * along / reach;
        for c in 0..3 {
            let value = 128.0 + (pixel[c] * light * cast[c] - 128.0) * gain + offset;
            // `as` saturates at both ends of u8.
            data.push((value + noise * draw.bell() + 0.5).floor() as u8);
        }
    }
    Rgb8 { width, height, data }
}

/// One pass of the weights 1 2 1 over 4 along rows, then along columns; the edge is repeated.
fn blur(pixels: &mut [Color], width: usize, height: usize) {
    let mix = |a: Color, b: Color, c: Color| [0, 1, 2].map(|k| 0.25 * (a[k] + c[k]) + 0.5 * b[k]);
    for row in pixels.chunks_exact_mut(width) {
        let mut left = row[0];
        for x in 0..width {
            let (here, right) = (row[x], row[(x + 1).min(width - 1)]);
            row[x] = mix(left, here, right);
            left = here;
        }
    }
    for x in 0..width {
        let mut above = pixels[x];
        for y in 0..height {
            let here = pixels[y * width + x];
            let below = pixels[(y + 1).min(height - 1) * width + x];
            pixels[y * width + x] = mix(above, here, below);
            above = here;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blur_keeps_the_sum_and_spreads_a_point() {
        let mut pixels = vec![[0.0; 3]; 35];
        pixels[17] = [16.0, 32.0, 0.0];
        blur(&mut pixels, 7, 5);
        assert_eq!(pixels.iter().map(|p| p[0]).sum::<f32>(), 16.0);
        assert_eq!((pixels[17][0], pixels[16][0], pixels[10][1], pixels[9][0]), (4.0, 2.0, 4.0, 1.0));
        let flat = vec![[9.0; 3]; 35];
        let mut blurred = flat.clone();
        blur(&mut blurred, 7, 5);
        assert_eq!(blurred, flat);
    }

    #[test]
    fn an_image_has_its_canvas_size_and_is_not_flat() {
        let canvas = Canvas { width: 12, height: 9, pixels: vec![[128.0; 3]; 108] };
        let image = expose(&mut Draw::new(0, "test", 0, 0), &canvas);
        assert_eq!((image.width, image.height, image.data.len()), (12, 9, 324));
        assert!(image.data.iter().any(|&v| v != image.data[0]));
    }
}
