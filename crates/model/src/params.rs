//! The parameter store: every tensor of a model by name, trainable, frozen or a buffer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use docent_detect::layers::{LayerList, TensorRole};
use docent_tensor::{deep_copy, overwrite, with_f32};
use sha2::{Digest, Sha256};

use crate::digest::hex;
use crate::error::{Error, Result};
use crate::init::draw;
use crate::strict::StrictReport;

/// What may happen to an entry of a [`ParamStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A candle variable: tracked by every graph, moved by the optimizer.
    Trainable,
    /// A plain tensor: no graph is built for it and no gradient can reach it.
    Frozen,
    /// Running statistics: a plain tensor that the model overwrites in place while it trains.
    Buffer,
    /// BatchNorm's count of batches: a buffer that is no average of anything.
    Count,
}

/// All tensors of one model, in name order.
///
/// A store is a cheap handle: clones share the entries. Models ask it for tensors through [`ParamStore::var_builder`]; the first
/// request for a name decides its [`Kind`], and takes its value from [`ParamStore::load`]ed tensors or else from (seed, name).
///
/// ```
/// use candle_core::Device;
/// use docent_model::{Kind, ParamStore};
///
/// let store = ParamStore::new(0, &Device::Cpu).with_frozen(|name| name.starts_with("stem."));
/// let vb = store.var_builder();
/// let init = candle_nn::Init::Randn { mean: 0.0, stdev: 0.01 };
/// let stem = vb.pp("stem").get_with_hints((8, 3, 3, 3), "weight", init)?;
/// let head = vb.pp("head").get_with_hints((5, 8), "weight", init)?;
/// assert!(!stem.is_variable() && head.is_variable());
/// assert_eq!(store.trainable().len(), 1);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ParamStore {
    inner: Arc<Mutex<Inner>>,
    device: Device,
}

type Rule = Arc<dyn Fn(&str) -> Kind + Send + Sync>;

struct Inner {
    seed: u64,
    /// The kind of an entry, by its name.
    rule: Rule,
    /// Zeros instead of first values: only names and shapes are wanted.
    probe: bool,
    loaded: BTreeMap<String, Tensor>,
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    kind: Kind,
    value: Value,
    from_file: bool,
}

enum Value {
    Var(Var),
    Plain(Tensor),
}

impl Value {
    fn tensor(&self) -> &Tensor {
        match self {
            Self::Var(var) => var.as_tensor(),
            Self::Plain(tensor) => tensor,
        }
    }
}

impl std::fmt::Debug for ParamStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.lock();
        f.debug_struct("ParamStore")
            .field("seed", &inner.seed)
            .field("entries", &inner.entries.len())
            .field("loaded", &inner.loaded.len())
            .finish_non_exhaustive()
    }
}

