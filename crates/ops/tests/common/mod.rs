//! What every golden test shares: the formula that fills inputs and weights, and the file of reference values.
//!
//! Values come from PyTorch in float64 (`xtask/golden`). Each stands beside torch's own float32 distance to it; a
//! difference may be the larger of the stated bound and three times that distance.
#![allow(dead_code)] // each test crate uses its part

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// 64-bit FNV-1a.
fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// The index-th output of splitmix64 started at `fnv1a(name)`.
fn bits(name: &str, index: u64) -> u64 {
    let z = fnv1a(name).wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A value in [-1, 1) with 24 bits.
fn unit(name: &str, index: u64) -> f64 {
    (bits(name, index) >> 40) as f64 / 8_388_608.0 - 1.0
}

/// `offset + scale * unit`, rounded to f32.
pub fn fill(name: &str, n: usize, scale: f64, offset: f64) -> Vec<f32> {
    (0..n as u64).map(|i| (offset + scale * unit(name, i)) as f32).collect()
}

/// [`fill`] as a constant tensor.
pub fn filled(name: &str, shape: &[usize], scale: f64, offset: f64) -> Tensor {
    Tensor::from_vec(fill(name, shape.iter().product(), scale, offset), shape, &Device::Cpu).unwrap()
}

/// [`fill`] as a variable.
pub fn leaf(name: &str, shape: &[usize], scale: f64, offset: f64) -> Var {
    Var::from_tensor(&filled(name, shape, scale, offset)).unwrap()
}

/// `[3, height, width]` in [0, 1): blocks of 16 pixels, plus blocks of 4.
pub fn image(name: &str, height: usize, width: usize) -> Vec<f32> {
    let (coarse, fine) = (format!("{name}.coarse"), format!("{name}.fine"));
    let pixel = |c: usize, y: usize, x: usize| {
        let a = unit(&coarse, ((c * 64 + y / 16) * 64 + x / 16) as u64);
        let b = unit(&fine, ((c * 256 + y / 4) * 256 + x / 4) as u64);
        (0.5 + 0.3 * a + 0.2 * b) as f32
    };
    let rows = (0..3).flat_map(|c| (0..height).map(move |y| (c, y)));
    rows.flat_map(|(c, y)| (0..width).map(move |x| pixel(c, y, x)).collect::<Vec<_>>()).collect()
}

/// A parameter or buffer by its torchvision name.
pub fn parameter(seed: &str, name: &str, shape: &[usize], gain: f64) -> Vec<f32> {
    let key = format!("{seed}/{name}");
    let n = shape.iter().product();
    if name.ends_with("running_var") {
        fill(&key, n, 0.25, 1.0)
    } else if name.ends_with("running_mean") || name.ends_with("bias") {
        fill(&key, n, 0.1 * gain, 0.0)
    } else if shape.len() == 1 {
        fill(&key, n, 0.25, 0.75)
    } else {
        let fan_in: usize = shape[1..].iter().product();
        fill(&key, n, gain * (6.0 / fan_in as f64).sqrt(), 0.0)
    }
}

/// `k` flat indices below `n`; all of them when there are no more than `k`.
pub fn pick(name: &str, n: usize, k: usize) -> Vec<usize> {
    if n <= k {
        return (0..n).collect();
    }
    let name = format!("{name}#pick");
    (0..k as u64).map(|i| (bits(&name, i) % n as u64) as usize).collect()
}

/// All values of a tensor, row-major.
pub fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap()
}

/// Rows of four as boxes.
pub fn boxes(flat: &[f32]) -> Vec<[f32; 4]> {
    flat.as_chunks::<4>().0.to_vec()
}

struct Entry {
    shape: Vec<usize>,
    values: Vec<f64>,
}

/// A golden file. Comparisons collect what is wrong; [`Golden::finish`] fails with all of it at once.
pub struct Golden {
    entries: BTreeMap<String, Entry>,
    meta: Value,
    seen: RefCell<BTreeSet<String>>,
    faults: RefCell<Vec<String>>,
    worst: RefCell<BTreeMap<String, Worst>>,
}

/// The comparison of a group that came nearest to its bound.
#[derive(Default)]
struct Worst {
    share: f64,
    /// Ours to float64, torch's float32 to float64, and what is allowed.
    error: f64,
    torch: f64,
    bound: f64,
    kind: String,
}

