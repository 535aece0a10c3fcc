//! The normalisation of pixels, which belongs to a model and travels with its weights.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use docent_tensor::{f32_operand, f32_values};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Error, ImageBatch, Result, Size};

/// `(x - mean) / std` for each of R, G and B, over pixels from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Normalize {
    /// The mean of R, G and B.
    pub mean: [f32; 3],
    /// The deviation of R, G and B.
    pub std: [f32; 3],
}

impl Default for Normalize {
    fn default() -> Self {
        Self::imagenet()
    }
}

impl Normalize {
    /// ImageNet's statistics as torchvision's weights want them.
    pub const fn imagenet() -> Self {
        Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// A mean that is not finite, a deviation that is not above 0.
    pub fn validate(&self) -> Result<()> {
        if !self.mean.iter().all(|m| m.is_finite()) {
            return Err(Error::config("normalize.mean", format!("{:?} is not finite", self.mean)));
        }
        if !self.std.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Err(Error::config(
                "normalize.std",
                format!("{:?}: each must be a finite number above 0", self.std),
            ));
        }
        Ok(())
    }

    /// Normalises a batch; what lies outside each image's true size is 0 afterwards, as torchvision pads after it
    /// normalises.
    ///
    /// # Shapes
    /// `[B, 3, H, W]` to the same.
    ///
    /// # Errors
    /// Pixels of another shape or type.
    pub fn apply(&self, batch: &ImageBatch) -> Result<Tensor> {
        batch.padded()?;
        let op = NormalizePixels { statistics: *self, sizes: batch.sizes.clone() };
        Ok(f32_operand("normalize", "pixels", &batch.pixels)?.apply_op1_no_bwd(&op)?)
    }
}

/// The normalisation as one operation on the batch's storage.
struct NormalizePixels {
    statistics: Normalize,
    sizes: Vec<Size>,
}

impl CustomOp1 for NormalizePixels {
    fn name(&self) -> &'static str {
        "normalize"
    }

    fn cpu_fwd(&self, pixels: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, channels, h, w) = layout.shape().dims4()?;
        let pixels = f32_values(self.name(), pixels, layout)?;
        let mut out = vec![0f32; pixels.len()];
        let planes = pixels.par_chunks((h * w).max(1)).zip(out.par_chunks_mut((h * w).max(1)));
        planes.enumerate().for_each(|(plane, (pixels, out))| {
            let (mean, std) = (self.statistics.mean[plane % channels], self.statistics.std[plane % channels]);
            let size = self.sizes[plane / channels];
            for (row, out) in pixels.chunks(w).zip(out.chunks_mut(w)).take(size.height) {
                row[..size.width].iter().zip(out).for_each(|(x, out)| *out = (x - mean) / std);
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn normalises_inside_and_zeroes_the_padding() {
        let planes = vec![0.5f32; 3 * 2 * 3];
        let batch = ImageBatch::from_planes(&[(Size { height: 2, width: 3 }, &planes)], 4, &Device::Cpu).unwrap();
        let n = Normalize { mean: [0.5, 0.25, 0.0], std: [1.0, 0.5, 0.25] };
        let out = n.apply(&batch).unwrap();
        assert!(!out.track_op());
        assert_eq!(out.dims(), &[1, 3, 4, 4]);
        let v = out.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(&v[..8], &[0.0; 8]);
        assert_eq!(&v[16..24], &[0.5, 0.5, 0.5, 0.0, 0.5, 0.5, 0.5, 0.0]);
        assert_eq!(&v[24..32], &[0.0; 8]);
        assert_eq!(&v[32..36], &[2.0, 2.0, 2.0, 0.0]);
    }
}
