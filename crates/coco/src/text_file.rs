//! Text files in the encodings that tools write: a byte order mark, a declared encoding, or UTF-8.

use std::borrow::Cow;
use std::path::Path;

use encoding_rs::Encoding;

use crate::error::{Error, Result};

/// A text file's bytes and the encoding that the caller names for files that declare none.
#[derive(Debug, Clone)]
pub(crate) struct TextFile {
    bytes: Vec<u8>,
    encoding: Option<&'static Encoding>,
}

/// Reads a text file; `encoding` is the name of its encoding, where the caller knows it.
///
/// # Errors
/// A file that cannot be read; an encoding that is not known.
pub(crate) fn read_text(path: &Path, encoding: Option<&str>) -> Result<TextFile> {
    let bytes = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
    Ok(TextFile { bytes, encoding: encoding.map(encoding_named).transpose()? })
}

/// The encoding of this name.
///
/// # Errors
/// A name that is not in the WHATWG Encoding Standard.
pub(crate) fn encoding_named(name: &str) -> Result<&'static Encoding> {
    Encoding::for_label(name.as_bytes()).ok_or_else(|| {
        Error::Config(format!(
            "the encoding {name:?} is not known; use a name such as utf-8, windows-1252, gbk or shift_jis"
        ))
    })
}

/// The file's text, by its byte order mark, the encoding that the caller named, or UTF-8. What cannot be read is U+FFFD.
pub(crate) fn decoded(file: &TextFile) -> Cow<'_, str> {
    decode(&file.bytes, file.encoding)
}

/// Bytes as text; see [`decoded`].
pub(crate) fn decode<'a>(bytes: &'a [u8], encoding: Option<&'static Encoding>) -> Cow<'a, str> {
    utf16_without_mark(bytes).or(encoding).unwrap_or(encoding_rs::UTF_8).decode(bytes).0
}

/// UTF-16 that lacks its byte order mark, told by the zero bytes of its first two characters: no other text has any.
pub(crate) fn utf16_without_mark(bytes: &[u8]) -> Option<&'static Encoding> {
    match bytes {
        [1..=255, 0, 1..=255, 0, ..] => Some(encoding_rs::UTF_16LE),
        [0, 1..=255, 0, 1..=255, ..] => Some(encoding_rs::UTF_16BE),
        _ => None,
    }
}
