//! Which level of the pyramid a region is pooled from.

use crate::config::RoiConfig;
use docent_ops::BoxXyxy;
use docent_ops::boxes::area;

/// torchvision's guard against a rounding error just below a whole level.
const EPS: f32 = 1e-6;

/// Equation 1 of the FPN paper, with torchvision's guard:
/// `floor(canonical_level + log2(sqrt(area) / canonical_box_size) + 1e-6)`, kept within the levels that there are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelMapper {
    scale: f32,
    level: f32,
    least: f32,
    most: f32,
}

impl LevelMapper {
    /// A mapper over levels of these strides, which are powers of two, finest first, each twice the one before.
    pub fn new(cfg: &RoiConfig, strides: &[usize]) -> Self {
        let least = strides.first().map_or(0.0, |s| s.max(&1).ilog2() as f32);
        Self {
            scale: cfg.canonical_box_size,
            level: cfg.canonical_level as f32,
            least,
            most: least + strides.len().saturating_sub(1) as f32,
        }
    }

    /// The position of a box's level among the strides, 0 the finest.
    pub fn level(&self, bbox: &BoxXyxy) -> usize {
        let side = area(bbox).sqrt();
        let level = (self.level + (side / self.scale).log2() + EPS).floor();
        // A box without area has the level -inf, one with NaN counts as the finest.
        (level.clamp(self.least, self.most) - self.least) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(side: f32) -> BoxXyxy {
        [3.0, 5.0, 3.0 + side, 5.0 + side]
    }

    #[test]
    fn borders_belong_to_the_coarser_level() {
        let m = LevelMapper::new(&RoiConfig::default(), &[4, 8, 16, 32]);
        for (side, level) in
            [(1.0, 0), (111.9, 0), (112.0, 1), (223.9, 1), (224.0, 2), (447.9, 2), (448.0, 3), (5000.0, 3)]
        {
            assert_eq!(m.level(&square(side)), level, "side {side}");
        }
        // Within 1e-6 of the border in log2, but not beyond: floor would give the finer level without the guard.
        assert_eq!(m.level(&[0.0, 0.0, 223.999_98, 224.0]), 2);
        assert_eq!(m.level(&[0.0, 0.0, 223.99, 224.0]), 1);
    }

    #[test]
    fn odd_boxes_have_a_level() {
        let m = LevelMapper::new(&RoiConfig::default(), &[4, 8, 16, 32]);
        assert_eq!(m.level(&[5.0, 5.0, 5.0, 9.0]), 0);
        assert_eq!(m.level(&[f32::NAN; 4]), 0);
        assert_eq!(m.level(&[0.0, 0.0, f32::INFINITY, 1.0]), 3);
    }

    #[test]
    fn the_canonical_box_size_moves_the_borders() {
        let cfg = RoiConfig { canonical_box_size: 56.0, ..RoiConfig::default() };
        let m = LevelMapper::new(&cfg, &[4, 8, 16, 32]);
        assert_eq!([27.0, 28.0, 56.0, 112.0].map(|s| m.level(&square(s))), [0, 1, 2, 3]);
    }
}
