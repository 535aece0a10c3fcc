//! Every so many pixels of every so many rows, and the way back among zeros: what subsampling is, and a 1x1 convolution with a stride.

use std::mem::MaybeUninit;

use crate::parallel;
use crate::simd::wide;

/// Planes of `[h, w]` of which every `stride`th pixel of every `stride`th row is kept, the first ones among them.
#[derive(Clone, Copy)]
pub(crate) struct Subsampling {
    pub h: usize,
    pub w: usize,
    pub stride: usize,
}

impl Subsampling {
    /// Rows and columns that are kept.
    pub fn kept(self) -> [usize; 2] {
        [self.h.div_ceil(self.stride), self.w.div_ceil(self.stride)]
    }

    fn planes(self) -> [usize; 2] {
        let [rows, columns] = self.kept();
        [self.h * self.w, rows * columns]
    }

    /// The pixels kept of all planes of `x`.
    pub fn forward(self, x: &[f32]) -> Vec<f32> {
        let [whole, kept] = self.planes();
        let planes = x.len().checked_div(whole).unwrap_or(0);
        // SAFETY: each piece is a plane of [rows, columns] kept; keep_plane writes every value of each of its rows.
        unsafe { parallel::fill(planes * kept, kept, |at, out| keep_plane(out, &x[at / kept * whole..], self)) }
    }

    /// The gradient of planes by that of the pixels kept: the others have 0.
    pub fn gradient(self, kept_values: &[f32]) -> Vec<f32> {
        let [whole, kept] = self.planes();
        let planes = kept_values.len().checked_div(kept).unwrap_or(0);
        // SAFETY: each piece is a plane of [h, w]; spread_plane writes every row whole.
        unsafe {
            parallel::fill(planes * whole, whole, |at, out| spread_plane(out, &kept_values[at / whole * kept..], self))
        }
    }
}

wide! {
    fn keep_plane(out: &mut [MaybeUninit<f32>], plane: &[f32], planes: Subsampling) {
        let (Subsampling { w, stride, .. }, [_, columns]) = (planes, planes.kept());
        for (out, row) in out.chunks_exact_mut(columns).zip(plane.chunks_exact(w).step_by(stride)) {
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

    fn spread_plane(out: &mut [MaybeUninit<f32>], kept_values: &[f32], planes: Subsampling) {
        let (Subsampling { w, stride, .. }, [_, columns]) = (planes, planes.kept());
        for (y, out) in out.chunks_exact_mut(w).enumerate() {
            out.fill(MaybeUninit::new(0.0));
            if y % stride == 0 {
                let row = &kept_values[y / stride * columns..][..columns];
                out.iter_mut().step_by(stride).zip(row).for_each(|(o, v)| _ = o.write(*v));
            }
        }
    }
}
