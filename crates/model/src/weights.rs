//! Weight files in: safetensors and PyTorch's own, with names, shapes and metadata checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use docent_tensor::with_f32;
use safetensors::tensor::Dtype;
use safetensors::{SafeTensorError, SafeTensors};

use crate::digest::sha256_hex;
use crate::error::{Error, Result};
use crate::import::backbone::BackboneInfo;
use crate::import::names::{is_running_variance, neutral, without_prefixes};
use crate::integrity;
#[cfg(feature = "pth")]
use crate::pth;

/// How a weight file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFormat {
    /// safetensors.
    Safetensors,
    /// `torch.save`: a zip archive.
    PthZip,
    /// `torch.save` before 1.6: a pickle with the storages behind it.
    PthLegacy,
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::PthZip => "PyTorch, zip archive",
            Self::PthLegacy => "PyTorch, legacy pickle",
        })
    }
}

/// The content of one weight file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WeightFile {
    /// How it is written.
    pub format: FileFormat,
    /// Tensors by name, as f32 whatever the file stores.
    pub tensors: BTreeMap<String, Tensor>,
    /// Element types as the file stores them, by name.
    pub stored: BTreeMap<String, DType>,
    /// A safetensors header's `__metadata__`; PyTorch's files have none.
    pub metadata: BTreeMap<String, String>,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub sha256: String,
    /// Names of running variances with an infinite value, which became [`f32::MAX`]. Worth a line in the log.
    pub saturated: Vec<String>,
    /// What was passed over in the file, and what was taken off its names.
    pub notes: Vec<String>,
}

/// Reads a safetensors file onto the CPU.
///
/// Floats (f16, bf16, f32, f64) and integers (`num_batches_tracked` is i64 in PyTorch's files) become f32.
///
/// A BatchNorm variance above 65,504 is infinity in an f16 file, and its channel then a constant (its scale is gamma / infinity).
/// Such a value becomes [`f32::MAX`], which gives the same features, but which a running average can leave again, and is listed in
/// [`WeightFile::saturated`].
///
/// # Errors
/// A file that is absent, cut, no safetensors file, of an element type without meaning for weights, or that holds NaN or infinity;
/// one of ours whose content is not what was written; the message names the file, and the tensor where there is one.
pub fn read_safetensors(path: &Path) -> Result<WeightFile> {
    parse_safetensors(path, &std::fs::read(path).map_err(|e| Error::io(path, e))?)
}

/// Reads a weight file of any [`FileFormat`] onto the CPU, told by its first bytes; values as in [`read_safetensors`].
///
/// Of PyTorch's files the state dict is read, and nothing is run: what lies beside it is passed over as data, and
/// [`WeightFile::notes`] says so. The prefixes `module.`, `model.` and `_orig_mod.`, which DistributedDataParallel, Lightning and
/// torch.compile put before every name, are taken off.
///
/// # Errors
/// As [`read_safetensors`]; a PyTorch file that is cut, holds something else than a state dict (or one under `model`,
/// `state_dict` or the like), or something else than tensors in it; two names that differ in their prefix alone.
pub fn read_weights(path: &Path) -> Result<WeightFile> {
    parse_weights(path, &std::fs::read(path).map_err(|e| Error::io(path, e))?)
}

/// [`read_weights`] from bytes; `path` names them in messages.
///
/// # Errors
/// As [`read_weights`].
pub fn parse_weights(path: &Path, bytes: &[u8]) -> Result<WeightFile> {
    let mut file = match read_pth(path, bytes)? {
        Some(file) => file,
        None => parse_safetensors(path, bytes)?,
    };
    file.take_off_prefixes(path)?;
    Ok(file)
}

/// The content of PyTorch's own file; None where it is none.
#[cfg(feature = "pth")]
fn read_pth(path: &Path, bytes: &[u8]) -> Result<Option<WeightFile>> {
    let Some(form) = pth::form(bytes) else { return Ok(None) };
    let pth::StateDict { tensors, passed_over } = pth::read(form, bytes).map_err(|e| Error::file(path, e))?;
    let format = match form {
        pth::Form::Zip => FileFormat::PthZip,
        pth::Form::Legacy => FileFormat::PthLegacy,
    };
    let mut file = to_f32(path, format, tensors, BTreeMap::new(), bytes)?;
    if !passed_over.is_empty() {
        file.notes.push(format!("passed over, and nothing in it was run: {passed_over}"));
    }
    Ok(Some(file))
}

/// PyTorch's own files need the feature `pth`.
#[cfg(not(feature = "pth"))]
fn read_pth(path: &Path, bytes: &[u8]) -> Result<Option<WeightFile>> {
    if bytes.starts_with(b"PK\x03\x04") || matches!(bytes, [0x80, 2..=5, ..]) {
        return Err(Error::file(path, "this is PyTorch's own file; docent-model reads it with its feature `pth`"));
    }
    Ok(None)
}

