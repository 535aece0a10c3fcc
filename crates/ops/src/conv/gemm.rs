//! Convolution and its gradients as matrix products over tiles of patches.

use crate::matmul::{DEPTH, Mat, PANEL, Packed, Sum, gemm_panel, strip, transpose, transposed};
use crate::parallel::{self, Shared, scratch};

use super::epilogue::Epilogue;
use super::geometry::Geometry;
use super::im2col::{col2im, im2col, sorted, unsort};

/// Multiply-adds that make a task worth a thread's attention.
const TASK: usize = 1 << 21;

/// Output pixels of one tile of the weight gradient.
const TILE: usize = 384;

/// Rows of the patch matrix that one task of the weight gradient takes.
const ROWS: usize = 192;

/// `act(scale * conv(x, w) + shift + addend)`, [B, C_out, H_out, W_out].
pub(crate) fn forward(g: &Geometry, x: &[f32], w: &[f32], epilogue: &Epilogue<'_>) -> Vec<f32> {
    let [x_len, y_len, w_len] = g.elements();
    assert!(x.len() == x_len && w.len() == w_len, "conv2d: operands of other sizes than their geometry");
    let g = &g.flattened();
    let x = &*sorted(g, x);
    let (pixels, depth, c_out) = (g.pixels_out(), g.depth(), g.c_out_group());
    let weights: Vec<_> =
        w.chunks_exact(c_out * depth).map(|w| Packed::new([c_out, depth], Mat::row_major(w, depth))).collect();
    let panels = pixels.div_ceil(PANEL);
    // Panels of a task: enough work, and, where the depth has many stretches, enough use of each stretch's weights.
    let together = if depth > DEPTH { (g.batch * panels / 16).clamp(1, 4) } else { 1 };
    let together = together.max((TASK / (PANEL * depth * c_out)).clamp(1, 8));
    // As many for each of two threads. Where the panels are cut touches no sum.
    let tiles = panels.div_ceil(together);
    let tiles = if tiles > 1 { tiles.next_multiple_of(2).min(panels) } else { tiles };
    // Small maps have few tiles: then the output channels are cut as well, and the patches gathered once a block.
    let blocks = if g.batch * g.groups * tiles < 8 { (c_out / 64).clamp(1, 4) } else { 1 };
    let block = c_out.div_ceil(blocks).next_multiple_of(strip());
    let task = |task: usize, y: Shared<'_>| {
        let (block_at, rest) = (task % blocks * block, task / blocks);
        let (tile, rest) = (rest % tiles, rest / tiles);
        let (group, image) = (rest % g.groups, rest / g.groups);
        let channels = block.min(c_out.saturating_sub(block_at));
        if channels == 0 {
            return;
        }
        let from_channel = group * c_out + block_at;
        let planes = &x[(image * g.c_in + group * g.c_in_group()) * g.pixels_in()..];
        let panels = tile * panels / tiles..(tile + 1) * panels / tiles;
        let place = |panel: usize| {
            let from = panel * PANEL;
            (from, PANEL.min(pixels - from), (image * g.c_out + from_channel) * pixels + from)
        };
        scratch(depth.min(DEPTH) * PANEL, |cols| {
            for first in (0..depth).step_by(DEPTH) {
                let rows = first..depth.min(first + DEPTH);
                let weights = weights[group].strips().at(block_at, first);
                for (from, n, at) in panels.clone().map(place) {
                    im2col(g, planes, rows.clone(), from, n, cols, PANEL);
                    let sum = if first > 0 { Sum::Added } else { Sum::New };
                    // SAFETY: this task alone writes these channels of these pixels, which lie in the output, and adds to them only
                    // after the first stretch has written them.
                    unsafe { weights.multiply([channels, n, rows.len()], y.ptr(at), pixels, sum, cols) };
                }
            }
        });
        if !epilogue.is_identity() {
            for (_, n, at) in panels.map(place) {
                for (c, at) in (0..channels).map(|c| (from_channel + c, at + c * pixels)) {
                    // SAFETY: this task alone has these pixels, and its products above have written them.
                    epilogue.finish(c, at, unsafe { y.slice(at, n) });
                }
            }
        }
    };
    // SAFETY: the tasks' images, groups, tiles of panels and blocks of channels cover the output, and each writes its own part.
    unsafe {
        parallel::build(y_len, |y| parallel::for_each(g.batch * g.groups * tiles * blocks, g.work(), |t| task(t, y)))
    }
}

/// The gradient of the input by the gradient `dy` of the sums.
pub(crate) fn input_gradient(g: &Geometry, dy: &[f32], w: &[f32]) -> Vec<f32> {
    if g.stride == 1 {
        forward(&g.adjoint(), dy, &turned(g, w), &Epilogue::default())
    } else {
        scattered_input_gradient(g, dy, w)
    }
}

