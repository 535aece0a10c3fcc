//! The norm of a backbone layer, fused with its convolution where it is a mere scale and shift.

use crate::layers::Conv;
use crate::{Error, Mode, NormKind, Result};
use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};
use candle_nn::{Init, VarBuilder};
use docent_ops::{Affine, BatchStats};

/// Share of a new batch in the running statistics: PyTorch's default.
const MOMENTUM: f32 = 0.1;

const RUNNING: [&str; 3] = ["running_mean", "running_var", "num_batches_tracked"];

pub(crate) fn is_running_statistic(name: &str) -> bool {
    RUNNING.iter().any(|r| name.rsplit('.').next() == Some(r))
}

/// Whether the tensor of this name lies in a norm layer: `..bn1.weight`, `..downsample.1.bias`.
pub(crate) fn belongs_to_norm(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let [.., before, layer, _] = parts.as_slice() else {
        return matches!(parts.as_slice(), [layer, _] if is_bn(layer));
    };
    is_bn(layer) || (*before == "downsample" && *layer == "1")
}

fn is_bn(segment: &str) -> bool {
    segment.strip_prefix("bn").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// A norm over C channels.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
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
    pub(crate) fn new(kind: NormKind, eps: f64, channels: usize, vb: &VarBuilder) -> Result<Self> {
        let constant = |name: &str, value: f64| vb.get_with_hints(channels, name, Init::Const(value));
        let (gamma, beta) = (constant("weight", 1.0)?, constant("bias", 0.0)?);
        // Statistics belong to no graph, whatever the builder makes of them.
        let running = match kind {
            NormKind::GroupNorm { .. } => None,
            _ => Some((constant("running_mean", 0.0)?.detach(), constant("running_var", 1.0)?.detach())),
        };
        let batches = match kind {
            NormKind::BatchNorm => Some(vb.get_with_hints((), "num_batches_tracked", Init::Const(0.0))?.detach()),
            _ => None,
        };
        let frozen = kind == NormKind::FrozenBatchNorm;
        let (gamma, beta) = if frozen { (gamma.detach(), beta.detach()) } else { (gamma, beta) };
        Ok(Self { kind, eps, gamma, beta, running, batches })
    }

    /// `act(norm(conv(x)) + residual)`.
    ///
    /// Folded into the convolution as a scale and a shift when the norm is frozen (its kind, or a scale that is no
    /// variable) or the mode is [`Mode::Eval`]. The fold reads the statistics anew each time, some thousand values
    /// beside millions of multiplications, so that no copy of them can go stale.
    pub(crate) fn after(
        &self,
        conv: &Conv,
        x: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
        mode: Mode,
    ) -> Result<Tensor> {
        match (self.kind, &self.running) {
            (NormKind::GroupNorm { groups }, _) => {
                let y = conv.forward(x, false)?;
                let y =
                    docent_ops::group_norm(&y, &self.gamma, &self.beta, groups, self.eps, relu && residual.is_none())?;
                join(y, residual, relu)
            }
            (NormKind::BatchNorm, Some(running)) if mode == Mode::Train && self.gamma.is_variable() => {
                let (y, stats) = match residual {
                    None => conv.forward_batch_norm(x, &self.gamma, &self.beta, self.eps, relu)?,
                    Some(_) => {
                        let y = conv.forward(x, false)?;
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
                conv.forward_affine(x, &affine, residual, relu)
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

    /// The same norm over the same storage, outside any graph: it folds always, and never updates.
    pub(crate) fn detached(&self) -> Self {
        Self { gamma: self.gamma.detach(), beta: self.beta.detach(), ..self.clone() }
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
    use crate::testing::{FormulaStore, Kind};
    use candle_core::Device;

    fn values(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn input() -> Tensor {
        let data: Vec<f32> = (0..2 * 2 * 3 * 5).map(|i| ((i * 37 % 23) as f32 - 11.0) / 7.0).collect();
        Tensor::from_vec(data, (2, 2, 3, 5), &Device::Cpu).unwrap()
    }

    fn layer(kind: NormKind, store: &FormulaStore) -> (Conv, Norm) {
        let vb = store.builder();
        let conv = Conv::new((2, 4, 3, 1), false, crate::layers::KAIMING_FAN_OUT, &vb.pp("conv1")).unwrap();
        (conv, Norm::new(kind, 1e-5, 4, &vb.pp("bn1")).unwrap())
    }

    #[test]
    fn training_updates_the_shared_statistics_and_evaluation_reads_them() {
        let store = FormulaStore::new(|name| if is_running_statistic(name) { Kind::Plain } else { Kind::Variable });
        let (conv, norm) = layer(NormKind::BatchNorm, &store);
        let x = input();
        let before = norm.after(&conv, &x, None, true, Mode::Eval).unwrap();
        assert_eq!(values(&store.get("bn1.num_batches_tracked").unwrap()), [0.0]);
        assert_eq!(values(&store.get("bn1.running_mean").unwrap()), [0.0; 4], "Eval touches nothing");

        norm.after(&conv, &x, None, true, Mode::Train).unwrap();
        // By hand: 0.9 * 0 + 0.1 * mean and 0.9 * 1 + 0.1 * var * n / (n - 1).
        let y = conv.forward(&x, false).unwrap();
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
            let store = FormulaStore::new(|name| if is_running_statistic(name) { Kind::Plain } else { Kind::Variable });
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
}
