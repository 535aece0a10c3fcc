//! Batch normalisation by the batch's own statistics, with ReLU.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};

use crate::conv::{relu, relu_gradient};
use crate::parallel::{self, Shared, each1, each2, each3};
use crate::storage::{View, operand, tensor, values};
use crate::{Error, Result};

use super::sums::{sum1, sum2, sum3};

const OP: &str = "batch_norm_train";

/// What the batch measured, for the caller's running statistics.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchStats {
    /// Mean by channel.
    pub mean: Vec<f32>,
    /// Variance by channel with divisor n - 1, which is what PyTorch's running variance takes.
    pub var_unbiased: Vec<f32>,
}

/// `act(gamma * (x - mean) / sqrt(var + eps) + beta)` by channel, with the mean and the (biased) variance of this batch:
/// S. Ioffe, C. Szegedy, *Batch Normalization*, arXiv 1502.03167. Gradients flow through the statistics.
///
/// The variance is taken in a second pass around the mean, so that a large mean costs no accuracy.
///
/// # Shapes
/// `x` [B, C, ..] (usually [B, C, H, W]), `gamma` and `beta` `[C]`, result as `x`.
///
/// # Errors
/// When there are fewer than two values a channel (the variance would mean nothing), shapes do not fit, or an operand is
/// not f32 on the CPU.
pub fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    relu: bool,
) -> Result<(Tensor, BatchStats)> {
    let &[batch, channels, ref rest @ ..] = x.dims() else {
        return Err(Error::operand(OP, format!("x has shape {:?}; [B, C, ..] is needed", x.dims())));
    };
    if gamma.dims() != [channels] || beta.dims() != [channels] {
        let message =
            format!("gamma {:?} and beta {:?} must be [{channels}] for x {:?}", gamma.dims(), beta.dims(), x.dims());
        return Err(Error::operand(OP, message));
    }
    let plane = rest.iter().product::<usize>();
    if batch * plane < 2 {
        let message = format!(
            "x {:?} has {} value(s) a channel; at least 2 are needed: use a larger batch or image",
            x.dims(),
            batch * plane
        );
        return Err(Error::operand(OP, message));
    }
    let (x, gamma, beta) = (operand(OP, "x", x)?, operand(OP, "gamma", gamma)?, operand(OP, "beta", beta)?);
    let planes = Planes { batch, channels, plane };
    let n = (batch * plane) as f64;
    let measured = {
        let view = View::new(OP, &x);
        let x = view.values()?;
        parallel::map(channels, x.len(), |c| {
            let mean = planes.of(c).map(|at| sum1(&x[at..at + plane], |v| v)).sum::<f64>() / n;
            // The squares are taken around the mean in f32; what its rounding leaves out is taken off again.
            let near = mean as f32;
            let squares = planes.of(c).map(|at| sum1(&x[at..at + plane], |v| (v - near) * (v - near))).sum::<f64>();
            let off = mean - f64::from(near);
            (near, (squares / n - off * off).max(0.0))
        })
    };
    let stats = BatchStats {
        mean: measured.iter().map(|m| m.0).collect(),
        var_unbiased: measured.iter().map(|m| (m.1 * n / (n - 1.0)) as f32).collect(),
    };
    let inverse = measured.iter().map(|m| (1.0 / (m.1 + eps).sqrt()) as f32).collect();
    let op = BatchNorm { planes, mean: stats.mean.clone(), inverse, relu };
    Ok((x.apply_op3(&gamma, &beta, op)?, stats))
}

#[derive(Clone, Copy)]
struct Planes {
    batch: usize,
    channels: usize,
    plane: usize,
}

impl Planes {
    /// Where the planes of channel `c` begin.
    fn of(self, c: usize) -> impl Iterator<Item = usize> {
        (0..self.batch).map(move |b| (b * self.channels + c) * self.plane)
    }
}

struct BatchNorm {
    planes: Planes,
    mean: Vec<f32>,
    /// 1 / sqrt(var + eps).
    inverse: Vec<f32>,
    relu: bool,
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        gamma: &CpuStorage,
        lg: &Layout,
        beta: &CpuStorage,
        lb: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, gamma, beta) = (values(OP, x, lx)?, values(OP, gamma, lg)?, values(OP, beta, lb)?);
        let Planes { channels, plane, .. } = self.planes;
        // SAFETY: each piece is one plane, written by either branch.
        let y = unsafe {
            parallel::fill(x.len(), plane, |at, out| {
                let c = at / plane % channels;
                // The mean is taken off first: folded into the offset it would cancel.
                let (mean, scale, shift) = (self.mean[c], gamma[c] * self.inverse[c], beta[c]);
                if self.relu {
                    each1(out, &x[at..], &|v| relu(scale * (v - mean) + shift));
                } else {
                    each1(out, &x[at..], &|v| scale * (v - mean) + shift);
                }
            })
        };
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dy = operand(OP, "the gradient", dy)?;
        let (x_view, g_view, y_view, dy_view) =
            (View::new(OP, x), View::new(OP, gamma), View::new(OP, y), View::new(OP, &dy));
        let (xs, gammas, ys, dys) = (x_view.values()?, g_view.values()?, y_view.values()?, dy_view.values()?);
        let Planes { batch, channels, plane } = self.planes;
        let n = (batch * plane) as f64;
        let run = |dx: Option<Shared<'_>>| {
            parallel::map(channels, xs.len(), |c| {
                let (mean, inverse) = (self.mean[c], self.inverse[c]);
                let (mut d_beta, mut d_gamma) = (0.0, 0.0);
                for at in self.planes.of(c) {
                    let (x, y, dy) = (&xs[at..at + plane], &ys[at..at + plane], &dys[at..at + plane]);
                    if self.relu {
                        d_beta += sum2(y, dy, relu_gradient);
                        d_gamma += sum3(x, y, dy, |x, y, g| (x - mean) * relu_gradient(y, g));
                    } else {
                        d_beta += sum1(dy, |g| g);
                        d_gamma += sum2(x, dy, |x, g| (x - mean) * g);
                    }
                }
                d_gamma *= f64::from(inverse);
                if let Some(dx) = dx {
                    let scale = gammas[c] * inverse;
                    let (off, slope) = ((d_beta / n) as f32, (d_gamma / n * f64::from(inverse)) as f32);
                    for at in self.planes.of(c) {
                        let (x, y, dy) = (&xs[at..at + plane], &ys[at..at + plane], &dys[at..at + plane]);
                        let value = |x: f32, g: f32| scale * (g - off - (x - mean) * slope);
                        // SAFETY: this task alone writes this channel's planes.
                        let dx = unsafe { dx.room(at, plane) };
                        if self.relu {
                            each3(dx, x, y, dy, &|x, y, g| value(x, relu_gradient(y, g)));
                        } else {
                            each2(dx, x, dy, &value);
                        }
                    }
                }
                (d_gamma as f32, d_beta as f32)
            })
        };
        let mut sums = Vec::new();
        let dx = if x.track_op() {
            // SAFETY: the channels' planes cover x.
            let dx = unsafe { parallel::build(xs.len(), |dx| sums = run(Some(dx))) };
            Some(tensor(dx, x.shape())?)
        } else {
            sums = run(None);
            None
        };
        let of = |t: &Tensor, pick: fn(&(f32, f32)) -> f32| -> Result<Option<Tensor>> {
            t.track_op().then(|| tensor(sums.iter().map(pick).collect(), channels)).transpose()
        };
        Ok((dx, of(gamma, |s| s.0)?, of(beta, |s| s.1)?))
    }
}
