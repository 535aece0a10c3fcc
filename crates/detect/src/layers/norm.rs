//! The norm of a backbone layer, fused with its convolution where it is a mere scale and shift.

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};
use candle_nn::Init;
use docent_ops::{Affine, BatchStats};
use serde::{Deserialize, Serialize};

use super::builder::ModelBuilder;
use super::conv::Conv2d;
use super::list::LayerKind;
use crate::{Error, Mode, Result};

/// Share of a new batch in the running statistics: PyTorch's default.
const MOMENTUM: f32 = 0.1;

/// How activations are normalised in the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NormKind {
    /// Batch statistics in training, running ones in evaluation. A layer whose scale is not a variable is frozen, and
    /// uses its running statistics in training too.
    BatchNorm,
    /// Running statistics and a fixed affine always: a scale and a shift.
    FrozenBatchNorm,
    /// Statistics of each image over groups of channels.
    GroupNorm {
        /// Number of groups; must divide the channels of every layer.
        groups: usize,
    },
}

/// A norm over C channels.
#[derive(Debug, Clone)]
pub struct Norm {
    kind: NormKind,
    eps: f64,
    gamma: Tensor,
    beta: Tensor,
    /// Running mean and variance, for BatchNorm of both kinds.
    running: Option<(Tensor, Tensor)>,
    /// For BatchNorm that can train; checkpoints carry it, nothing reads it.
    batches: Option<Tensor>,
}

impl Norm {
    /// Takes `weight`, `bias` and, for BatchNorm, the running statistics from `builder`.
    ///
    /// # Errors
    /// A parameter that is missing or has another shape.
    pub fn new(kind: NormKind, eps: f64, channels: usize, builder: &ModelBuilder<'_>) -> Result<Self> {
        let frozen = kind == NormKind::FrozenBatchNorm;
        builder.register(match kind {
            NormKind::GroupNorm { .. } => LayerKind::GroupNorm { channels },
            _ => LayerKind::BatchNorm { channels, frozen },
        });
        let constant = |name: &str, value: f64| builder.get(channels, name, Init::Const(value));
        let (gamma, beta) = (constant("weight", 1.0)?, constant("bias", 0.0)?);
        // Statistics belong to no graph, whatever the builder makes of them.
        let running = match kind {
            NormKind::GroupNorm { .. } => None,
            _ => Some((constant("running_mean", 0.0)?.detach(), constant("running_var", 1.0)?.detach())),
        };
        let batches = match kind {
            NormKind::BatchNorm => Some(builder.get((), "num_batches_tracked", Init::Const(0.0))?.detach()),
            _ => None,
        };
        let (gamma, beta) = if frozen { (gamma.detach(), beta.detach()) } else { (gamma, beta) };
        Ok(Self { kind, eps, gamma, beta, running, batches })
    }

    /// `act(norm(conv(x)) + residual)`.
    ///
    /// Folded into the convolution as a scale and a shift when the norm is frozen (its kind, or a scale that is no
    /// variable) or the mode is [`Mode::Eval`]. The fold reads the statistics anew each time, some thousand values
    /// beside millions of multiplications, so that no copy of them can go stale.
    ///
    /// # Errors
    /// An input of other channels, a residual of another shape.
    pub fn after(
        &self,
        conv: &Conv2d,
        x: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
        mode: Mode,
    ) -> Result<Tensor> {
        match (self.kind, &self.running) {
            (NormKind::GroupNorm { groups }, _) => {
                let y = conv.forward(x, false, mode)?;
                let (gamma, beta) = (mode.parameter(&self.gamma), mode.parameter(&self.beta));
                let y = docent_ops::group_norm(&y, &gamma, &beta, groups, self.eps, relu && residual.is_none())?;
                join(y, residual, relu)
            }
            (NormKind::BatchNorm, Some(running)) if mode == Mode::Train && self.gamma.is_variable() => {
                let (y, stats) = match residual {
                    None => conv.forward_batch_norm(x, &self.gamma, &self.beta, self.eps, relu)?,
                    Some(_) => {
                        let y = conv.forward(x, false, mode)?;
                        docent_ops::batch_norm_train(&y, &self.gamma, &self.beta, self.eps, residual, relu)?
                    }
                };
                self.update(running, &stats)?;
                Ok(y)
            }
            (_, Some((mean, var))) => {
                let affine = Affine::from_batch_norm(
                    &self.gamma.to_vec1::<f32>()?,
                    &self.beta.to_vec1::<f32>()?,
                    &mean.to_vec1::<f32>()?,
                    &var.to_vec1::<f32>()?,
                    self.eps,
                );
                conv.forward_affine(x, &affine, residual, relu, mode)
            }
            (_, None) => Err(Error::input("norm", "a BatchNorm without running statistics")),
        }
    }

