//! A moving average of a model's weights.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use docent_model::{Kind, ParamStore};
use docent_tensor::with_f32;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Values averaged by one task.
const CHUNK: usize = 1 << 15;

/// How the weights are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmaConfig {
    /// Share of the average that stays at each step; default 0.999, which looks back over about 1,000 steps.
    pub decay: f64,
    /// Makes the decay small at first, so that the average leaves the random first weights: at step t (from 1) it is
    /// `min(decay, (1 + t) / (warmup + t))`. Default 10; 1 turns that off.
    pub warmup: f64,
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self { decay: 0.999, warmup: 10.0 }
    }
}

impl EmaConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// A decay outside 0..1, a warm-up below 1.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.decay) {
            return Err(Error::config("decay", format!("{} is not in 0..1", self.decay)));
        }
        if !self.warmup.is_finite() || self.warmup < 1.0 {
            return Err(Error::config("warmup", format!("{} must be finite and at least 1 (1 is none)", self.warmup)));
        }
        Ok(())
    }

    /// The decay of step `step`, counted from 1.
    pub fn decay_at(&self, step: usize) -> f64 {
        let t = step as f64;
        self.decay.min((1.0 + t) / (self.warmup + t))
    }
}

/// The average, beside the weights that are trained.
///
/// ```text
/// average = average + (1 - decay(t)) * (weights - average)
/// ```
/// in f32, for trainable tensors and for BatchNorm's running statistics alike, since the statistics of the trained weights are not
/// those of the averaged ones; their count of batches is copied, and frozen tensors stand as they are. It begins as a copy.
#[derive(Debug)]
pub struct Ema {
    config: EmaConfig,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    /// Shares the store's storage, so it shows the weights as they are now.
    live: Tensor,
    average: Vec<f32>,
    /// Copied, not averaged.
    count: bool,
}

impl Ema {
    /// Begins with the store's weights as they are.
    ///
    /// # Errors
    /// Settings out of range, weights that cannot be read.
    pub fn new(config: EmaConfig, store: &ParamStore) -> Result<Self> {
        config.validate()?;
        let moving = store.entries().into_iter().filter(|(_, kind, _)| *kind != Kind::Frozen);
        let entry = |(name, kind, live): (String, Kind, Tensor)| {
            let average = with_f32(&live, <[f32]>::to_vec)?;
            Ok(Entry { count: kind == Kind::Count, name, live, average })
        };
        Ok(Self { config, entries: moving.map(entry).collect::<Result<_>>()? })
    }

