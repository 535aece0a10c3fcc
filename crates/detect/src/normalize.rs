//! The normalisation of pixels, which belongs to a model and travels with its weights.

use crate::{Error, ImageBatch, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

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
        let (b, h, w) = batch.check()?;
        let mut data = batch.pixels.flatten_all()?.to_vec1::<f32>()?;
        data.par_chunks_mut((h * w).max(1)).enumerate().for_each(|(plane, pixels)| {
            let (mean, std) = (self.mean[plane % 3], self.std[plane % 3]);
            let (true_h, true_w) = batch.sizes[plane / 3];
            for (y, row) in pixels.chunks_mut(w).enumerate() {
                let inside = if y < true_h { true_w } else { 0 };
                row[..inside].iter_mut().for_each(|x| *x = (*x - mean) / std);
                row[inside..].fill(0.0);
            }
        });
        Ok(Tensor::from_vec(data, (b, 3, h, w), batch.pixels.device())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn normalises_inside_and_zeroes_the_padding() {
        let planes = vec![0.5f32; 3 * 2 * 3];
        let batch = ImageBatch::from_planes(&[(2, 3, &planes)], 4, &Device::Cpu).unwrap();
        let n = Normalize { mean: [0.5, 0.25, 0.0], std: [1.0, 0.5, 0.25] };
        let out = n.apply(&batch).unwrap();
        assert_eq!(out.dims(), &[1, 3, 4, 4]);
        let v = out.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(&v[..8], &[0.0; 8]);
        assert_eq!(&v[16..24], &[0.5, 0.5, 0.5, 0.0, 0.5, 0.5, 0.5, 0.0]);
        assert_eq!(&v[24..32], &[0.0; 8]);
        assert_eq!(&v[32..36], &[2.0, 2.0, 2.0, 0.0]);
    }
}
