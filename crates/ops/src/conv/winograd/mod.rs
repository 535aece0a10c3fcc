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
//! so that each of the 36 points is a matrix product [tiles, C_in] x [C_in, C_out]. A. Lavin, S. Gray, *Fast Algorithms
//! for Convolutional Neural Networks*, arXiv 1509.09308.
//!
//! The gradients come from the same formula. That of the input is the same convolution with turned kernels. That of the
//! kernel is its adjoint: `dw = G^T [ sum over tiles of (A dy A^T) * (B^T d B) ] G`, products [C_out, tiles] x
//! [tiles, C_in]. No approximation enters; of finite values only rounding differs from the direct sum's (docs/benchmarks.md has the figures,
//! `tests::error_is_bounded` the bound). A value that is infinite or no number spoils all 4 x 4 outputs of its tiles.
//!
//! A point's sum runs in one order, however the work is cut, so that any number of threads gives the same bits:
//! - many tiles: the kernels first; then a task takes some tiles through all three stages, in buffers that stay in its cache;
//! - few: the inputs of all tiles first; then a task takes a panel of output channels, whose kernels only it needs.
//!
//! Channels lie side by side all the way ([`feature_maps`]): a tile is a row of the left operand, an output channel a column of the right.

mod feature_maps;
mod kernels;
mod tiling;
mod transform;
mod weights;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::matmul::{DEPTH, Mat, PANEL, Sum, gemm_panel, strip};
use crate::parallel::{self, Shared, scratch};

use super::epilogue::Epilogue;
use super::geometry::Geometry;
use feature_maps::{Maps, Place};
use kernels::{Kernels, of_panels};
use tiling::Tiling;
use transform::{LANES, LINE, POINTS};

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
    let maps = Maps { values: x, channels: g.c_in, size: [g.h, g.w], pad: [g.pad_h, g.pad_w] };
    let tiling = Tiling::new(g.batch, [g.h_out, g.w_out]);
    let pass = Pass { g, maps, epilogue, tiling };
    // SAFETY: the tasks' tiles, or their output channels, cover the output and do not overlap.
    unsafe {
        parallel::build(y_len, |y| {
            if tiling.tiles() < MANY {
                pass.by_channels(kernels, y);
            } else {
                pass.by_tiles(&kernels.panels(), y);
            }
        })
    }
}

/// Tiles from which on they are cut among the tasks, and not the output channels.
const MANY: usize = if cfg!(miri) { 8 } else { 288 };

/// Input channels whose kernels a task transforms at once, if the tiles are few: their points stay in its cache. A divisor of [`DEPTH`],
/// and all of it where no kernel of ours goes on with a sum.
fn step() -> usize {
    if strip() == 1 { DEPTH } else { 64 }
}

/// Rows of a product of so many tiles. Without a kernel of ours an even number, since the gemm crate sums a single row, which is then a
/// product with a vector, in another order than the rows of a block: an image's bits would depend on its batch.
fn rows(tiles: usize) -> usize {
    if strip() == 1 { tiles.next_multiple_of(2) } else { tiles }
}

struct Pass<'a> {
    g: &'a Geometry,
    maps: Maps<'a>,
    epilogue: &'a Epilogue<'a>,
    tiling: Tiling,
}

