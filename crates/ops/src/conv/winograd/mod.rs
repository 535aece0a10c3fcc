//! Winograd's algorithm F(4x4, 3x3) for convolutions of 3x3 with stride 1: a quarter of the multiplications.
//!
//! A tile of 4x4 outputs reads 6x6 inputs. Seen as polynomials along each axis, outputs are (a part of) the product of
//! inputs and kernel, and a product of polynomials is a product of values at enough points: six points a side, 36 a tile,
//! instead of 9 * 16 = 144 multiplications. With `G`, `B`, `A` the matrices that go to the points and back,
//!
//! ```text
//! y = A^T [ (G w G^T) * (B^T d B) ] A        * by element; sums over input channels are taken at the points
//! ```
//!
//! so that each of the 36 points is a matrix product [C_out, C_in] x [C_in, tiles]. A. Lavin, S. Gray, *Fast Algorithms
//! for Convolutional Neural Networks*, arXiv 1509.09308.
//!
//! The gradients come from the same formula. That of the input is the same convolution with turned kernels. That of the
//! kernel is its adjoint: `dw = G^T [ sum over tiles of (A dy A^T) * (B^T d B) ] G`, products [C_out, tiles] x
//! [tiles, C_in]. No approximation enters; of finite values only rounding differs from the direct sum's (docs/benchmarks.md has the figures,
//! `tests::error_is_bounded` the bound). A value that is infinite or no number spoils all 4 x 4 outputs of its tiles.
//!
//! Work is cut by shape alone, and a point's sum runs in one order, so that any number of threads gives the same bits:
//! - many tiles: a task takes a panel of them through all three stages, in buffers that stay in its cache;
//! - few: the inputs of all tiles first, cut by channels; then a task takes a block of output channels.

mod kernels;
mod lanes;
mod tiling;
mod transform;
mod weights;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::matmul::{DEPTH, PANEL, Strips, strip};
use crate::parallel::{self, Shared, scratch};

use super::epilogue::Epilogue;
use super::geometry::Geometry;
use kernels::{Kernels, ROWS, of_point};
use tiling::{Tiling, Window};
use transform::{IN, LINE, OUT, POINTS, Panel, cut, input_across, input_down, output};

pub(super) use weights::weight_gradient;

static ENABLED: AtomicBool = AtomicBool::new(true);

/// Allows or forbids Winograd's algorithm in all later convolutions of the process; it is allowed at first.
///
/// It is used for kernels of 3x3 with stride 1 where it is faster, in all three passes. Its results differ from the direct
/// sum's by rounding: up to 2.4e-6 of the largest value, where the direct sum has up to 1.1e-6 (docs/benchmarks.md). Set it once
/// at the start: the bits of a result depend on it.
pub fn set_winograd(allowed: bool) {
    ENABLED.store(allowed, Ordering::Relaxed);
}

/// Fewest channels on either side: below, transforms cost more than they save.
const CHANNELS: usize = 16;

/// Panels from which on each is a task of its own.
const MANY: usize = 6;

/// Output channels whose products a panel's task holds at a time: whole strips of any height, and few enough to stay in its cache
/// beside the inputs.
const OUTPUTS: usize = 48;

/// Columns of a kernel's widest vector; a divisor of [`PANEL`].
const VECTOR: usize = 16;

/// Channels that one task of a stage transforms.
const BLOCK: usize = 16;

/// Whether a convolution (of this geometry, or with it as its forward pass) goes this way.
pub(super) fn applies(g: &Geometry) -> bool {
    let fits = g.kh == 3 && g.kw == 3 && g.stride == 1 && g.dilation == 1 && g.groups == 1;
    if !fits || g.c_in.min(g.c_out) < CHANNELS || !ENABLED.load(Ordering::Relaxed) {
        return false;
    }
    // In multiply-adds: the products, and what the transforms of tiles and kernels cost. By one image, with the kernels'
    // share of a usual batch: so the batch does not decide how its images are computed, nor with which bits.
    let tiles = Tiling::new(1, [g.h_out, g.w_out]).tiles();
    let (products, channels) = (g.c_in * g.c_out, g.c_in + g.c_out);
    let cost = POINTS * (tiles * (products + TILE_COST * channels) + KERNEL_COST * products);
    cost < products * g.taps() * g.pixels_out()
}

/// Whether the weights' gradient goes this way too: its matrices are as wide as the input has channels.
pub(super) fn applies_to_weights(g: &Geometry) -> bool {
    g.c_in.min(g.c_out) >= 2 * CHANNELS && applies(g)
}

/// What transforming a channel of a tile costs, a point.
const TILE_COST: usize = 10;
/// What transforming a kernel costs, a point and an image.
const KERNEL_COST: usize = 3;

