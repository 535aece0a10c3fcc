//! The foreground mask: the weight of each cell of a feature map in the feature term.

use docent_detect::{FeaturePyramid, Size, Target};
use docent_ops::BoxXyxy;

use crate::config::{GridRule, LevelRule, MaskKind, TaskAdaptiveConfig};
use crate::error::{Error, Result};

/// Spread of the Gaussian: `M = exp(-dx²/(S2 (w/2)²) - dy²/(S2 (h/2)²))`. \[ours\]
pub const S2: f32 = 2.0;

/// How boxes become a mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaskRule {
    /// Gaussian, binary or ones.
    pub kind: MaskKind,
    /// Every level, or one by scale.
    pub levels: LevelRule,
    /// Side in pixels for [`LevelRule::ByScale`].
    pub base: f32,
    /// How a box meets the cells.
    pub grid: GridRule,
}

impl Default for MaskRule {
    fn default() -> Self {
        Self::from_config(&TaskAdaptiveConfig::default())
    }
}

impl MaskRule {
    /// The rule that a config names.
    pub fn from_config(config: &TaskAdaptiveConfig) -> Self {
        Self { kind: config.mask, levels: config.levels, base: config.base, grid: config.grid }
    }
}

/// The mask of one pyramid level over a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelMask {
    /// `[B, H, W]`, row-major, values in 0..=1.
    pub values: Vec<f32>,
    /// `N_l`: the sum of the values.
    pub sum: f64,
}

/// One image's Gaussian mask on one level.
///
/// For a box with centre (x0, y0) and size w x h, in the same unit as x and y \[half-side scaling, zero outside, max
/// on overlap, `S2 = 2`: ours\]:
///
/// `M(x, y) = exp(-(x - x0)²/(2 (w/2)²) - (y - y0)²/(2 (h/2)²))` inside the box, 0 outside; the maximum over the
/// boxes.
///
/// `boxes` are xyxy in pixels of the network's input, `size` is the level's in cells, `stride` the pixels a
/// cell covers. Boxes without area are passed over.
///
/// # Shapes
/// Returns `[rows * columns]`, row-major.
pub fn gaussian_mask(boxes: &[BoxXyxy], size: Size, stride: usize, grid: GridRule) -> Vec<f32> {
    let mut mask = vec![0.0; size.height * size.width];
    for b in boxes {
        paint(&mut mask, size, stride, b, MaskKind::Gaussian, grid);
    }
    mask
}

/// The level of `0..levels` that [`LevelRule::ByScale`] gives a box: `clamp(floor(log2(sqrt(w h)/base + 1e-6)), 0,
/// levels - 1)`. \[ours\]
pub fn level_of(b: &BoxXyxy, base: f32, levels: usize) -> usize {
    let side = ((b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0)).sqrt();
    let level = (side / base + 1e-6).log2().floor();
    // A float-to-integer cast saturates, so a scale below the base lands on level 0.
    (level as usize).min(levels.saturating_sub(1))
}

/// The mask of level `level` of `levels` for a batch; `boxes` holds each image's.
///
/// `size` is the level's in cells.
pub fn level_mask(
    rule: &MaskRule,
    boxes: &[&[BoxXyxy]],
    level: usize,
    levels: usize,
    size: Size,
    stride: usize,
) -> LevelMask {
    let cells = size.height * size.width;
    if rule.kind == MaskKind::Ones {
        let values = vec![1.0; boxes.len() * cells];
        return LevelMask { sum: values.len() as f64, values };
    }
    let mut values = vec![0.0; boxes.len() * cells];
    if cells > 0 {
        for (mask, boxes) in values.chunks_exact_mut(cells).zip(boxes) {
            for b in *boxes {
                if rule.levels == LevelRule::All || level_of(b, rule.base, levels) == level {
                    paint(mask, size, stride, b, rule.kind, rule.grid);
                }
            }
        }
    }
    let sum = values.iter().map(|&v| f64::from(v)).sum();
    LevelMask { values, sum }
}

