//! Where a model's layers take their parameters from; each layer registers itself here.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Shape, Tensor};
use candle_nn::{Init, VarBuilder};

use super::list::{LayerInfo, LayerKind, LayerList, Place};
use crate::Result;

/// A [`VarBuilder`] with the list of the layers that were made from it.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::VarBuilder;
/// use docent_detect::layers::{Conv2d, Conv2dConfig, ModelBuilder};
///
/// # fn main() -> docent_detect::Result<()> {
/// let builder = ModelBuilder::new(VarBuilder::zeros(DType::F32, &Device::Cpu));
/// // A stem that reads pixels and halves their sides.
/// let stem = builder.pp("stem").stage(0).on_maps(&[1]);
/// Conv2d::new(&Conv2dConfig::new(3, 16, 3).stride(2), &stem)?;
/// assert_eq!(builder.layers().frozen(1), ["stem.weight"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ModelBuilder<'a> {
    vb: VarBuilder<'a>,
    layers: Arc<Mutex<Vec<LayerInfo>>>,
    place: Place,
    stage: Option<usize>,
}

impl<'a> ModelBuilder<'a> {
    /// A builder with an empty list, for layers on maps of pixels.
    pub fn new(vb: VarBuilder<'a>) -> Self {
        Self { vb, layers: Arc::default(), place: Place::Maps(vec![1]), stage: None }
    }

    /// The builder one step down the path. It shares the list.
    #[must_use]
    pub fn pp(&self, name: impl ToString) -> Self {
        Self { vb: self.vb.pp(name), ..self.clone() }
    }

    /// The same for layers whose inputs are maps with cells of these sides, in pixels of the padded image. A layer that is shared by
    /// several maps names each.
    #[must_use]
    pub fn on_maps(&self, strides: &[usize]) -> Self {
        Self { place: Place::Maps(strides.to_vec()), ..self.clone() }
    }

    /// The same for layers that are applied once to each region of interest.
    #[must_use]
    pub fn on_regions(&self) -> Self {
        Self { place: Place::Regions, ..self.clone() }
    }

    /// The same for layers of a freezable part of the backbone: 0 is the stem, 1 the first stage.
    #[must_use]
    pub fn stage(&self, stage: usize) -> Self {
        Self { stage: Some(stage), ..self.clone() }
    }

    /// A parameter by itself, for a layer that this crate does not have.
    ///
    /// # Errors
    /// A parameter that is missing or has another shape.
    pub fn parameter(&self, shape: impl Into<Shape>, name: &str, init: Init) -> Result<Tensor> {
        let shape = shape.into();
        self.pp(name).register(LayerKind::Parameter { shape: shape.dims().to_vec() });
        self.get(shape, name, init)
    }

    /// The layers made so far, from this builder and from all that share its list.
    pub fn layers(&self) -> LayerList {
        LayerList::new(self.layers.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    pub(super) fn get(&self, shape: impl Into<Shape>, name: &str, init: Init) -> Result<Tensor> {
        Ok(self.vb.get_with_hints(shape, name, init)?)
    }

    pub(super) fn register(&self, kind: LayerKind) {
        let layer = LayerInfo { name: self.vb.prefix(), kind, place: self.place.clone(), stage: self.stage };
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).push(layer);
    }
}
