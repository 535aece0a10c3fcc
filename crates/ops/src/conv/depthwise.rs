//! Convolution with one input channel a group: direct loops over rows, since there is nothing to multiply matrices for.

use crate::parallel::{self, Shared};

use super::epilogue::Epilogue;
use super::geometry::{Geometry, inside};

/// One tap's row of outputs and the inputs it reads.
struct Reach {
    /// First output element (in its plane) and how many.
    out: usize,
    len: usize,
    /// First input element (in its plane); the next ones follow at the stride.
    source: usize,
}

/// Calls `f` for each output row that tap (ky, kx) reaches inside the image.
fn rows(g: &Geometry, ky: usize, kx: usize, mut f: impl FnMut(Reach)) {
    let run = inside(0, g.w_out, g.stride, kx * g.dilation, g.pad_w, g.w);
    if run.lo == run.hi {
        return;
    }
    let left = (run.lo * g.stride + kx * g.dilation) as isize - g.pad_w;
    let down = inside(0, g.h_out, g.stride, ky * g.dilation, g.pad_h, g.h);
    for row in down.lo..down.hi {
        let y = (row * g.stride + ky * g.dilation) as isize - g.pad_h;
        f(Reach { out: row * g.w_out + run.lo, len: run.hi - run.lo, source: y as usize * g.w + left as usize });
    }
}

/// As the general forward pass.
pub(crate) fn forward(g: &Geometry, x: &[f32], w: &[f32], epilogue: &Epilogue<'_>) -> Vec<f32> {
    let (plane_in, plane, taps, each) = (g.pixels_in(), g.pixels_out(), g.taps(), g.c_out_group());
    let mut y = vec![0.0; g.elements()[1]];
    let shared = Shared::new(&mut y);
    parallel::for_each(g.batch * g.c_out, g.work(), |task| {
        let (image, c) = (task / g.c_out, task % g.c_out);
        let source = &x[(image * g.c_in + c / each) * plane_in..][..plane_in];
        // SAFETY: y is initialised, and this task alone has this plane.
        let out = unsafe { shared.slice(task * plane, plane) };
        for tap in 0..taps {
            let weight = w[c * taps + tap];
            rows(g, tap / g.kw, tap % g.kw, |r| {
                let out = &mut out[r.out..r.out + r.len];
                if g.stride == 1 {
                    out.iter_mut().zip(&source[r.source..r.source + r.len]).for_each(|(o, v)| *o += weight * v);
                } else {
                    out.iter_mut().zip(source[r.source..].iter().step_by(g.stride)).for_each(|(o, v)| *o += weight * v);
                }
            });
        }
        if !epilogue.is_identity() {
            epilogue.finish(c, task * plane, out);
        }
    });
    y
}

/// As the general input gradient.
pub(crate) fn input_gradient(g: &Geometry, dy: &[f32], w: &[f32]) -> Vec<f32> {
    let (plane_in, plane, taps, each) = (g.pixels_in(), g.pixels_out(), g.taps(), g.c_out_group());
    let mut dx = vec![0.0; g.elements()[0]];
    let shared = Shared::new(&mut dx);
    parallel::for_each(g.batch * g.c_in, g.work(), |task| {
        let (image, channel) = (task / g.c_in, task % g.c_in);
        // SAFETY: dx is initialised, and this task alone has this plane.
        let target = unsafe { shared.slice(task * plane_in, plane_in) };
        for c in channel * each..(channel + 1) * each {
            let dy = &dy[(image * g.c_out + c) * plane..][..plane];
            for tap in 0..taps {
                let weight = w[c * taps + tap];
                rows(g, tap / g.kw, tap % g.kw, |r| {
                    let dy = &dy[r.out..r.out + r.len];
                    target[r.source..].iter_mut().step_by(g.stride).zip(dy).for_each(|(t, v)| *t += weight * v);
                });
            }
        }
    });
    dx
}

/// As the general weight gradient.
pub(crate) fn weight_gradient(g: &Geometry, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let (plane_in, plane, taps, each) = (g.pixels_in(), g.pixels_out(), g.taps(), g.c_out_group());
    let kernels = parallel::map(g.c_out, g.work(), |c| {
        let mut kernel = vec![0.0f64; taps];
        for image in 0..g.batch {
            let source = &x[(image * g.c_in + c / each) * plane_in..][..plane_in];
            let dy = &dy[(image * g.c_out + c) * plane..][..plane];
            for (tap, sum) in kernel.iter_mut().enumerate() {
                rows(g, tap / g.kw, tap % g.kw, |r| {
                    let products = dy[r.out..r.out + r.len].iter().zip(source[r.source..].iter().step_by(g.stride));
                    *sum += f64::from(products.map(|(a, b)| a * b).sum::<f32>());
                });
            }
        }
        kernel
    });
    kernels.into_iter().flatten().map(|v| v as f32).collect()
}