/// The weights of the adjoint convolution: [groups * C_in / groups, C_out / groups, kh, kw], kernels turned.
fn turned(g: &Geometry, w: &[f32]) -> Vec<f32> {
    let (taps, c_in, c_out) = (g.taps(), g.c_in_group(), g.c_out_group());
    // SAFETY: a piece is one input channel's kernels; each of its kernels has as many taps as its source, so all are written.
    unsafe {
        parallel::fill(w.len(), c_out * taps, |at, out| {
            let channel = at / (c_out * taps);
            let (group, i) = (channel / c_in, channel % c_in);
            for (o, kernel) in out.chunks_mut(taps).enumerate() {
                let source = &w[((group * c_out + o) * c_in + i) * taps..][..taps];
                kernel.iter_mut().zip(source.iter().rev()).for_each(|(k, &v)| _ = k.write(v));
            }
        })
    }
}

/// With a stride: patches' gradients W^T dY for a block of input channels, added into these channels' planes.
fn scattered_input_gradient(g: &Geometry, dy: &[f32], w: &[f32]) -> Vec<f32> {
    let (pixels, taps, plane) = (g.pixels_out(), g.taps(), g.pixels_in());
    let (c_in, c_out, depth) = (g.c_in_group(), g.c_out_group(), g.depth());
    let mut dx = parallel::zeros(g.elements()[0]);
    // Blocks of whole strips of rows, as even as can be.
    let unit = (1..=strip()).find(|unit| (unit * taps).is_multiple_of(strip())).unwrap_or(strip());
    let units = c_in.div_ceil(unit);
    let blocks = units.min(c_in.div_ceil((ROWS / taps).max(1)).next_multiple_of(2));
    // Weights with the input's side first, group by group: [depth, C_out / groups].
    let weights: Vec<_> =
        w.chunks_exact(c_out * depth).map(|w| Packed::new([depth, c_out], Mat::transposed(w, depth))).collect();
    let shared = Shared::new(&mut dx);
    parallel::for_each(g.batch * g.groups * blocks, g.work(), |task| {
        let (block, rest) = (task % blocks, task / blocks);
        let (group, image) = (rest % g.groups, rest / g.groups);
        let [first, end] = [block, block + 1].map(|block| c_in.min(block * units / blocks * unit));
        let channels = end - first;
        // SAFETY: dx is initialised, and this task alone has these planes: blocks of channels do not overlap.
        let planes = unsafe { shared.slice((image * g.c_in + group * c_in + first) * plane, channels * plane) };
        let rows = channels * taps;
        let weights = weights[group].strips().at(first * taps, 0);
        let gradient = &dy[(image * g.c_out + group * c_out) * pixels..];
        scratch((rows + c_out) * PANEL, |buffer| {
            let (cols, panel) = buffer.split_at_mut(rows * PANEL);
            for from in (0..pixels).step_by(PANEL) {
                let n = PANEL.min(pixels - from);
                for (c, row) in panel.chunks_mut(PANEL).enumerate() {
                    row[..n].copy_from_slice(&gradient[c * pixels + from..][..n]);
                }
                // SAFETY: `cols` has room for these rows of PANEL values, and is this task's.
                unsafe { weights.multiply([rows, n, c_out], cols.as_mut_ptr(), PANEL, Sum::New, panel) };
                col2im(g, cols, PANEL, channels, from, n, planes);
            }
            unsort(g, planes);
        });
    });
    dx
}

/// The gradient of the weights by the gradient `dy` of the sums, [C_out, C_in / groups, kh, kw].
///
/// The sum runs over the pixels of all images, cut into fixed tiles that go on from one image to the next.
pub(crate) fn weight_gradient(g: &Geometry, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let g = &g.flattened();
    let x = &*sorted(g, x);
    let (depth, c_out) = (g.depth(), g.c_out_group());
    let mut dw = Vec::with_capacity(g.c_out * depth);
    for group in 0..g.groups {
        let pass = WeightPass { g, x, dy, group };
        if g.taps() == 1 && depth < c_out {
            // [C_out, C_in] at once: the input is the side with fewer rows to turn.
            dw.extend(pass.run(Side::Patches, Side::Output));
        } else {
            let turned = pass.run(Side::Output, Side::Patches);
            dw.extend(if c_out == 1 { turned } else { transposed(&turned, depth, c_out) });
        }
    }
    dw
}

/// One of the two operands of the weight gradient.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    /// The patches of the input: a row a (channel, tap).
    Patches,
    /// The output's gradient: a row a channel.
    Output,
}

struct WeightPass<'a> {
    g: &'a Geometry,
    x: &'a [f32],
    dy: &'a [f32],
    group: usize,
}

