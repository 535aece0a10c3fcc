//! Helpers of tests, here and in crates above: parameters filled from a formula.

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use rand::RngCore;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The kind of tensor that a store returns for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A `Var`'s tensor.
    Variable,
    /// A plain tensor: frozen, or a buffer.
    Plain,
}

enum Entry {
    Variable(Var),
    Plain(Tensor),
}

impl Entry {
    fn tensor(&self) -> Tensor {
        match self {
            Self::Variable(v) => v.as_tensor().clone(),
            Self::Plain(t) => t.clone(),
        }
    }
}

type Entries = BTreeMap<String, Entry>;

/// A store that makes each parameter, when first asked for, from its name and the hint's spread. The same name has the
/// same values everywhere; names are kept in order.
#[derive(Clone)]
pub struct FormulaStore {
    entries: Arc<Mutex<Entries>>,
    kind: Arc<dyn Fn(&str) -> Kind + Send + Sync>,
}

impl FormulaStore {
    /// A store whose entries have the kind that `kind` gives for their names.
    pub fn new(kind: impl Fn(&str) -> Kind + Send + Sync + 'static) -> Self {
        Self { entries: Arc::default(), kind: Arc::new(kind) }
    }

    /// A builder over this store, on the CPU in f32.
    pub fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), DType::F32, Device::Cpu)
    }

    /// The tensor of a name, when it was asked for before.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        self.lock().get(name).map(Entry::tensor)
    }

    /// Every entry, in the order of names.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        self.lock().iter().map(|(n, e)| (n.clone(), e.tensor())).collect()
    }

    /// The variables, in the order of names.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let all = self.lock();
        all.iter()
            .filter_map(|(n, e)| match e {
                Entry::Variable(v) => Some((n.clone(), v.clone())),
                Entry::Plain(_) => None,
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl SimpleBackend for FormulaStore {
    fn get(&self, shape: Shape, name: &str, hint: Init, _: DType, device: &Device) -> Result<Tensor> {
        let mut all = self.lock();
        if let Some(entry) = all.get(name) {
            let tensor = entry.tensor();
            if tensor.shape() != &shape {
                candle_core::bail!("{name} has the shape {:?}, {shape:?} is wanted", tensor.shape());
            }
            return Ok(tensor);
        }
        let data = fill(name, &shape, hint);
        let entry = match (self.kind)(name) {
            Kind::Variable => Entry::Variable(Var::from_vec(data, shape, device)?),
            Kind::Plain => Entry::Plain(Tensor::from_vec(data, shape, device)?),
        };
        let tensor = entry.tensor();
        all.insert(name.to_owned(), entry);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        match FormulaStore::get(self, name) {
            Some(t) => Ok(t),
            None => candle_core::bail!("no entry {name}"),
        }
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// Uniform values of the hint's mean and deviation, from the name's hash.
fn fill(name: &str, shape: &Shape, hint: Init) -> Vec<f32> {
    let (mean, std) = match hint {
        Init::Const(c) => (c, 0.0),
        Init::Randn { mean, stdev } => (mean, stdev),
        Init::Uniform { lo, up } => (0.5 * (lo + up), (up - lo) / 12f64.sqrt()),
        Init::Kaiming { fan, non_linearity, .. } => (0.0, non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt()),
    };
    let mut bits =
        SplitMix(name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)));
    let spread = 12f64.sqrt() * std;
    (0..shape.elem_count())
        .map(|_| {
            let unit = (bits.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            (mean + spread * (unit - 0.5)) as f32
        })
        .collect()
}

/// A small generator of random bits (splitmix64) for tests.
#[derive(Debug, Clone)]
pub struct SplitMix(pub u64);

impl RngCore for SplitMix {
    fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill_bytes(&mut self, dst: &mut [u8]) {
        for chunk in dst.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}