    /// Moves the running statistics towards a batch's, in the storage that the builder handed out.
    fn update(&self, (mean, var): &(Tensor, Tensor), stats: &BatchStats) -> Result<()> {
        mean.inplace_op1(&Blend(&stats.mean))?;
        var.inplace_op1(&Blend(&stats.var_unbiased))?;
        if let Some(n) = &self.batches {
            n.inplace_op1(&Increment)?;
        }
        Ok(())
    }
}

fn join(y: Tensor, residual: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    Ok(match residual {
        None => y,
        Some(r) if relu => docent_ops::add_relu(&y, r)?,
        Some(r) => (y + r)?,
    })
}

/// `x = (1 - MOMENTUM) x + MOMENTUM new`.
struct Blend<'a>(&'a [f32]);

impl InplaceOp1 for Blend<'_> {
    fn name(&self) -> &'static str {
        "running-statistics"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let x = slice(self.name(), storage, layout)?;
        if x.len() != self.0.len() {
            candle_core::bail!("{}: {} running values for {} channels", self.name(), x.len(), self.0.len());
        }
        for (x, new) in x.iter_mut().zip(self.0) {
            *x = *x * (1.0 - MOMENTUM) + new * MOMENTUM;
        }
        Ok(())
    }
}

/// `x += 1`.
struct Increment;

impl InplaceOp1 for Increment {
    fn name(&self) -> &'static str {
        "num-batches-tracked"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        slice(self.name(), storage, layout)?.iter_mut().for_each(|x| *x += 1.0);
        Ok(())
    }
}

