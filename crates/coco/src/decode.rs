//! Image files (JPEG, PNG, WebP, BMP, TIFF) to RGB8, within limits, and never half an image.

use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageFormat, Limits, RgbImage};

use crate::error::{Error, Result};
use crate::header::header_of_bytes;
use crate::image_reader::{Decoded, MAX_PIXELS, guarded, reader};
use crate::rgb8::Rgb8;
use crate::setters::setters;

/// The rows of one row of JPEG's blocks: 8 pixels, twice that where colours are subsampled.
const BLOCK_ROWS: usize = 16;

/// How a file's bytes become an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecodeOptions {
    /// Turn and mirror the image as its EXIF orientation says, so that it stands as a viewer shows it. Default `false`.
    pub upright: bool,
    /// Read a JPEG that lacks its last bytes, if less than one row of blocks is missing. Default `false`: such a file is an error.
    pub keep_truncated: bool,
}

setters!(DecodeOptions { upright: bool, keep_truncated: bool });

/// Reads an image file; what it is is told from its first bytes, not from its name.
///
/// Grey becomes three equal channels, 16 bits are rounded to 8, a palette is looked up, CMYK is converted, and an alpha channel
/// is dropped without blending (as PIL's `convert("RGB")` does). The first image of a TIFF or an animated WebP is taken.
///
/// # Errors
/// A file that cannot be read, is of another format, is cut or damaged, or claims more than [`MAX_SIDE`](crate::MAX_SIDE) or [`MAX_PIXELS`](crate::MAX_PIXELS).
pub fn decode_file(path: &Path, options: DecodeOptions) -> Result<Rgb8> {
    let bytes = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
    decode(&bytes, options).map_err(|reason| Error::decode(path, reason))
}

/// Decodes the bytes of an image file, as [`decode_file`] does; `name` is what errors call it.
///
/// # Errors
/// As [`decode_file`].
pub fn decode_bytes(bytes: &[u8], name: &str, options: DecodeOptions) -> Result<Rgb8> {
    decode(bytes, options).map_err(|reason| Error::decode(Path::new(name), reason))
}

fn decode(bytes: &[u8], options: DecodeOptions) -> Decoded<Rgb8> {
    let (mut reader, format) = reader(bytes)?;
    // The JPEG decoder paints what is missing of a cut file grey and calls it a success.
    let cut = format == ImageFormat::Jpeg && !jpeg_is_complete(bytes);
    if cut && !options.keep_truncated {
        return Err(format!("{TRUNCATED} (cut in the middle?)"));
    }
    let header = header_of_bytes(bytes)?;
    let (width, height) = (header.width as usize, header.height as usize);
    // Eight bytes a pixel hold every format; what the decoder wants beyond that is no image's need.
    let mut limits = Limits::default();
    limits.max_alloc = Some(8 * MAX_PIXELS);
    reader.limits(limits);
    let mut image = guarded(|| reader.decode().map_err(|e| e.to_string()))?.into_rgb8();
    if (image.width() as usize, image.height() as usize) != (width, height) {
        return Err("its header and its pixels disagree about the size".to_owned());
    }
    if cut && rows_without_data(&image) > BLOCK_ROWS {
        return Err("the JPEG is cut: more than its last row of blocks is missing".to_owned());
    }
    if options.upright && header.orientation != Orientation::NoTransforms {
        let mut turned = DynamicImage::ImageRgb8(image);
        turned.apply_orientation(header.orientation);
        image = turned.into_rgb8();
    }
    Ok(Rgb8 { width: image.width() as usize, height: image.height() as usize, data: image.into_raw() })
}

/// What errors say of a JPEG without its end marker; [`is_truncated`] knows it by this.
const TRUNCATED: &str = "the JPEG ends before its end marker";

/// Whether a reason that [`decode_file`] gave is a JPEG's missing end.
pub(crate) fn is_truncated(reason: &str) -> bool {
    reason.starts_with(TRUNCATED)
}

/// How many rows at the bottom end in the grey that the JPEG decoder paints where data is missing.
fn rows_without_data(image: &RgbImage) -> usize {
    let last = image.width() - 1;
    (0..image.height()).rev().take_while(|&y| image.get_pixel(last, y).0 == [128; 3]).count()
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
