//! A backbone of your own, trained by docent from a recipe: `cargo run --release -p docent-study --example own_backbone -- DIR`.
//!
//! [`PlainNet`] is made of docent's layers. [`registry`] gives it a name, and `own_backbone.toml` names it. The study's folder is
//! DIR/study. The model is small and the training short: the example shows the calls, not a good figure.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use docent_coco::shapes::{ShapesConfig, generate};
use docent_detect::backbone::{Backbone, BackboneConfig};
use docent_detect::layers::{Conv2dConfig, ConvNorm, ModelBuilder, NormKind};
use docent_detect::{Error, FeaturePyramid, FeatureSpec, Mode};
use docent_study::manifest::Provenance;
use docent_study::recipe::Recipe;
use docent_study::study::{self, StudyOptions};
use docent_study::summary::StudySummary;
use docent_study::{Registry, Result};
use docent_train::CancelToken;
use docent_train::events::Fanout;

/// Five convolutions of stride 2, each with BatchNorm and ReLU. The last four give C2 to C5.
#[derive(Debug)]
struct PlainNet {
    layers: Vec<ConvNorm>,
    outputs: Vec<FeatureSpec>,
}

impl PlainNet {
    /// `width` is the number of channels of the first layer.
    fn new(width: usize, builder: &ModelBuilder<'_>) -> docent_detect::Result<Self> {
        let (mut layers, mut outputs, mut c_in) = (Vec::new(), Vec::new(), 3);
        for (stage, factor) in [1, 2, 4, 8, 16].into_iter().enumerate() {
            let c_out = width * factor;
            // Freezing counts stages, and the count of operations needs the stride of a layer's input.
            let layer = builder.pp(format!("layer{stage}")).stage(stage).on_maps(&[1 << stage]);
            let conv = Conv2dConfig::new(c_in, c_out, 3).stride(2);
            layers.push(ConvNorm::new(&conv, NormKind::BatchNorm, 1e-5, &layer.pp("conv"), &layer.pp("norm"))?);
            if stage > 0 {
                outputs.push(FeatureSpec { name: format!("c{}", stage + 1), stride: 2 << stage, channels: c_out });
            }
            c_in = c_out;
        }
        Ok(Self { layers, outputs })
    }
}

impl Backbone for PlainNet {
    fn outputs(&self) -> &[FeatureSpec] {
        &self.outputs
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> docent_detect::Result<FeaturePyramid> {
        let mut maps = vec![x.clone()];
        for layer in &self.layers {
            maps.push(layer.forward(&maps[maps.len() - 1], None, true, mode)?);
        }
        Ok(FeaturePyramid::new(maps.split_off(2), &self.outputs))
    }
}

fn fault(message: &str) -> Error {
    Error::Config { field: "backbone.width", message: message.to_owned() }
}

/// docent's detectors, backbones and methods, and `plain_net` with its field `width`.
pub fn registry() -> Registry {
    let mut registry = Registry::builtin();
    registry.models = registry.models.with_backbone("plain_net", |config, builder| {
        let BackboneConfig::Other(config) = config else { return Err(fault("the settings are another backbone's")) };
        let width =
            config.fields.get("width").and_then(|width| width.as_u64()).filter(|width| (1..=64).contains(width));
        let width = width.ok_or_else(|| fault("give a whole number from 1 to 64"))?;
        Ok(Arc::new(PlainNet::new(width as usize, builder)?))
    });
    registry
}

/// Draws data in `dir` and runs the recipe, with some of its fields changed, in `dir`/study.
pub fn train(dir: &Path, changes: &[String]) -> Result<StudySummary> {
    generate(&dir.join("data"), &ShapesConfig::default().train(48).val(16))?;
    let mut recipe = Recipe::parse(include_str!("own_backbone.toml"), changes)?;
    recipe.data.dir = Some(dir.join("data"));
    let (dir, provenance, cancel) = (dir.join("study"), Provenance::default(), CancelToken::default());
    let options = StudyOptions { dir, resume: false, provenance, cancel, registry: registry() };
    study::run(&recipe, &options, &mut Fanout::default())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("name a folder to work in")?;
    print!("{}", train(Path::new(&dir), &[])?.table());
    Ok(())
}
