//! Group normalisation, with ReLU: the same for any batch size.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use docent_tensor::{F32View, apply_op3, f32_operand, f32_tensor, f32_values};

use crate::conv::{relu, relu_gradient};
use crate::parallel::{self, Shared};
use crate::{Error, Result};

use super::sums::{sum1, sum2, variance};

const OP: &str = "group_norm";

/// `act(gamma * (x - mean) / sqrt(var + eps) + beta)` with mean and (biased) variance over each image's groups of C /
/// `groups` channels, gamma and beta by channel: Y. Wu, K. He, *Group Normalization*, arXiv 1803.08494.
///
/// # Shapes
/// `x` [B, C, ..] (usually [B, C, H, W]), `gamma` and `beta` `[C]`, result as `x`.
///
/// # Errors
/// When `groups` does not divide C, shapes do not fit, or an operand is not f32 on the CPU.
pub fn group_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, groups: usize, eps: f64, relu: bool) -> Result<Tensor> {
    let &[_, channels, ref rest @ ..] = x.dims() else {
        return Err(Error::operand(OP, format!("x has shape {:?}; [B, C, ..] is needed", x.dims())));
    };
    if groups == 0 || channels % groups != 0 || channels == 0 {
        return Err(Error::operand(
            OP,
            format!("{channels} channels of x {:?} do not divide into {groups} groups", x.dims()),
        ));
    }
    if gamma.dims() != [channels] || beta.dims() != [channels] {
        let message =
            format!("gamma {:?} and beta {:?} must be [{channels}] for x {:?}", gamma.dims(), beta.dims(), x.dims());
        return Err(Error::operand(OP, message));
    }
    let op = GroupNorm { channels, groups, plane: rest.iter().product(), eps, relu, stats: OnceLock::new() };
    Ok(apply_op3(&f32_operand(OP, "x", x)?, &f32_operand(OP, "gamma", gamma)?, &f32_operand(OP, "beta", beta)?, op)?)
}

struct GroupNorm {
    channels: usize,
    groups: usize,
    plane: usize,
    eps: f64,
    relu: bool,
    /// Mean and 1 / sqrt(var + eps) of each image's groups.
    stats: OnceLock<Vec<(f32, f32)>>,
}

impl GroupNorm {
    /// Elements of a group.
    fn len(&self) -> usize {
        self.channels / self.groups * self.plane
    }

    fn measure(&self, x: &[f32]) -> Vec<(f32, f32)> {
        let len = self.len();
        parallel::map(x.len() / len.max(1), x.len(), |i| {
            let x = &x[i * len..(i + 1) * len];
            let mean = sum1(x, |v| v) / len as f64;
            let near = mean as f32;
            let off = mean - f64::from(near);
            let var = sum1(x, |v| (v - near) * (v - near)) / len as f64 - off * off;
            (near, (1.0 / (variance(var) + self.eps).sqrt()) as f32)
        })
    }
}

impl CustomOp3 for GroupNorm {
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
        let (x, gamma, beta) = (f32_values(OP, x, lx)?, f32_values(OP, gamma, lg)?, f32_values(OP, beta, lb)?);
        let stats = self.stats.get_or_init(|| self.measure(x));
        let (plane, len) = (self.plane, self.len());
        // SAFETY: each piece is one plane, and x reaches at least to its end, so either branch writes all of it.
        let y = unsafe {
            parallel::fill(x.len(), plane, |at, out| {
                let c = at / plane % self.channels;
                let (mean, inverse) = stats[at / len];
                let (scale, shift) = (gamma[c] * inverse, beta[c]);
                let pairs = out.iter_mut().zip(&x[at..]);
                if self.relu {
                    pairs.for_each(|(o, v)| _ = o.write(relu(scale * (v - mean) + shift)));
                } else {
                    pairs.for_each(|(o, v)| _ = o.write(scale * (v - mean) + shift));
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
        let dy = f32_operand(OP, "the gradient", dy)?;
        let (x_view, g_view, y_view, dy_view) =
            (F32View::new(OP, x), F32View::new(OP, gamma), F32View::new(OP, y), F32View::new(OP, &dy));
        let (xs, gammas, dys) = (x_view.values()?, g_view.values()?, dy_view.values()?);
        let masked = if self.relu { Some(parallel::map2(y_view.values()?, dys, relu_gradient)) } else { None };
        let g = masked.as_deref().unwrap_or(dys);
        let stats = self.stats.get().ok_or_else(|| Error::operand(OP, "the forward pass has kept no statistics"))?;
        let (plane, len, channels) = (self.plane, self.len(), self.channels);

        // For each image and channel: sums of the gradient, and of the gradient times the normalised input.
        let planes = parallel::map(xs.len() / plane.max(1), xs.len(), |p| {
            let (mean, inverse) = stats[p * plane / len];
            let (x, g) = (&xs[p * plane..(p + 1) * plane], &g[p * plane..(p + 1) * plane]);
            (sum1(g, |g| g), sum2(x, g, |x, g| (x - mean) * g) * f64::from(inverse))
        });
        let by_channel = |term: fn(&(f64, f64)) -> f64| -> Vec<f32> {
            (0..channels).map(|c| planes.iter().skip(c).step_by(channels).map(term).sum::<f64>() as f32).collect()
        };
        let dx = if x.track_op() {
            let each = channels / self.groups;
            // SAFETY: the groups' planes cover x, and all of each is written.
            let dx = unsafe {
                parallel::build(xs.len(), |out: Shared<'_>| {
                    parallel::for_each(stats.len(), xs.len(), |i| {
                        let (mean, inverse) = stats[i];
                        let first = i * each % channels;
                        let weighted = |term: fn(&(f64, f64)) -> f64| -> f64 {
                            planes[i * each..][..each]
                                .iter()
                                .zip(&gammas[first..])
                                .map(|(p, &g)| term(p) * f64::from(g))
                                .sum()
                        };
                        let (off, slope) =
                            (weighted(|p| p.0) / len as f64, weighted(|p| p.1) / len as f64 * f64::from(inverse));
                        let (off, slope) = (off as f32, slope as f32);
                        for c in 0..each {
                            let at = (i * each + c) * plane;
                            let gamma = gammas[first + c];
                            // This task alone has the planes of its group.
                            let dx = out.room(at, plane);
                            for (dx, (&x, &g)) in dx.iter_mut().zip(xs[at..at + plane].iter().zip(&g[at..at + plane])) {
                                dx.write(inverse * (gamma * g - off - (x - mean) * slope));
                            }
                        }
                    });
                })
            };
            Some(f32_tensor(dx, x.shape())?)
        } else {
            None
        };
        let d_gamma = gamma.track_op().then(|| f32_tensor(by_channel(|p| p.1), channels)).transpose()?;
        let d_beta = beta.track_op().then(|| f32_tensor(by_channel(|p| p.0), channels)).transpose()?;
        Ok((dx, d_gamma, d_beta))
    }
}
