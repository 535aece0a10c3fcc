//! RoIAlign: feature maps cut out along real-valued boxes, and its gradient.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::boxes::BoxXyxy;
use crate::storage::{View, operand, operand4, tensor, values};
use crate::{Error, Result};

mod taps;

use taps::{AxisTaps, axis_taps};

const NAME: &str = "roi_align";

/// RoIs whose output is made by one task. Within it the channels are the outer loop, so that a plane of the map is read
/// from cache by all of them.
const ROIS_A_TASK: usize = 16;

/// How [`roi_align`] samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoiAlignParams {
    /// Rows and columns of the output: 7 for a box head.
    pub output: usize,
    /// Cells of the map per pixel of the boxes: 1 / stride.
    pub spatial_scale: f32,
    /// Samples along each axis of an output cell. 0 is adaptive: `ceil(RoI's side in cells / output)`.
    pub sampling_ratio: usize,
    /// Whether pixel centres lie at half coordinates: the box is shifted by half a cell, and its sides are taken as they
    /// are. Otherwise, as in torchvision's detectors, it is not shifted, and a side is at least one cell.
    pub aligned: bool,
}

impl RoiAlignParams {
    /// The greatest `sampling_ratio`. Torchvision's detectors take 2; far more is a mistake.
    pub const MAX_SAMPLING_RATIO: usize = 1024;

    fn check(&self) -> Result<()> {
        if self.output == 0 {
            return Err(Error::operand(NAME, "the output size is 0; it must be at least 1"));
        }
        if !(self.spatial_scale.is_finite() && self.spatial_scale > 0.0) {
            let scale = self.spatial_scale;
            return Err(Error::operand(NAME, format!("the spatial scale is {scale}; it must be finite and above 0")));
        }
        if self.sampling_ratio > Self::MAX_SAMPLING_RATIO {
            let (given, most) = (self.sampling_ratio, Self::MAX_SAMPLING_RATIO);
            return Err(Error::operand(
                NAME,
                format!("the sampling ratio is {given}; at most {most}, or 0 for adaptive"),
            ));
        }
        Ok(())
    }
}

/// The map of each RoI's image, averaged over `output` x `output` cells of the RoI by bilinear samples (He et al., Mask
/// R-CNN; the sampling of torchvision's kernel).
///
/// A sample more than one cell outside the map counts as 0; one nearer to it takes the border's value. The gradient is
/// summed in the order of the RoIs, so it is the same for any number of threads.
///
/// # Shapes
/// `x`: [B, C, H, W]; `rois`: R pairs of an image's index in the batch and a box in pixels of that image. Result:
/// [R, C, output, output]. R may be 0; the gradient of `x` is then 0.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use docent_ops::{RoiAlignParams, roi_align};
///
/// // A map of stride 4, so of an image of 100x168; both boxes lie in the second of two images.
/// let x = Tensor::ones((2, 8, 25, 42), DType::F32, &Device::Cpu)?;
/// let p = RoiAlignParams { output: 7, spatial_scale: 0.25, sampling_ratio: 2, aligned: false };
/// let y = roi_align(&x, &[(1, [10.0, 10.0, 60.0, 40.0]), (1, [0.0, 0.0, 168.0, 100.0])], &p)?;
/// assert_eq!(y.dims(), [2, 8, 7, 7]);
/// # Ok::<_, docent_ops::Error>(())
/// ```
///
/// # Errors
/// If an image index is B or more, a box is not finite, a parameter is out of range, or `x` is not of rank 4, f32 and on
/// the CPU.
pub fn roi_align(x: &Tensor, rois: &[(usize, BoxXyxy)], p: &RoiAlignParams) -> Result<Tensor> {
    p.check()?;
    let (x, [batch, channels, height, width]) = operand4(NAME, "x", x)?;
    for (i, (image, b)) in rois.iter().enumerate() {
        if *image >= batch {
            let message = format!("RoI {i} belongs to image {image}, but the batch has {batch}");
            return Err(Error::operand(NAME, message));
        }
        if !b.iter().all(|v| v.is_finite()) {
            return Err(Error::operand(NAME, format!("RoI {i} is {b:?}; drop boxes that are not finite before")));
        }
    }
    let cuts: Vec<Cut> = rois.par_iter().map(|(image, b)| Cut::new(*image, b, (height, width), p)).collect();
    Ok(x.apply_op1(RoiAlign { cuts: cuts.into(), output: p.output, channels, height, width })?)
}

/// One RoI, as the weights that turn its image's planes into its output: all channels share them.
///
/// The mean of bilinear samples over a grid is separable: `out[i][j] = sum over (r, u) of rows[i], (c, v) of cols[j] of
/// u v x[r][c] / count`.
struct Cut {
    image: usize,
    rows: AxisTaps,
    cols: AxisTaps,
    /// Samples an output cell, at least 1.
    count: f32,
}

