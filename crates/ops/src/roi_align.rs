//! RoIAlign: feature maps cut out along real-valued boxes, and its gradient.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use docent_tensor::{F32View, apply_op1, f32_operand, f32_operand_4d, f32_tensor, f32_values};
use rayon::prelude::*;

use crate::BoxXyxy;
use crate::matmul::transpose;
use crate::parallel::{self, Shared};
use crate::simd::wide;
use crate::{Error, Result};

mod params;
mod taps;

use params::NAME;
pub use params::RoiAlignParams;
use taps::{AxisTaps, axis_taps};

/// Channels that are computed side by side.
const LANES: usize = 16;

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
    let (op, x) = RoiAlign::new(x, rois, p)?;
    Ok(apply_op1(&x, op)?)
}

impl RoiAlign {
    /// The operation for these RoIs, and its operand, checked.
    pub fn new(x: &Tensor, rois: &[(usize, BoxXyxy)], p: &RoiAlignParams) -> Result<(Self, Tensor)> {
        p.check()?;
        let (x, [batch, channels, height, width]) = f32_operand_4d(NAME, "x", x)?;
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
        Ok((Self { cuts: cuts.into(), output: p.output, channels, height, width, batch }, x))
    }

    /// Values of one RoI's output.
    pub fn row(&self) -> usize {
        self.channels * self.cell()
    }

    /// The shape of the maps.
    pub fn shape(&self) -> [usize; 4] {
        [self.batch, self.channels, self.height, self.width]
    }

    /// Values of the maps.
    pub fn maps(&self) -> usize {
        self.batch * self.channels * self.plane()
    }

    /// Writes the output, which holds zeros, of the maps `x`.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        let shared = Shared::new(out);
        self.each_block(|block| block.forward(x, shared));
    }

    /// Writes the maps' gradient, which holds zeros, by the output's.
    pub fn backward(&self, grad: &[f32], dx: &mut [f32]) {
        let shared = Shared::new(dx);
        // A block's planes belong to one task, which takes their RoIs in order.
        self.each_block(|block| block.backward(grad, shared));
    }
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

    /// Whether it reads any cell of the image: one that lies off the map reads none.
    fn reads(&self, image: usize) -> bool {
        self.image == image && !self.rows.span().is_empty() && !self.cols.span().is_empty()
    }
}

pub(crate) struct RoiAlign {
    cuts: Box<[Cut]>,
    output: usize,
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
}

/// What one task computes: [`LANES`] channels (fewer at the end) of one image, side by side in every step. The channels of
/// a cell are neighbours in its copy of the map, [H, W, LANES], so that each weight is applied to whole vectors of them.
struct Block<'a> {
    op: &'a RoiAlign,
    image: usize,
    channel: usize,
    lanes: usize,
    /// Rows of the map that some RoI of the image reads.
    rows: Range<usize>,
}

impl RoiAlign {
    /// Values of one RoI in one channel of the output.
    fn cell(&self) -> usize {
        self.output * self.output
    }

    fn plane(&self) -> usize {
        self.height * self.width
    }

    /// Runs `f` for each block of channels of each image that has RoIs.
    fn each_block(&self, f: impl Fn(&Block<'_>) + Sync) {
        let batch = self.batch;
        let blocks = self.channels.div_ceil(LANES);
        let rows: Vec<Range<usize>> = (0..batch).map(|image| self.rows_read(image)).collect();
        let work = self.cuts.len() * self.channels * self.cell() * 16;
        parallel::for_each(batch * blocks, work, |task| {
            let (image, channel) = (task / blocks, task % blocks * LANES);
            let lanes = LANES.min(self.channels - channel);
            if !rows[image].is_empty() {
                f(&Block { op: self, image, channel, lanes, rows: rows[image].clone() });
            }
        });
    }

    /// The rows of an image's map between the first and the last that a RoI reads.
    fn rows_read(&self, image: usize) -> Range<usize> {
        let spans = self.cuts.iter().filter(|cut| cut.reads(image)).map(|cut| cut.rows.span());
        spans.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
    }
}

impl Block<'_> {
    /// The RoIs that read the image, with their numbers. The output of others is 0.
    fn cuts(&self) -> impl Iterator<Item = (usize, &Cut)> {
        self.op.cuts.iter().enumerate().filter(|(_, cut)| cut.reads(self.image))
    }

    /// Elements of the map's copy.
    fn len(&self) -> usize {
        self.rows.len() * self.op.width * LANES
    }

    /// Where the first of its rows and channels lies in the maps [B, C, H, W].
    fn of_maps(&self) -> usize {
        (self.image * self.op.channels + self.channel) * self.op.plane() + self.rows.start * self.op.width
    }

    /// Where RoI `r`'s first of its channels lies in the output [R, C, output, output].
    fn of_output(&self, r: usize) -> usize {
        (r * self.op.channels + self.channel) * self.op.cell()
    }

    fn forward(&self, x: &[f32], out: Shared<'_>) {
        let (cell, cells) = (self.op.cell(), self.rows.len() * self.op.width);
        parallel::scratch(self.len() + (self.op.width + cell) * LANES, |buffer| {
            let (map, rest) = buffer.split_at_mut(self.len());
            let (line, found) = rest.split_at_mut(self.op.width * LANES);
            let planes = &x[self.of_maps()..];
            assert!((self.lanes - 1) * self.op.plane() + cells <= planes.len());
            // SAFETY: the rows of these planes lie in x (checked above), and the copy has `cells` rows of LANES values.
            unsafe { transpose(self.lanes, cells, planes.as_ptr(), self.op.plane(), map.as_mut_ptr(), LANES) };
            for (r, cut) in self.cuts() {
                gather(cut, map, self.rows.start, self.op.width, self.op.output, line, found);
                // SAFETY: this task alone has these channels of the RoI. `found` has `cell` rows of LANES values.
                unsafe {
                    let to = out.room(self.of_output(r), self.lanes * cell).as_mut_ptr().cast();
                    transpose(cell, self.lanes, found.as_ptr(), LANES, to, cell);
                }
            }
        });
    }