impl Golden {
    /// Reads `tests/golden/{file}` of the crate whose folder is `root`.
    pub fn open(root: &str, file: &str) -> Self {
        let path = Path::new(root).join("tests/golden").join(file);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let meta = serde_json::from_str(&header.metadata().as_ref().unwrap()["golden"]).unwrap();
        let entry = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
                Dtype::F64 => data.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
                Dtype::I64 => data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
                other => panic!("{name}: {other:?}"),
            };
            let shape = view.shape().to_vec();
            (name, Entry { shape, values })
        };
        let entries = SafeTensors::deserialize(&bytes).unwrap().tensors().into_iter().map(entry).collect();
        Self { entries, meta, seen: RefCell::default(), faults: RefCell::default(), worst: RefCell::default() }
    }

    /// A setting of the generator.
    pub fn note(&self, key: &str) -> &Value {
        self.meta.get(key).unwrap_or_else(|| panic!("no setting {key}"))
    }

    /// The settings whose key starts with `prefix`, with the rest of the key.
    pub fn notes<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let all = self.meta.as_object().unwrap().iter();
        all.filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value)))
    }

    fn entry(&self, name: &str) -> &Entry {
        self.seen.borrow_mut().insert(name.to_owned());
        self.entries.get(name).unwrap_or_else(|| panic!("no golden value {name}"))
    }

    /// Whether there is such a value.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The names that start with `prefix`.
    pub fn names(&self, prefix: &str) -> Vec<&str> {
        self.entries.keys().map(String::as_str).filter(|name| name.starts_with(prefix)).collect()
    }

    /// A value's shape.
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.entries[name].shape
    }

    /// An input that is exact in f32.
    pub fn input(&self, name: &str) -> Vec<f32> {
        self.entry(name).values.iter().map(|&v| v as f32).collect()
    }

    /// Labels, indices or counts.
    pub fn counts(&self, name: &str) -> Vec<usize> {
        self.entry(name).values.iter().map(|&v| v as usize).collect()
    }

    /// Notes something wrong.
    pub fn fault(&self, what: impl Into<String>) {
        self.faults.borrow_mut().push(what.into());
    }

    /// Compares numbers, in order, with a value of as many.
    pub fn compare(&self, name: &str, found: &[f64]) {
        let reference = &self.entry(name).values;
        if reference.len() != found.len() {
            return self.fault(format!("{name}: {} values, {} expected", found.len(), reference.len()));
        }
        let bound = self.note(&format!("bound {name}")).as_str().unwrap();
        let mut parts = bound.split(' ');
        let kind = parts.next().unwrap();
        let (stated, distance): (f64, f64) =
            (parts.next().unwrap().parse().unwrap(), parts.next().unwrap().parse().unwrap());
        let largest = reference.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let scale = if kind == "rel" && largest > 0.0 { largest } else { 1.0 };
        let bound = stated.max(3.0 * distance);
        let (mut error, mut at) = (0.0, 0);
        for (i, (a, b)) in reference.iter().zip(found).enumerate() {
            let e = (a - b).abs() / scale;
            // A NaN must not pass as small.
            if e > error || e.is_nan() {
                (error, at) = (e, i);
            }
        }
        if error > bound || error.is_nan() {
            self.fault(format!(
                "{name}[{at}]: {:.9e}, expected {:.9e}; {kind} error {error:.2e}, bound {bound:.2e}",
                found[at], reference[at]
            ));
        }
        // Layers, levels and images of one case share a line: from the third segment on, digits are dropped.
        let whole = name.split('|').next().unwrap();
        let head = whole.match_indices('.').nth(1).map_or(whole.len(), |(at, _)| at);
        let tail: String = whole[head..].chars().filter(|c| !c.is_ascii_digit()).collect();
        let group = format!("{}{tail}", &whole[..head]);
        let mut worst = self.worst.borrow_mut();
        let worst = worst.entry(group).or_default();
        let share = error / bound.max(f64::MIN_POSITIVE);
        if share >= worst.share {
            *worst = Worst { share, error, torch: distance, bound, kind: kind.to_owned() };
        }
    }

    /// [`Golden::compare`] for f32.
    pub fn compare_f32(&self, name: &str, found: &[f32]) {
        self.compare(name, &found.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
    }

    /// [`Golden::compare`] for indices.
    pub fn compare_counts(&self, name: &str, found: &[usize]) {
        self.compare(name, &found.iter().map(|&v| v as f64).collect::<Vec<_>>());
    }

    /// Compares a whole tensor, its shape too.
    pub fn tensor(&self, name: &str, found: &Tensor) {
        if self.entry(name).shape != found.dims() {
            return self.fault(format!("{name}: shape {:?}, expected {:?}", found.dims(), self.shape(name)));
        }
        self.compare_f32(name, &values(found));
    }

    /// Compares a big tensor by its Euclidean norm, sampled entries and largest magnitude; `samples` as in the generator.
    pub fn summary(&self, name: &str, found: &Tensor, samples: usize) {
        let all = values(found);
        let norm = all.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        self.compare(&format!("{name}|norm"), &[norm]);
        let peak = all.iter().fold(0.0, |m: f64, &v| m.max(f64::from(v).abs()));
        let mut some: Vec<f64> = pick(name, all.len(), samples).into_iter().map(|i| f64::from(all[i])).collect();
        some.push(peak);
        self.compare(&format!("{name}|samples"), &some);
    }

    /// Fails if anything differed, or if a value under one of the prefixes was never looked at.
    pub fn finish(&self, prefixes: &[&str]) {
        let seen = self.seen.borrow();
        for name in prefixes.iter().flat_map(|p| self.names(p)).filter(|name| !seen.contains(*name)) {
            self.fault(format!("{name}: never compared"));
        }
        // Shown by `cargo test -- --nocapture`.
        for (group, Worst { error, torch, bound, kind, .. }) in self.worst.borrow().iter() {
            println!("{group:60} {kind:5} ours {error:.1e} torch {torch:.1e} bound {bound:.1e}");
        }
        let faults = self.faults.borrow();
        assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
    }
}
