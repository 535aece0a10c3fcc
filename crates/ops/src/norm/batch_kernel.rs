//! Batch normalisation over slices: measuring, forward and backward pass.

use crate::conv::{relu, relu_gradient};
use crate::parallel::{self, Shared, each1, each2, each3};

use super::sums::{sum1, sum2, sum3, variance};

/// What the batch measured, for the caller's running statistics.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchStats {
    /// Mean by channel.
    pub mean: Vec<f32>,
    /// Variance by channel with divisor n - 1, which is what PyTorch's running variance takes.
    pub var_unbiased: Vec<f32>,
}

/// The shape [B, C, ..] as the passes walk it.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    pub batch: usize,
    pub channels: usize,
    /// Values of one channel of one image.
    pub plane: usize,
}

impl Planes {
    /// Where the planes of channel `c` begin.
    fn of(self, c: usize) -> impl Iterator<Item = usize> {
        (0..self.batch).map(move |b| (b * self.channels + c) * self.plane)
    }
}

/// A normalisation whose statistics are known.
pub(super) struct BatchNormKernel {
    planes: Planes,
    mean: Vec<f32>,
    /// 1 / sqrt(var + eps).
    inverse: Vec<f32>,
    relu: bool,
}

/// The gradients of [`BatchNormKernel::backward`].
pub(super) struct Gradients {
    pub x: Option<Vec<f32>>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

impl BatchNormKernel {
    /// Measures `x`, which has at least two values a channel.
    pub fn new(x: &[f32], planes: Planes, eps: f64, relu: bool) -> (Self, BatchStats) {
        let Planes { batch, channels, plane } = planes;
        let n = (batch * plane) as f64;
        let measured = parallel::map(channels, x.len(), |c| {
            let mean = planes.of(c).map(|at| sum1(&x[at..at + plane], |v| v)).sum::<f64>() / n;
            // The squares are taken around the mean in f32; what its rounding leaves out is taken off again.
            let near = mean as f32;
            let squares = planes.of(c).map(|at| sum1(&x[at..at + plane], |v| (v - near) * (v - near))).sum::<f64>();
            let off = mean - f64::from(near);
            (near, variance(squares / n - off * off))
        });
        let mean: Vec<f32> = measured.iter().map(|m| m.0).collect();
        let var_unbiased = measured.iter().map(|m| (m.1 * n / (n - 1.0)) as f32).collect();
        let inverse = measured.iter().map(|m| (1.0 / (m.1 + eps).sqrt()) as f32).collect();
        (Self { planes, mean: mean.clone(), inverse, relu }, BatchStats { mean, var_unbiased })
    }

    /// Does a ReLU end it?
    pub fn relu(&self) -> bool {
        self.relu
    }

    /// `act(gamma * (x - mean) * inverse + beta + residual)`.
    pub fn forward(&self, x: &[f32], gamma: &[f32], beta: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let Planes { channels, plane, .. } = self.planes;
        let n = x.len();
        assert!(residual.is_none_or(|r| r.len() == n), "{} residuals for {n} values", residual.map_or(0, <[f32]>::len));
        // SAFETY: each piece is one plane, and the operands reach at least to its end, so every branch writes all of it.
        unsafe {
            parallel::fill(x.len(), plane, |at, out| {
                let c = at / plane % channels;
                // The mean is taken off first: folded into the offset it would cancel.
                let (mean, scale, shift) = (self.mean[c], gamma[c] * self.inverse[c], beta[c]);
                let x = &x[at..];
                match (residual, self.relu) {
                    (None, true) => each1(out, x, &|v| relu(scale * (v - mean) + shift)),
                    (None, false) => each1(out, x, &|v| scale * (v - mean) + shift),
                    (Some(r), true) => each2(out, x, &r[at..], &|v, r| relu(scale * (v - mean) + shift + r)),
                    (Some(r), false) => each2(out, x, &r[at..], &|v, r| scale * (v - mean) + shift + r),
                }
            })
        }
    }

    /// Gradients by the output's, `dy`; `y` is the finished output, for the ReLU's mask (without one, anything). That of `x` where it is wanted.
    pub fn backward(&self, x: &[f32], gamma: &[f32], y: &[f32], dy: &[f32], wanted: bool) -> Gradients {
        let Planes { batch, channels, plane } = self.planes;
        assert_eq!(x.len(), batch * channels * plane, "values of another size than their shape");
        let mut sums = Vec::new();
        let dx = if wanted {
            // SAFETY: `channels` writes the planes of all channels and images, which are x.
            Some(unsafe { parallel::build(x.len(), |dx| sums = self.channels(x, gamma, y, dy, Some(dx))) })
        } else {
            sums = self.channels(x, gamma, y, dy, None);
            None
        };
        let (gamma, beta) = sums.into_iter().unzip();
        Gradients { x: dx, gamma, beta }
    }

    /// The gradients of gamma and beta by channel; that of `x` goes to `dx`.
    fn channels(&self, x: &[f32], gamma: &[f32], y: &[f32], dy: &[f32], dx: Option<Shared<'_>>) -> Vec<(f32, f32)> {
        let Planes { batch, channels, plane } = self.planes;
        let n = (batch * plane) as f64;
        parallel::map(channels, x.len(), |c| {
            let (mean, inverse) = (self.mean[c], self.inverse[c]);
            let y = |at: usize| if self.relu { &y[at..at + plane] } else { &[] };
            let of = |at: usize| (&x[at..at + plane], y(at), &dy[at..at + plane]);
            let (mut d_beta, mut d_gamma) = (0.0, 0.0);
            for at in self.planes.of(c) {
                let (x, y, dy) = of(at);
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
                let scale = gamma[c] * inverse;
                let (off, slope) = ((d_beta / n) as f32, (d_gamma / n * f64::from(inverse)) as f32);
                let value = |x: f32, g: f32| scale * (g - off - (x - mean) * slope);
                for at in self.planes.of(c) {
                    let (x, y, dy) = of(at);
                    // SAFETY: this task alone has this channel's planes.
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
    }
}
