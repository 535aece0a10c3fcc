//! PyTorch's own weight files (`.pth`, `.pt`): the zip archive that `torch.save` writes since 1.6, and the form before it.
//!
//! Both hold a pickle that refers to storages, and the storages' bytes: as entries of the archive, or one after the other behind
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

use crate::import::foreign;
use value::{Id, Pickle, TensorRef, Value};

/// What the legacy form starts with: a pickle of this number.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// The legacy form's version, a pickle of its own.
const PROTOCOL: i128 = 1001;
/// Keys under which training scripts keep the state dict beside other things.
const WRAPPERS: [&str; 4] = ["model", "state_dict", "model_state_dict", "model_state"];
/// The most keys that a line names.
const KEYS_SHOWN: usize = 20;
/// What to do with a file that is more than a state dict.
const SAVE_ALONE: &str = "Save the state dict alone: torch.save(model.state_dict(), FILE)";
/// All tensors together may take this many times the file's bytes: tied weights are one storage seen several times, but a file
/// that makes a thousand big tensors of one storage is no weight file.
const MOST_SHARING: usize = 16;

/// A dictionary's keys and values.
type Entries = [(Id, Id)];

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
    } else if matches!(bytes, [0x80, 2..=5, ..]) {
        Some(Form::Legacy)
    } else {
        None
    }
}

/// What a file holds for us.
pub(crate) struct StateDict {
    /// Every tensor by its name, in its own element type.
    pub tensors: BTreeMap<String, Tensor>,
    /// Keys beside the state dict, such as `optimizer`, for a line: their values were read over as data, and none of it was run.
    pub passed_over: String,
}

/// The state dict of a file: its dictionary, or the one that a training script keeps in it.
///
/// # Errors
/// What is wrong or not supported, for a message that begins with the file's name.
pub(crate) fn read(form: Form, bytes: &[u8]) -> Result<StateDict, String> {
    match form {
        Form::Zip => read_zip(bytes),
        Form::Legacy => read_legacy(bytes),
    }
}

fn read_zip(bytes: &[u8]) -> Result<StateDict, String> {
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

fn read_legacy(bytes: &[u8]) -> Result<StateDict, String> {
    let mut at = 0;
    let mut next = |what: &str| -> Result<Pickle, String> {
        let pickle = pickle::read(&bytes[at..]).map_err(|e| format!("{what}: {e}"))?;
        at += pickle.len;
        Ok(pickle)
    };
    let first = next("its first pickle")?;
    if *first.root() != Value::Int(MAGIC) {
        return Err(plain_pickle(&first));
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
    // A storage's type stands where the pickle speaks of it. One that is not read is passed over, for which its size is needed.
    let sizes: HashMap<&str, Option<usize>> = pickle.storages().collect();
    let mut storages: HashMap<&str, &[u8]> = HashMap::new();
    for &key in order {
        let key = keys.text(key).ok_or("a storage's key is no text")?;
        let size = sizes.get(key).copied().flatten();
        let size = size.ok_or_else(|| format!("storage {key} has elements of a type that is not read"))?;
        let cut = || format!("storage {key} reaches past the file's end; it was cut");
        let head = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(cut)?;
        let len =
            usize::try_from(i64::from_le_bytes(*head)).map_err(|_| format!("storage {key} of negative length"))?;
        at += head.len();
        let end = len.checked_mul(size).and_then(|n| at.checked_add(n)).ok_or_else(cut)?;
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
) -> Result<StateDict, String> {
    let (entries, passed_over) = state_dict(pickle)?;
    let mut tensors = BTreeMap::new();
    let mut total = 0usize;
    for &(key, value) in entries {
        let name = pickle.text(key).ok_or("a tensor's name is no text")?;
        let Value::Tensor(tensor) = pickle.get(value) else {
            let what = pickle.describe(value);
            return Err(format!("`{name}` stands among the tensors and is {what}; nothing in it is run. {SAVE_ALONE}"));
        };
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
    Ok(StateDict { tensors, passed_over })
}

/// The state dict's entries and the keys beside it: the dictionary that a training script keeps under `model` or the like, or the
/// file's own.
fn state_dict(pickle: &Pickle) -> Result<(&Entries, String), String> {
    let Value::Dict(root) = pickle.root() else {
        return Err(format!("it holds {}, no dictionary; nothing in it is run. {SAVE_ALONE}", pickle.describe_root()));
    };
    let has_tensors = |entries: &Entries| entries.iter().any(|&(_, v)| matches!(pickle.get(v), Value::Tensor(_)));
    for (wrapper, value) in wrapped(pickle, root) {
        if let Value::Dict(entries) = pickle.get(value)
            && has_tensors(entries)
        {
            return Ok((entries, shown(keys(pickle, root).filter(|&key| key != wrapper))));
        }
    }
    if has_tensors(root) {
        return Ok((root, String::new()));
    }
    let object = wrapped(pickle, root).find(|&(_, value)| matches!(pickle.get(value), Value::Opaque(_)));
    Err(match object {
        Some((wrapper, value)) => {
            format!("`{wrapper}` is {}, no state dict; nothing in it is run. {SAVE_ALONE}", pickle.describe(value))
        }
        None => format!(
            "no tensors in its dictionary ({}). A state dict is read from the top of the file, or from under `{}`. {SAVE_ALONE}",
            shown(keys(pickle, root)),
            WRAPPERS.join("`, `")
        ),
    })
}

fn keys<'a>(pickle: &'a Pickle, entries: &'a Entries) -> impl Iterator<Item = &'a str> {
    entries.iter().map(|&(key, _)| pickle.text(key).unwrap_or("?"))
}

/// The first keys, for a line.
fn shown<'a>(mut keys: impl Iterator<Item = &'a str>) -> String {
    let mut shown: Vec<&str> = keys.by_ref().take(KEYS_SHOWN).collect();
    shown.extend(keys.next().map(|_| ".."));
    shown.join(", ")
}

/// What a dictionary has under [`WRAPPERS`].
fn wrapped<'a>(pickle: &'a Pickle, entries: &'a Entries) -> impl Iterator<Item = (&'static str, Id)> + 'a {
    WRAPPERS.iter().filter_map(|&wrapper| {
        let &(_, value) = entries.iter().find(|&&(k, _)| pickle.text(k) == Some(wrapper))?;
        Some((wrapper, value))
    })
}

/// What is wrong with a pickle that torch.save did not write. detectron2's model zoo has NumPy arrays in such files.
fn plain_pickle(pickle: &Pickle) -> String {
    let mut names = Vec::new();
    if let Value::Dict(root) = pickle.root() {
        let entries = match wrapped(pickle, root).next().map(|(_, value)| pickle.get(value)) {
            Some(Value::Dict(entries)) => entries,
            _ => root,
        };
        names.extend(keys(pickle, entries));
    }
    let foreign = foreign::architecture(&names).map_or(String::new(), |foreign| format!(" Its names are {foreign}"));
    format!("a plain pickle, not one of torch.save: arrays in it are not read.{foreign}")
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