fn slice<'a>(name: &str, storage: &'a mut CpuStorage, layout: &Layout) -> candle_core::Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&mut data[start..end]),
        _ => candle_core::bail!("{name}: running statistics must be contiguous f32"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Conv2dConfig;
    use crate::testing::{FormulaStore, Kind};
    use candle_core::Device;

    fn values(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn is_statistic(name: &str) -> bool {
        name.contains("running_") || name.contains("tracked")
    }

    fn input() -> Tensor {
        let data: Vec<f32> = (0..2 * 2 * 3 * 5).map(|i| ((i * 37 % 23) as f32 - 11.0) / 7.0).collect();
        Tensor::from_vec(data, (2, 2, 3, 5), &Device::Cpu).unwrap()
    }

    fn layer(kind: NormKind, store: &FormulaStore) -> (Conv2d, Norm) {
        let builder = ModelBuilder::new(store.builder());
        let conv = Conv2d::new(&Conv2dConfig::new(2, 4, 3), &builder.pp("conv1")).unwrap();
        (conv, Norm::new(kind, 1e-5, 4, &builder.pp("bn1")).unwrap())
    }

    #[test]
    fn training_updates_the_shared_statistics_and_evaluation_reads_them() {
        let store = FormulaStore::new(|name| if is_statistic(name) { Kind::Plain } else { Kind::Variable });
        let (conv, norm) = layer(NormKind::BatchNorm, &store);
        let x = input();
        let before = norm.after(&conv, &x, None, true, Mode::Eval).unwrap();
        assert_eq!(values(&store.get("bn1.num_batches_tracked").unwrap()), [0.0]);
        assert_eq!(values(&store.get("bn1.running_mean").unwrap()), [0.0; 4], "Eval touches nothing");

        norm.after(&conv, &x, None, true, Mode::Train).unwrap();
        // By hand: 0.9 * 0 + 0.1 * mean and 0.9 * 1 + 0.1 * var * n / (n - 1).
        let y = conv.forward(&x, false, Mode::Eval).unwrap();
        let n = 2 * 15;
        let y = y.transpose(0, 1).unwrap().contiguous().unwrap().reshape((4, n)).unwrap().to_vec2::<f32>().unwrap();
        for (c, row) in y.iter().enumerate() {
            let mean = row.iter().sum::<f32>() / n as f32;
            let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / (n - 1) as f32;
            let got_mean = values(&store.get("bn1.running_mean").unwrap())[c];
            let got_var = values(&store.get("bn1.running_var").unwrap())[c];
            assert!((got_mean - 0.1 * mean).abs() < 1e-6, "{got_mean} {mean}");
            assert!((got_var - 0.9 - 0.1 * var).abs() < 1e-5, "{got_var} {var}");
        }
        assert_eq!(values(&store.get("bn1.num_batches_tracked").unwrap()), [1.0]);
        let after = norm.after(&conv, &x, None, true, Mode::Eval).unwrap();
        assert_ne!(values(&before), values(&after), "Eval reads the current statistics");
    }

    #[test]
    fn frozen_norms_fold_and_never_update() {
        for kind in [NormKind::BatchNorm, NormKind::FrozenBatchNorm] {
            let store = FormulaStore::new(|_| Kind::Plain);
            let (conv, norm) = layer(kind, &store);
            let x = input();
            let train = norm.after(&conv, &x, None, true, Mode::Train).unwrap();
            let eval = norm.after(&conv, &x, None, true, Mode::Eval).unwrap();
            assert_eq!(values(&train), values(&eval));
            assert_eq!(values(&store.get("bn1.running_mean").unwrap()), [0.0; 4]);
            assert!(!train.track_op());
        }
        // Even variables do not train in a FrozenBatchNorm, and a changed one is seen at once.
        let store = FormulaStore::new(|_| Kind::Variable);
        let (conv, norm) = layer(NormKind::FrozenBatchNorm, &store);
        let x = input();
        let y = norm.after(&conv, &x, None, false, Mode::Train).unwrap();
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&store.get("bn1.weight").unwrap()).is_none());
        assert!(grads.get(&store.get("conv1.weight").unwrap()).is_some());
        let var = store.vars().into_iter().find(|(n, _)| n == "bn1.weight").unwrap().1;
        var.set(&Tensor::full(2f32, 4, &Device::Cpu).unwrap()).unwrap();
        let z = norm.after(&conv, &x, None, false, Mode::Train).unwrap();
        for (a, b) in values(&y).iter().zip(values(&z)) {
            assert!((2.0 * a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn every_kind_takes_a_residual() {
        for kind in [NormKind::BatchNorm, NormKind::FrozenBatchNorm, NormKind::GroupNorm { groups: 2 }] {
            let store = FormulaStore::new(|name| if is_statistic(name) { Kind::Plain } else { Kind::Variable });
            let (conv, norm) = layer(kind, &store);
            let x = input();
            let plain = norm.after(&conv, &x, None, false, Mode::Train).unwrap();
            let residual = (plain.detach() * -0.5).unwrap();
            let joined = norm.after(&conv, &x, Some(&residual), true, Mode::Train).unwrap();
            for (a, b) in values(&plain).iter().zip(values(&joined)) {
                assert!(((0.5 * a).max(0.0) - b).abs() < 1e-5, "{kind:?}: {a} {b}");
            }
        }
    }

    #[test]
    fn kinds_have_stable_spellings() {
        let norm = |s: &str| serde_json::from_str::<NormKind>(s).unwrap();
        assert_eq!(norm(r#""batch_norm""#), NormKind::BatchNorm);
        assert_eq!(norm(r#""frozen_batch_norm""#), NormKind::FrozenBatchNorm);
        assert_eq!(norm(r#"{"group_norm": {"groups": 4}}"#), NormKind::GroupNorm { groups: 4 });
    }
}
