//! The image in a request's body, in each way in which programs send one: its bytes as they are, a form's file, base64 in JSON.
//!
//! Nothing here knows the rest of the service, so that the fuzz target `upload` can take this file alone.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::ready;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use multer::Multipart;
use multer::bytes::Bytes;
use serde::Deserialize;

/// Parts of a form.
pub const MAX_PARTS: usize = 32;
/// Bytes of a form's body besides its image: other fields and files, all headers, and the lines between them.
const FORM_BYTES: usize = 64 << 10;
/// Bytes of a JSON body besides its base64.
const JSON_BYTES: usize = 4 << 10;
/// The type that curl gives to what it sends as it is, and browsers to forms without files.
pub const CURLS: &str = "application/x-www-form-urlencoded";
/// Characters of a parser's message.
const MESSAGE: usize = 200;
/// What belongs into the query, and would be without effect elsewhere.
const OPTIONS: [&str; 2] = ["threshold", "exif"];

/// How a request sends its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The body is the image's file.
    Bytes,
    /// curl's own type, whatever is sent: the body may be the image's file (`--data-binary`), and may be anything else (`-d`).
    Curl,
    /// multipart/form-data: the first file is the image.
    Form {
        /// What stands between its parts.
        boundary: String,
    },
    /// `{"image": "BASE64"}`, also with the beginning of a data: URL.
    Json,
}

/// Why a body gives no image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A content type that is none of [`Way`].
    Type(String),
    /// An image without a byte.
    Empty,
    /// An image of more bytes.
    TooLarge {
        /// The most that it may have.
        most: usize,
    },
    /// A form with more bytes besides its image.
    FormTooLarge {
        /// The most that it may have.
        most: usize,
    },
    /// An option in the body, where it would be without effect.
    Misplaced(&'static str),
    /// A form that is broken, or has no file.
    Form(String),
    /// JSON that is broken, or has no image.
    Json(String),
}

impl Way {
    /// The way that a request's content type names. None and an image's own mean the bytes.
    ///
    /// # Errors
    /// Any other type; a form without a boundary.
    pub fn of(content_type: Option<&str>) -> Result<Self, Refusal> {
        let Some(whole) = content_type else { return Ok(Self::Bytes) };
        let kind = whole.split(';').next().unwrap_or(whole).trim().to_ascii_lowercase();
        match kind.as_str() {
            "" | "application/octet-stream" | "binary/octet-stream" => Ok(Self::Bytes),
            CURLS => Ok(Self::Curl),
            _ if kind.starts_with("image/") => Ok(Self::Bytes),
            "application/json" => Ok(Self::Json),
            "multipart/form-data" => match multer::parse_boundary(whole) {
                Ok(boundary) => Ok(Self::Form { boundary }),
                Err(e) => Err(Refusal::Form(format!("the form's content type cannot be read: {e}"))),
            },
            _ => Err(Refusal::Type(short(kind))),
        }
    }

    /// Bytes of a body whose image has at most `most`.
    pub fn most_bytes(&self, most: usize) -> usize {
        match self {
            Self::Bytes | Self::Curl => most,
            Self::Form { .. } => most.saturating_add(FORM_BYTES),
            // Four characters for three bytes, and room for line breaks.
            Self::Json => most.saturating_add(most / 2).saturating_add(JSON_BYTES),
        }
    }

    /// The image in `body`: at least one byte, and at most `most`.
    ///
    /// # Errors
    /// A body that holds no such image.
    pub async fn image(&self, body: Bytes, most: usize) -> Result<Bytes, Refusal> {
        let image = match self {
            Self::Bytes | Self::Curl => body,
            Self::Form { boundary } => {
                let whole = body.len();
                let image = first_file(boundary, body).await?;
                // An image that is too large is told as one.
                if image.len() <= most && whole - image.len() > FORM_BYTES {
                    return Err(Refusal::FormTooLarge { most: FORM_BYTES });
                }
                image
            }
            Self::Json => from_json(&body)?,
        };
        match image.len() {
            0 => Err(Refusal::Empty),
            n if n > most => Err(Refusal::TooLarge { most }),
            _ => Ok(image),
        }
    }
}

