//! What only the whole workspace can show against torchvision: pictures to detections, and twenty steps of SGD.
// Clippy knows only `#[test]` functions as tests; helpers may fail the same way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "../../ops/tests/common/mod.rs"]
mod common;
#[path = "../../detect/tests/golden/formula.rs"]
mod formula;

use candle_core::Device;
use common::{Golden, boxes, image};
use docent_coco::{Planes, Resize, ResizeRule, Rgb8};
use docent_detect::{FasterRcnn, ImageBatch, Proposals, ResNetConfig, Targets};
use docent_train::evaluate::to_original;
use docent_train::{Sgd, SgdConfig, data};
use formula::{Formula, batch, builder, config, train_with};

/// A ResNet-18 of so much of its width.
fn narrow(width: f64) -> ResNetConfig {
    ResNetConfig { depth: 18, width, ..ResNetConfig::default() }
}

/// The generator's picture: 8-bit, interleaved.
fn picture(name: &str, height: usize, width: usize) -> Rgb8 {
    let planes = image(name, height, width);
    let n = height * width;
    let byte = |i: usize| (f64::from(planes[(i % 3) * n + i / 3]) * 255.0).floor() as u8;
    Rgb8 { width, height, data: (0..3 * n).map(byte).collect() }
}

#[test]
fn pictures_to_detections_in_their_own_pixels() {
    let golden = Golden::open(env!("CARGO_MANIFEST_DIR"), "pipeline.safetensors");
    let formula = Formula::new(&golden, "pipeline");
    let side = |key: &str| golden.note("resize")[key].as_u64().unwrap() as u32;
    let resize = Resize { shortest: side("shortest"), longest: side("longest"), rule: ResizeRule::Torchvision };
    let sizes: Vec<(usize, usize)> = serde_json::from_value(golden.note("pictures").clone()).unwrap();
    let named = sizes.iter().enumerate().map(|(i, &(h, w))| picture(&format!("{}/picture{i}", formula.seed), h, w));
    let planes: Vec<Planes> = named.map(|picture| resize.apply(&picture).unwrap()).collect();
    let images: Vec<_> = planes.iter().map(|p| (p.height, p.width, p.data.as_slice())).collect();
    let batch = ImageBatch::from_planes(&images, data::SIZE_DIVISOR, &Device::Cpu).unwrap();

    let resized: Vec<usize> = batch.sizes.iter().flat_map(|&(h, w)| [h, w]).collect();
    golden.compare_counts("sizes", &resized);
    golden.compare_counts("padded", batch.pixels.dims());
    let config = config(narrow(0.25), 32, 64);
    golden.summary("pixels", &config.normalize.apply(&batch).unwrap(), 2000);

    let model = FasterRcnn::new(&config, builder(&formula)).unwrap();
    for (i, found) in model.detect(&batch).unwrap().iter().enumerate() {
        let key = |what: &str| format!("detections{i}.{what}");
        let mapped = found.iter().flat_map(|d| to_original(d.bbox, batch.sizes[i], sizes[i]));
        golden.compare_f32(&key("boxes"), &mapped.collect::<Vec<_>>());
        golden.compare_f32(&key("scores"), &found.iter().map(|d| d.score).collect::<Vec<_>>());
        golden.compare_counts(&key("labels"), &found.iter().map(|d| d.label as usize).collect::<Vec<_>>());
    }
    golden.finish(&[""]);
}

#[test]
fn twenty_steps_of_sgd() {
    let golden = Golden::open(env!("CARGO_MANIFEST_DIR"), "steps.safetensors");
    let formula = Formula::new(&golden, "steps");
    let model = FasterRcnn::new(&config(narrow(0.125), 16, 32), builder(&formula)).unwrap();

    let images = [0, 1].map(|turn| batch(&format!("{}/{turn}", formula.seed)));
    let truth = |turn: usize, i: usize| Targets {
        boxes: boxes(&golden.input(&format!("truth{turn}.{i}.boxes"))),
        labels: golden.counts(&format!("truth{turn}.{i}.labels")).into_iter().map(|l| l as u32).collect(),
    };
    let targets = [0, 1].map(|turn| [truth(turn, 0), truth(turn, 1)]);
    let given = |turn: usize| {
        let boxes: Vec<_> = (0..2).map(|i| boxes(&golden.input(&format!("proposals{turn}.{i}")))).collect();
        Proposals { scores: boxes.iter().map(|b| vec![1.0; b.len()]).collect(), boxes }
    };
    let given = [given(0), given(1)];

    let sgd = golden.note("sgd");
    let number = |key: &str| sgd[key].as_f64().unwrap();
    let settings =
        SgdConfig { momentum: number("momentum"), weight_decay: number("weight_decay"), ..SgdConfig::default() };
    let parameters = formula.made.lock().unwrap().vars.clone().into_iter().collect();
    let mut optimizer = Sgd::new(&settings, parameters).unwrap();
    let mut losses = Vec::new();
    for step in 0..number("steps") as usize {
        let turn = step % 2;
        let out = train_with(&model, &images[turn], &targets[turn], &given[turn]).losses;
        for loss in [&out.rpn_objectness, &out.rpn_box, &out.head_class, &out.head_box] {
            losses.push(loss.to_scalar::<f32>().unwrap());
        }
        let grads = out.total().unwrap().backward().unwrap();
        optimizer.step(&grads, number("lr"), 1.0).unwrap();
    }
    golden.compare_f32("losses", &losses);
    let made = formula.made.lock().unwrap();
    for (name, var) in &made.vars {
        let key = format!("after.{name}");
        // A frozen norm's scale and shift are no parameters in torchvision.
        if golden.has(&format!("{key}|norm")) {
            golden.summary(&key, var, 16);
        }
    }
    golden.finish(&[""]);
}