/// The mask of every level of `maps` for the boxes of `targets`.
///
/// # Errors
/// [`Error::Mismatch`] if the targets are not one an image, or the strides not one a level.
pub fn masks(rule: &MaskRule, maps: &FeaturePyramid, targets: &[Target]) -> Result<Vec<LevelMask>> {
    let boxes: Vec<&[BoxXyxy]> = targets.iter().map(|t| t.boxes.as_slice()).collect();
    let levels = maps.levels.len();
    if maps.strides.len() != levels {
        return Err(Error::mismatch("mask", format!("{} strides for {levels} levels", maps.strides.len())));
    }
    let level = |(level, (map, &stride)): (usize, (&candle_core::Tensor, &usize))| {
        let (batch, _, h, w) = map.dims4()?;
        if batch != boxes.len() {
            return Err(Error::mismatch("mask", format!("targets of {} images for a batch of {batch}", boxes.len())));
        }
        Ok(level_mask(rule, &boxes, level, levels, Size::new(h, w), stride))
    };
    maps.levels.iter().zip(&maps.strides).enumerate().map(level).collect()
}

/// Raises `mask` to one box's values.
fn paint(mask: &mut [f32], size: Size, stride: usize, b: &BoxXyxy, kind: MaskKind, grid: GridRule) {
    let real = b.iter().all(|v| v.is_finite());
    if !real || b[2] <= b[0] || b[3] <= b[1] || stride == 0 {
        return;
    }
    let (rows, columns) = (size.height, size.width);
    let (xs, ys) = match grid {
        GridRule::CellCenter => (centre_profile(b[0], b[2], columns, stride), centre_profile(b[1], b[3], rows, stride)),
        GridRule::IntBox => {
            (truncated_profile(b[0], b[2], columns, stride), truncated_profile(b[1], b[3], rows, stride))
        }
    };
    // The Gaussian is separable: two profiles and their product.
    for &(i, gy) in &ys.values {
        for &(j, gx) in &xs.values {
            let value = if kind == MaskKind::Gaussian { gy * gx } else { 1.0 };
            let cell = &mut mask[i * columns + j];
            *cell = cell.max(value);
        }
    }
    // The cell under the centre stands for the box even where no cell's centre falls inside it.
    if let (Some(i), Some(j)) = (ys.centre, xs.centre) {
        mask[i * columns + j] = 1.0;
    }
}

/// One side of a box on one axis of cells.
struct Profile {
    /// (cell, Gaussian factor) of each cell inside.
    values: Vec<(usize, f32)>,
    /// The cell that is 1 whatever its distance.
    centre: Option<usize>,
}

/// Cell centres against the real-valued side `lo..=hi`.
fn centre_profile(lo: f32, hi: f32, cells: usize, stride: usize) -> Profile {
    let stride = stride as f32;
    let (middle, half) = (0.5 * (lo + hi), 0.5 * (hi - lo));
    let first = ((lo / stride - 0.5).floor().max(0.0) as usize).min(cells);
    let last = ((hi / stride + 0.5).ceil().max(0.0) as usize).min(cells);
    let inside = |j: &usize| {
        let x = (*j as f32 + 0.5) * stride;
        lo <= x && x <= hi
    };
    let factor = |j: usize| {
        let d = ((j as f32 + 0.5) * stride - middle) / half;
        (j, (-d * d / S2).exp())
    };
    let under = (middle / stride).floor();
    Profile {
        values: (first..last).filter(inside).map(factor).collect(),
        centre: (under >= 0.0 && (under as usize) < cells).then_some(under as usize),
    }
}

