//! Backbones: pixels to feature maps. A backbone of your own implements [`Backbone`].

mod builtin;
mod config;
mod interface;
mod mobilenet;
mod resnet;

pub(crate) use builtin::{BUILTIN, builtin};
pub use config::{BackboneConfig, OtherBackbone};
pub use interface::Backbone;
pub use mobilenet::{MobileNetV2, MobileNetV2Config, make_divisible};
pub use resnet::{DEPTHS, ResNet, ResNetConfig};
