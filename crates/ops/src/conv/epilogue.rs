//! What follows the sums of a convolution: scale, shift, bias or residual, ReLU; and the way back through it.

use std::mem::MaybeUninit;

use crate::norm::{sum1, sum2};
use crate::parallel::{self, each1, each2};
use crate::simd::wide;

use super::geometry::Geometry;

/// `y = act(scale * sum + shift + addend)` by output channel.
#[derive(Clone, Copy, Default)]
pub(crate) struct Epilogue<'a> {
    /// Per channel: scale and shift.
    pub affine: Option<(&'a [f32], &'a [f32])>,
    /// Per channel.
    pub bias: Option<&'a [f32]>,
    /// Of the output's shape.
    pub residual: Option<&'a [f32]>,
    /// Whether negative values become 0.
    pub relu: bool,
}

impl Epilogue<'_> {
    /// Whether there is nothing to do.
    pub fn is_identity(&self) -> bool {
        self.affine.is_none() && self.bias.is_none() && self.residual.is_none() && !self.relu
    }

    /// Finishes a stretch of sums of channel `c` that starts at element `at` of the output.
    pub fn finish(&self, c: usize, at: usize, sums: &mut [f32]) {
        let (scale, shift) = self.factors(c);
        let residual = self.residual.map(|r| &r[at..at + sums.len()]);
        finish(sums, scale, shift, residual, self.relu);
    }

    /// [`Epilogue::finish`] from `sums` to the output, in one pass.
    pub fn write(&self, c: usize, at: usize, sums: &[f32], to: &mut [MaybeUninit<f32>]) {
        assert_eq!(sums.len(), to.len());
        let (scale, shift) = self.factors(c);
        let residual = self.residual.map(|r| &r[at..at + sums.len()]);
        match (residual, self.relu) {
            _ if self.is_identity() => each1(to, sums, &|v| v),
            (None, false) => each1(to, sums, &|v| scale * v + shift),
            (None, true) => each1(to, sums, &|v| relu(scale * v + shift)),
            (Some(r), false) => each2(to, sums, r, &|v, r| scale * v + shift + r),
            (Some(r), true) => each2(to, sums, r, &|v, r| relu(scale * v + shift + r)),
        }
    }

    /// What channel `c` is multiplied by and what is added to it.
    fn factors(&self, c: usize) -> (f32, f32) {
        let (scale, shift) = self.affine.map_or((1.0, 0.0), |(scale, shift)| (scale[c], shift[c]));
        (scale, self.bias.map_or(shift, |b| shift + b[c]))
    }
}

wide! {
    fn finish(sums: &mut [f32], scale: f32, shift: f32, residual: Option<&[f32]>, clip: bool) {
        match (residual, clip) {
            (None, false) => sums.iter_mut().for_each(|v| *v = scale * *v + shift),
            (None, true) => sums.iter_mut().for_each(|v| *v = relu(scale * *v + shift)),
            (Some(r), false) => sums.iter_mut().zip(r).for_each(|(v, r)| *v = scale * *v + shift + r),
            (Some(r), true) => sums.iter_mut().zip(r).for_each(|(v, r)| *v = relu(scale * *v + shift + r)),
        }
    }
}

/// max(v, 0), but NaN stays NaN: an overflow must show in the loss.
#[inline(always)]
pub(crate) fn relu(v: f32) -> f32 {
    if v < 0.0 { 0.0 } else { v }
}

/// The gradient through a ReLU by its output; 0 at 0, as in PyTorch.
#[inline(always)]
pub(crate) fn relu_gradient(output: f32, gradient: f32) -> f32 {
    if output <= 0.0 { 0.0 } else { gradient }
}

/// What of the epilogue's gradients is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// The gradient of the sums (for input or weights).
    pub sums: bool,
    /// The gradient of a residual.
    pub residual: bool,
    /// The gradient of a bias.
    pub bias: bool,
}

/// The epilogue's gradients. `None` for the sums or the residual means: the output's gradient as it came.
pub(crate) struct Gradients {
    pub sums: Option<Vec<f32>>,
    pub residual: Option<Vec<f32>>,
    pub bias: Option<Vec<f32>>,
}

/// One pass over the output's gradient `g`; `output` is the finished output where a ReLU ended it, for its mask.
pub(crate) fn backward(
    geometry: &Geometry,
    output: Option<&[f32]>,
    scale: Option<&[f32]>,
    g: &[f32],
    wanted: Wanted,
) -> Gradients {
    let (pixels, channels) = (geometry.pixels_out(), geometry.c_out);
    assert!(output.is_none_or(|output| output.len() == g.len()), "conv2d: a gradient of another size than its output");
    let plane = pixels.max(1);
    let residual = output.filter(|_| wanted.residual).map(|output| {
        // SAFETY: the output is as long as its gradient, so each piece is written.
        unsafe { parallel::fill(g.len(), plane, |at, out| each2(out, &output[at..], &g[at..], &relu_gradient)) }
    });
    let sums = (wanted.sums && (output.is_some() || scale.is_some())).then(|| {
        // SAFETY: all operands are as long as the output's gradient, so each branch writes the piece.
        unsafe {
            parallel::fill(g.len(), plane, |at, out| {
                let scale = scale.map_or(1.0, |s| s[at / plane % channels]);
                match (&residual, output) {
                    (Some(masked), _) => each1(out, &masked[at..], &|g| scale * g),
                    (None, Some(output)) => each2(out, &output[at..], &g[at..], &|y, g| scale * relu_gradient(y, g)),
                    (None, None) => each1(out, &g[at..], &|g| scale * g),
                }
            })
        }
    });
    let bias = wanted.bias.then(|| {
        parallel::map(channels, g.len(), |c| {
            let plane_sum = |b: usize| -> f64 {
                let at = (b * channels + c) * pixels;
                let g = &g[at..at + pixels];
                match output {
                    Some(output) => sum2(&output[at..at + pixels], g, relu_gradient),
                    None => sum1(g, |g| g),
                }
            };
            (0..geometry.batch).map(plane_sum).sum::<f64>() as f32
        })
    });
    Gradients { sums, residual, bias }
}
