//! An image of 8-bit RGB in memory, and its ways to a file.

use std::path::Path;

use image::ImageFormat;
use image::codecs::jpeg::JpegEncoder;

use crate::error::{Error, Result};

/// An image of 8-bit RGB: rows from the top, pixels from the left, three bytes a pixel (HWC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb8 {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// `height * width * 3` bytes.
    pub data: Vec<u8>,
}

impl Rgb8 {
    /// An image of one colour.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Self {
        Self { width, height, data: colour.repeat(width * height) }
    }

    /// The colour at column `x`, row `y`.
    ///
    /// # Panics
    /// Outside the image.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        assert!(x < self.width, "column {x} of {}", self.width);
        let at = (y * self.width + x) * 3;
        [self.data[at], self.data[at + 1], self.data[at + 2]]
    }

    /// Mirrors the image left to right, in place.
    pub fn flip_horizontal(&mut self) {
        let bytes = self.width * 3;
        if bytes == 0 {
            return;
        }
        for row in self.data.chunks_exact_mut(bytes) {
            let (mut left, mut right) = (0, bytes - 3);
            while left < right {
                for channel in 0..3 {
                    row.swap(left + channel, right + channel);
                }
                left += 3;
                right -= 3;
            }
        }
    }

    /// The image as the bytes of a JPEG file, of a quality to look at.
    ///
    /// # Errors
    /// As [`Self::save_png`], apart from files.
    pub fn to_jpeg(&self) -> Result<Vec<u8>> {
        let (width, height) = self.checked_size("JPEG")?;
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
            .encode(&self.data, width, height, image::ExtendedColorType::Rgb8)
            .map_err(|e| {
                Error::Config(format!("an image of {width}x{height} pixels cannot be written as JPEG: {e}"))
            })?;
        Ok(bytes)
    }

    /// Width and height, where the data fits them.
    fn checked_size(&self, format: &str) -> Result<(u32, u32)> {
        let (Ok(width), Ok(height)) = (u32::try_from(self.width), u32::try_from(self.height)) else {
            return Err(Error::Config(format!(
                "an image of {}x{} pixels is too large for {format}",
                self.width, self.height
            )));
        };
        if self.data.len() != self.width * self.height * 3 {
            return Err(Error::Config(format!(
                "an RGB image of {}x{} pixels needs {} bytes, and {} were given",
                self.width,
                self.height,
                self.width * self.height * 3,
                self.data.len()
            )));
        }
        Ok((width, height))
    }

    /// Writes the image as a PNG file.
    ///
    /// # Errors
    /// A data length that does not fit the size, or a file that cannot be written.
    pub fn save_png(&self, path: &Path) -> Result<()> {
        let fail = |e: image::ImageError| match e {
            image::ImageError::IoError(source) => Error::file("write", path, source),
            other => Error::Config(format!("cannot write {} as PNG: {other}", path.display())),
        };
        let (width, height) = self.checked_size("PNG")?;
        image::save_buffer_with_format(
            path,
            &self.data,
            width,
            height,
            image::ExtendedColorType::Rgb8,
            ImageFormat::Png,
        )
        .map_err(fail)
    }
}

/// JPEG's quality of [`Rgb8::to_jpeg`], of 100: an image to look at.
const JPEG_QUALITY: u8 = 82;
