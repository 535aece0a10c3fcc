//! PyTorch's own weight files (`.pth`, `.pt`): the zip archive that `torch.save` writes since 1.6, and the form before it.
//!
//! Both hold a pickle that speaks of storages, and the storages' bytes: as entries of the archive, or one after the other behind
//! the pickle. [`pickle`] reads the pickle, this file finds the bytes and makes tensors.
//!
//! candle's `pickle` module reads the zip form too, but prints and drops what it cannot read, refuses strided views, panics on a
//! call with too few arguments, believes a length of 4 GiB before it looks, and does not know the older form; so it is not used.
//! The archive itself is read by the `zip` crate.

mod pickle;
mod value;

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;

use candle_core::{Device, Tensor};

use value::{Element, Id, Pickle, TensorRef, Value};

/// What the legacy form starts with: a pickle of this number.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// The legacy form's version, a pickle of its own.
const PROTOCOL: i128 = 1001;
/// Keys under which training scripts keep the state dict beside other things.
const WRAPPERS: [&str; 4] = ["model", "state_dict", "model_state_dict", "model_state"];
/// All tensors together may take this many times the file's bytes: tied weights are one storage seen several times, but a file
/// that makes a thousand big tensors of one storage is no weight file.
const MOST_SHARING: usize = 16;

/// How PyTorch wrote a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Zip,
    Legacy,
}

/// Which of the two forms `bytes` has, by their beginning.
pub(crate) fn form(bytes: &[u8]) -> Option<Form> {
    if bytes.starts_with(b"PK\x03\x04") {
        Some(Form::Zip)
    } else if bytes.starts_with(&[0x80, 0x02]) {
        Some(Form::Legacy)
    } else {
        None
    }
}

/// Every tensor of a state dict by its name, in its own element type.
///
/// # Errors
/// What is wrong or not supported, for a message that begins with the file's name.
pub(crate) fn read(form: Form, bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
    match form {
        Form::Zip => read_zip(bytes),
        Form::Legacy => read_legacy(bytes),
    }
}

fn read_zip(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
    let damaged = |e: zip::result::ZipError| format!("a PyTorch archive that cannot be read ({e}); was it cut?");
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    let names: Vec<String> =
        archive.file_names().map(|n| n.map(|n| n.into_owned())).collect::<Result<_, _>>().map_err(damaged)?;
    let pickles: Vec<&String> = names.iter().filter(|n| *n == "data.pkl" || n.ends_with("/data.pkl")).collect();
    let [name] = pickles.as_slice() else {
        return Err(format!(
            "an archive with {} entries data.pkl, not one as PyTorch's; is it another zip file?",
            pickles.len()
        ));
    };
    let folder = name.trim_end_matches("data.pkl").to_owned();
    if names.iter().any(|n| *n == format!("{folder}byteorder"))
        && entry(&mut archive, bytes, &format!("{folder}byteorder"))? != b"little"
    {
        return Err("written by a big-endian machine; only little-endian files are read".to_owned());
    }
    let pickle = pickle::read(entry(&mut archive, bytes, name)?).map_err(|e| format!("{name}: {e}"))?;
    let mut storages: HashMap<String, &[u8]> = HashMap::new();
    tensors(&pickle, bytes.len(), |key| {
        if let Some(found) = storages.get(key) {
            return Ok(found);
        }
        let found = entry(&mut archive, bytes, &format!("{folder}data/{key}"))?;
        storages.insert(key.to_owned(), found);
        Ok(found)
    })
}