/// The first file of a form: a part with a file's name, in whatever encoding, or with an image's type. A file field that was left
/// empty is passed over.
async fn first_file(boundary: &str, body: Bytes) -> Result<Bytes, Refusal> {
    let broken = |e: multer::Error| Refusal::Form(short(format!("the form cannot be read: {e}")));
    let whole = futures_util::stream::once(ready(Ok::<_, Infallible>(body)));
    let mut form = Multipart::new(whole, boundary);
    let mut names = Vec::new();
    let mut image = None;
    while let Some(part) = form.next_field().await.map_err(broken)? {
        if names.len() == MAX_PARTS {
            return Err(Refusal::Form(format!("the form has more than {MAX_PARTS} parts")));
        }
        let name = part.name().unwrap_or("?").to_owned();
        if let Some(option) = OPTIONS.into_iter().find(|option| *option == name) {
            return Err(Refusal::Misplaced(option));
        }
        names.push(name);
        let is_image = part.content_type().is_some_and(|kind| kind.type_() == "image");
        let file_name = part.headers().get("content-disposition").and_then(|value| file_name(value.as_bytes()));
        if image.is_some() || !(file_name.is_some() || is_image) {
            continue;
        }
        let unnamed = file_name == Some(b"");
        let bytes = part.bytes().await.map_err(broken)?;
        if !(unnamed && bytes.is_empty()) {
            image = Some(bytes);
        }
    }
    image.ok_or_else(|| match names.as_slice() {
        [] => Refusal::Form("the form has no part".to_owned()),
        names => Refusal::Form(short(format!("the form has no file; its parts: {}", names.join(", ")))),
    })
}

/// The file's name in a part's Content-Disposition, as bytes: `filename=`, or `filename*=` with its encoding before it (RFC 8187).
/// Programs write names in other encodings than UTF-8, and the name itself is of no use here.
fn file_name(disposition: &[u8]) -> Option<&[u8]> {
    let mut rest = disposition;
    loop {
        let (parameter, after) = next_parameter(rest);
        let equals = parameter.iter().position(|&b| b == b'=');
        if let Some(equals) = equals {
            let (key, value) = (parameter[..equals].trim_ascii(), parameter[equals + 1..].trim_ascii());
            if key.eq_ignore_ascii_case(b"filename") || key.eq_ignore_ascii_case(b"filename*") {
                let quoted = value.strip_prefix(b"\"");
                return Some(quoted.map_or(value, |inner| inner.strip_suffix(b"\"").unwrap_or(inner)));
            }
        }
        rest = after?;
    }
}

/// A header's bytes up to the next semicolon outside quotes, and what follows that, if it is there.
fn next_parameter(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return (&bytes[..at], Some(&bytes[at + 1..])),
            _ => {}
        }
    }
    (bytes, None)
}

/// The bytes under `image`.
fn from_json(body: &[u8]) -> Result<Bytes, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sent<'a> {
        #[serde(borrow)]
        image: Cow<'a, str>,
        threshold: Option<serde::de::IgnoredAny>,
        exif: Option<serde::de::IgnoredAny>,
    }
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let refused = |what: &str| Refusal::Json(what.to_owned());
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Refusal::Empty);
    }
    // serde takes a list for an object's values in their order.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(refused("the JSON is a list, not an object with the key `image`"));
    }
    let Sent { image, threshold, exif } =
        serde_json::from_slice(body).map_err(|e| Refusal::Json(short(format!("the JSON cannot be read: {e}"))))?;
    for (option, there) in OPTIONS.into_iter().zip([threshold.is_some(), exif.is_some()]) {
        if there {
            return Err(Refusal::Misplaced(option));
        }
    }
    let base64 = match image.strip_prefix("data:") {
        None => image.as_ref(),
        Some(url) => match url.split_once(',') {
            Some((head, base64)) if head.ends_with(";base64") => base64,
            _ => return Err(refused("`image` is a data: URL without `;base64,`")),
        },
    };
    // Encoders break lines.
    let joined: Cow<[u8]> = if base64.bytes().any(|b| b.is_ascii_whitespace()) {
        base64.bytes().filter(|b| !b.is_ascii_whitespace()).collect()
    } else {
        base64.as_bytes().into()
    };
    match ENGINE.decode(joined) {
        Ok(bytes) => Ok(bytes.into()),
        Err(e) => Err(Refusal::Json(format!("`image` is no base64: {e}"))),
    }
}

