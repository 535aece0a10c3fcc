//! Tiles of a batch of planes, counted through: image, row of tiles, tile; and panels of them.

use crate::matmul::PANEL;

use super::transform::{LINE, Lines, OUT};

/// The tiles of 4 x 4 that cover planes of one size.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    images: usize,
    size: [usize; 2],
    down: usize,
    across: usize,
}

/// Tiles of a panel that lie side by side in a plane.
pub(super) struct Run {
    pub image: usize,
    /// First row and column of pixels.
    pub y: usize,
    pub x: usize,
    /// How many tiles, and which of the panel's the first is.
    pub tiles: usize,
    pub at: usize,
}

impl Tiling {
    /// Covers `images` planes of `[h, w]`.
    pub fn new(images: usize, size: [usize; 2]) -> Self {
        Self { images, size, down: size[0].div_ceil(OUT), across: size[1].div_ceil(OUT) }
    }

    /// All tiles.
    pub fn tiles(&self) -> usize {
        self.images * self.down * self.across
    }

    /// Panels of tiles; the last may be short.
    pub fn panels(&self) -> usize {
        self.tiles().div_ceil(PANEL)
    }

    /// Tiles of a panel.
    pub fn len(&self, panel: usize) -> usize {
        PANEL.min(self.tiles() - panel * PANEL)
    }

    /// The tiles of a panel, cut at the ends of rows.
    pub fn runs(self, panel: usize) -> impl Iterator<Item = Run> {
        let (from, end) = (panel * PANEL, panel * PANEL + self.len(panel));
        let mut tile = from;
        std::iter::from_fn(move || {
            if tile >= end {
                return None;
            }
            let (row, x) = (tile / self.across, tile % self.across);
            let tiles = (self.across - x).min(end - tile);
            let run = Run { image: row / self.down, y: row % self.down * OUT, x: x * OUT, tiles, at: tile - from };
            tile += tiles;
            Some(run)
        })
    }

    /// How many of the rows and columns of a run lie inside the plane.
    pub fn inside(&self, run: &Run) -> [usize; 2] {
        [OUT.min(self.size[0] - run.y), (run.tiles * OUT).min(self.size[1] - run.x)]
    }
}

/// `R` rows of `width` pixels of a plane of `[h, w]`, from `[y, x]` on.
pub(super) struct Window<'a, const R: usize> {
    /// What of the rows lies inside; zeros, as long, for rows outside.
    pub rows: [&'a [f32]; R],
    /// Columns before it and its end.
    pub left: usize,
    pub right: usize,
}

impl<'a, const R: usize> Window<'a, R> {
    pub fn new(plane: &'a [f32], [h, w]: [usize; 2], [y, x]: [isize; 2], width: usize) -> Self {
        const ZEROS: &[f32] = &[0.0; LINE];
        let left = ((-x).max(0) as usize).min(width);
        let right = (w as isize - x).clamp(left as isize, width as isize) as usize;
        let row = |r: usize| {
            let y = y + r as isize;
            if y < 0 || y >= h as isize || left == right {
                return &ZEROS[..right - left];
            }
            let from = y as usize * w + (x + left as isize) as usize;
            &plane[from..from + right - left]
        };
        Self { rows: std::array::from_fn(row), left, right }
    }

    /// Sets the columns outside to 0: what is linear in them is 0 there.
    pub fn clear_outside(&self, width: usize, to: &mut Lines) {
        for line in to.chunks_exact_mut(LINE) {
            line[..self.left].fill(0.0);
            line[self.right..width].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_every_pixel_once() {
        for (images, [h, w]) in [(1, [1, 1]), (2, [9, 7]), (3, [8, 260]), (5, [10, 10])] {
            let tiling = Tiling::new(images, [h, w]);
            let mut seen = vec![0; images * h * w];
            for panel in 0..tiling.panels() {
                let mut next = 0;
                for run in tiling.runs(panel) {
                    assert_eq!(run.at, next, "runs follow each other");
                    next += run.tiles;
                    let [rows, width] = tiling.inside(&run);
                    for (y, x) in (0..rows).flat_map(|y| (0..width).map(move |x| (y, x))) {
                        seen[(run.image * h + run.y + y) * w + run.x + x] += 1;
                    }
                }
                assert_eq!(next, tiling.len(panel));
            }
            assert!(seen.iter().all(|&n| n == 1), "{images} {h} {w}");
        }
    }

    #[test]
    fn outside_the_plane_are_zeros() {
        let plane: Vec<f32> = (1..=6).map(|v| v as f32).collect();
        let window = Window::<4>::new(&plane, [2, 3], [-1, -1], 6);
        assert_eq!((window.left, window.right), (1, 4));
        assert_eq!(window.rows, [&[0.0; 3][..], &plane[..3], &plane[3..], &[0.0; 3]]);
        let mut lines = [9.0; 6 * LINE];
        window.clear_outside(6, &mut lines);
        assert!(lines.chunks_exact(LINE).all(|line| line[..7] == [0.0, 9.0, 9.0, 9.0, 0.0, 0.0, 9.0]));
        let at = |x| Window::<1>::new(&plane, [2, 3], [0, x], 3);
        assert_eq!((at(2).rows, at(2).right), ([&plane[2..3]], 1));
        assert_eq!((at(5).rows[0].len(), at(-9).rows[0].len()), (0, 0));
    }
}