/// An entry's bytes, inside those of the archive; its checksum is compared.
fn entry<'a>(archive: &mut zip::ZipArchive<Cursor<&'a [u8]>>, bytes: &'a [u8], name: &str) -> Result<&'a [u8], String> {
    let mut file = archive.by_name(name).map_err(|e| format!("{name}: {e}"))?;
    if file.compression() != zip::CompressionMethod::Stored {
        return Err(format!(
            "{name}: compressed; PyTorch stores its entries as they are: was the archive packed again?"
        ));
    }
    std::io::copy(&mut file, &mut std::io::sink()).map_err(|e| format!("{name}: damaged ({e})"))?;
    let start = file.data_start().and_then(|n| usize::try_from(n).ok());
    let len = usize::try_from(file.size()).ok();
    let range = start.zip(len).and_then(|(start, len)| Some(start..start.checked_add(len)?));
    range.and_then(|range| bytes.get(range)).ok_or_else(|| format!("{name}: reaches past the file's end; it was cut"))
}

fn read_legacy(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
    let mut at = 0;
    let mut next = |what: &str| -> Result<Pickle, String> {
        let pickle = pickle::read(&bytes[at..]).map_err(|e| format!("{what}: {e}"))?;
        at += pickle.len;
        Ok(pickle)
    };
    if *next("its first pickle")?.root() != Value::Int(MAGIC) {
        return Err("a pickle, but not one of torch.save".to_owned());
    }
    let version = next("its version")?;
    if *version.root() != Value::Int(PROTOCOL) {
        return Err(format!("version {:?} of PyTorch's legacy form; {PROTOCOL} is read", version.root()));
    }
    let system = next("its system's properties")?;
    if let Value::Dict(entries) = system.root()
        && entries.iter().any(|&(k, v)| system.text(k) == Some("little_endian") && *system.get(v) == Value::Bool(false))
    {
        return Err("written by a big-endian machine; only little-endian files are read".to_owned());
    }
    let pickle = next("its state dict")?;
    let keys = next("its list of storages")?;
    let Value::List(order) = keys.root() else { return Err("its list of storages is no list".to_owned()) };
    // A storage's element size stands where the pickle speaks of it.
    let elements: HashMap<&str, Element> =
        pickle.storages().map(|s| (pickle.text(s.key).unwrap_or(""), s.element)).collect();
    let mut storages: HashMap<&str, &[u8]> = HashMap::new();
    for &key in order {
        let key = keys.text(key).ok_or("a storage's key is no text")?;
        let element = elements.get(key).ok_or_else(|| format!("storage {key} belongs to no tensor"))?;
        let cut = || format!("storage {key} reaches past the file's end; it was cut");
        let head = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(cut)?;
        let len =
            usize::try_from(i64::from_le_bytes(*head)).map_err(|_| format!("storage {key} of negative length"))?;
        at += head.len();
        let end = len.checked_mul(element.dtype().size_in_bytes()).and_then(|n| at.checked_add(n)).ok_or_else(cut)?;
        storages.insert(key, bytes.get(at..end).ok_or_else(cut)?);
        at = end;
    }
    tensors(&pickle, bytes.len(), |key| storages.get(key).copied().ok_or_else(|| format!("storage {key} is missing")))
}

/// The tensors of the pickle's state dict, over storages that `fetch` finds by key.
fn tensors<'a>(
    pickle: &Pickle,
    file_bytes: usize,
    mut fetch: impl FnMut(&str) -> Result<&'a [u8], String>,
) -> Result<BTreeMap<String, Tensor>, String> {
    let mut tensors = BTreeMap::new();
    let mut total = 0usize;
    for (name, tensor) in state_dict(pickle)? {
        let explain = |e: String| format!("tensor `{name}`: {e}");
        let storage = fetch(pickle.text(tensor.storage.key).unwrap_or("")).map_err(explain)?;
        let elements = elements(tensor, storage.len()).map_err(explain)?;
        total = total.saturating_add(elements * tensor.storage.element.dtype().size_in_bytes());
        if total > file_bytes.saturating_mul(MOST_SHARING) {
            return Err(explain(format!("with it, the tensors take more than {MOST_SHARING} times the file's size")));
        }
        if tensors.insert(name.to_owned(), view(tensor, storage, elements).map_err(explain)?).is_some() {
            return Err(format!("two tensors are named `{name}`"));
        }
    }
    Ok(tensors)
}

