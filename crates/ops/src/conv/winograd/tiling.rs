//! Tiles of a batch of planes, counted through: image, row of tiles, tile; and panels of them.

use std::ops::Range;

use crate::matmul::PANEL;

use super::transform::OUT;

/// The tiles of 4 x 4 that cover planes of one size.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    images: usize,
    size: [usize; 2],
    down: usize,
    across: usize,
}

/// Tiles that lie side by side in a plane.
pub(super) struct Run {
    pub image: usize,
    /// First row and column of pixels.
    pub y: usize,
    pub x: usize,
    /// How many tiles, and which of those asked for the first is.
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

    /// The tiles of a panel.
    pub fn panel(&self, panel: usize) -> Range<usize> {
        panel * PANEL..self.tiles().min((panel + 1) * PANEL)
    }

    /// Some tiles, cut at the ends of rows.
    pub fn runs(self, tiles: Range<usize>) -> impl Iterator<Item = Run> {
        let Range { start: from, end } = tiles;
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
                for run in tiling.runs(tiling.panel(panel)) {
                    assert_eq!(run.at, next, "runs follow each other");
                    next += run.tiles;
                    let [rows, width] = tiling.inside(&run);
                    for (y, x) in (0..rows).flat_map(|y| (0..width).map(move |x| (y, x))) {
                        seen[(run.image * h + run.y + y) * w + run.x + x] += 1;
                    }
                }
                assert_eq!(next, tiling.panel(panel).len());
            }
            assert!(seen.iter().all(|&n| n == 1), "{images} {h} {w}");
        }
    }
}