/// [`read_safetensors`] from bytes; `path` names them in messages.
///
/// # Errors
/// As [`read_safetensors`].
pub fn parse_safetensors(path: &Path, bytes: &[u8]) -> Result<WeightFile> {
    let view = SafeTensors::deserialize(bytes).map_err(|e| Error::file(path, explain(&e, bytes)))?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| Error::file(path, explain(&e, bytes)))?;
    let metadata: BTreeMap<String, String> =
        header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    integrity::check(path, &metadata, &view)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in view.iter() {
        let known = matches!(
            view.dtype(),
            Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64 | Dtype::U8 | Dtype::I32 | Dtype::U32 | Dtype::I64
        );
        if !known {
            return Err(Error::file(
                path,
                format!("tensor `{name}` has element type {}, which cannot become f32", view.dtype()),
            ));
        }
        tensors.insert(name.to_owned(), view.load(&Device::Cpu)?);
    }
    to_f32(path, FileFormat::Safetensors, tensors, metadata, bytes)
}

/// Brings every tensor to f32 and looks at its values.
fn to_f32(
    path: &Path,
    format: FileFormat,
    tensors: BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
    bytes: &[u8],
) -> Result<WeightFile> {
    let stored = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dtype())).collect();
    let mut saturated = Vec::new();
    let mut finite = |(name, tensor): (String, Tensor)| {
        let mut tensor = tensor.to_dtype(DType::F32)?;
        let bad = with_f32(&tensor, |v| v.iter().position(|v| !v.is_finite()))?;
        if bad.is_some() && is_running_variance(&name) {
            tensor = tensor.minimum(f64::from(f32::MAX))?;
            saturated.push(name.clone());
        }
        if let Some(at) = with_f32(&tensor, |v| v.iter().position(|v| !v.is_finite()))? {
            let what = format!("tensor `{name}` holds NaN or infinity (element {at}): use another file");
            return Err(Error::file(path, what));
        }
        Ok((name, tensor))
    };
    let tensors = tensors.into_iter().map(&mut finite).collect::<Result<_>>()?;
    Ok(WeightFile { format, tensors, stored, metadata, sha256: sha256_hex(bytes), saturated, notes: Vec::new() })
}

/// Why a file does not parse, and what to do.
fn explain(error: &SafeTensorError, bytes: &[u8]) -> String {
    let size = bytes.len();
    if bytes.is_empty() {
        return "the file is empty".to_owned();
    }
    if bytes.starts_with(b"PK\x03\x04") || matches!(bytes, [0x80, 2..=5, ..]) {
        return "this is a PyTorch .pth file, a safetensors file is needed: `docent weights convert` makes one"
            .to_owned();
    }
    match error {
        SafeTensorError::MetadataIncompleteBuffer | SafeTensorError::InvalidHeaderLength
            if starts_like_safetensors(bytes) =>
        {
            format!(
                "the file ends too early or too late for its header ({size} bytes); it was cut: fetch or write it again"
            )
        }
        SafeTensorError::HeaderTooSmall => format!("no safetensors file: {size} bytes are less than a header"),
        e => format!("no safetensors file, or a damaged one ({e})"),
    }
}

fn starts_like_safetensors(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{')
}

impl WeightFile {
    /// Takes the neutral prefixes off every name.
    fn take_off_prefixes(&mut self, path: &Path) -> Result<()> {
        let twice = |name| Error::file(path, format!("two tensors come to the name `{name}`"));
        let (tensors, changed) = neutral(std::mem::take(&mut self.tensors)).map_err(twice)?;
        let (stored, _) = neutral(std::mem::take(&mut self.stored)).map_err(twice)?;
        (self.tensors, self.stored) = (tensors, stored);
        for name in &mut self.saturated {
            *name = without_prefixes(name).to_owned();
        }
        if changed > 0 {
            self.notes.push(format!("module., model. or _orig_mod. is taken off {changed} names"));
        }
        Ok(())
    }

    /// The metadata read as a backbone's.
    ///
    /// # Errors
    /// As [`BackboneInfo::from_metadata`]; `path` is named in the message.
    pub fn backbone_info(&self, path: &Path) -> Result<BackboneInfo> {
        BackboneInfo::from_metadata(path, &self.metadata)
    }

    /// First parts of the names (`layer1`, `features`), in order: what kind of network this is.
    pub fn top_level_names(&self) -> Vec<String> {
        let tops: BTreeSet<&str> = self.tensors.keys().map(|n| n.split('.').next().unwrap_or(n)).collect();
        tops.into_iter().map(str::to_owned).collect()
    }
}