/// Names and tensors: the dictionary itself, or the one that a training script keeps under `model` or the like.
fn state_dict(pickle: &Pickle) -> Result<Vec<(&str, &TensorRef)>, String> {
    let Value::Dict(root) = pickle.root() else {
        return Err("it holds no dictionary: save the state dict, torch.save(model.state_dict(), FILE)".to_owned());
    };
    let has_tensors = |entries: &[(Id, Id)]| entries.iter().any(|&(_, v)| matches!(pickle.get(v), Value::Tensor(_)));
    let inner = WRAPPERS.iter().find_map(|&wrapper| {
        let (_, value) = root.iter().find(|&&(k, _)| pickle.text(k) == Some(wrapper))?;
        if let Value::Dict(entries) = pickle.get(*value) { Some(entries) } else { None }
    });
    let entries = match inner {
        _ if has_tensors(root) => root,
        Some(entries) if has_tensors(entries) => entries,
        _ => {
            let keys: Vec<&str> = root.iter().take(20).map(|&(k, _)| pickle.text(k).unwrap_or("?")).collect();
            return Err(format!("no tensors in its dictionary ({}); save the state dict alone", keys.join(", ")));
        }
    };
    let named = |&(key, value): &(Id, Id)| {
        let name = pickle.text(key).ok_or("a tensor's name is no text")?;
        match pickle.get(value) {
            Value::Tensor(tensor) => Ok((name, tensor)),
            _ => Err(format!("`{name}` stands among the tensors and is none")),
        }
    };
    entries.iter().map(named).collect()
}

/// The number of a view's elements, all of them inside a storage of `bytes`.
fn elements(tensor: &TensorRef, bytes: usize) -> Result<usize, String> {
    let TensorRef { storage, offset, shape, stride } = tensor;
    let held = bytes / storage.element.dtype().size_in_bytes();
    if storage.len > held {
        return Err(format!("its storage should have {} elements and has {held}; the file was cut", storage.len));
    }
    if shape.len() != stride.len() {
        return Err(format!("shape {shape:?} with strides {stride:?}"));
    }
    // Without the sides of 0, so that none of the others goes unchecked.
    let count = shape.iter().filter(|&&d| d > 0).try_fold(1usize, |n, &d| n.checked_mul(d));
    if count.is_some() && shape.contains(&0) {
        return Ok(0);
    }
    let last =
        shape.iter().zip(stride).try_fold(*offset, |at, (&d, &s)| at.checked_add(d.checked_sub(1)?.checked_mul(s)?));
    match (count, last) {
        // More elements than the storage has: strides of 0, which a few bytes could blow up to anything.
        (Some(count), Some(last)) if last < storage.len && count <= storage.len => Ok(count),
        _ => Err(format!(
            "shape {shape:?}, strides {stride:?} and offset {offset} do not fit into its {} elements",
            storage.len
        )),
    }
}

/// Copies a view out of its storage. [`elements`] has checked that it lies inside.
fn view(tensor: &TensorRef, storage: &[u8], elements: usize) -> Result<Tensor, String> {
    let TensorRef { offset, shape, stride, .. } = tensor;
    let dtype = tensor.storage.element.dtype();
    let size = dtype.size_in_bytes();
    let make = |bytes: &[u8]| Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu).map_err(|e| e.to_string());
    if elements == 0 {
        return make(&[]);
    }
    let mut step = 1;
    let contiguous = shape.iter().zip(stride).rev().all(|(&d, &s)| {
        let fits = d == 1 || s == step;
        step *= d;
        fits
    });
    if contiguous {
        return make(&storage[offset * size..][..elements * size]);
    }
    let place = |mut flat: usize| {
        let mut at = *offset;
        for (d, s) in shape.iter().zip(stride).rev() {
            at += flat % d * s;
            flat /= d;
        }
        at
    };
    let gathered: Vec<u8> = (0..elements).flat_map(|i| &storage[place(i) * size..][..size]).copied().collect();
    make(&gathered)
}
