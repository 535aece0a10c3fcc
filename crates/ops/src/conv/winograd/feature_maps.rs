//! Pixels to points and back, with channels side by side.
//!
//! [`LANES`] channels of a row of pixels are turned once; from then on a pixel is a vector of its channels, every line below is a
//! loop over neighbouring floats, and a point's vector is written where the product reads it. Points are 36 for each 16 pixels, so
//! to turn or copy those costs more (docs/benchmarks.md).

use std::ops::Range;

use crate::matmul::{PANEL, transpose};
use crate::parallel::{Shared, scratch};
use crate::simd::wide;

use super::tiling::{Run, Tiling};
use super::transform::{IN, LANES, OUT, a, a_t, b_t};

/// Planes [B, C, h, w] whose tiles are wanted, and how far the first tile begins before them.
pub(super) struct Maps<'a> {
    pub values: &'a [f32],
    pub channels: usize,
    pub size: [usize; 2],
    pub pad: [isize; 2],
}

/// Where points go: point `k` of channel `c` of tile `t` to `k * of_point + c / width * width * depth + t * width + c % width`.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub to: Shared<'a>,
    pub of_point: usize,
    /// Tiles that there is room for.
    pub depth: usize,
    /// A multiple of [`LANES`].
    pub width: usize,
}

impl Maps<'_> {
    /// Transforms [`LANES`] channels of inputs (fewer at the end; the rest become zeros) from `first` on, of some tiles, which
    /// become tiles `at..` of the place.
    ///
    /// # Safety
    /// The place has room for tiles `at..` of as many and for these channels, and nobody else uses them meanwhile.
    pub unsafe fn inputs(&self, tiling: Tiling, tiles: Range<usize>, first: usize, place: Place<'_>, at: usize) {
        for run in tiling.runs(tiles) {
            let width = OUT * run.tiles + IN - OUT;
            scratch(2 * IN * width * LANES, |buffer| {
                let (pixels, lines) = buffer.split_at_mut(IN * width * LANES);
                self.turn::<IN>(&run, first, width, pixels);
                inputs_down(pixels, lines);
                // SAFETY: these are the run's tiles, by the caller's promise.
                unsafe { inputs_across(lines, run.tiles, place, place.start(first, at + run.at)) };
            });
        }
    }

    /// The same of gradients, whose tiles do not overlap.
    ///
    /// # Safety
    /// As [`Self::inputs`].
    pub unsafe fn gradients(&self, tiling: Tiling, tiles: Range<usize>, first: usize, place: Place<'_>, at: usize) {
        for run in tiling.runs(tiles) {
            let width = OUT * run.tiles;
            scratch((OUT + IN) * width * LANES, |buffer| {
                let (pixels, lines) = buffer.split_at_mut(OUT * width * LANES);
                self.turn::<OUT>(&run, first, width, pixels);
                gradients_down(pixels, lines);
                // SAFETY: these are the run's tiles, by the caller's promise.
                unsafe { gradients_across(lines, run.tiles, place, place.start(first, at + run.at)) };
            });
        }
    }

    /// `R` rows of `width` pixels, each a vector of channels; zeros outside the plane.
    fn turn<const R: usize>(&self, run: &Run, first: usize, width: usize, to: &mut [f32]) {
        let [h, w] = self.size;
        let n = LANES.min(self.channels - first);
        let planes = &self.values[(run.image * self.channels + first) * h * w..][..n * h * w];
        let x = run.x as isize - self.pad[1];
        let left = ((-x).max(0) as usize).min(width);
        let right = (w as isize - x).clamp(left as isize, width as isize) as usize;
        for (r, to) in to.chunks_exact_mut(width * LANES).take(R).enumerate() {
            let y = (run.y + r) as isize - self.pad[0];
            let inside = (0..h as isize).contains(&y) && left < right;
            if !inside || n < LANES {
                to.fill(0.0);
            } else {
                to[..left * LANES].fill(0.0);
                to[right * LANES..].fill(0.0);
            }
            if !inside {
                continue;
            }
            let from = &planes[y as usize * w + (x + left as isize) as usize..];
            assert!((n - 1) * h * w + right - left <= from.len());
            // SAFETY: these columns lie in each of the n planes (checked above). The row that is written has `width` pixels of LANES
            // channels, and right <= width.
            unsafe { transpose(n, right - left, from.as_ptr(), h * w, to[left * LANES..].as_mut_ptr(), LANES) };
        }
    }
}

impl Place<'_> {
    /// Where the first point of a channel of a tile goes.
    fn start(self, channel: usize, tile: usize) -> usize {
        channel / self.width * self.width * self.depth + tile * self.width + channel % self.width
    }

    /// Writes point `k` of the tile `t` behind that which starts at `at`.
    ///
    /// # Safety
    /// The place has room for it, and nobody else uses it meanwhile.
    #[inline(always)]
    unsafe fn write(self, at: usize, t: usize, k: usize, values: &[f32; LANES]) {
        let to = self.to.ptr(at + k * self.of_point + t * self.width);
        // SAFETY: the caller's promise; the write needs no alignment beyond that of f32.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(*values) };
    }
}

