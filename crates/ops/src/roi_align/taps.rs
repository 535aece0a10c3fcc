//! The weights of RoIAlign along one axis.

use std::ops::Range;

use super::params::RoiAlignParams;

/// Four indices that an output cell reads, with their weights.
///
/// Four are as many as two samples touch, the usual number; a loop over a fixed number runs several times as fast. What
/// is left of the last four has weight 0 and repeats an index.
#[derive(Clone, Copy)]
pub(super) struct Taps {
    /// Counted from the start of the axis' span.
    pub(super) index: [u32; 4],
    pub(super) weight: [f32; 4],
}

/// For each output cell along one axis, the indices of the map it reads, with their weights.
pub(super) struct AxisTaps {
    /// The taps of all output cells, one cell after the other.
    taps: Vec<Taps>,
    /// Where the taps of each output cell end.
    ends: Vec<u32>,
    /// The smallest range that holds every index; empty if there is no tap.
    span: Range<usize>,
}

impl AxisTaps {
    /// The taps of output cell `i`; none if it lies off the map.
    #[inline(always)]
    pub(super) fn bin(&self, i: usize) -> &[Taps] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.taps[start..self.ends[i] as usize]
    }

    /// The smallest range that holds every index.
    #[inline(always)]
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Packs (index, weight) of each output cell, where those of cell `i` end at `ends[i]`.
    fn pack(single: &[(u32, f32)], ends: &[usize]) -> Self {
        let low = single.iter().map(|t| t.0).min().unwrap_or(0);
        let high = single.iter().map(|t| t.0 + 1).max().unwrap_or(0);
        let mut packed =
            Self { taps: Vec::new(), ends: Vec::with_capacity(ends.len()), span: low as usize..high as usize };
        let mut start = 0;
        for &end in ends {
            for four in single[start..end].chunks(4) {
                let mut taps = Taps { index: [four[0].0 - low; 4], weight: [0.0; 4] };
                for (k, &(index, weight)) in four.iter().enumerate() {
                    taps.index[k] = index - low;
                    taps.weight[k] = weight;
                }
                packed.taps.push(taps);
            }
            packed.ends.push(packed.taps.len() as u32);
            start = end;
        }
        packed
    }
}

/// The taps of a RoI from `start` to `end` (pixels) on an axis of `size` cells, and the number of samples an output cell
/// has along it. The arithmetic, up to where a sample lies, is torchvision's in f32.
pub(super) fn axis_taps(start: f32, end: f32, size: usize, p: &RoiAlignParams) -> (AxisTaps, f32) {
    let offset = if p.aligned { 0.5 } else { 0.0 };
    let start = start * p.spatial_scale - offset;
    let mut side = end * p.spatial_scale - offset - start;
    if !p.aligned {
        side = side.max(1.0);
    }
    let bin = side / p.output as f32;
    // A side below 0 (an inverted box, aligned) has no adaptive samples: the cast ends at 0.
    let samples = if p.sampling_ratio > 0 { p.sampling_ratio } else { bin.ceil() as usize };
    let limit = size as f32;

    let mut taps: Vec<(u32, f32)> = Vec::with_capacity(4 * p.output);
    let mut ends = Vec::with_capacity(p.output);
    for i in 0..p.output {
        let from = taps.len();
        let base = start + i as f32 * bin;
        for s in candidates(base, bin, samples, limit) {
            let at = base + (s as f32 + 0.5) * bin / samples as f32;
            // Written so that a NaN (an overflow of an absurd box) is outside as well.
            if !(at >= -1.0 && at <= limit) || size == 0 {
                continue;
            }
            let at = at.max(0.0);
            let low = at as usize;
            if low + 1 >= size {
                add(&mut taps, from, size - 1, 1.0);
            } else {
                let high_weight = at - low as f32;
                add(&mut taps, from, low, 1.0 - high_weight);
                add(&mut taps, from, low + 1, high_weight);
            }
        }
        ends.push(taps.len());
    }
    (AxisTaps::pack(&taps, &ends), samples as f32)
}

/// The samples of an output cell that can lie on the map: all of them, or, where there are many (an adaptive RoI far
/// greater than the map), those near it.
fn candidates(base: f32, bin: f32, samples: usize, limit: f32) -> Range<usize> {
    if samples <= RoiAlignParams::MAX_SAMPLING_RATIO {
        return 0..samples;
    }
    // Adaptive: `bin` is above 0. Solves `base + (s + 0.5) * bin / samples` for -1 and for `limit`, in f64, with two
    // samples to spare; the caller tests each.
    let step = f64::from(bin) / samples as f64;
    let index = |at: f64| (at - f64::from(base)) / step - 0.5;
    let first = (index(-1.0) - 2.0).max(0.0) as usize;
    let last = (index(f64::from(limit)) + 3.0).max(0.0) as usize;
    first.min(samples)..last.min(samples)
}

/// Adds a weight to `index`, merged with an earlier tap of the same output cell (whose taps begin at `from`): neighbouring
/// samples share cells.
fn add(taps: &mut Vec<(u32, f32)>, from: usize, index: usize, weight: f32) {
    if weight == 0.0 {
        return;
    }
    let index = index as u32;
    // Samples run one way, so a shared cell is among the last two.
    let recent = from.max(taps.len().saturating_sub(2));
    match taps[recent..].iter_mut().find(|t| t.0 == index) {
        Some(tap) => tap.1 += weight,
        None => taps.push((index, weight)),
    }
}
