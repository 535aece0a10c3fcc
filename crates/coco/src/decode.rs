//! JPEG and PNG files to RGB8, within limits, and never half an image.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, ImageReader, Limits};

use crate::error::{Error, Result};

/// The longest side that is decoded, in pixels. A file that claims more is an error before anything is allocated.
pub const MAX_SIDE: u32 = 16_384;

/// The most memory one decoded image may take, in bytes, in the file's own pixel format.
pub const MAX_BYTES: u64 = 1 << 30;

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

    /// Writes the image as a PNG file.
    ///
    /// # Errors
    /// A data length that does not fit the size, or a file that cannot be written.
    pub fn save_png(&self, path: &Path) -> Result<()> {
        let fail = |e: image::ImageError| match e {
            image::ImageError::IoError(source) => Error::file("write", path, source),
            other => Error::Config(format!("cannot write {} as PNG: {other}", path.display())),
        };
        let (Ok(width), Ok(height)) = (u32::try_from(self.width), u32::try_from(self.height)) else {
            return Err(Error::Config(format!(
                "an image of {}x{} pixels is too large for PNG",
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

/// Reads a JPEG or PNG file; what it is is told from its first bytes, not from its name.
///
/// Grey becomes three equal channels, 16 bits are rounded to 8, a palette is looked up, CMYK is converted, and an alpha channel
/// is dropped without blending (as PIL's `convert("RGB")` does). EXIF rotation is not applied, since COCO's boxes are not
/// rotated either.
///
/// # Errors
/// A file that cannot be read, is of another format, is cut or damaged, or claims more than [`MAX_SIDE`] or [`MAX_BYTES`].
pub fn decode_file(path: &Path) -> Result<Rgb8> {
    let bytes = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
    decode(&bytes).map_err(|reason| Error::decode(path, reason))
}

/// Decodes the bytes of a JPEG or PNG file, as [`decode_file`] does; `name` is what errors call it.
///
/// # Errors
/// As [`decode_file`].
pub fn decode_bytes(bytes: &[u8], name: &str) -> Result<Rgb8> {
    decode(bytes).map_err(|reason| Error::decode(Path::new(name), reason))
}

fn decode(bytes: &[u8]) -> std::result::Result<Rgb8, String> {
    if bytes.is_empty() {
        return Err("the file has 0 bytes".to_owned());
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let format = match reader.format() {
        Some(format @ (ImageFormat::Jpeg | ImageFormat::Png)) => format,
        Some(other) => return Err(format!("{other:?} is not read; only JPEG and PNG are")),
        None => return Err("neither JPEG nor PNG by its first bytes".to_owned()),
    };
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    // The JPEG decoder paints what is missing of a cut file grey and calls it a success.
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err("the JPEG ends before its end marker (cut in the middle?)".to_owned());
    }
    let image = reader.decode().map_err(|e| match e {
        image::ImageError::Limits(_) => {
            format!("it claims more than {MAX_SIDE} pixels a side or {MAX_BYTES} bytes: {e}")
        }
        other => other.to_string(),
    })?;
    let image = image.into_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(Rgb8 { width, height, data: image.into_raw() })
}

/// Whether the marker that ends the image is there (ITU-T T.81, B.1.1: in a scan's data every 0xFF is followed by 0 or a restart
/// marker, so that other markers can be told from data).
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2; // after the start marker
    let mut in_scan = false;
    while at + 1 < bytes.len() {
        if bytes[at] != 0xFF {
            if !in_scan {
                // Padding or rubbish between segments: decoders search for the next marker too.
                at += 1;
                continue;
            }
            match bytes[at..].iter().position(|&b| b == 0xFF) {
                Some(skip) => at += skip,
                None => return false,
            }
            continue;
        }
        match bytes[at + 1] {
            0xFF => at += 1,                             // fill byte
            0x00 | 0x01 | 0xD0..=0xD7 | 0xD8 => at += 2, // data, TEM, restart, start: no length follows
            0xD9 => return true,
            marker => {
                let Some(length) = bytes.get(at + 2..at + 4) else {
                    return false;
                };
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                in_scan = marker == 0xDA;
            }
        }
    }
    false
}
