//! JPEG and PNG files to RGB8, within limits, and never half an image.

use std::any::Any;
use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::error::{Error, Result};

/// The longest side that is decoded, in pixels. A file that claims more is an error before anything is allocated.
pub const MAX_SIDE: u32 = 16_384;

/// The most pixels one image may have (8,192 x 8,192). A file of a few hundred bytes can claim any number of them.
pub const MAX_PIXELS: u64 = 1 << 26;

/// How much of a file is read to learn its size, where that is enough. Headers with long profiles take more.
const HEADER_BYTES: u64 = 1 << 16;

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

/// JPEG's quality of [`Rgb8::to_jpeg`], of 100: a picture to look at.
const JPEG_QUALITY: u8 = 82;

/// Reads a JPEG or PNG file; what it is is told from its first bytes, not from its name.
///
/// Grey becomes three equal channels, 16 bits are rounded to 8, a palette is looked up, CMYK is converted, and an alpha channel
/// is dropped without blending (as PIL's `convert("RGB")` does). EXIF rotation is not applied, since COCO's boxes are not
/// rotated either.
///
/// # Errors
/// A file that cannot be read, is of another format, is cut or damaged, or claims more than [`MAX_SIDE`] or [`MAX_PIXELS`].
pub fn decode_file(path: &Path) -> Result<Rgb8> {
    let bytes = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
    decode(&bytes).map_err(|reason| Error::decode(path, reason))
}

/// [`decode_file`], then turned and mirrored as the file's EXIF orientation says, so that it stands as a viewer shows it. For
/// pictures that have no annotations: these count the unturned pixels.
///
/// # Errors
/// As [`decode_file`].
pub fn decode_file_upright(path: &Path) -> Result<Rgb8> {
    let bytes = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
    upright(&bytes).map_err(|reason| Error::decode(path, reason))
}

/// Decodes the bytes of a JPEG or PNG file, as [`decode_file`] does; `name` is what errors call it.
///
/// # Errors
/// As [`decode_file`].
pub fn decode_bytes(bytes: &[u8], name: &str) -> Result<Rgb8> {
    decode(bytes).map_err(|reason| Error::decode(Path::new(name), reason))
}

/// [`decode_file_upright`] of bytes; `name` is what errors call them.
///
/// # Errors
/// As [`decode_file`].
pub fn decode_bytes_upright(bytes: &[u8], name: &str) -> Result<Rgb8> {
    upright(bytes).map_err(|reason| Error::decode(Path::new(name), reason))
}

/// Something decoded, or what is wrong with the bytes.
type Decoded<T> = std::result::Result<T, String>;

/// Width and height of a JPEG or PNG file, from its header alone: the rest of the file may still be damaged.
///
/// # Errors
/// As [`decode_file`], as far as a header shows it.
pub fn image_size(path: &Path) -> Result<(usize, usize)> {
    let read = |limit: u64| -> Result<Vec<u8>> {
        let file = File::open(path).map_err(|e| Error::file("read", path, e))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(|e| Error::file("read", path, e))?;
        Ok(bytes)
    };
    let start = read(HEADER_BYTES)?;
    let mut size = header(&start);
    if size.is_err() && start.len() as u64 == HEADER_BYTES {
        size = header(&read(u64::MAX)?);
    }
    size.map_err(|reason| Error::decode(path, reason))
}

/// [`image_size`] of the bytes of a file; `name` is what errors call them.
///
/// # Errors
/// As [`image_size`].
pub fn image_size_of_bytes(bytes: &[u8], name: &str) -> Result<(usize, usize)> {
    header(bytes).map_err(|reason| Error::decode(Path::new(name), reason))
}

/// The decoders are other people's code: where one panics on a damaged file, that is an error like any other.
fn guarded<T>(decode: impl FnOnce() -> Decoded<T>) -> Decoded<T> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|panic| Err(format!("the decoder failed inside: {}", panic_text(&*panic))))
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default()
}

/// The reader of a file's bytes, its format known and allowed.
fn reader(bytes: &[u8]) -> Decoded<(ImageReader<Cursor<&[u8]>>, ImageFormat)> {
    if bytes.is_empty() {
        return Err("the file has 0 bytes".to_owned());
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    match reader.format() {
        Some(format @ (ImageFormat::Jpeg | ImageFormat::Png)) => Ok((reader, format)),
        Some(other) => Err(format!("{other:?} is not read; only JPEG and PNG are")),
        None => Err("neither JPEG nor PNG by its first bytes".to_owned()),
    }
}

/// Width and height, within the limits.
fn header(bytes: &[u8]) -> Decoded<(usize, usize)> {
    let (width, height) = guarded(|| reader(bytes)?.0.into_dimensions().map_err(|e| e.to_string()))?;
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!(
            "it claims {width}x{height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS} in all are decoded"
        ));
    }
    Ok((width as usize, height as usize))
}

fn decode(bytes: &[u8]) -> Decoded<Rgb8> {
    let (mut reader, format) = reader(bytes)?;
    // The JPEG decoder paints what is missing of a cut file grey and calls it a success.
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err("the JPEG ends before its end marker (cut in the middle?)".to_owned());
    }
    let (width, height) = header(bytes)?;
    // Eight bytes a pixel hold every format; what the decoder wants beyond that is no image's need.
    let mut limits = Limits::default();
    limits.max_alloc = Some(8 * MAX_PIXELS);
    reader.limits(limits);
    let image = guarded(|| reader.decode().map_err(|e| e.to_string()))?.into_rgb8();
    if (image.width() as usize, image.height() as usize) != (width, height) {
        return Err("its header and its pixels disagree about the size".to_owned());
    }
    Ok(Rgb8 { width, height, data: image.into_raw() })
}

/// Decoded, and turned as EXIF says; a file that says nothing, or nothing that can be read, is upright.
fn upright(bytes: &[u8]) -> Decoded<Rgb8> {
    let image = decode(bytes)?;
    let orientation = guarded(|| {
        let mut decoder = reader(bytes)?.0.into_decoder().map_err(|e| e.to_string())?;
        decoder.orientation().map_err(|e| e.to_string())
    });
    match orientation.unwrap_or(Orientation::NoTransforms) {
        Orientation::NoTransforms => Ok(image),
        turn => {
            // The sizes were checked when the image was decoded.
            let (width, height) = (image.width as u32, image.height as u32);
            let pixels = image::RgbImage::from_raw(width, height, image.data).ok_or("its pixels are not its size")?;
            let mut turned = DynamicImage::ImageRgb8(pixels);
            turned.apply_orientation(turn);
            let turned = turned.into_rgb8();
            Ok(Rgb8 { width: turned.width() as usize, height: turned.height() as usize, data: turned.into_raw() })
        }
    }
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