    fn backward(&self, grad: &[f32], dx: Shared<'_>) {
        let (cell, cells) = (self.op.cell(), self.rows.len() * self.op.width);
        parallel::scratch(self.len() + (self.op.width + cell) * LANES, |buffer| {
            let (map, rest) = buffer.split_at_mut(self.len());
            let (line, given) = rest.split_at_mut(self.op.width * LANES);
            map.fill(0.0);
            for (r, cut) in self.cuts() {
                let of_roi = &grad[self.of_output(r)..][..self.lanes * cell];
                // SAFETY: `of_roi` has `lanes` rows of `cell` values, `given` has `cell` rows of LANES values.
                unsafe { transpose(self.lanes, cell, of_roi.as_ptr(), cell, given.as_mut_ptr(), LANES) };
                scatter(cut, given, self.rows.start, self.op.width, self.op.output, line, map);
            }
            let plane = self.op.plane();
            assert!(self.of_maps() + (self.lanes - 1) * plane + cells <= dx.len());
            // SAFETY: the rows of these planes lie in dx (checked above), and this task alone has them. The copy has `cells` rows of
            // LANES values.
            unsafe { transpose(cells, self.lanes, map.as_ptr(), LANES, dx.ptr(self.of_maps()), plane) };
        });
    }
}

/// The channels of one cell.
type Cell = [f32; LANES];

/// Cell `i` of a buffer of cells.
#[inline(always)]
fn cell(buffer: &[f32], i: usize) -> &Cell {
    buffer[i * LANES..].first_chunk().unwrap_or(&[0.0; LANES])
}

/// The weighted sum of four cells.
#[inline(always)]
fn weighted(cells: [&Cell; 4], [u, v, w, x]: [f32; 4], sum: &mut Cell) {
    let [a, b, c, d] = cells;
    for k in 0..LANES {
        sum[k] += (u * a[k] + v * b[k]) + (w * c[k] + x * d[k]);
    }
}

wide! {
    /// One RoI: cells of `map` (rows from `top` on) to the cells of `out`, [output, output, LANES].
    fn gather(cut: &Cut, map: &[f32], top: usize, width: usize, output: usize, line: &mut [f32], out: &mut [f32]) {
        let (first, across) = (cut.rows.span().start - top, cut.cols.span());
        for (i, out) in out.chunks_exact_mut(output * LANES).enumerate() {
            // First down the rows, for all columns that are read; then across.
            for (x, sum) in line.chunks_exact_mut(LANES).take(across.len()).enumerate() {
                let mut column = [0.0; LANES];
                for taps in cut.rows.bin(i) {
                    let at = taps.index.map(|r| cell(map, (first + r as usize) * width + across.start + x));
                    weighted(at, taps.weight, &mut column);
                }
                sum.copy_from_slice(&column);
            }
            for (j, out) in out.chunks_exact_mut(LANES).enumerate() {
                let mut sum = [0.0; LANES];
                for taps in cut.cols.bin(j) {
                    weighted(taps.index.map(|c| cell(line, c as usize)), taps.weight, &mut sum);
                }
                for k in 0..LANES {
                    out[k] = sum[k] / cut.count;
                }
            }
        }
    }

    /// The transpose of [`gather`]: adds to `map` what `grad` [output, output, LANES] says.
    fn scatter(cut: &Cut, grad: &[f32], top: usize, width: usize, output: usize, line: &mut [f32], map: &mut [f32]) {
        let (first, across) = (cut.rows.span().start - top, cut.cols.span());
        let line = &mut line[..across.len() * LANES];
        for (i, grad) in grad.chunks_exact(output * LANES).enumerate() {
            line.fill(0.0);
            for (j, g) in grad.chunks_exact(LANES).enumerate() {
                for taps in cut.cols.bin(j) {
                    for (&c, w) in taps.index.iter().zip(taps.weight) {
                        let w = w / cut.count;
                        let to = &mut line[c as usize * LANES..][..LANES];
                        for k in 0..LANES {
                            to[k] += w * g[k];
                        }
                    }
                }
            }
            for taps in cut.rows.bin(i) {
                for (&r, u) in taps.index.iter().zip(taps.weight).filter(|(_, u)| *u != 0.0) {
                    let at = ((first + r as usize) * width + across.start) * LANES;
                    for (to, from) in map[at..at + line.len()].iter_mut().zip(line.iter()) {
                        *to += u * from;
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
        let x = f32_values(NAME, storage, layout)?;
        let mut out = parallel::zeros(self.cuts.len() * self.row());
        self.forward(x, &mut out);
        let shape = Shape::from((self.cuts.len(), self.channels, self.output, self.output));
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = f32_operand(NAME, "the gradient", grad)?;
        let view = F32View::new(NAME, &grad);
        let mut dx = parallel::zeros(arg.elem_count());
        self.backward(view.values()?, &mut dx);
        Ok(Some(f32_tensor(dx, arg.shape().clone())?))
    }
}

#[cfg(test)]
mod tests;