/// Transforms the products of some tiles side by side, point `k` of tile `t` at `k * of_point + t * PANEL`, and hands each row of
/// outputs of `n` channels to `f(channel, row, pixels)`.
pub(super) fn outputs(
    products: &[f32],
    of_point: usize,
    tiles: usize,
    n: usize,
    mut f: impl FnMut(usize, usize, &[f32]),
) {
    assert!(n <= LANES);
    let width = OUT * tiles;
    scratch((OUT + 1) * width * LANES, |buffer| {
        let (lines, planes) = buffer.split_at_mut(OUT * width * LANES);
        outputs_of(products, of_point, lines);
        for (r, line) in lines.chunks_exact(width * LANES).enumerate() {
            // SAFETY: the line has `width` pixels of LANES channels, the planes have LANES rows of `width` pixels, and n <= LANES.
            unsafe { transpose(width, n, line.as_ptr(), LANES, planes.as_mut_ptr(), width) };
            planes.chunks_exact(width).take(n).enumerate().for_each(|(c, plane)| f(c, r, plane));
        }
    });
}

/// `N` rows of pixels to six lines, down their columns, by the transform `f` in one dimension.
#[inline(always)]
fn down<const N: usize>(pixels: &[f32], to: &mut [f32], f: impl Fn([f32; N]) -> [f32; IN]) {
    let n = pixels.len() / N;
    let rows: [&[f32]; N] = std::array::from_fn(|i| &pixels[i * n..][..n]);
    let to = &mut to[..IN * n];
    for x in 0..n {
        let out = f(std::array::from_fn(|i| rows[i][x]));
        for i in 0..IN {
            to[i * n + x] = out[i];
        }
    }
}

/// Six lines across, tile by tile of `N` columns, to the points of tiles the first of which starts at `at`.
///
/// # Safety
/// The place has room for the points of these tiles, and nobody else uses them meanwhile.
#[inline(always)]
unsafe fn across<const N: usize>(
    from: &[f32],
    tiles: usize,
    place: Place<'_>,
    at: usize,
    f: impl Fn([f32; N]) -> [f32; IN],
) {
    for (i, line) in from.chunks_exact(from.len() / IN).enumerate() {
        for (t, pixels) in line.windows(N * LANES).step_by(OUT * LANES).take(tiles).enumerate() {
            let mut out = [[0.0; LANES]; IN];
            for c in 0..LANES {
                let points = f(std::array::from_fn(|p| pixels[p * LANES + c]));
                for p in 0..IN {
                    out[p][c] = points[p];
                }
            }
            for (p, out) in out.iter().enumerate() {
                // SAFETY: a point of one of the tiles, by the caller's promise.
                unsafe { place.write(at, t, i * IN + p, out) };
            }
        }
    }
}

wide! {
    unsafe fn inputs_across(from: &[f32], tiles: usize, place: Place<'_>, at: usize) {
        // SAFETY: the promise of this function's caller, which is the same.
        unsafe { across(from, tiles, place, at, b_t) };
    }

    unsafe fn gradients_across(from: &[f32], tiles: usize, place: Place<'_>, at: usize) {
        // SAFETY: as above.
        unsafe { across(from, tiles, place, at, a) };
    }
}

wide! {
    fn inputs_down(pixels: &[f32], to: &mut [f32]) {
        down(pixels, to, b_t);
    }

    fn gradients_down(pixels: &[f32], to: &mut [f32]) {
        down(pixels, to, a);
    }

    /// Transforms products to four lines of outputs.
    fn outputs_of(products: &[f32], of_point: usize, to: &mut [f32]) {
        let n = to.len() / OUT;
        for t in 0..n / (OUT * LANES) {
            let mut half = [[[0.0; LANES]; IN]; OUT];
            for p in 0..IN {
                let rows: [&[f32; LANES]; IN] = std::array::from_fn(|i| vector(products, (i * IN + p) * of_point + t * PANEL));
                for c in 0..LANES {
                    let out = a_t(std::array::from_fn(|i| rows[i][c]));
                    for (half, out) in half.iter_mut().zip(out) {
                        half[p][c] = out;
                    }
                }
            }
            for q in 0..OUT {
                let to = &mut to[q * n + OUT * t * LANES..][..OUT * LANES];
                for c in 0..LANES {
                    let out = a_t(std::array::from_fn(|p| half[q][p][c]));
                    for p in 0..OUT {
                        to[p * LANES + c] = out[p];
                    }
                }
            }
        }
    }
}

/// The channels of a point.
#[inline(always)]
fn vector(from: &[f32], at: usize) -> &[f32; LANES] {
    from[at..].first_chunk().unwrap_or(&[0.0; LANES])
}
