//! The sizes of one convolution, and which convolution its input gradient is.

use crate::{Error, Result};

/// Stride, padding, dilation (the same for rows and columns) and groups of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dParams {
    /// Step of the kernel, in pixels.
    pub stride: usize,
    /// Zeros around the image, in pixels on each side.
    pub padding: usize,
    /// Distance of neighbouring taps, in pixels.
    pub dilation: usize,
    /// Groups of channels; each output channel sees the input channels of its group.
    pub groups: usize,
}

impl Default for Conv2dParams {
    /// Stride 1, no padding, dilation 1, one group.
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

/// Largest stride, padding and dilation, in pixels: more than any image has, and few enough to count with.
const LARGEST: usize = 1 << 20;

/// Everything the kernels need to know about sizes. Padding is signed: the input gradient of a convolution that pads
/// more than its kernel reaches is one that crops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub batch: usize,
    pub c_in: usize,
    pub h: usize,
    pub w: usize,
    pub c_out: usize,
    pub kh: usize,
    pub kw: usize,
    pub stride: usize,
    pub dilation: usize,
    pub pad_h: isize,
    pub pad_w: isize,
    pub groups: usize,
    pub h_out: usize,
    pub w_out: usize,
}

impl Geometry {
    /// Checks an input [B, C_in, H, W] against weights [C_out, C_in / groups, kh, kw].
    pub fn new(x: [usize; 4], w: [usize; 4], p: &Conv2dParams) -> Result<Self> {
        let fail = |message: String| Error::operand("conv2d", message);
        let ([batch, c_in, h, width], [c_out, per_group, kh, kw]) = (x, w);
        if p.stride == 0 || p.dilation == 0 || p.groups == 0 {
            return Err(fail(format!("stride, dilation and groups must be at least 1: {p:?}")));
        }
        if kh == 0 || kw == 0 || c_out == 0 || per_group == 0 {
            return Err(fail(format!("weights of shape {w:?} are empty")));
        }
        if c_in != per_group * p.groups || c_out % p.groups != 0 {
            return Err(fail(format!(
                "input {x:?} and weights {w:?} do not fit {} groups: C_in must be {} and C_out a multiple of the groups",
                p.groups,
                per_group * p.groups
            )));
        }
        if h == 0 || width == 0 {
            return Err(fail(format!("input {x:?} has no pixels")));
        }
        if p.stride.max(p.padding).max(p.dilation) > LARGEST {
            return Err(fail(format!("stride, padding and dilation may be {LARGEST} at most: {p:?}")));
        }
        let reach = |k: usize| p.dilation.saturating_mul(k - 1).saturating_add(1);
        let (padded_h, padded_w) = (h + 2 * p.padding, width + 2 * p.padding);
        if padded_h < reach(kh) || padded_w < reach(kw) {
            return Err(fail(format!(
                "input {x:?} with padding {} is smaller than the kernel of {w:?} with {p:?}",
                p.padding
            )));
        }
        let (h_out, w_out) = ((padded_h - reach(kh)) / p.stride + 1, (padded_w - reach(kw)) / p.stride + 1);
        let sizes = [batch, c_out, h_out, w_out, c_in, kh, kw];
        if sizes.iter().try_fold(1usize, |all, &size| all.checked_mul(size.max(1))).is_none() {
            return Err(fail(format!("input {x:?} and weights {w:?} with {p:?} are more work than can be counted")));
        }
        Ok(Self {
            batch,
            c_in,
            h,
            w: width,
            c_out,
            kh,
            kw,
            stride: p.stride,
            dilation: p.dilation,
            pad_h: p.padding as isize,
            pad_w: p.padding as isize,
            groups: p.groups,
            h_out,
            w_out,
        })
    }

    /// The same sums with every plane seen as one long row, where that is possible (1x1, stride 1): longer runs.
    pub fn flattened(self) -> Self {
        if !self.pointwise() {
            return self;
        }
        let pixels = self.h * self.w;
        Self { h: 1, w: pixels, h_out: 1, w_out: pixels, ..self }
    }

    /// For a single tap with a stride and nothing around: the convolution without a stride over the pixels that it reads.
    pub fn subsampled(self) -> Option<Self> {
        let applies = self.taps() == 1 && self.stride > 1 && self.pad_h == 0 && self.pad_w == 0;
        applies.then_some(Self { h: self.h_out, w: self.w_out, stride: 1, ..self })
    }

    /// 1x1 with stride 1 and nothing around: each output pixel reads the input's of the same place.
    pub fn pointwise(&self) -> bool {
        self.taps() == 1 && self.stride == 1 && self.pad_h == 0 && self.pad_w == 0
    }

