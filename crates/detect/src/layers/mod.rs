//! The layers that detectors are made of, and the list in which each registers itself.
//!
//! A layer takes its parameters from a [`ModelBuilder`] and enters its name, kind and shapes into the builder's [`LayerList`]. Work
//! ([`LayerList::flops`]), freezing, running statistics and weight import read that list, so a backbone of your own that is made of
//! these layers has all four.
//!
//! In [`Mode::Eval`](crate::Mode::Eval) a layer reads its parameters outside any graph: what a model computes there has no gradient.

mod builder;
mod conv;
mod conv_norm;
mod linear;
mod list;
mod norm;

pub use builder::ModelBuilder;
pub use conv::{Conv2d, Conv2dConfig};
pub use conv_norm::ConvNorm;
pub use linear::Linear;
pub use list::{LayerInfo, LayerKind, LayerList, Place, TensorInfo, TensorRole};
pub use norm::{Norm, NormKind};