/// `act(scale * conv(x, w) + shift + addend)`.
pub(super) fn forward(g: &Geometry, x: &[f32], w: &[f32], epilogue: &Epilogue<'_>) -> Vec<f32> {
    convolve(g, x, Kernels::new(w, g.c_out, g.c_in), epilogue)
}

/// The gradient of the input by the gradient `dy` of the sums.
pub(super) fn input_gradient(g: &Geometry, dy: &[f32], w: &[f32]) -> Vec<f32> {
    convolve(&g.adjoint(), dy, Kernels::new(w, g.c_out, g.c_in).adjoint(), &Epilogue::default())
}

fn convolve(g: &Geometry, x: &[f32], kernels: Kernels<'_>, epilogue: &Epilogue<'_>) -> Vec<f32> {
    let [x_len, y_len, _] = g.elements();
    assert_eq!(x.len(), x_len, "conv2d: an operand of another size than its geometry");
    let outputs = Tiling::new(g.batch, [g.h_out, g.w_out]);
    let pass = Pass { g, x, epilogue, outputs };
    // SAFETY: the panels' tiles, or the blocks of channels, cover the output.
    unsafe {
        parallel::build(y_len, |y| {
            if outputs.panels() < MANY {
                pass.by_channels(kernels, y);
            } else {
                pass.by_panels(&kernels.points(), y);
            }
        })
    }
}

/// Calls `f` for each panel and each block of channels, on all threads.
fn each_block(panels: usize, channels: usize, work: usize, f: impl Fn(usize, Range<usize>) + Sync + Send) {
    let blocks = channels.div_ceil(BLOCK);
    parallel::for_each(panels * blocks, work, |task| {
        let first = task % blocks * BLOCK;
        f(task / blocks, first..channels.min(first + BLOCK));
    });
}

/// Output channels of a task, if the tiles are few: whole strips, so few that the tasks keep all threads busy to the end.
fn rows_of_task(c_out: usize) -> usize {
    // Without a kernel of ours: the gemm crate sums a single row in another order than the rows of a block.
    if strip() == 1 {
        return ROWS;
    }
    (c_out.div_ceil(strip()) / 16).clamp(1, ROWS / strip()) * strip()
}

/// From a point's panel of `channels` rows to the next's. The odd line keeps the 36 of them out of one set of the cache.
fn stride(channels: usize) -> usize {
    channels * PANEL + 16
}

/// Transforms `channels` of the inputs of a panel and hands each to `f`.
fn inputs(
    g: &Geometry,
    x: &[f32],
    tiling: &Tiling,
    panel: usize,
    channels: Range<usize>,
    mut f: impl FnMut(usize, &Panel),
) {
    let mut lines = [0.0; IN * LINE];
    let (mut tiles, mut points) = ([0.0; POINTS * PANEL], [0.0; POINTS * PANEL]);
    for c in channels {
        for run in tiling.runs(panel) {
            let plane = &x[(run.image * g.c_in + c) * g.pixels_in()..][..g.pixels_in()];
            let (y, x) = (run.y as isize - g.pad_h, run.x as isize - g.pad_w);
            let width = run.tiles * OUT + IN - OUT;
            let window = Window::new(plane, [g.h, g.w], [y, x], width);
            window.clear_outside(width, &mut lines);
            input_down(window.rows, &mut lines, window.left);
            cut(&lines, run.tiles, run.at, &mut tiles);
        }
        input_across(&tiles, &mut points);
        f(c, &points);
    }
}

struct Pass<'a> {
    g: &'a Geometry,
    x: &'a [f32],
    epilogue: &'a Epilogue<'a>,
    outputs: Tiling,
}

