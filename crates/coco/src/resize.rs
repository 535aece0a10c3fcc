//! Resizing to a shortest side and a bound: torchvision's rule without antialiasing, or an antialiased one.

use fast_image_resize as fir;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::rgb8::Rgb8;
use crate::setters::setters;

/// How pixels of the new image are made from those of the old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeRule {
    /// Bilinear between the four nearest pixels, without antialiasing, in f32: what torchvision's detection models do
    /// (`torch.nn.functional.interpolate`, `align_corners=False`, `recompute_scale_factor=True`).
    #[default]
    Torchvision,
    /// Bilinear with a support that grows as the image shrinks, rounded to 8 bits: what PIL's `resize` does.
    Antialias,
}

/// The size images are brought to.
///
/// `scale = min(shortest / min(h, w), longest / max(h, w))`, each side `max(1, floor(side * scale))`, computed in f64 as
/// torchvision's `GeneralizedRCNNTransform` does (whose sides can be 0, an error there).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Resize {
    /// The shorter side's new length in pixels. Default 800.
    pub shortest: u32,
    /// The most the longer side may become, in pixels. Default 1333.
    pub longest: u32,
    /// Default `torchvision`.
    pub rule: ResizeRule,
}

setters!(Resize { shortest: u32, longest: u32, rule: ResizeRule });

impl Default for Resize {
    fn default() -> Self {
        Self { shortest: 800, longest: 1333, rule: ResizeRule::Torchvision }
    }
}

impl Resize {
    /// Checks the settings.
    ///
    /// # Errors
    /// A side of 0, or one past [`MAX_SIDE`](crate::MAX_SIDE).
    pub fn validate(&self) -> Result<()> {
        let max = crate::image_reader::MAX_SIDE;
        for (name, side) in [("shortest", self.shortest), ("longest", self.longest)] {
            if side == 0 || side > max {
                return Err(Error::Config(format!("resize.{name} is {side}; it must lie between 1 and {max} pixels")));
            }
        }
        Ok(())
    }

    /// The size `(height, width)` that an image of `height` x `width` becomes.
    ///
    /// ```
    /// # use docent_coco::Resize;
    /// assert_eq!(Resize::default().output_size(480, 640), (800, 1066));
    /// assert_eq!(Resize::default().output_size(1, 4000), (1, 1333));
    /// ```
    pub fn output_size(&self, height: usize, width: usize) -> (usize, usize) {
        let (h, w) = (height.max(1) as f64, width.max(1) as f64);
        let scale = (f64::from(self.shortest) / h.min(w)).min(f64::from(self.longest) / h.max(w));
        let side = |s: f64| ((s * scale).floor() as usize).max(1);
        (side(h), side(w))
    }

    /// The image at its new size, in RGB planes of 0..1.
    ///
    /// # Errors
    /// An image without pixels or with data of another length than its size says.
    pub fn apply(&self, image: &Rgb8) -> Result<Planes> {
        resized(image, self.output_size(image.height, image.width), self.rule)
    }
}

/// The image at `height` x `width` pixels, in RGB planes of 0..1.
///
/// # Errors
/// As [`Resize::apply`].
pub(crate) fn resized(image: &Rgb8, (height, width): (usize, usize), rule: ResizeRule) -> Result<Planes> {
    let (h, w) = (image.height, image.width);
    if h == 0 || w == 0 || image.data.len() != h * w * 3 {
        return Err(Error::Config(format!(
            "an image of {w}x{h} pixels with {} bytes cannot be resized",
            image.data.len()
        )));
    }
    if (height, width) == (h, w) {
        return Ok(Planes::from_rgb8(image));
    }
    match rule {
        ResizeRule::Torchvision => Ok(bilinear(image, height, width)),
        ResizeRule::Antialias => antialias(image, height, width).map(|i| Planes::from_rgb8(&i)),
    }
}

impl Rgb8 {
    /// The image with its longer side at most `longest` pixels, antialiased; a smaller one stays as it is.
    ///
    /// # Errors
    /// An image without pixels or with data of another length than its size says.
    pub fn shrunk(&self, longest: usize) -> Result<Self> {
        let side = self.width.max(self.height);
        if side <= longest {
            return Ok(self.clone());
        }
        let part = |s: usize| (s * longest.max(1) / side).max(1);
        antialias(self, part(self.height), part(self.width))
    }
}