impl WeightPass<'_> {
    fn rows(&self, side: Side) -> usize {
        match side {
            Side::Patches => self.g.depth(),
            Side::Output => self.g.c_out_group(),
        }
    }

    /// The pixels `from..from + n` (counted through all images) of `rows` of a side, rows `ld` apart.
    fn gather(&self, side: Side, rows: std::ops::Range<usize>, from: usize, n: usize, dst: &mut [f32], ld: usize) {
        let (g, pixels) = (self.g, self.g.pixels_out());
        let mut done = 0;
        while done < n {
            let (image, pixel) = ((from + done) / pixels, (from + done) % pixels);
            let part = (n - done).min(pixels - pixel);
            match side {
                Side::Patches => {
                    let planes = &self.x[(image * g.c_in + self.group * g.c_in_group()) * g.pixels_in()..];
                    im2col(g, planes, rows.clone(), pixel, part, &mut dst[done..], ld);
                }
                Side::Output => {
                    let planes = &self.dy[(image * g.c_out + self.group * g.c_out_group()) * pixels..];
                    for (i, row) in rows.clone().enumerate() {
                        dst[i * ld + done..][..part].copy_from_slice(&planes[row * pixels + pixel..][..part]);
                    }
                }
            }
            done += part;
        }
    }

    /// The same pixels of `rows` of a side where they lie, if they lie in one image and are no patches to be gathered.
    fn in_place(&self, side: Side, rows: &std::ops::Range<usize>, from: usize, n: usize) -> Option<Mat<'_>> {
        let (g, pixels) = (self.g, self.g.pixels_out());
        let (image, pixel) = (from / pixels, from % pixels);
        let (planes, first) = match side {
            Side::Patches => (self.x, image * g.c_in + self.group * g.c_in_group()),
            Side::Output => (self.dy, image * g.c_out + self.group * g.c_out_group()),
        };
        let as_they_are = side == Side::Output || g.pointwise();
        (as_they_are && pixel + n <= pixels)
            .then(|| Mat::row_major(&planes[(first + rows.start) * pixels + pixel..], pixels))
    }

    /// All pixels of a side, turned, in panels of rows: [rows / PANEL, pixels, PANEL].
    fn turned(&self, side: Side) -> Vec<f32> {
        let (rows, total) = (self.rows(side), self.g.batch * self.g.pixels_out());
        let (panels, tile) = (rows.div_ceil(PANEL), 64);
        let mut out = parallel::zeros(panels * total * PANEL);
        let shared = Shared::new(&mut out);
        parallel::for_each(total.div_ceil(tile), rows * total, |task| {
            let from = task * tile;
            let n = tile.min(total - from);
            scratch(rows * tile, |buffer| {
                self.gather(side, 0..rows, from, n, buffer, tile);
                for panel in 0..panels {
                    let first = panel * PANEL;
                    let dst = shared.ptr((panel * total + from) * PANEL);
                    // SAFETY: the buffer has `rows` rows of `tile` values, of which n are read; the panel has n rows of PANEL values for
                    // these pixels, which this task alone writes.
                    unsafe { transpose(PANEL.min(rows - first), n, buffer[first * tile..].as_ptr(), tile, dst, PANEL) };
                }
            });
        });
        out
    }

    /// `sum over pixels of b[row, pixel] * a[column, pixel]`: row-major [rows of b, rows of a].
    fn run(&self, a: Side, b: Side) -> Vec<f32> {
        let total = self.g.batch * self.g.pixels_out();
        let (m, n) = (self.rows(b), self.rows(a));
        if total == 0 {
            return vec![0.0; m * n];
        }
        let at = self.turned(a);
        let (blocks, tiles) = (m.div_ceil(ROWS), total.div_ceil(TILE));
        let block = m.div_ceil(blocks);
        // Few rows: the pixels are cut too, into chunks whose sums are added in order afterwards.
        let per_chunk = tiles.div_ceil(16usize.div_ceil(blocks).min(tiles.div_ceil(4)));
        let chunks = tiles.div_ceil(per_chunk);
        let task = |task: usize, sums: Shared<'_>| {
            let (chunk, first) = (task / blocks, task % blocks * block);
            let rows = block.min(m.saturating_sub(first));
            scratch(rows * TILE, |buffer| {
                for tile in chunk * per_chunk..tiles.min((chunk + 1) * per_chunk) {
                    let sum = if tile == chunk * per_chunk { Sum::New } else { Sum::Added };
                    let from = tile * TILE;
                    let width = TILE.min(total - from);
                    let range = first..first + rows;
                    let left = self.in_place(b, &range, from, width).unwrap_or_else(|| {
                        self.gather(b, range, from, width, buffer, TILE);
                        Mat::row_major(buffer, TILE)
                    });
                    for column in (0..n).step_by(PANEL) {
                        let dst = sums.ptr((chunk * m + first) * n + column);
                        let panel = &at[(column / PANEL * total + from) * PANEL..];
                        let size = [rows, PANEL.min(n - column), width];
                        // SAFETY: this task alone writes these rows of this chunk's sums, which lie in the buffer, and adds to them only
                        // after its first tile has written them.
                        unsafe { gemm_panel(size, dst, n, sum, left, panel) };
                    }
                }
            });
        };
        // SAFETY: the tasks cover the rows of all chunks, and each chunk has a tile, whose products write all columns of a row.
        let mut sums = unsafe {
            parallel::build(chunks * m * n, |sums| {
                parallel::for_each(blocks * chunks, total * m * n, |at| task(at, sums));
            })
        };
        let (first, others) = sums.split_at_mut(m * n);
        for other in others.chunks(m * n) {
            first.iter_mut().zip(other).for_each(|(a, b)| *a += b);
        }
        sums.truncate(m * n);
        sums
    }
}
