//! A product cut into fixed blocks for all threads.

use crate::parallel::{self, Shared};

use super::kernel::{DEPTH, PANEL, Sum};
use super::matrix::Mat;
use super::packed::Packed;
use super::transpose::transpose;

/// Fewest rows (whole strips of any height) and the columns of the blocks of [`product`], and the depth of one step.
const BLOCK_ROWS: usize = 96;
const BLOCK_COLS: usize = 2 * PANEL;
const STEP: usize = 4 * DEPTH;

/// Blocks of a product, if it is large enough: each thread has some.
const BLOCKS: usize = 24;

/// The row-major m x n product of a (m x k) and b (k x n), in fixed blocks on all threads.
pub(crate) fn product([m, n, k]: [usize; 3], a: Mat<'_>, b: Mat<'_>) -> Vec<f32> {
    assert!(a.covers(m, k) && b.covers(k, n), "a product's operands are shorter than its shape");
    if k == 0 {
        return vec![0.0; m * n];
    }
    // Every block of rows packs the panels anew: no more of them than the threads need.
    let across = n.div_ceil(BLOCK_COLS);
    let rows = m.div_ceil(BLOCKS.div_ceil(across.max(1))).next_multiple_of(BLOCK_ROWS);
    let down = m.div_ceil(rows.max(1));
    let packed = Packed::new([m, k], a);
    // SAFETY: the blocks are disjoint and cover the output, and a block adds only to what its first step has written.
    unsafe {
        parallel::build(m * n, |out: Shared<'_>| {
            parallel::for_each(down * across, m * n * k, |task| {
                // Column blocks outermost: neighbours in time share a block of b.
                let (i, first) = ((task % down) * rows, (task / down) * BLOCK_COLS);
                let rows = rows.min(m - i);
                parallel::scratch(STEP.min(k) * PANEL, |panel| {
                    for j in (first..n.min(first + BLOCK_COLS)).step_by(PANEL) {
                        let width = PANEL.min(n - j);
                        for from in (0..k).step_by(STEP) {
                            let depth = STEP.min(k - from);
                            pack(b.offset(from, j), depth, width, panel);
                            let left = packed.strips().at(i, from);
                            let sum = if from > 0 { Sum::Added } else { Sum::New };
                            left.multiply([rows, width, depth], out.ptr(i * n + j), n, sum, panel);
                        }
                    }
                });
            });
        })
    }
}

/// Copies `depth` x `width` of `b` to a dense panel.
fn pack(b: Mat<'_>, depth: usize, width: usize, panel: &mut [f32]) {
    assert!(b.covers(depth, width) && width <= PANEL && panel.len() >= depth * PANEL);
    if b.rows == 1 {
        // SAFETY: b covers width rows of depth values, and the panel has depth rows of PANEL values (checked above).
        unsafe { transpose(width, depth, b.data.as_ptr(), b.cols, panel.as_mut_ptr(), PANEL) };
    } else {
        for (x, row) in panel.chunks_mut(PANEL).take(depth).enumerate() {
            let source = b.data[x * b.rows..].iter().step_by(b.cols.max(1));
            row[..width].iter_mut().zip(source).for_each(|(p, v)| *p = *v);
        }
    }
}
