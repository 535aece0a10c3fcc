//! How RoIAlign samples.

use crate::{Error, Result};

/// The operation's name in errors.
pub(super) const NAME: &str = "roi_align";

/// How [`roi_align`](crate::roi_align) samples.
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

    /// Checks ranges.
    pub(super) fn check(&self) -> Result<()> {
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