impl Pass<'_> {
    /// Many tiles: a task takes at most a panel of them through all stages. Their number is even, or nearly.
    fn by_tiles(&self, kernels: &[f32], y: Shared<'_>) {
        let (g, of_kernels) = (self.g, of_panels([self.g.c_out, self.g.c_in]));
        let all = self.tiling.tiles();
        let some = all.div_ceil(2 * all.div_ceil(2 * PANEL)).next_multiple_of(8);
        let (of_inputs, of_products) = (self.of_inputs(some), some * PANEL + LINE);
        parallel::for_each(all.div_ceil(some), g.work(), |task| {
            let tiles = task * some..all.min((task + 1) * some);
            scratch(POINTS * (of_inputs + of_products), |buffer| {
                let (inputs, products) = buffer.split_at_mut(POINTS * of_inputs);
                let place = self.place(inputs, of_inputs);
                for first in (0..g.c_in).step_by(LANES) {
                    // SAFETY: the buffer is this task's, with room for `some` tiles of all channels.
                    unsafe { self.maps.inputs(self.tiling, tiles.clone(), first, place, 0) };
                }
                for first in (0..g.c_out).step_by(PANEL) {
                    let channels = first..g.c_out.min(first + PANEL);
                    let right = &kernels[first * g.c_in..];
                    self.multiply(
                        [tiles.len(), channels.len()],
                        0..g.c_in,
                        inputs,
                        (right, of_kernels),
                        products,
                        Sum::New,
                    );
                    self.outputs(tiles.clone(), channels, products, y);
                }
            });
        });
    }

    /// Few tiles: all inputs first; then a task takes a panel of output channels through the rest, or a part of one, so that all
    /// threads have some.
    fn by_channels(&self, kernels: Kernels<'_>, y: Shared<'_>) {
        let (g, tiles) = (self.g, self.tiling.tiles());
        let of_inputs = self.of_inputs(tiles);
        let (of_points, of_products) = (step() * PANEL + LINE, rows(tiles) * PANEL + LINE);
        // An even number of tasks, of nearly as many channels each. A cut through the channels or the tiles touches no sum, so it may
        // follow the threads.
        let vectors = g.c_out.div_ceil(LANES);
        let tasks = (2 * g.c_out.div_ceil(2 * PANEL)).max(rayon::current_num_threads()).min(vectors);
        // The sums of a stretch, which are added to those of the stretches before.
        let more = if g.c_in > DEPTH { POINTS * of_products } else { 0 };
        scratch(POINTS * of_inputs, |inputs| {
            let (place, blocks) = (self.place(inputs, of_inputs), g.c_in.div_ceil(LANES));
            parallel::for_each(self.tiling.panels() * blocks, g.work(), |task| {
                let (panel, first) = (task / blocks, task % blocks * LANES);
                // SAFETY: the buffer has room for all tiles and channels; this task alone writes these channels of these tiles.
                unsafe { self.maps.inputs(self.tiling, self.tiling.panel(panel), first, place, panel * PANEL) };
            });
            parallel::for_each(tasks, g.work(), |task| {
                let [from, end] = [task, task + 1].map(|task| g.c_out.min(task * vectors / tasks * LANES));
                let channels = from..end;
                let size = [tiles, channels.len()];
                scratch(POINTS * (of_points + of_products) + more, |buffer| {
                    let (points, buffer) = buffer.split_at_mut(POINTS * of_points);
                    let (products, more) = buffer.split_at_mut(POINTS * of_products);
                    for first in (0..g.c_in).step_by(step()) {
                        let inputs_of = first..g.c_in.min(first + step());
                        // SAFETY: the buffer is this task's: for each point `step()` rows of PANEL values and a line.
                        unsafe { kernels.panel(channels.clone(), inputs_of.clone(), points.as_mut_ptr(), of_points) };
                        let to = if first < DEPTH { &mut *products } else { &mut *more };
                        let sum = if first.is_multiple_of(DEPTH) { Sum::New } else { Sum::Continued };
                        self.multiply(size, inputs_of.clone(), inputs, (points, of_points), to, sum);
                        if first >= DEPTH && (inputs_of.end.is_multiple_of(DEPTH) || inputs_of.end == g.c_in) {
                            products.iter_mut().zip(&*more).for_each(|(sum, stretch)| *sum += stretch);
                        }
                    }
                    self.outputs(0..tiles, channels, products, y);
                });
            });
        });
    }

    /// Inputs of a point: [tiles, C_in].
    fn of_inputs(&self, tiles: usize) -> usize {
        rows(tiles) * self.maps.channels.next_multiple_of(LANES) + LINE
    }

    /// Where the inputs go.
    fn place<'a>(&self, inputs: &'a mut [f32], of_point: usize) -> Place<'a> {
        let width = self.maps.channels.next_multiple_of(LANES);
        Place { to: Shared::new(inputs), of_point, depth: of_point / width, width }
    }

    /// Multiplies at each point some channels of all tiles' inputs by `n` output channels' kernels, a panel and the distance of points.
    fn multiply(
        &self,
        [tiles, n]: [usize; 2],
        channels: Range<usize>,
        inputs: &[f32],
        (kernels, of_kernels): (&[f32], usize),
        products: &mut [f32],
        sum: Sum,
    ) {
        let width = self.maps.channels.next_multiple_of(LANES);
        let (of_inputs, of_products) = (inputs.len() / POINTS, products.len() / POINTS);
        let size = [rows(tiles), n, channels.len()];
        for point in 0..POINTS {
            let left = Mat::row_major(&inputs[point * of_inputs + channels.start..], width);
            let to = products[point * of_products..][..rows(tiles) * PANEL].as_mut_ptr();
            // SAFETY: as many rows of PANEL values lie there, initialised, and the caller alone has them.
            unsafe { gemm_panel(size, to, PANEL, sum, left, &kernels[point * of_kernels..]) };
        }
    }

    /// Transforms the products of some tiles, `channels` of each, and finishes what comes of them.
    fn outputs(&self, tiles: Range<usize>, channels: Range<usize>, products: &[f32], y: Shared<'_>) {
        let of_point = products.len() / POINTS;
        for first in channels.clone().step_by(LANES) {
            let n = LANES.min(channels.end - first);
            for run in self.tiling.runs(tiles.clone()) {
                let products = &products[run.at * PANEL + first - channels.start..];
                feature_maps::outputs(products, of_point, run.tiles, n, |c, r, line| {
                    let [rows, width] = self.tiling.inside(&run);
                    if r < rows {
                        let channel = first + c;
                        let at =
                            ((run.image * self.g.c_out + channel) * self.g.h_out + run.y + r) * self.g.w_out + run.x;
                        // SAFETY: this task alone has these pixels: of its tiles or of its channels.
                        let to = unsafe { y.room(at, width) };
                        self.epilogue.write(channel, at, &line[..width], to);
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