/// The side's ends divided by the stride and truncated, half-open; its centre is `n/2` over `0..n`.
fn truncated_profile(lo: f32, hi: f32, cells: usize, stride: usize) -> Profile {
    let stride = stride as f32;
    let (first, last) = ((lo / stride).trunc() as i64, (hi / stride).trunc() as i64);
    let half = (last - first) as f32 / 2.0;
    let values = (first.max(0)..last.min(cells as i64))
        .map(|j| {
            let d = ((j - first) as f32 - half) / half;
            (j as usize, (-d * d / S2).exp())
        })
        .collect();
    Profile { values, centre: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULE: MaskRule =
        MaskRule { kind: MaskKind::Gaussian, levels: LevelRule::All, base: 56.0, grid: GridRule::CellCenter };

    fn close(a: f32, b: f32) {
        assert!((a - b).abs() < 1e-5, "{a} is not {b}");
    }

    #[test]
    fn the_truncated_grid_has_the_documented_values() {
        // Eight by four cells at stride 4, with fractions that truncation drops.
        let m = gaussian_mask(&[[1.0, 2.0, 33.0, 19.0]], Size::new(6, 10), 4, GridRule::IntBox);
        close(m[2 * 10 + 4], 1.0);
        close(m[2 * 10], 0.60653);
        close(m[4], 0.60653);
        close(m[0], 0.36788);
        assert_eq!(m[8], 0.0, "half-open on the right");
        assert_eq!(m[4 * 10], 0.0, "half-open below");
    }

    #[test]
    fn cell_centres_have_literal_values() {
        // Centre (10, 6), half sides 10 and 6; stride 4: centres 2, 6, 10, 14, 18 and 2, 6, 10.
        let m = gaussian_mask(&[[0.0, 0.0, 20.0, 12.0]], Size::new(4, 6), 4, GridRule::CellCenter);
        close(m[6 + 2], 1.0);
        close(m[6 + 1], (-0.08f32).exp());
        close(m[6], (-0.32f32).exp());
        close(m[2], (-(16.0f32) / 72.0).exp());
        close(m[0], (-0.32f32 - 16.0 / 72.0).exp());
        assert_eq!(m[5], 0.0, "the cell centred on 22 is outside");
        assert_eq!(m[3 * 6 + 2], 0.0, "the cell centred on 14 is outside");
    }

    #[test]
    fn the_centre_cell_is_one_off_centre_too() {
        // Centre (9, 9) lies in cell 2 of stride 4, centred on 10.
        let m = gaussian_mask(&[[1.0, 1.0, 17.0, 17.0]], Size::new(5, 5), 4, GridRule::CellCenter);
        assert_eq!(m[2 * 5 + 2], 1.0);
        close(m[2 * 5 + 1], (-(1.0f32 + 9.0) / 128.0).exp());
    }

    #[test]
    fn disjoint_boxes_do_not_meet() {
        let (a, b) = ([0.0, 0.0, 16.0, 16.0], [32.0, 32.0, 48.0, 40.0]);
        let both = gaussian_mask(&[a, b], Size::new(12, 12), 4, GridRule::CellCenter);
        let (one, two) = (
            gaussian_mask(&[a], Size::new(12, 12), 4, GridRule::CellCenter),
            gaussian_mask(&[b], Size::new(12, 12), 4, GridRule::CellCenter),
        );
        for ((x, y), z) in one.iter().zip(&two).zip(&both) {
            assert!(*x == 0.0 || *y == 0.0);
            assert_eq!(x + y, *z);
        }
    }

    #[test]
    fn overlap_takes_the_maximum_in_any_order() {
        let (a, b) = ([0.0, 0.0, 32.0, 32.0], [12.0, 8.0, 40.0, 30.0]);
        let both = gaussian_mask(&[a, b], Size::new(12, 12), 4, GridRule::CellCenter);
        assert_eq!(both, gaussian_mask(&[b, a], Size::new(12, 12), 4, GridRule::CellCenter));
        let (one, two) = (
            gaussian_mask(&[a], Size::new(12, 12), 4, GridRule::CellCenter),
            gaussian_mask(&[b], Size::new(12, 12), 4, GridRule::CellCenter),
        );
        assert!(one.iter().zip(&two).any(|(x, y)| *x > 0.0 && *y > 0.0));
        for ((x, y), z) in one.iter().zip(&two).zip(&both) {
            assert_eq!(x.max(*y), *z);
        }
    }

    #[test]
    fn a_box_thinner_than_a_cell_is_still_one_cell() {
        // One pixel wide, between the centres 2 and 6; tall enough for cells 1 and 2.
        let m = gaussian_mask(&[[3.2, 5.0, 3.9, 11.0]], Size::new(4, 4), 4, GridRule::CellCenter);
        let painted: Vec<_> = m.iter().enumerate().filter(|(_, v)| **v > 0.0).collect();
        assert_eq!(painted, [(2 * 4, &1.0)]);
        assert!(
            gaussian_mask(&[[3.2, 5.0, 3.9, 11.0]], Size::new(4, 4), 4, GridRule::IntBox).iter().all(|v| *v == 0.0)
        );
    }

    #[test]
    fn boxes_without_area_are_passed_over() {
        for b in [[4.0, 4.0, 4.0, 9.0], [9.0, 4.0, 4.0, 9.0], [f32::NAN, 0.0, 4.0, 4.0]] {
            for grid in [GridRule::CellCenter, GridRule::IntBox] {
                assert!(gaussian_mask(&[b], Size::new(4, 4), 4, grid).iter().all(|v| *v == 0.0));
            }
        }
    }

    #[test]
    fn binary_and_ones() {
        let boxes: [&[BoxXyxy]; 2] = [&[[0.0, 0.0, 8.0, 4.0]], &[]];
        let binary = level_mask(&MaskRule { kind: MaskKind::Binary, ..RULE }, &boxes, 0, 1, Size::new(2, 3), 4);
        assert_eq!(binary.values, [1., 1., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0.]);
        assert_eq!(binary.sum, 2.0);
        let ones = level_mask(&MaskRule { kind: MaskKind::Ones, ..RULE }, &boxes, 0, 1, Size::new(2, 3), 4);
        assert_eq!((ones.values.len(), ones.sum), (12, 12.0));
        assert!(ones.values.iter().all(|v| *v == 1.0));
    }

    #[test]
    fn scale_chooses_one_level() {
        let square = |side: f32| [0.0, 0.0, side, side];
        for (side, want) in
            [(8.0, 0), (56.0, 0), (111.0, 0), (112.0, 1), (224.0, 2), (447.0, 2), (448.0, 3), (1000.0, 4), (4000.0, 4)]
        {
            assert_eq!(level_of(&square(side), 56.0, 5), want, "side {side}");
        }
        assert_eq!(level_of(&square(4000.0), 56.0, 3), 2);
        assert_eq!(level_of(&[0.0; 4], 56.0, 5), 0);
        let rule = MaskRule { levels: LevelRule::ByScale, ..RULE };
        let boxes: [&[BoxXyxy]; 1] = [&[[0.0, 0.0, 120.0, 120.0]]];
        let masses: Vec<_> =
            (0..5).map(|l| level_mask(&rule, &boxes, l, 5, Size::new(32 >> l, 32 >> l), 4 << l).sum > 0.0).collect();
        assert_eq!(masses, [false, true, false, false, false]);
        assert!((0..5).all(|l| level_mask(&RULE, &boxes, l, 5, Size::new(32 >> l, 32 >> l), 4 << l).sum > 0.0));
    }

    proptest! {
        #[test]
        fn values_lie_in_the_unit_interval_and_each_centre_is_one(
            sides in prop::collection::vec((0.0f32..60.0, 0.0f32..60.0, 0.5f32..30.0, 0.5f32..30.0), 1..5),
            level in 0usize..4,
        ) {
            let stride = 4 << level;
            let size = Size::new(96, 96).div_ceil(stride);
            let boxes: Vec<BoxXyxy> = sides.iter().map(|&(x, y, w, h)| [x, y, x + w, y + h]).collect();
            let m = gaussian_mask(&boxes, size, stride, GridRule::CellCenter);
            prop_assert!(m.iter().all(|v| (0.0..=1.0).contains(v)));
            for b in &boxes {
                let under = |lo: f32, hi: f32| (0.5 * (lo + hi) / stride as f32) as usize;
                prop_assert_eq!(m[under(b[1], b[3]) * size.width + under(b[0], b[2])], 1.0);
            }
            for (cell, v) in m.iter().enumerate() {
                let (x, y) = ((cell % size.width) as f32 + 0.5, (cell / size.width) as f32 + 0.5);
                let (x, y) = (x * stride as f32, y * stride as f32);
                let inside = boxes.iter().any(|b| b[0] <= x && x <= b[2] && b[1] <= y && y <= b[3]);
                // Inside, the farthest corner is exp(-1); outside only a centre cell may be painted.
                let as_it_should = if inside { *v >= 0.3678 } else { *v == 0.0 || *v == 1.0 };
                prop_assert!(as_it_should, "cell {cell}: {v}");
            }
        }
    }
}
