//! What an event file is made of: protocol buffers in frames with checksums.
//!
//! Field numbers and types are those of TensorFlow's `event.proto`, `summary.proto`, `tensor.proto` and `tensor_shape.proto`; fields
//! that are not used here are left out, as protocol buffers allow. A frame is that of TensorFlow's `TFRecord`.

use prost::Message;

/// Written first in each file.
pub(super) const VERSION: &str = "brain.Event:2";

/// `DT_STRING`.
const STRING: i32 = 7;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    #[prost(int64, tag = "2")]
    pub step: i64,
    #[prost(string, optional, tag = "3")]
    pub file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(string, tag = "1")]
    pub tag: String,
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
    #[prost(message, optional, tag = "8")]
    tensor: Option<Tensor>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    string_val: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "2")]
    dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, tag = "1")]
    size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin_data: Option<PluginData>,
}

#[derive(Clone, PartialEq, Message)]
struct PluginData {
    #[prost(string, tag = "1")]
    plugin_name: String,
}

impl Value {
    /// A number.
    pub fn scalar(tag: impl Into<String>, value: f64) -> Self {
        Self { tag: tag.into(), simple_value: Some(value as f32), ..Self::default() }
    }

    /// A text in Markdown, for TensorBoard's text tab.
    pub fn text(tag: &str, markdown: String) -> Self {
        let shape = Some(Shape { dim: vec![Dim { size: 1 }] });
        let plugin_data = Some(PluginData { plugin_name: "text".to_owned() });
        Self {
            tag: tag.to_owned(),
            tensor: Some(Tensor { dtype: STRING, shape, string_val: vec![markdown.into_bytes()] }),
            metadata: Some(Metadata { plugin_data }),
            ..Self::default()
        }
    }
}

/// The checksum of a frame's parts: CRC-32C, turned by 15 bits and moved, so that a checksum of checksums stays one.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8).to_le_bytes()
}

/// A record as a frame: length, its checksum, the bytes, their checksum.
pub(super) fn frame(record: &Record) -> Vec<u8> {
    let bytes = record.encode_to_vec();
    let length = (bytes.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), &bytes, &masked_crc(&bytes)].concat()
}

/// The records of a file, each with the place where its frame ends. The first frame that is cut or damaged ends them.
pub(super) fn records(file: &[u8]) -> impl Iterator<Item = (Record, usize)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = file.get(at..)?;
        let (length, rest) = rest.split_at_checked(8)?;
        let (length_crc, rest) = rest.split_at_checked(4)?;
        if masked_crc(length) != *length_crc {
            return None;
        }
        let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        let (bytes, rest) = rest.split_at_checked(length)?;
        let (crc, _) = rest.split_at_checked(4)?;
        if masked_crc(bytes) != *crc {
            return None;
        }
        at += length + 16;
        Some((Record::decode(bytes).ok()?, at))
    })
}
