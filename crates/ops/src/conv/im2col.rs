//! Patches of an image as rows of a matrix, and back: row (channel, tap), column = output pixel.
//!
//! With a stride of 2 the image's rows are sorted first, even columns before odd ones: then what a tap reads of a row lies
//! together.

use std::borrow::Cow;
use std::ops::Range;

use crate::parallel;
use crate::simd::wide;

use super::geometry::{Geometry, inside};

/// A stretch of output pixels on one output row.
struct Segment {
    /// Output row.
    row: usize,
    /// Output columns.
    cols: Range<usize>,
    /// Where the first of them stands in the stretch.
    at: usize,
}

/// Cuts the output pixels `from..from + n` at the ends of output rows.
fn segments(g: &Geometry, from: usize, n: usize) -> impl Iterator<Item = Segment> + use<> {
    let width = g.w_out;
    let mut pixel = from;
    std::iter::from_fn(move || {
        if pixel >= from + n {
            return None;
        }
        let (row, col) = (pixel / width, pixel % width);
        let end = width.min(col + from + n - pixel);
        let segment = Segment { row, cols: col..end, at: pixel - from };
        pixel += end - col;
        Some(segment)
    })
}

/// The channels whose row (channel * taps + tap) lies in `rows`.
fn channels(rows: &Range<usize>, tap: usize, taps: usize) -> Range<usize> {
    let first = |r: usize| if r > tap { (r - tap).div_ceil(taps) } else { 0 };
    first(rows.start)..first(rows.end)
}

/// Whether the rows of the image are sorted. With a single tap it would not pay.
fn sorts(g: &Geometry) -> bool {
    g.stride == 2 && g.taps() > 1
}

/// The planes `x` as [`im2col`] takes them.
pub(crate) fn sorted<'a>(g: &Geometry, x: &'a [f32]) -> Cow<'a, [f32]> {
    if !sorts(g) {
        return Cow::Borrowed(x);
    }
    let (w, piece) = (g.w, g.w * 16);
    assert!(x.len().is_multiple_of(w), "conv2d: an operand of another size than its geometry");
    // SAFETY: the pieces are whole rows, and each column of a row is even or odd, so all are written.
    let sorted = unsafe {
        parallel::fill(x.len(), piece, |at, out| {
            for (out, row) in out.chunks_exact_mut(w).zip(x[at..].chunks_exact(w)) {
                let (even, odd) = out.split_at_mut(w.div_ceil(2));
                even.iter_mut().zip(row.iter().step_by(2)).for_each(|(o, v)| _ = o.write(*v));
                odd.iter_mut().zip(row.iter().skip(1).step_by(2)).for_each(|(o, v)| _ = o.write(*v));
            }
        })
    };
    Cow::Owned(sorted)
}

/// Brings planes that [`col2im`] has added to back into order.
pub(crate) fn unsort(g: &Geometry, planes: &mut [f32]) {
    if !sorts(g) {
        return;
    }
    parallel::scratch(g.w, |buffer| {
        for row in planes.chunks_exact_mut(g.w) {
            buffer.copy_from_slice(row);
            let (even, odd) = buffer.split_at(g.w.div_ceil(2));
            row.iter_mut().step_by(2).zip(even).for_each(|(o, v)| *o = *v);
            row.iter_mut().skip(1).step_by(2).zip(odd).for_each(|(o, v)| *o = *v);
        }
    });
}

/// Where a run of columns that begins with column `x` of a row lies, and the distance of its values.
fn place(g: &Geometry, x: usize) -> (usize, usize) {
    match sorts(g) {
        false => (x, g.stride),
        true if x.is_multiple_of(2) => (x / 2, 1),
        true => (g.w.div_ceil(2) + x / 2, 1),
    }
}

/// Writes `rows` of the patch matrix of `image` (the planes of one group, [`sorted`]) for the output pixels `from..from + n` to
/// `dst`, whose rows are `ld` apart.
pub(crate) fn im2col(
    g: &Geometry,
    image: &[f32],
    rows: Range<usize>,
    from: usize,
    n: usize,
    dst: &mut [f32],
    ld: usize,
) {
    let (taps, plane) = (g.taps(), g.pixels_in());
    assert!(n <= ld && rows.end <= g.depth() && from + n <= g.pixels_out());
    assert!(image.len() >= g.c_in_group() * plane && dst.len() + ld >= rows.len() * ld + n);
    for tap in 0..taps {
        let (ky, kx) = (tap / g.kw * g.dilation, tap % g.kw * g.dilation);
        let channels = channels(&rows, tap, taps);
        for s in segments(g, from, n) {
            let width = s.cols.len();
            let y = (s.row * g.stride + ky) as isize - g.pad_h;
            let target = |c: usize| (c * taps + tap - rows.start) * ld + s.at;
            if y < 0 || y >= g.h as isize {
                for c in channels.clone() {
                    dst[target(c)..][..width].fill(0.0);
                }
                continue;
            }
            if channels.is_empty() {
                continue;
            }
            let run = inside(s.cols.start, s.cols.end, g.stride, kx, g.pad_w, g.w);
            let (x, stride) = place(g, ((run.lo * g.stride + kx) as isize - g.pad_w).max(0) as usize);
            let (left, len) = (run.lo - s.cols.start, run.hi - run.lo);
            let runs = Runs { left, len, width, stride, step: [taps * ld, plane] };
            let from = (channels.start * plane + y as usize * g.w + x).min(image.len());
            runs_of_channels(channels.len(), &runs, &mut dst[target(channels.start)..], &image[from..]);
        }
    }
}