    /// Takes in the weights after step `step`, counted from 1.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn update(&mut self, step: usize) -> Result<()> {
        let share = (1.0 - self.config.decay_at(step)) as f32;
        for Entry { live, average, count, .. } in &mut self.entries {
            with_f32(live, |live| {
                if *count {
                    return average.copy_from_slice(live);
                }
                average.par_chunks_mut(CHUNK).zip(live.par_chunks(CHUNK)).for_each(|(average, live)| {
                    average.iter_mut().zip(live).for_each(|(a, &w)| *a += share * (w - *a));
                });
            })?;
        }
        Ok(())
    }

    /// Copies of the averages by name: of every tensor that is not frozen.
    ///
    /// # Errors
    /// Only candle's, on making the tensors.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let entry = |e: &Entry| Ok((e.name.clone(), Tensor::from_slice(&e.average, e.live.shape(), &Device::Cpu)?));
        self.entries.iter().map(entry).collect()
    }

    /// Takes over what [`Ema::state`] gave, bit for bit.
    ///
    /// # Errors
    /// A name that is missing or unknown, another shape; nothing is changed then.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut loaded = Vec::with_capacity(self.entries.len());
        for Entry { name, live, .. } in &self.entries {
            match state.get(name) {
                Some(saved) if saved.shape() == live.shape() => loaded.push(with_f32(saved, <[f32]>::to_vec)?),
                Some(saved) => {
                    let (saved, now) = (saved.dims(), live.dims());
                    return Err(Error::param(name, format!("its saved average has shape {saved:?}, it has {now:?}")));
                }
                None => return Err(Error::param(name, "the saved state has no average of it")),
            }
        }
        if let Some(name) = state.keys().find(|name| !self.entries.iter().any(|e| e.name == **name)) {
            return Err(Error::param(name, "has a saved average, but is not averaged here (is it frozen now?)"));
        }
        self.entries.iter_mut().zip(loaded).for_each(|(entry, average)| entry.average = average);
        Ok(())
    }

    /// Calls `f` while the model holds the averages, and puts the trained weights back, whatever `f` returns.
    ///
    /// # Errors
    /// `f`'s own; weights that cannot be read or written.
    pub fn applied<T, E: From<Error>>(
        &self,
        store: &ParamStore,
        f: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let trained = store.snapshot().map_err(Error::from)?;
        let mut averaged = trained.clone();
        averaged.extend(self.state()?);
        store.restore(&averaged).map_err(Error::from)?;
        let result = f();
        store.restore(&trained).map_err(Error::from)?;
        result
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};
    use candle_nn::Init;

    use docent_detect::layers::{ModelBuilder, Norm, NormKind};
    use docent_tensor::overwrite;

    use super::*;

    /// A frozen stem, a norm and a head, all of ones.
    fn store() -> ParamStore {
        let build = |store: &ParamStore| {
            let builder = ModelBuilder::new(store.var_builder());
            builder.pp("stem").stage(0).parameter(3, "weight", Init::Const(1.0)).unwrap();
            builder.pp("head").parameter(3, "weight", Init::Const(1.0)).unwrap();
            Norm::new(NormKind::BatchNorm, 1e-5, 3, &builder.pp("bn")).unwrap();
            builder.layers()
        };
        let layers = build(&ParamStore::probe(&Device::Cpu));
        let store = ParamStore::new(1, &Device::Cpu).with_layers(&layers, 1);
        store.load(BTreeMap::from([("bn.running_mean".into(), Tensor::ones(3, DType::F32, &Device::Cpu).unwrap())]));
        build(&store);
        store
    }

    fn set(store: &ParamStore, value: f32) {
        for (_, kind, tensor) in store.entries() {
            if kind != Kind::Frozen {
                overwrite(&tensor, &Tensor::full(value, tensor.shape(), &Device::Cpu).unwrap()).unwrap();
            }
        }
    }

    fn first(tensors: &BTreeMap<String, Tensor>, name: &str) -> f32 {
        tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn the_decay_rises_to_its_value() {
        let config = EmaConfig { decay: 0.9, warmup: 10.0 };
        assert_eq!(config.decay_at(1), 2.0 / 11.0);
        assert_eq!(config.decay_at(10), 11.0 / 20.0);
        assert_eq!(config.decay_at(1000), 0.9);
        assert_eq!(EmaConfig { warmup: 1.0, ..config }.decay_at(1), 0.9);
        for bad in [EmaConfig { decay: 1.0, ..config }, EmaConfig { decay: -0.1, ..config }] {
            assert!(bad.validate().unwrap_err().to_string().contains("decay"));
        }
        for warmup in [0.5, f64::NAN] {
            assert!(EmaConfig { warmup, ..config }.validate().unwrap_err().to_string().contains("warmup"));
        }
    }

    #[test]
    fn it_follows_the_formula_and_touches_neither_weights_nor_frozen_tensors() {
        let store = store();
        let mut ema = Ema::new(EmaConfig { decay: 0.75, warmup: 1.0 }, &store).unwrap();
        let begin = ema.state().unwrap();
        for (step, weight, average) in [(1, 3.0, 1.5), (2, 3.0, 1.875), (3, -1.0, 1.15625)] {
            set(&store, weight);
            ema.update(step).unwrap();
            let state = ema.state().unwrap();
            assert_eq!(first(&state, "head.weight"), average);
            assert_eq!(first(&state, "bn.running_mean"), average);
            assert_eq!(first(&state, "bn.num_batches_tracked"), weight, "a count is copied");
            assert!(!state.contains_key("stem.weight"));
            assert_eq!(first(&store.snapshot().unwrap(), "head.weight"), weight);
        }
        assert_eq!(first(&begin, "head.weight"), 1.0, "a state does not follow later steps");
    }

    #[test]
    fn the_model_holds_the_average_only_inside() {
        let store = store();
        let mut ema = Ema::new(EmaConfig { decay: 0.5, warmup: 1.0 }, &store).unwrap();
        set(&store, 3.0);
        ema.update(1).unwrap();
        let inside = ema.applied(&store, || -> Result<_> { Ok(store.snapshot()?) }).unwrap();
        assert_eq!((first(&inside, "head.weight"), first(&inside, "stem.weight")), (2.0, 1.0));
        assert_eq!(first(&store.snapshot().unwrap(), "head.weight"), 3.0);
        let failed: Result<()> = ema.applied(&store, || Err(Error::Cancelled));
        assert!(failed.is_err());
        assert_eq!(first(&store.snapshot().unwrap(), "head.weight"), 3.0, "an error puts the weights back too");
    }

    #[test]
    fn its_state_goes_out_and_in_and_a_strange_one_is_refused() {
        let store = store();
        let config = EmaConfig::default();
        let mut ema = Ema::new(config, &store).unwrap();
        let mut other = Ema::new(config, &store).unwrap();
        for step in 1..5 {
            set(&store, step as f32 * 0.37);
            ema.update(step).unwrap();
            if step == 2 {
                other.load_state(&ema.state().unwrap()).unwrap();
            } else if step > 2 {
                other.update(step).unwrap();
            }
        }
        let (a, b) = (ema.state().unwrap(), other.state().unwrap());
        assert!(a.keys().all(|n| first(&a, n).to_bits() == first(&b, n).to_bits()));
        let refused = |change: &dyn Fn(&mut BTreeMap<String, Tensor>), what: &str| {
            let mut state = a.clone();
            change(&mut state);
            let message = Ema::new(config, &store).unwrap().load_state(&state).unwrap_err().to_string();
            assert!(message.contains(what), "{message}");
        };
        refused(&|s| drop(s.remove("head.weight")), "`head.weight`");
        refused(&|s| drop(s.insert("x".into(), Var::zeros(1, DType::F32, &Device::Cpu).unwrap().detach())), "`x`");
        refused(&|s| drop(s.insert("head.weight".into(), Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap())), "[2]");
    }
}
