//! What only the whole workspace can show against torchvision: pictures to detections, and the optimizers' steps.
// Clippy knows only `#[test]` functions as tests; helpers may fail the same way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "../../ops/tests/common/mod.rs"]
mod common;
#[path = "../../detect/tests/golden/formula.rs"]
mod formula;

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use common::{Golden, boxes, fill, image, leaf, values};
use docent_coco::{Planes, Resize, ResizeRule, Rgb8};
use docent_detect::{FasterRcnn, ImageBatch, Proposals, ResNetConfig, Targets};
use docent_train::evaluate::to_original;
use docent_train::{AdamW, AdamWConfig, ParamGroup, Sgd, SgdConfig, data};
use formula::{Formula, batch, builder, config, train_with};
use serde_json::Value;

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
    let resize = Resize::default().shortest(side("shortest")).longest(side("longest")).rule(ResizeRule::Torchvision);
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

/// Runs a case of `adamw.py`; `cut` goes on after that step from a saved state, in an optimizer of its own.
fn adamw(golden: &Golden, name: &str, cut: Option<usize>) -> (BTreeMap<String, Var>, BTreeMap<String, Tensor>) {
    let (all, case) = (golden.note("adamw"), golden.note(&format!("case {name}")));
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap();
    let bias = ParamGroup {
        pattern: "*.bias".to_owned(),
        lr_mult: number(&all["bias"], "lr_mult"),
        weight_decay: Some(number(&all["bias"], "weight_decay")),
    };
    let config = AdamWConfig {
        betas: serde_json::from_value(case["betas"].clone()).unwrap(),
        eps: number(case, "eps"),
        weight_decay: number(case, "weight_decay"),
        groups: vec![bias],
    };
    let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_value(all["shapes"].clone()).unwrap();
    let of =
        |(key, shape): (&String, &Vec<usize>)| (key.clone(), leaf(&format!("adamw/{name}/{key}"), shape, 1.0, 0.0));
    let vars: BTreeMap<String, Var> = shapes.iter().map(of).collect();
    let parameters: Vec<(String, Var)> = vars.clone().into_iter().collect();
    let mut optimizer = AdamW::new(&config, parameters.clone()).unwrap();
    for step in 0..number(all, "steps") as usize {
        if cut == Some(step) {
            let state = optimizer.state().unwrap();
            optimizer = AdamW::new(&config, parameters.clone()).unwrap();
            optimizer.load_state(&state).unwrap();
        }
        let mut grads = GradStore::default();
        for (key, var) in &parameters {
            if key == "b.weight" && step == number(all, "skipped") as usize {
                continue;
            }
            // Halved here and doubled by the factor: the same bits.
            let size = 10f64.powi(step as i32 % 3 - 2);
            let values = fill(&format!("adamw/{name}/{key}/{step}"), var.elem_count(), 1.0, 0.0);
            let values: Vec<f32> = values.into_iter().map(|v| 0.5 * (f64::from(v) * size) as f32).collect();
            grads.insert(var, Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap());
        }
        let factor = ((step + 1) as f64 / 4.0).min(1.0) * if step >= 8 { 0.1 } else { 1.0 };
        optimizer.step(&grads, number(case, "lr") * factor, 2.0).unwrap();
    }
    (vars, optimizer.state().unwrap())
}

#[test]
fn twelve_steps_of_adamw() {
    let golden = Golden::open(env!("CARGO_MANIFEST_DIR"), "adamw.safetensors");
    for name in ["default", "other"] {
        let (vars, state) = adamw(&golden, name, None);
        for (key, var) in &vars {
            golden.tensor(&format!("{name}.after.{key}"), var);
            for part in ["exp_avg", "exp_avg_sq"] {
                golden.tensor(&format!("{name}.{part}.{key}"), &state[&format!("{part}/{key}")]);
            }
            golden.compare_f32(&format!("{name}.step.{key}"), &values(&state[&format!("step/{key}")]));
        }
        for cut in [1, 5, 11] {
            let (again, after) = adamw(&golden, name, Some(cut));
            for (key, var) in &vars {
                assert_eq!(values(var), values(&again[key]), "{name}, cut at {cut}: {key}");
            }
            assert!(state.iter().all(|(key, t)| values(t) == values(&after[key])), "{name}, cut at {cut}");
        }
    }
    golden.finish(&[""]);
}
