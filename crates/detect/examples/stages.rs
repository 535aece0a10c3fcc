//! A small Faster R-CNN stage by stage, then sixty steps of training on one image in a loop of one's own.
//!
//! `cargo run -p docent-detect --example stages` takes a few seconds. Parameters come from candle's own `VarMap`, the optimizer is
//! candle's; `docent-train` has both with names, seeds and checkpoints.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use candle_core::{DType, Device};
use candle_nn::{Optimizer, SGD, VarBuilder, VarMap};
use docent_detect::backbone::ResNetConfig;
use docent_detect::layers::NormKind;
use docent_detect::{
    BalancedPositiveNegativeSampler, Detector, FasterRcnn, FasterRcnnConfig, ImageBatch, Mode, RegionHeads, Size,
    Target,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// A ResNet-18 with a quarter of its channels.
fn config() -> FasterRcnnConfig {
    let norm = NormKind::GroupNorm { groups: 4 };
    let mut config = FasterRcnnConfig::default()
        .classes(3)
        .fpn_channels(32)
        .backbone(ResNetConfig::default().depth(18).width_multiplier(0.25).norm(norm));
    config.anchors.sizes = vec![16.0, 24.0, 32.0, 64.0, 128.0];
    config.rpn.post_nms_top_n_train = 100;
    config.rpn.post_nms_top_n_test = 50;
    config.roi.batch_size_per_image = 32;
    config.roi.representation_size = 64;
    config.roi.canonical_box_size = 56.0;
    config
}

fn main() -> Outcome<()> {
    let (height, width) = (96, 128);
    // A red square and a blue one on grey, as RGB planes of 0..1.
    let truth = [[16.0, 20.0, 44.0, 52.0], [72.0, 40.0, 112.0, 76.0f32]];
    let colours = [[0.9, 0.1, 0.1], [0.1, 0.1, 0.9f32]];
    let pixel = |i: usize| {
        let (c, y, x) = (i / (height * width), (i / width % height) as f32, (i % width) as f32);
        let at = truth.iter().position(|b| (b[0]..b[2]).contains(&x) && (b[1]..b[3]).contains(&y));
        at.map_or(0.5, |object| colours[object][c])
    };
    let planes: Vec<f32> = (0..3 * height * width).map(pixel).collect();
    let batch = ImageBatch::from_planes(&[(Size::new(height, width), &planes)], 32, &Device::Cpu)?;
    let targets = [Target { boxes: truth.to_vec(), labels: vec![1, 2] }];

    let store = VarMap::new();
    let model = FasterRcnn::new(&config(), VarBuilder::from_varmap(&store, DType::F32, &Device::Cpu))?;
    println!("{:.2} GFLOPs an image", model.flops(Size::new(height, width)) as f64 / 1e9);

    let features = model.features(&batch, Mode::Eval)?;
    for (level, stride) in features.levels.iter().zip(&features.strides) {
        println!("stride {stride:>2}: {:?}", level.dims());
    }
    let rpn = model.rpn(&features, &batch, Mode::Eval)?;
    let anchors: usize = rpn.anchors.iter().map(Vec::len).sum();
    let proposals = model.propose(&features, &batch, Mode::Eval)?;
    let head = model.box_head(&features, &proposals.rois(), Mode::Eval)?;
    println!(
        "{anchors} anchors, {} proposals, class logits {:?}, deltas {:?}\n",
        proposals.boxes[0].len(),
        head.class_logits.dims(),
        head.box_deltas.dims()
    );

    let mut optimizer = SGD::new(store.all_vars(), 0.02)?;
    for step in 1..=60 {
        // The sampler draws which anchors and regions the losses look at.
        let mut sampler = BalancedPositiveNegativeSampler::seeded(step, batch.len());
        let out = model.forward_train(&batch, &targets, &mut sampler)?;
        let loss = out.total()?;
        if step == 1 || step % 10 == 0 {
            println!("step {step:>2}: loss {:.3}", loss.to_scalar::<f32>()?);
        }
        optimizer.backward_step(&loss)?;
    }
    println!("\nfound, best first (truth {truth:?}):");
    for d in model.detect(&batch)?.iter().flatten().take(4) {
        println!("  class {} with {:.2} at {:.0?}", d.label, d.score, d.bbox);
    }
    Ok(())
}