/// An image as a model takes it: three planes (red, green, blue) of rows, values 0..1.
#[derive(Debug, Clone, PartialEq)]
pub struct Planes {
    /// Pixels.
    pub height: usize,
    /// Pixels.
    pub width: usize,
    /// `3 * height * width` values (CHW).
    pub data: Vec<f32>,
}

impl Planes {
    /// The image's values divided by 255, at its own size.
    pub fn from_rgb8(image: &Rgb8) -> Self {
        let n = image.width * image.height;
        let unit = unit_table();
        let mut data = vec![0f32; 3 * n];
        let (red, rest) = data.split_at_mut(n);
        let (green, blue) = rest.split_at_mut(n);
        for ((pixel, r), (g, b)) in image.data.chunks_exact(3).zip(red).zip(green.iter_mut().zip(blue)) {
            *r = unit[usize::from(pixel[0])];
            *g = unit[usize::from(pixel[1])];
            *b = unit[usize::from(pixel[2])];
        }
        Self { height: image.height, width: image.width, data }
    }
}

/// `v / 255` for each byte.
fn unit_table() -> [f32; 256] {
    std::array::from_fn(|v| v as f32 / 255.0)
}

/// The two neighbours of each output place along one axis, and the second one's share.
///
/// PyTorch's `area_pixel_compute_source_index`: `max(0, (i + 0.5) * in / out - 0.5)`, in f32.
fn neighbours(input: usize, output: usize) -> Vec<(usize, usize, f32)> {
    let scale = input as f32 / output as f32;
    (0..output)
        .map(|i| {
            let at = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
            let low = (at as usize).min(input - 1);
            let high = (low + 1).min(input - 1);
            (low, high, (at - low as f32).clamp(0.0, 1.0))
        })
        .collect()
}

fn bilinear(image: &Rgb8, height: usize, width: usize) -> Planes {
    let columns: Vec<(usize, usize, f32)> =
        neighbours(image.width, width).into_iter().map(|(a, b, share)| (a * 3, b * 3, share)).collect();
    let unit = unit_table();
    // One source row brought to the new width, as three planes.
    let widen = |y: usize, out: &mut [f32]| {
        let row = &image.data[y * image.width * 3..(y + 1) * image.width * 3];
        let (red, rest) = out.split_at_mut(width);
        let (green, blue) = rest.split_at_mut(width);
        for (x, &(a, b, share)) in columns.iter().enumerate() {
            let keep = 1.0 - share;
            let mix = |c: usize| keep * unit[usize::from(row[a + c])] + share * unit[usize::from(row[b + c])];
            red[x] = mix(0);
            green[x] = mix(1);
            blue[x] = mix(2);
        }
    };
    let plane = height * width;
    let mut data = vec![0f32; 3 * plane];
    // The two source rows in use; neighbouring output rows mostly share them.
    let mut held: [(usize, Vec<f32>); 2] = std::array::from_fn(|_| (usize::MAX, vec![0f32; 3 * width]));
    for (y, &(top, bottom, share)) in neighbours(image.height, height).iter().enumerate() {
        if held[0].0 != top && held[1].0 == top {
            held.swap(0, 1);
        }
        for (slot, wanted) in held.iter_mut().zip([top, bottom]) {
            if slot.0 != wanted {
                widen(wanted, &mut slot.1);
                slot.0 = wanted;
            }
        }
        let keep = 1.0 - share;
        for c in 0..3 {
            let out = &mut data[c * plane + y * width..][..width];
            let upper = &held[0].1[c * width..][..width];
            let lower = &held[1].1[c * width..][..width];
            for ((o, &u), &l) in out.iter_mut().zip(upper).zip(lower) {
                *o = keep * u + share * l;
            }
        }
    }
    Planes { height, width, data }
}

fn antialias(image: &Rgb8, height: usize, width: usize) -> Result<Rgb8> {
    let fail = |e: &dyn std::fmt::Display| {
        Error::Config(format!("cannot resize {}x{} to {width}x{height} pixels: {e}", image.width, image.height))
    };
    let side = |s: usize| u32::try_from(s).map_err(|e| fail(&e));
    let source = fir::images::ImageRef::new(side(image.width)?, side(image.height)?, &image.data, fir::PixelType::U8x3)
        .map_err(|e| fail(&e))?;
    let mut target = fir::images::Image::new(side(width)?, side(height)?, fir::PixelType::U8x3);
    let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear));
    fir::Resizer::new().resize(&source, &mut target, &options).map_err(|e| fail(&e))?;
    Ok(Rgb8 { width, height, data: target.into_vec() })
}
