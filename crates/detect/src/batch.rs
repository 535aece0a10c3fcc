//! A batch of images, padded to one size.

use crate::{Error, Result, Size};
use candle_core::{DType, Device, Tensor};

/// Images of one batch in one tensor, each in the upper left corner.
#[derive(Debug, Clone)]
pub struct ImageBatch {
    /// `[B, 3, H, W]`, RGB from 0 to 1, zero outside each image.
    pub pixels: Tensor,
    /// Size of each image without its padding, in pixels.
    pub sizes: Vec<Size>,
}

impl ImageBatch {
    /// A batch of planar images: size, and RGB planes of `3 * height * width` values from 0 to 1. Each side of
    /// the tensor is the largest one of the batch, rounded up to a multiple of `divisor` (torchvision: 32).
    ///
    /// # Errors
    /// No image, an empty one, one with another number of values, a divisor of 0.
    pub fn from_planes(images: &[(Size, &[f32])], divisor: usize, device: &Device) -> Result<Self> {
        const STAGE: &str = "ImageBatch::from_planes";
        if divisor == 0 || images.is_empty() {
            return Err(Error::input(
                STAGE,
                format!("{} images, divisor {divisor}; both must be at least 1", images.len()),
            ));
        }
        for (i, (size, data)) in images.iter().enumerate() {
            let Size { height: h, width: w } = *size;
            if h == 0 || w == 0 || data.len() != 3 * h * w {
                return Err(Error::input(
                    STAGE,
                    format!(
                        "image {i} of {h}x{w} has {} values; it must have 3 planes of at least one pixel",
                        data.len()
                    ),
                ));
            }
        }
        let side = |of: fn(&Size) -> usize| {
            images.iter().map(|(size, _)| of(size)).max().unwrap_or(1).next_multiple_of(divisor)
        };
        let (height, width) = (side(|size| size.height), side(|size| size.width));
        let mut all = vec![0f32; images.len() * 3 * height * width];
        for ((size, data), out) in images.iter().zip(all.chunks_mut(3 * height * width)) {
            for (plane, out) in data.chunks(size.height * size.width).zip(out.chunks_mut(height * width)) {
                for (row, out) in plane.chunks(size.width).zip(out.chunks_mut(width)) {
                    out[..size.width].copy_from_slice(row);
                }
            }
        }
        Ok(Self {
            pixels: Tensor::from_vec(all, (images.len(), 3, height, width), device)?,
            sizes: images.iter().map(|(size, _)| *size).collect(),
        })
    }

    /// B: number of images.
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// Size of the tensor, with the padding.
    ///
    /// # Errors
    /// Pixels that are not `[B, 3, H, W]` f32, or sizes that do not fit them.
    pub fn padded(&self) -> Result<Size> {
        let fits = |b: usize, h: usize, w: usize| {
            self.sizes.len() == b
                && self.sizes.iter().all(|s| (1..=h).contains(&s.height) && (1..=w).contains(&s.width))
        };
        match *self.pixels.dims() {
            [b, 3, h, w] if b > 0 && fits(b, h, w) && self.pixels.dtype() == DType::F32 => {
                Ok(Size { height: h, width: w })
            }
            _ => Err(Error::input(
                "ImageBatch",
                format!(
                    "pixels {:?} of {:?} with sizes {:?}; needed are f32 [B, 3, H, W] and B sizes within it",
                    self.pixels.dims(),
                    self.pixels.dtype(),
                    self.sizes
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pads_to_the_largest_and_the_divisor() {
        let a = vec![1f32; 3 * 33 * 20];
        let b = vec![2f32; 3 * 5 * 64];
        let sizes = [Size { height: 33, width: 20 }, Size { height: 5, width: 64 }];
        let batch = ImageBatch::from_planes(&[(sizes[0], &a), (sizes[1], &b)], 32, &Device::Cpu).unwrap();
        assert_eq!(batch.pixels.dims(), &[2, 3, 64, 64]);
        assert_eq!(batch.sizes, sizes);
        let v = batch.pixels.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let at = |b: usize, c: usize, y: usize, x: usize| v[((b * 3 + c) * 64 + y) * 64 + x];
        assert_eq!((at(0, 2, 32, 19), at(0, 2, 33, 19), at(0, 2, 32, 20)), (1.0, 0.0, 0.0));
        assert_eq!((at(1, 0, 4, 63), at(1, 0, 5, 63)), (2.0, 0.0));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let a = vec![1f32; 3 * 4];
        let size = Size { height: 2, width: 2 };
        assert!(ImageBatch::from_planes(&[(Size { width: 3, ..size }, &a)], 32, &Device::Cpu).is_err());
        assert!(ImageBatch::from_planes(&[], 32, &Device::Cpu).is_err());
        assert!(ImageBatch::from_planes(&[(size, &a)], 0, &Device::Cpu).is_err());
        let mut batch = ImageBatch::from_planes(&[(size, &a)], 1, &Device::Cpu).unwrap();
        batch.sizes[0].height = 3;
        assert!(batch.padded().is_err());
    }
}
