//! The gradient of the kernels: at each point a matrix product over all tiles.

use std::ops::Range;

use crate::matmul::{Mat, PANEL, Sum, gemm_panel};
use crate::parallel::{self, Shared, scratch};

use super::super::geometry::Geometry;
use super::feature_maps::{Maps, Place};
use super::kernels::{self, TAPS};
use super::tiling::Tiling;
use super::transform::{KERNELS, LANES, LINE, POINTS};

/// Panels whose products are added up in one go, if the tiles are many: the depth of a matrix product.
const TOGETHER: usize = 4;

/// Values of transformed inputs and gradients that are kept at once before tiles count as many.
const FEW: usize = if cfg!(miri) { 112_000 } else { 1 << 22 };

/// Output channels of a block of products: whole vectors of channels.
const ROWS: usize = 2 * LANES;

/// Rows of a block times input channels, if the tiles are few: its sums at all points stay in the second cache.
const BLOCK: usize = 1 << 12;

/// The gradient of the weights by the gradient `dy` of the sums.
pub(in super::super) fn weight_gradient(g: &Geometry, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let [x_len, y_len, w_len] = g.elements();
    assert!(x.len() == x_len && dy.len() == y_len, "conv2d: operands of other sizes than their geometry");
    let tiling = Tiling::new(g.batch, [g.h_out, g.w_out]);
    let panels = tiling.panels();
    let few = POINTS * panels * PANEL * (g.c_in + g.c_out) <= FEW;
    let together = if few { panels } else { TOGETHER };
    let pass = Pass { g, x, dy, tiling, depth: together * PANEL };
    let of_row = g.c_in * TAPS;
    let of_buffer = POINTS * (pass.of_inputs() + pass.of_gradients());
    // SAFETY: the blocks cover the output channels and do not overlap; each writes all kernels of its own channels, after the sums that
    // these come from.
    unsafe {
        parallel::build(w_len, |dw| {
            scratch(of_buffer, |buffer| {
                let (inputs, gradients) = buffer.split_at_mut(POINTS * pass.of_inputs());
                if few {
                    let depth = pass.transform(0, panels, inputs, gradients);
                    let block = (BLOCK / g.c_in / 8 * 8).clamp(8, ROWS);
                    parallel::for_each(g.c_out.div_ceil(block), g.work(), |task| {
                        let rows = task * block..g.c_out.min((task + 1) * block);
                        let of_point = rows.len() * g.c_in;
                        scratch(POINTS * of_point + KERNELS, |sums| {
                            for point in 0..POINTS {
                                let to = sums[point * of_point..][..of_point].as_mut_ptr();
                                pass.multiply(point, rows.clone(), depth, inputs, gradients, to, Sum::New);
                            }
                            for (i, row) in rows.enumerate() {
                                kernels::gradients(&sums[i * g.c_in..], of_point, g.c_in, dw.ptr(row * of_row));
                            }
                        });
                    });
                    return;
                }
                let of_point = g.c_out * g.c_in;
                let mut sums = parallel::zeros(POINTS * of_point + KERNELS);
                for first in (0..panels).step_by(TOGETHER) {
                    let depth = pass.transform(first, TOGETHER.min(panels - first), inputs, gradients);
                    let (inputs, gradients, to) = (&*inputs, &*gradients, Shared::new(&mut sums));
                    let blocks = g.c_out.div_ceil(ROWS);
                    parallel::for_each(POINTS * blocks, g.work(), |task| {
                        let (point, row) = (task / blocks, task % blocks * ROWS);
                        let to = to.ptr(point * of_point + row * g.c_in);
                        let rows = row..g.c_out.min(row + ROWS);
                        pass.multiply(point, rows, depth, inputs, gradients, to, Sum::Added);
                    });
                }
                parallel::for_each(g.c_out, sums.len(), |row| {
                    kernels::gradients(&sums[row * g.c_in..], of_point, g.c_in, dw.ptr(row * of_row));
                });
            });
        })
    }
}

struct Pass<'a> {
    g: &'a Geometry,
    x: &'a [f32],
    dy: &'a [f32],
    tiling: Tiling,
    /// Room for tiles in a buffer of inputs or gradients.
    depth: usize,
}

impl Pass<'_> {
    /// Inputs of a point: [C_in / PANEL, depth, PANEL], and a line that keeps the points out of one set of the cache.
    fn of_inputs(&self) -> usize {
        self.g.c_in.div_ceil(PANEL) * PANEL * self.depth + LINE
    }

    /// Gradients of a point: [C_out / LANES, depth, LANES], and a line.
    fn of_gradients(&self) -> usize {
        self.g.c_out.div_ceil(LANES) * LANES * self.depth + LINE
    }

    /// Transforms all inputs and gradients of some panels and gives the number of their tiles.
    fn transform(&self, first: usize, panels: usize, inputs: &mut [f32], gradients: &mut [f32]) -> usize {
        let g = self.g;
        let x = Maps { values: self.x, channels: g.c_in, size: [g.h, g.w], pad: [g.pad_h, g.pad_w] };
        let dy = Maps { values: self.dy, channels: g.c_out, size: [g.h_out, g.w_out], pad: [0, 0] };
        let place = |to, of_point, width| Place { to, of_point, depth: self.depth, width };
        let inputs = place(Shared::new(inputs), self.of_inputs(), PANEL);
        let gradients = place(Shared::new(gradients), self.of_gradients(), LANES);
        let (of_x, of_dy) = (g.c_in.div_ceil(LANES), g.c_out.div_ceil(LANES));
        parallel::for_each(panels * (of_x + of_dy), g.work(), |task| {
            let (panel, block) = (task / (of_x + of_dy), task % (of_x + of_dy));
            let (tiles, at) = (self.tiling.panel(first + panel), panel * PANEL);
            // SAFETY: the buffers have room for `depth` tiles of all channels; this task alone writes these channels of these tiles.
            unsafe {
                match block.checked_sub(of_x) {
                    None => x.inputs(self.tiling, tiles, block * LANES, inputs, at),
                    Some(block) => dy.gradients(self.tiling, tiles, block * LANES, gradients, at),
                }
            }
        });
        // Only the last panel of all may be short.
        (first..first + panels).map(|panel| self.tiling.panel(panel).len()).sum()
    }

    /// Some rows of a point's product of gradients and inputs over `depth` tiles, to `to` as `sum` says.
    ///
    /// # Safety
    /// As many values as rows x C_in may be written at `to`, nobody else uses them meanwhile, and they are initialised unless the sum is
    /// new.
    #[allow(clippy::too_many_arguments)]
    unsafe fn multiply(
        &self,
        point: usize,
        rows: Range<usize>,
        depth: usize,
        inputs: &[f32],
        gradients: &[f32],
        to: *mut f32,
        sum: Sum,
    ) {
        let c_in = self.g.c_in;
        let inputs = &inputs[point * self.of_inputs()..];
        let gradients = &gradients[point * self.of_gradients()..];
        let mut row = rows.start;
        while row < rows.end {
            // Up to the end of a vector of channels.
            let n = (LANES - row % LANES).min(rows.end - row);
            let left = row / LANES * LANES * self.depth + row % LANES;
            let left = Mat { data: &gradients[left..], rows: 1, cols: LANES };
            for column in (0..c_in).step_by(PANEL) {
                let size = [n, PANEL.min(c_in - column), depth];
                let to = to.wrapping_add((row - rows.start) * c_in + column);
                // SAFETY: these columns of the caller's rows.
                unsafe { gemm_panel(size, to, c_in, sum, left, &inputs[column * self.depth..]) };
            }
            row += n;
        }
    }
}