    /// For stride 1: the convolution from the output's gradient to the input's, with each kernel turned by 180 degrees
    /// and the channels of each group exchanged.
    pub fn adjoint(self) -> Self {
        let reach = |k: usize| (self.dilation * (k - 1)) as isize;
        Self {
            c_in: self.c_out,
            h: self.h_out,
            w: self.w_out,
            c_out: self.c_in,
            pad_h: reach(self.kh) - self.pad_h,
            pad_w: reach(self.kw) - self.pad_w,
            h_out: self.h,
            w_out: self.w,
            ..self
        }
    }

    /// Taps of one kernel plane.
    pub fn taps(&self) -> usize {
        self.kh * self.kw
    }

    /// Input channels a group.
    pub fn c_in_group(&self) -> usize {
        self.c_in / self.groups
    }

    /// Output channels a group.
    pub fn c_out_group(&self) -> usize {
        self.c_out / self.groups
    }

    /// Length of one output channel's sum: input channels a group times taps.
    pub fn depth(&self) -> usize {
        self.c_in_group() * self.taps()
    }

    /// Pixels of an input plane.
    pub fn pixels_in(&self) -> usize {
        self.h * self.w
    }

    /// Pixels of an output plane.
    pub fn pixels_out(&self) -> usize {
        self.h_out * self.w_out
    }

    /// Elements of the input, the output, the weights.
    pub fn elements(&self) -> [usize; 3] {
        [
            self.batch * self.c_in * self.pixels_in(),
            self.batch * self.c_out * self.pixels_out(),
            self.c_out * self.depth(),
        ]
    }

    /// Multiply-adds of a pass.
    pub fn work(&self) -> usize {
        self.batch * self.c_out * self.pixels_out() * self.depth()
    }

    /// Whether each input channel is its own group.
    pub fn depthwise(&self) -> bool {
        self.groups > 1 && self.c_in_group() == 1
    }
}

/// The output columns whose input column lies inside the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// First output column with an input.
    pub lo: usize,
    /// One past the last.
    pub hi: usize,
}

/// Of the output columns `from..to` those inside: column `o` reads input column `o * stride + tap - pad` (`tap` already
/// times the dilation), inside when it is in `0..width`. Rows likewise.
pub(crate) fn inside(from: usize, to: usize, stride: usize, tap: usize, pad: isize, width: usize) -> Run {
    let shift = tap as isize - pad;
    // o * stride + shift >= 0, and o * stride + shift <= width - 1
    let first = if shift >= 0 { 0 } else { ((-shift) as usize).div_ceil(stride) };
    let end = width as isize - shift;
    let end = if end <= 0 { 0 } else { (end as usize).div_ceil(stride) };
    let lo = first.clamp(from, to);
    Run { lo, hi: end.clamp(lo, to) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_holds_exactly_the_columns_inside() {
        for (stride, tap, pad, width) in
            [(1, 0, 1, 5), (2, 2, 1, 5), (3, 4, 2, 7), (2, 0, 3, 1), (1, 2, -1, 4), (1, 9, 0, 4)]
        {
            for (from, to) in [(0, 6), (2, 4), (3, 3)] {
                let run = inside(from, to, stride, tap, pad, width);
                for o in from..to {
                    let i = (o * stride + tap) as isize - pad;
                    let is_inside = i >= 0 && i < width as isize;
                    assert_eq!((run.lo..run.hi).contains(&o), is_inside, "{stride} {tap} {pad} {width} {o}");
                }
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let p = Conv2dParams::default();
        assert!(
            Geometry::new([1, 3, 2, 2], [4, 3, 3, 3], &p).unwrap_err().to_string().contains("smaller than the kernel")
        );
        assert!(Geometry::new([1, 3, 9, 9], [4, 2, 3, 3], &p).unwrap_err().to_string().contains("groups"));
        assert!(Geometry::new([1, 3, 9, 9], [4, 3, 3, 3], &Conv2dParams { stride: 0, ..p }).is_err());
        for p in [
            Conv2dParams { dilation: 1 << 63, ..p },
            Conv2dParams { padding: usize::MAX, ..p },
            Conv2dParams { stride: 1 << 40, ..p },
        ] {
            let message = Geometry::new([1, 3, 9, 9], [4, 3, 3, 3], &p).unwrap_err().to_string();
            assert!(message.contains("at most"), "{message}");
        }
        let message = Geometry::new([1, 1, 4, 0], [1, 1, 2, 2], &Conv2dParams { padding: 1, ..p }).unwrap_err();
        assert!(message.to_string().contains("no pixels"), "{message}");
        let wide = Conv2dParams { padding: LARGEST, ..p };
        assert!(Geometry::new([1 << 10, 1 << 10, 1, 1], [1 << 10, 1 << 10, 1, 1], &wide).is_err());
        let g =
            Geometry::new([2, 4, 10, 9], [6, 2, 3, 3], &Conv2dParams { stride: 2, padding: 1, dilation: 1, groups: 2 })
                .unwrap();
        assert_eq!((g.h_out, g.w_out, g.depth()), (5, 5, 18));
    }
}