impl ParamStore {
    /// A store whose entries are trainable; [`ParamStore::with_layers`] and [`ParamStore::with_frozen`] make exceptions.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self::of_kind(Kind::Trainable, seed, device, false)
    }

    /// A store of plain tensors alone: a teacher. No graph can be built through it.
    pub fn frozen_all(seed: u64, device: &Device) -> Self {
        Self::of_kind(Kind::Frozen, seed, device, false)
    }

    /// A store that only notes which names and shapes a model asks for; its values are zeros and nothing is drawn.
    ///
    /// Build the model once on it, and [`ParamStore::check`] lists everything a file lacks before the real model is built.
    pub fn probe(device: &Device) -> Self {
        Self::of_kind(Kind::Frozen, 0, device, true)
    }

    fn of_kind(kind: Kind, seed: u64, device: &Device, probe: bool) -> Self {
        let (loaded, entries) = Default::default();
        let inner = Inner { seed, rule: Arc::new(move |_| kind), probe, loaded, entries };
        Self { inner: Arc::new(Mutex::new(inner)), device: device.clone() }
    }

    /// Makes the running statistics in `layers` buffers. Freezes the scale and shift of each frozen BatchNorm, and the layers of the
    /// first `freeze_at` parts of the backbone.
    ///
    /// Call it before the model is built: an entry's kind is decided at its first request and stays. The list is that of the same
    /// model, built on [`ParamStore::probe`].
    #[must_use]
    pub fn with_layers(self, layers: &LayerList, freeze_at: usize) -> Self {
        let kind = |role| match role {
            TensorRole::RunningStatistic => Kind::Buffer,
            TensorRole::BatchCount => Kind::Count,
            TensorRole::Parameter | TensorRole::Affine => Kind::Frozen,
        };
        let frozen = layers.frozen(freeze_at).into_iter().map(|name| (name, Kind::Frozen));
        let state = layers.tensors().into_values().filter(|tensor| tensor.buffer);
        // The second wins: running statistics of a frozen layer are buffers too.
        let kinds: BTreeMap<String, Kind> = frozen.chain(state.map(|t| (t.name, kind(t.role)))).collect();
        self.with_rule(move |name| kinds.get(name).copied())
    }

    /// Freezes the entries whose name `f` accepts. Call it before the model is built, as [`ParamStore::with_layers`].
    #[must_use]
    pub fn with_frozen(self, f: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.with_rule(move |name| f(name).then_some(Kind::Frozen))
    }

    /// Puts `rule` before the present one, which decides where `rule` does not.
    fn with_rule(self, rule: impl Fn(&str) -> Option<Kind> + Send + Sync + 'static) -> Self {
        {
            let mut inner = self.lock();
            let before = Arc::clone(&inner.rule);
            inner.rule = Arc::new(move |name| rule(name).unwrap_or_else(|| before(name)));
        }
        self
    }

    /// Values for entries yet to be asked for. Call it before the model is built; a later call adds names and replaces equal ones.
    ///
    /// The store copies a value when it is asked for, so one map can be loaded into several stores.
    pub fn load(&self, tensors: BTreeMap<String, Tensor>) {
        self.lock().loaded.extend(tensors);
    }

    /// Where a model takes its tensors from: `vb.pp("backbone").get_with_hints(shape, "weight", init)`.
    pub fn var_builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), DType::F32, self.device.clone())
    }

    /// Where the tensors live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Names that were drawn although values had been loaded: what the file lacked. Empty when nothing was loaded.
    pub fn missing(&self) -> Vec<String> {
        let inner = self.lock();
        if inner.loaded.is_empty() {
            return Vec::new();
        }
        inner.entries.iter().filter(|(_, e)| !e.from_file).map(|(n, _)| n.clone()).collect()
    }

    /// Names that were loaded and never asked for.
    pub fn unexpected(&self) -> Vec<String> {
        let inner = self.lock();
        inner.loaded.keys().filter(|n| !inner.entries.contains_key(*n)).cloned().collect()
    }

    /// Frozen entries with drawn values in place of loaded ones. They would never learn, so a run should refuse them.
    pub fn frozen_but_drawn(&self) -> Vec<String> {
        let inner = self.lock();
        let untrained = inner.entries.iter().filter(|(_, e)| e.kind == Kind::Frozen && !e.from_file);
        untrained.map(|(n, _)| n.clone()).collect()
    }

    /// The variables, in name order.
    pub fn trainable(&self) -> Vec<(String, Var)> {
        let inner = self.lock();
        let vars = inner.entries.iter().filter_map(|(n, e)| match &e.value {
            Value::Var(var) => Some((n.clone(), var.clone())),
            Value::Plain(_) => None,
        });
        vars.collect()
    }

    /// Every entry in name order. The tensors share the store's storage: [`ParamStore::snapshot`] gives copies.
    pub fn entries(&self) -> Vec<(String, Kind, Tensor)> {
        let inner = self.lock();
        inner.entries.iter().map(|(n, e)| (n.clone(), e.kind, e.value.tensor().detach())).collect()
    }

    /// Names and shapes, in name order.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let inner = self.lock();
        inner.entries.iter().map(|(n, e)| (n.clone(), e.value.tensor().dims().to_vec())).collect()
    }

    /// Compares names and shapes with those of `tensors`.
    pub fn check(&self, tensors: &BTreeMap<String, Tensor>) -> StrictReport {
        StrictReport::compare(&self.shapes(), tensors)
    }

    /// Deep copies of all entries, in name order: later training does not change them.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>> {
        let inner = self.lock();
        inner.entries.iter().map(|(n, e)| Ok((n.clone(), deep_copy(e.value.tensor())?))).collect()
    }

    /// Writes the values of `tensors` into the entries, in place: a model that holds these tensors sees the new values.
    ///
    /// A layer that cached something made from *frozen* entries (folded scales, packed weights) keeps its cache; load frozen values
    /// before the model is built.
    ///
    /// # Errors
    /// [`Error::Strict`] when a name is missing, unexpected or of another shape; nothing has been written then.
    pub fn restore(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let report = self.check(tensors);
        if !report.is_empty() {
            return Err(Error::Strict { what: "the set of tensors to restore".into(), report: Box::new(report) });
        }
        let inner = self.lock();
        for (name, entry) in &inner.entries {
            let target = entry.value.tensor();
            let source = tensors[name].to_device(&self.device)?.to_dtype(DType::F32)?;
            overwrite(target, &source)?;
        }
        Ok(())
    }

    /// The number of values in trainable and frozen entries, as PyTorch counts `parameters()`; buffers are not counted.
    pub fn parameter_count(&self) -> usize {
        let inner = self.lock();
        let parameters = inner.entries.values().filter(|e| !matches!(e.kind, Kind::Buffer | Kind::Count));
        parameters.map(|e| e.value.tensor().elem_count()).sum()
    }

    /// SHA-256 over names, shapes and the bits of all entries, in hexadecimal: equal exactly for bit-equal stores.
    ///
    /// # Errors
    /// When the values cannot be read from their device.
    pub fn digest(&self) -> Result<String> {
        let inner = self.lock();
        let mut hash = Sha256::new();
        for (name, entry) in &inner.entries {
            let tensor = entry.value.tensor();
            hash.update(format!("{name} {:?}\n", tensor.dims()));
            with_f32(tensor, |values| {
                for chunk in values.chunks(1 << 14) {
                    hash.update(chunk.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
                }
            })?;
        }
        Ok(hex(&hash.finalize()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // An entry is inserted whole or not at all, so the data behind a poisoned lock is sound.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fetch(&self, shape: &Shape, name: &str, init: Init, dtype: DType) -> Result<Tensor> {
        if dtype != DType::F32 {
            return Err(Error::param(name, format!("the store holds f32, {dtype:?} was asked for")));
        }
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.get(name) {
            let tensor = entry.value.tensor();
            if tensor.shape() != shape {
                let (had, want) = (tensor.dims(), shape.dims());
                return Err(Error::param(name, format!("asked for twice, with shapes {had:?} and {want:?}")));
            }
            return Ok(tensor.clone());
        }
        let loaded = inner.loaded.get(name);
        let from_file = loaded.is_some();
        let value = match loaded {
            Some(tensor) if tensor.shape() != shape => {
                let (file, model) = (tensor.dims(), shape.dims());
                return Err(Error::param(
                    name,
                    format!(
                        "the loaded tensor has shape {file:?}, the model needs {model:?}; is it another architecture or class count?"
                    ),
                ));
            }
            // The copy keeps buffers that are updated in place out of the caller's map.
            Some(tensor) => deep_copy(&tensor.to_device(&self.device)?.to_dtype(DType::F32)?)?,
            // One number, whatever the shape: a probe of a damaged config must not ask for memory.
            None if inner.probe => Tensor::zeros((), DType::F32, &self.device)?.broadcast_as(shape)?,
            None => Tensor::from_vec(draw(init, shape, inner.seed, name), shape, &self.device)?,
        };
        let kind = (inner.rule)(name);
        let value = match kind {
            Kind::Trainable => Value::Var(Var::from_tensor(&value)?),
            Kind::Frozen | Kind::Buffer | Kind::Count => Value::Plain(value),
        };
        let tensor = value.tensor().clone();
        inner.entries.insert(name.to_owned(), Entry { kind, value, from_file });
        Ok(tensor)
    }
}

impl SimpleBackend for ParamStore {
    fn get(&self, s: Shape, name: &str, h: Init, dtype: DType, _dev: &Device) -> candle_core::Result<Tensor> {
        Ok(self.fetch(&s, name, h, dtype)?)
    }

    /// Gives what is there: without a shape nothing can be drawn.
    fn get_unchecked(&self, name: &str, dtype: DType, _dev: &Device) -> candle_core::Result<Tensor> {
        let shape = {
            let inner = self.lock();
            let entry = inner.entries.get(name).map(|e| e.value.tensor());
            entry.or_else(|| inner.loaded.get(name)).map(|t| t.shape().clone())
        };
        let Some(shape) = shape else {
            return Err(Error::param(name, "neither loaded nor asked for with a shape").into());
        };
        Ok(self.fetch(&shape, name, Init::Const(0.0), dtype)?)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        let inner = self.lock();
        inner.entries.contains_key(name) || inner.loaded.contains_key(name)
    }
}
