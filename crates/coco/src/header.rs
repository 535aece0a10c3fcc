//! What an image file's header says: its size and its EXIF orientation. The pixels are not read.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::path::Path;

use image::ImageDecoder;
use image::metadata::Orientation;

use crate::error::{Error, Result};
use crate::image_reader::{Decoded, MAX_PIXELS, MAX_SIDE, guarded, reader};

/// How much of a file is read to learn its header, where that is enough. Headers with long profiles take more.
const HEADER_BYTES: u64 = 1 << 16;

/// Size and orientation of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageHeader {
    /// Pixels, as the file stores them.
    pub width: u32,
    /// Pixels, as the file stores them.
    pub height: u32,
    /// How a viewer turns the image. A file that says nothing, or nothing that can be read, is upright.
    pub(crate) orientation: Orientation,
}

impl ImageHeader {
    /// Whether the file has an EXIF orientation that turns or mirrors the image.
    pub fn is_marked(&self) -> bool {
        self.orientation != Orientation::NoTransforms
    }

    /// Width and height after the turn that the orientation asks for.
    pub fn upright_size(&self) -> (u32, u32) {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        match self.orientation {
            Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH => (self.height, self.width),
            _ => (self.width, self.height),
        }
    }
}

/// A header with what tells two files apart: their length and a hash of their first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    pub header: ImageHeader,
    pub fingerprint: (u64, u64),
}

/// Reads an image file's header: the rest of the file may still be damaged.
///
/// # Errors
/// As [`decode_file`](crate::decode_file), as far as a header shows it.
pub fn image_header(path: &Path) -> Result<ImageHeader> {
    Ok(probe(path)?.header)
}

/// [`image_header`] of the bytes of a file; `name` is what errors call them.
///
/// # Errors
/// As [`image_header`].
pub fn image_header_of_bytes(bytes: &[u8], name: &str) -> Result<ImageHeader> {
    header_of_bytes(bytes).map_err(|reason| Error::decode(Path::new(name), reason))
}

/// Reads the header and the file's fingerprint.
pub(crate) fn probe(path: &Path) -> Result<Probe> {
    let fail = |e| Error::file("read", path, e);
    let read = |limit: u64| -> Result<(Vec<u8>, u64)> {
        let file = File::open(path).map_err(fail)?;
        let length = file.metadata().map_err(fail)?.len();
        let mut bytes = Vec::with_capacity(limit.min(length) as usize);
        file.take(limit).read_to_end(&mut bytes).map_err(fail)?;
        Ok((bytes, length))
    };
    let (start, length) = read(HEADER_BYTES)?;
    let mut header = header_of_bytes(&start);
    // A TIFF's directory may stand at its end.
    if header.is_err() && start.len() as u64 == HEADER_BYTES {
        header = header_of_bytes(&read(u64::MAX)?.0);
    }
    let mut hash = DefaultHasher::new();
    hash.write(&start);
    let header = header.map_err(|reason| Error::decode(path, reason))?;
    Ok(Probe { header, fingerprint: (length.max(start.len() as u64), hash.finish()) })
}

/// Size, within the limits, and orientation.
pub(crate) fn header_of_bytes(bytes: &[u8]) -> Decoded<ImageHeader> {
    let header = guarded(|| {
        let mut decoder = reader(bytes)?.0.into_decoder().map_err(|e| e.to_string())?;
        let (width, height) = decoder.dimensions();
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        Ok(ImageHeader { width, height, orientation })
    })?;
    let ImageHeader { width, height, .. } = header;
    if width == 0 || height == 0 {
        return Err(format!("it claims {width}x{height} pixels"));
    }
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!(
            "it claims {width}x{height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS} in all are decoded"
        ));
    }
    Ok(header)
}
