//! The backbone trait.

use candle_core::Tensor;

use crate::{FeaturePyramid, FeatureSpec, Mode, Result};

/// A backbone: normalised pixels in, feature maps of falling size out.
///
/// A backbone that is made of [`crate::layers`] needs these two functions alone: FLOPs, freezing and running statistics are read
/// from the list of the [`ModelBuilder`](crate::layers::ModelBuilder) that made its layers.
pub trait Backbone: std::fmt::Debug + Send + Sync {
    /// Name, stride and channels of each map that [`Backbone::forward`] gives, finest first.
    fn outputs(&self) -> &[FeatureSpec];

    /// Normalised pixels `[B, 3, H, W]` to the maps of [`Backbone::outputs`], whose sides are those of the input over their stride,
    /// rounded up.
    ///
    /// # Errors
    /// Pixels of another shape.
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<FeaturePyramid>;
}
