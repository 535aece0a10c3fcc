//! The bytes of an image file: which format they are, and a decoder that stays within limits.

use std::any::Any;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{ImageFormat, ImageReader};

/// The longest side that is decoded, in pixels. A file that claims more is an error before anything is allocated.
pub const MAX_SIDE: u32 = 16_384;

/// The most pixels one image may have (8,192 x 8,192). A file of a few hundred bytes can claim any number of them.
pub const MAX_PIXELS: u64 = 1 << 26;

/// The formats that are read, as messages name them.
pub(crate) const FORMATS: &str = "JPEG, PNG, WebP, BMP and TIFF";

/// Endings of the files that are taken for images, in lower case. What a file is shows in its first bytes.
pub const IMAGE_EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "tif", "tiff"];

/// Endings of images that are not read, in lower case.
pub(crate) const NOT_DECODED: [&str; 6] = ["gif", "heic", "heif", "avif", "jp2", "jxl"];

/// Something decoded, or what is wrong with the bytes.
pub(crate) type Decoded<T> = std::result::Result<T, String>;

/// The decoders are other people's code: where one panics on a damaged file, that is an error like any other.
pub(crate) fn guarded<T>(decode: impl FnOnce() -> Decoded<T>) -> Decoded<T> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|panic| Err(format!("the decoder failed inside: {}", panic_text(&*panic))))
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default()
}

/// The reader of a file's bytes, its format known and allowed.
pub(crate) fn reader(bytes: &[u8]) -> Decoded<(ImageReader<Cursor<&[u8]>>, ImageFormat)> {
    if bytes.is_empty() {
        return Err("the file has 0 bytes".to_owned());
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    match reader.format() {
        Some(
            format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp | ImageFormat::Tiff),
        ) => Ok((reader, format)),
        Some(other) => Err(format!("{} is not read; only {FORMATS} are", format!("{other:?}").to_uppercase())),
        None if is_heif(bytes) => Err(format!("HEIC/HEIF is not read; only {FORMATS} are")),
        None => Err(format!("by its first bytes it is none of {FORMATS}")),
    }
}

/// Whether the bytes begin as phones write HEIC: a box `ftyp` with a brand of HEIF.
fn is_heif(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(b"ftyp")
        && [b"heic", b"heix", b"mif1", b"msf1", b"hevc"].iter().any(|b| bytes.get(8..12) == Some(&b[..]))
}
