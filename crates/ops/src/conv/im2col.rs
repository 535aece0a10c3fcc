//! Patches of an image as rows of a matrix, and back: row (channel, tap), column = output pixel.

use std::ops::Range;

use crate::matmul::PANEL;
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

/// Writes `rows` of the patch matrix of `image` (the planes of one group) for the output pixels `from..from + n` to
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
            let place = |c: usize| (c * taps + tap - rows.start) * ld + s.at;
            if y < 0 || y >= g.h as isize {
                for c in channels.clone() {
                    dst[place(c)..][..width].fill(0.0);
                }
                continue;
            }
            let run = inside(s.cols.start, s.cols.end, g.stride, kx, g.pad_w, g.w);
            let (left, len) = (run.lo - s.cols.start, run.hi - run.lo);
            let source = y as usize * g.w + ((run.lo * g.stride + kx) as isize - g.pad_w).max(0) as usize;
            for c in channels.clone() {
                let out = &mut dst[place(c)..][..width];
                if len == 0 {
                    out.fill(0.0);
                    continue;
                }
                out[..left].fill(0.0);
                out[left + len..].fill(0.0);
                let from = c * plane + source;
                if g.stride == 1 {
                    copy(&mut out[left..left + len], &image[from..from + len]);
                } else {
                    pick(&mut out[left..left + len], &image[from..from + (len - 1) * g.stride + 1], g.stride);
                }
            }
        }
    }
}

/// Copies a run. A whole row of a panel, the usual length, is done on the spot: a call would cost as much again.
#[inline(always)]
fn copy(to: &mut [f32], from: &[f32]) {
    if let (Ok(to), Ok(from)) = (<&mut [f32; PANEL]>::try_from(&mut *to), <&[f32; PANEL]>::try_from(from)) {
        *to = *from;
    } else {
        to.copy_from_slice(from);
    }
}

wide! {
    /// Copies every `stride`-th value.
    fn pick(to: &mut [f32], from: &[f32], stride: usize) {
        if stride != 2 {
            return to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(o, v)| *o = *v);
        }
        // Whole pairs become vector loads; a last value may stand alone.
        to.iter_mut().zip(from.chunks_exact(2)).for_each(|(o, pair)| *o = pair[0]);
        if let (Some(o), Some(v), 1) = (to.last_mut(), from.last(), from.len() % 2) {
            *o = *v;
        }
    }
}

/// Adds the patch matrix `cols` (all taps of `channels`, rows `ld` apart) for the output pixels `from..from + n` to
/// `image`, which holds the planes of these channels.
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
            let target = y as usize * g.w + ((run.lo * g.stride + kx) as isize - g.pad_w) as usize;
            for c in 0..channels {
                let read = &cols[(c * taps + tap) * ld + s.at + left..][..len];
                let write = &mut image[c * plane + target..][..(len - 1) * g.stride + 1];
                for (o, v) in write.iter_mut().step_by(g.stride).zip(read) {
                    *o += *v;
                }
            }
        }
    }
}