impl Cut {
    fn new(image: usize, b: &BoxXyxy, (height, width): (usize, usize), p: &RoiAlignParams) -> Self {
        let (cols, across) = axis_taps(b[0], b[2], width, p);
        let (rows, down) = axis_taps(b[1], b[3], height, p);
        Self { image, rows, cols, count: (across * down).max(1.0) }
    }
}

struct RoiAlign {
    cuts: Arc<[Cut]>,
    output: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl RoiAlign {
    /// Values of one RoI in one channel of the output.
    fn cell(&self) -> usize {
        self.output * self.output
    }

    fn plane(&self) -> usize {
        self.height * self.width
    }

    /// One RoI, one channel: `plane` [H, W] to `out` [output, output]. `line` is scratch of W values.
    fn gather(&self, cut: &Cut, plane: &[f32], out: &mut [f32], line: &mut [f32]) {
        let (top, across) = (cut.rows.span().start, cut.cols.span());
        let line = &mut line[..across.len()];
        let row = |r: u32| &plane[(top + r as usize) * self.width..][across.clone()];
        for (i, out) in out.chunks_exact_mut(self.output).enumerate() {
            // First down the rows, over a whole stretch of neighbouring columns; then across.
            line.fill(0.0);
            for taps in cut.rows.bin(i) {
                let [a, b, c, d] = taps.index.map(row);
                let [u, v, w, x] = taps.weight;
                for ((((l, a), b), c), d) in line.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    *l += (u * a + v * b) + (w * c + x * d);
                }
            }
            for (j, o) in out.iter_mut().enumerate() {
                let mut sum = 0.0;
                for taps in cut.cols.bin(j) {
                    let [a, b, c, d] = taps.index.map(|c| line[c as usize]);
                    let [u, v, w, x] = taps.weight;
                    sum += (u * a + v * b) + (w * c + x * d);
                }
                *o = sum / cut.count;
            }
        }
    }

    /// The transpose of [`RoiAlign::gather`]: adds to `plane` what `grad` [output, output] says.
    fn scatter(&self, cut: &Cut, grad: &[f32], plane: &mut [f32], line: &mut [f32]) {
        let (top, across) = (cut.rows.span().start, cut.cols.span());
        let line = &mut line[..across.len()];
        for (i, grad) in grad.chunks_exact(self.output).enumerate() {
            line.fill(0.0);
            for (j, g) in grad.iter().enumerate() {
                let g = g / cut.count;
                for taps in cut.cols.bin(j) {
                    for (c, w) in taps.index.iter().zip(taps.weight) {
                        line[*c as usize] += w * g;
                    }
                }
            }
            for taps in cut.rows.bin(i) {
                for (&r, u) in taps.index.iter().zip(taps.weight).filter(|(_, u)| *u != 0.0) {
                    let row = &mut plane[(top + r as usize) * self.width..][across.clone()];
                    for (p, l) in row.iter_mut().zip(line.iter()) {
                        *p += u * l;
                    }
                }
            }
        }
    }
}

impl CustomOp1 for RoiAlign {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = values(NAME, storage, layout)?;
        let (cell, plane) = (self.cell(), self.plane());
        let of_roi = self.channels * cell;
        let mut out = vec![0f32; self.cuts.len() * of_roi];
        if of_roi > 0 {
            out.par_chunks_mut(ROIS_A_TASK * of_roi).zip(self.cuts.par_chunks(ROIS_A_TASK)).for_each(|(out, cuts)| {
                let mut line = vec![0f32; self.width];
                for c in 0..self.channels {
                    for (cut, out) in cuts.iter().zip(out.chunks_exact_mut(of_roi)) {
                        let from = (cut.image * self.channels + c) * plane;
                        self.gather(cut, &x[from..from + plane], &mut out[c * cell..][..cell], &mut line);
                    }
                }
            });
        }
        let shape = Shape::from((self.cuts.len(), self.channels, self.output, self.output));
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (cell, plane) = (self.cell(), self.plane());
        let mut dx = vec![0f32; arg.elem_count()];
        if plane > 0 && !self.cuts.is_empty() {
            let grad = operand(NAME, "the gradient", grad)?;
            let view = View::new(NAME, &grad);
            let grad = view.values()?;
            // A plane belongs to one task, and takes its RoIs in order.
            dx.par_chunks_mut(plane).enumerate().for_each(|(index, plane)| {
                let (image, c) = (index / self.channels, index % self.channels);
                let mut line = vec![0f32; self.width];
                for (r, cut) in self.cuts.iter().enumerate().filter(|(_, cut)| cut.image == image) {
                    let from = (r * self.channels + c) * cell;
                    self.scatter(cut, &grad[from..from + cell], plane, &mut line);
                }
            });
        }
        Ok(Some(tensor(dx, arg.shape().clone())?))
    }
}

#[cfg(test)]
mod tests;