impl Pass<'_> {
    /// Many tiles: a task takes a panel through all stages.
    fn by_panels(&self, kernels: &[f32], y: Shared<'_>) {
        let g = self.g;
        let of_inputs = POINTS * stride(g.c_in);
        parallel::for_each(self.outputs.panels(), g.work(), |panel| {
            scratch(of_inputs + POINTS * stride(OUTPUTS.min(g.c_out)), |buffer| {
                let (inputs, products) = buffer.split_at_mut(of_inputs);
                self.inputs(panel, 0..g.c_in, Shared::new(inputs), 0);
                for first in (0..g.c_out).step_by(OUTPUTS) {
                    let channels = first..g.c_out.min(first + OUTPUTS);
                    let of_point = of_point([g.c_out, g.c_in]);
                    let kernels = |point| Strips::new(&kernels[point * of_point..], g.c_in).at(first, 0);
                    self.multiply(panel, [channels.len(), 0, g.c_in], inputs, kernels, products);
                    self.outputs(panel, channels, products, y);
                }
            });
        });
    }

    /// Few tiles: all inputs first; then a task takes a block of output channels through the rest. Its kernels' points
    /// stay in its cache, where those of all channels can be more than fits into any.
    fn by_channels(&self, kernels: Kernels<'_>, y: Shared<'_>) {
        let (g, panels) = (self.g, self.outputs.panels());
        let of_inputs = POINTS * stride(g.c_in);
        scratch(panels * of_inputs, |inputs| {
            let to = Shared::new(inputs);
            each_block(panels, g.c_in, g.work(), |panel, channels| {
                self.inputs(panel, channels, to, panel * of_inputs);
            });
            let rows = rows_of_task(g.c_out);
            parallel::for_each(g.c_out.div_ceil(rows), g.work(), |task| {
                let channels = task * rows..g.c_out.min((task + 1) * rows);
                let n = channels.len();
                let of_points = POINTS * of_point([n, g.c_in.min(DEPTH)]);
                scratch(of_points + panels * POINTS * stride(n), |buffer| {
                    let (points, products) = buffer.split_at_mut(of_points);
                    for first in (0..g.c_in).step_by(DEPTH) {
                        let cols = first..g.c_in.min(first + DEPTH);
                        let size = [n, first, cols.len()];
                        // SAFETY: the strips lie in this task's buffer.
                        unsafe {
                            kernels.points_of(channels.clone(), cols, points.as_mut_ptr(), of_point([n, size[2]]));
                        }
                        let of_panels =
                            inputs.chunks_exact(of_inputs).zip(products.chunks_exact_mut(POINTS * stride(n)));
                        for (panel, (inputs, products)) in of_panels.enumerate() {
                            let kernels = |point| Strips::new(&points[point * of_point([n, size[2]])..], size[2]);
                            self.multiply(panel, size, inputs, kernels, products);
                        }
                    }
                    for (panel, products) in products.chunks_exact(POINTS * stride(n)).enumerate() {
                        self.outputs(panel, channels.clone(), products, y);
                    }
                });
            });
        });
    }

    /// Transforms `channels` of the inputs of a panel, to `to` from element `base` on.
    fn inputs(&self, panel: usize, channels: Range<usize>, to: Shared<'_>, base: usize) {
        let stride = stride(self.g.c_in);
        inputs(self.g, self.x, &self.outputs, panel, channels, |c, points| {
            for (point, row) in points.chunks_exact(PANEL).enumerate() {
                let at = to.ptr(base + point * stride + c * PANEL);
                // SAFETY: this task alone writes this channel of this panel.
                unsafe { at.copy_from_nonoverlapping(row.as_ptr(), PANEL) };
            }
        });
    }

    /// Multiplies a panel's inputs, `depth` channels from `first` on, by `n` output channels' kernels at each point; from the
    /// second stretch of channels on the products are added.
    fn multiply<'a>(
        &self,
        panel: usize,
        [n, first, depth]: [usize; 3],
        inputs: &[f32],
        kernels: impl Fn(usize) -> Strips<'a>,
        products: &mut [f32],
    ) {
        // Whole vectors: what lies beyond the tiles is computed and not read. (A single column would be a product with a vector, which
        // the gemm crate sums in another order than the tile's neighbours.)
        let size = [n, self.outputs.len(panel).next_multiple_of(VECTOR), depth];
        for point in 0..POINTS {
            let to = products[point * stride(n)..][..n * PANEL].as_mut_ptr();
            let inputs = &inputs[point * stride(self.g.c_in) + first * PANEL..];
            // SAFETY: n rows of PANEL values lie there, written by the first stretch.
            unsafe { kernels(point).multiply(size, to, PANEL, first > 0, inputs) };
        }
    }

    /// Transforms the products of `channels` of a panel and finishes what comes of them.
    fn outputs(&self, panel: usize, channels: Range<usize>, products: &[f32], y: Shared<'_>) {
        let stride = stride(channels.len());
        let mut lines = [0.0; OUT * LINE];
        for (i, c) in channels.enumerate() {
            output(&products[i * PANEL..], stride, &mut lines);
            for run in self.outputs.runs(panel) {
                let [rows, width] = self.outputs.inside(&run);
                let plane = (run.image * self.g.c_out + c) * self.g.pixels_out();
                for (r, line) in lines.chunks_exact(LINE).take(rows).enumerate() {
                    let at = plane + (run.y + r) * self.g.w_out + run.x;
                    // SAFETY: this task alone holds these pixels.
                    let to = unsafe { y.room(at, width) };
                    self.epilogue.write(c, at, &line[run.at * OUT..][..width], to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