/// The run of one tap along an output row, in each channel.
struct Runs {
    /// Columns before the image, inside it, and all of them: outside are zeros.
    left: usize,
    len: usize,
    width: usize,
    /// Columns of the image from one value to the next.
    stride: usize,
    /// From a channel to the next in the patch matrix and in the image.
    step: [usize; 2],
}

wide! {
    /// Writes the runs of neighbouring channels.
    fn runs_of_channels(channels: usize, runs: &Runs, dst: &mut [f32], image: &[f32]) {
        let &Runs { left, len, width, stride, step: [down, plane] } = runs;
        for c in 0..channels {
            let out = &mut dst[c * down..][..width];
            if left > 0 {
                out[..left].fill(0.0);
            }
            if left + len < width {
                out[left + len..].fill(0.0);
            }
            if len == 0 {
                continue;
            }
            let (to, from) = (&mut out[left..left + len], &image[c * plane..][..(len - 1) * stride + 1]);
            if stride == 1 {
                copy(to, from);
            } else {
                to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(o, v)| *o = *v);
            }
        }
    }
}

wide! {
    /// Adds the runs of neighbouring channels to the image.
    fn add_runs(channels: usize, runs: &Runs, cols: &[f32], image: &mut [f32]) {
        let &Runs { len, stride, step: [down, plane], .. } = runs;
        for c in 0..channels {
            let (read, write) = (&cols[c * down..][..len], &mut image[c * plane..][..(len - 1) * stride + 1]);
            if stride == 1 {
                write.iter_mut().zip(read).for_each(|(o, v)| *o += *v);
            } else {
                write.iter_mut().step_by(stride).zip(read).for_each(|(o, v)| *o += *v);
            }
        }
    }
}

/// Copies a run, a short one in pieces whose sizes the compiler knows: calling for so little costs as much again.
#[inline(always)]
fn copy(to: &mut [f32], from: &[f32]) {
    if to.len() >= 64 {
        return to.copy_from_slice(from);
    }
    let (mut to, mut from) = (to, from);
    piece::<32>(&mut to, &mut from);
    piece::<16>(&mut to, &mut from);
    piece::<8>(&mut to, &mut from);
    piece::<4>(&mut to, &mut from);
    to.iter_mut().zip(from).for_each(|(o, v)| *o = *v);
}

/// Copies the first `N` values, if there are so many, and leaves the rest.
#[inline(always)]
fn piece<const N: usize>(to: &mut &mut [f32], from: &mut &[f32]) {
    if let Some((values, rest)) = from.split_first_chunk::<N>()
        && let Some((place, left)) = std::mem::take(to).split_first_chunk_mut::<N>()
    {
        *place = *values;
        (*to, *from) = (left, rest);
    }
}

/// Adds the patch matrix `cols` (all taps of `channels`, rows `ld` apart) for the output pixels `from..from + n` to
/// `image`, which holds the planes of these channels, sorted until [`unsort`] is called.
pub(crate) fn col2im(g: &Geometry, cols: &[f32], ld: usize, channels: usize, from: usize, n: usize, image: &mut [f32]) {
    let (taps, plane) = (g.taps(), g.pixels_in());
    assert!(n <= ld && cols.len() >= channels * taps * ld && image.len() >= channels * plane);
    for tap in 0..taps {
        let (ky, kx) = (tap / g.kw * g.dilation, tap % g.kw * g.dilation);
        for s in segments(g, from, n) {
            let y = (s.row * g.stride + ky) as isize - g.pad_h;
            let run = inside(s.cols.start, s.cols.end, g.stride, kx, g.pad_w, g.w);
            if y < 0 || y >= g.h as isize || run.lo == run.hi {
                continue;
            }
            let (left, len) = (run.lo - s.cols.start, run.hi - run.lo);
            let (x, stride) = place(g, ((run.lo * g.stride + kx) as isize - g.pad_w) as usize);
            let runs = Runs { left, len, width: len, stride, step: [taps * ld, plane] };
            add_runs(channels, &runs, &cols[tap * ld + s.at + left..], &mut image[y as usize * g.w + x..]);
        }
    }
}
