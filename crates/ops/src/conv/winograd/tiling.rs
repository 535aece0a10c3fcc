//! Tiles of a batch of planes, counted through: image, row of tiles, tile; and panels of them.

use crate::matmul::PANEL;

use super::transform::{LINE, OUT};

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

/// Copies `[rows, width]` pixels of a plane of `[h, w]` from `[y, x]` on to lines, with zeros for what lies outside.
pub(super) fn read(plane: &[f32], [h, w]: [usize; 2], [y, x]: [isize; 2], [rows, width]: [usize; 2], to: &mut [f32]) {
    let left = ((-x).max(0) as usize).min(width);
    let right = (w as isize - x).clamp(left as isize, width as isize) as usize;
    for (r, line) in to.chunks_exact_mut(LINE).take(rows).enumerate() {
        let (line, y) = (&mut line[..width], y + r as isize);
        if y < 0 || y >= h as isize || left == right {
            line.fill(0.0);
            continue;
        }
        line[..left].fill(0.0);
        line[right..].fill(0.0);
        let from = y as usize * w + (x + left as isize) as usize;
        line[left..right].copy_from_slice(&plane[from..from + right - left]);
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
        let mut lines = [9.0; 4 * LINE];
        read(&plane, [2, 3], [-1, -1], [4, 6], &mut lines);
        let want = [[0.0; 6], [0.0, 1.0, 2.0, 3.0, 0.0, 0.0], [0.0, 4.0, 5.0, 6.0, 0.0, 0.0], [0.0; 6]];
        assert!(lines.chunks_exact(LINE).zip(want).all(|(line, want)| line[..6] == want));
        read(&plane, [2, 3], [0, 2], [1, 3], &mut lines);
        assert_eq!(lines[..3], [3.0, 0.0, 0.0]);
        read(&plane, [2, 3], [0, 5], [1, 3], &mut lines);
        assert_eq!(lines[..3], [0.0; 3]);
    }
}
