//! The pixels that a 1x1 convolution with a stride reads: taken out of the image first, and its gradient put back among zeros.

use std::mem::MaybeUninit;

use crate::parallel;
use crate::simd::wide;

use super::geometry::Geometry;

/// Every `stride`th pixel of every `stride`th row of all planes: those of [`Geometry::picked`].
pub(crate) fn pick(g: &Geometry, x: &[f32]) -> Vec<f32> {
    let (planes, plane) = (g.batch * g.c_in, g.pixels_out());
    assert_eq!(x.len(), planes * g.pixels_in(), "conv2d: an operand of another size than its geometry");
    let width = [g.w, g.w_out, g.stride];
    // SAFETY: each piece is a plane, and all its rows are written.
    unsafe { parallel::fill(planes * plane, plane, |at, out| pick_plane(out, &x[at / plane * g.pixels_in()..], width)) }
}

/// The way back of [`pick`]: the pixels that it leaves out are 0.
pub(crate) fn put_back(g: &Geometry, dx: &[f32]) -> Vec<f32> {
    let (planes, plane) = (g.batch * g.c_in, g.pixels_in());
    assert_eq!(dx.len(), planes * g.pixels_out(), "conv2d: a gradient of another size than its geometry");
    let width = [g.w, g.w_out, g.stride];
    // SAFETY: each piece is a plane, and all its rows are written.
    unsafe {
        parallel::fill(planes * plane, plane, |at, out| put_plane(out, &dx[at / plane * g.pixels_out()..], width))
    }
}

wide! {
    fn pick_plane(out: &mut [MaybeUninit<f32>], plane: &[f32], width: [usize; 3]) {
        let [w, w_out, stride] = width;
        for (out, row) in out.chunks_exact_mut(w_out).zip(plane.chunks_exact(w).step_by(stride)) {
            if stride != 2 {
                out.iter_mut().zip(row.iter().step_by(stride)).for_each(|(o, v)| _ = o.write(*v));
                continue;
            }
            // Whole pairs become vector loads; a last value may stand alone.
            out.iter_mut().zip(row.chunks_exact(2)).for_each(|(o, pair)| _ = o.write(pair[0]));
            if let (Some(o), [v]) = (out.last_mut(), row.chunks_exact(2).remainder()) {
                o.write(*v);
            }
        }
    }

    fn put_plane(out: &mut [MaybeUninit<f32>], picked: &[f32], width: [usize; 3]) {
        let [w, w_out, stride] = width;
        for (y, out) in out.chunks_exact_mut(w).enumerate() {
            out.fill(MaybeUninit::new(0.0));
            if y % stride == 0 {
                let row = &picked[y / stride * w_out..][..w_out];
                out.iter_mut().step_by(stride).zip(row).for_each(|(o, v)| _ = o.write(*v));
            }
        }
    }
}