/// A message that does not repeat a whole body.
fn short(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(MESSAGE) {
        text.truncate(at);
        text.push_str("..");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(content_type: &str, body: impl Into<Bytes>) -> Result<Bytes, Refusal> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Way::of(Some(content_type))?.image(body.into(), 1000))
    }

    const FORM: &str = "multipart/form-data; boundary=line";

    /// A form of parts, each its head's rest after `form-data; ` and its content.
    fn form(parts: &[(&str, &str)]) -> Bytes {
        let part = |(head, content): &(&str, &str)| {
            format!("--line\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
        };
        let parts: String = parts.iter().map(part).collect();
        format!("{parts}--line--\r\n").into()
    }

    #[test]
    fn each_type_has_its_way() {
        for kind in ["", "image/jpeg", "IMAGE/PNG", "application/octet-stream"] {
            assert_eq!(Way::of(Some(kind)), Ok(Way::Bytes), "{kind}");
        }
        assert_eq!(Way::of(Some("application/x-www-form-urlencoded; charset=utf-8")), Ok(Way::Curl));
        assert_eq!(Way::of(None), Ok(Way::Bytes));
        assert_eq!(Way::of(Some("application/json; charset=utf-8")), Ok(Way::Json));
        assert_eq!(Way::of(Some(FORM)), Ok(Way::Form { boundary: "line".to_owned() }));
        for kind in ["text/plain", "application/xml", "multipart/mixed; boundary=x", "video/mp4", "jpeg"] {
            assert!(matches!(Way::of(Some(kind)), Err(Refusal::Type(_))), "{kind}");
        }
        assert!(matches!(Way::of(Some("multipart/form-data")), Err(Refusal::Form(_))));
    }

    #[test]
    fn a_forms_first_file_is_the_image() {
        let file = ("name=\"file\"; filename=\"x.jpg\"", "pixels");
        let untitled = ("name=\"image\"\r\nContent-Type: image/png", "pixels");
        let note = ("name=\"note\"", "hello");
        let left_empty = ("name=\"first\"; filename=\"\"", "");
        let second = ("name=\"other\"; filename=\"y.jpg\"", "others");
        for parts in [&[file][..], &[untitled], &[note, file], &[left_empty, file], &[file, second, note]] {
            assert_eq!(sent(FORM, form(parts)).unwrap(), "pixels", "{parts:?}");
        }
        for (parts, part) in [
            (&[][..], "no part"),
            (&[note], "no file; its parts: note"),
            (&[left_empty], "no file"),
            (&[note; MAX_PARTS + 1], "more than 32 parts"),
        ] {
            let Err(Refusal::Form(message)) = sent(FORM, form(parts)) else { panic!("{parts:?}") };
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(sent(FORM, form(&[file, ("name=\"threshold\"", "0.3")])), Err(Refusal::Misplaced("threshold")));
        assert_eq!(sent(FORM, form(&[("name=\"file\"; filename=\"x.jpg\"", "")])), Err(Refusal::Empty));
        let whole = form(&[note, file]);
        for length in 0..whole.len() - 2 {
            assert!(sent(FORM, whole.slice(..length)).is_err(), "{length} bytes of a form");
        }
        let long = "x".repeat(1001);
        assert_eq!(
            sent(FORM, form(&[("name=\"file\"; filename=\"x.jpg\"", &long)])),
            Err(Refusal::TooLarge { most: 1000 })
        );
    }

    #[test]
    fn a_files_name_may_be_in_any_encoding() {
        let latin = b"--line\r\nContent-Disposition: form-data; name=\"f\"; filename=\"M\xfcll.jpg\"\r\n\r\npixels\r\n--line--\r\n";
        assert_eq!(sent(FORM, Bytes::from_static(latin)).unwrap(), "pixels");
        for head in [
            "name=\"f\"; filename*=UTF-8''M%C3%BCll.jpg",
            "name=\"f\"; FileName*=utf-8''x.jpg",
            "filename=x.jpg; name=f",
            "name=\"f\"; filename=\"a;b\\\"c.jpg\"",
        ] {
            assert_eq!(sent(FORM, form(&[(head, "pixels")])).unwrap(), "pixels", "{head}");
        }
        // No file's name, though the letters are there.
        for head in ["name=\"filename=x.jpg\"", "name=\"a; filename=x\"", "name=f; myfilename=x.jpg", "name=filename"] {
            assert!(matches!(sent(FORM, form(&[(head, "pixels")])), Err(Refusal::Form(_))), "{head}");
        }
        assert_eq!(file_name(b"form-data; filename"), None);
        assert_eq!(file_name(b"form-data; filename=\"x"), Some(&b"x"[..]));
    }

    #[test]
    fn what_stands_beside_the_image_counts_together() {
        let file = ("name=\"file\"; filename=\"x.jpg\"", "pixels");
        let note = "x".repeat(FORM_BYTES / 2);
        assert_eq!(sent(FORM, form(&[file, ("name=\"note\"", &note)])).unwrap(), "pixels");
        let too_large = Err(Refusal::FormTooLarge { most: FORM_BYTES });
        for head in ["name=\"note\"", "name=\"other\"; filename=\"y.jpg\""] {
            assert_eq!(sent(FORM, form(&[file, (head, &note), (head, &note)])), too_large, "{head}");
        }
        let head = format!("name=\"file\"; filename=\"{}.jpg\"", "x".repeat(FORM_BYTES));
        assert_eq!(sent(FORM, form(&[(&head, "pixels")])), too_large);
    }

    #[test]
    fn json_holds_base64_with_or_without_the_beginning_of_a_data_url() {
        // "pixels!" with its padding.
        for image in ["cGl4ZWxzIQ==", "cGl4ZWxzIQ", "data:image/jpeg;base64,cGl4ZWxzIQ==", "cGl4\\nZWxz\\r\\nIQ==\\n"] {
            let body = format!("{{\"image\": \"{image}\"}}");
            assert_eq!(sent("application/json", body).unwrap(), "pixels!", "{image}");
        }
        for (body, part) in [
            (r#"{"image":"%%%"}"#, "no base64"),
            (r#"{"image":"data:image/jpeg,abc"}"#, ";base64,"),
            (r#"{"image":7}"#, "expected a"),
            (r#"{"picture":"cGl4"}"#, "unknown field `picture`"),
            ("{}", "missing field `image`"),
            (r#"{"image":"cGl4"#, "JSON"),
            ("[]", "a list, not an object"),
            (r#" ["cGl4",null,null]"#, "a list, not an object"),
        ] {
            let Err(Refusal::Json(message)) = sent("application/json", body) else { panic!("{body}") };
            assert!(message.contains(part), "{body}: {message}");
        }
        let misplaced = sent("application/json", r#"{"image":"cGl4","exif":"apply"}"#);
        assert_eq!(misplaced, Err(Refusal::Misplaced("exif")));
        assert_eq!(sent("application/json", r#"{"image":""}"#), Err(Refusal::Empty));
        assert_eq!(sent("application/json", ""), Err(Refusal::Empty));
        let long = format!("{{\"image\":\"{}\"}}", "AAAA".repeat(334));
        assert_eq!(sent("application/json", long), Err(Refusal::TooLarge { most: 1000 }));
        // A parser's message repeats what it found, but not megabytes of it.
        let Err(Refusal::Json(message)) = sent("application/json", format!("\"{}\"", "x".repeat(5000))) else {
            panic!("a text was taken for an object")
        };
        assert!(message.len() < 250, "{message}");
    }
}
