//! Each op, forward and backward, against PyTorch in float64.
// Clippy knows only `#[test]` functions as tests; helpers may fail the same way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod common;

use candle_core::{Tensor, Var};
use common::{Golden, boxes, fill, filled, leaf};
use docent_ops::loss::{bce_with_logits, masked_l2, smooth_l1, softmax_cross_entropy};
use docent_ops::{Affine, BiasOrResidual, BoxCoder, Conv2dParams, Result, RoiAlignParams};
use serde_json::Value;

fn open() -> Golden {
    Golden::open(env!("CARGO_MANIFEST_DIR"), "ops.safetensors")
}

fn list(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

fn number(case: &Value, key: &str, default: usize) -> usize {
    case.get(key).map_or(default, |v| v.as_u64().unwrap() as usize)
}

fn flag(case: &Value, key: &str) -> bool {
    case.get(key).is_some_and(|v| v.as_bool().unwrap())
}

/// Compares an output, and the gradient of `sum(output * cotangent)` for each leaf.
fn compare(golden: &Golden, case: &str, out: Result<Tensor>, leaves: &[(&str, &Var)]) {
    compare_some(golden, case, out, leaves, None);
}

/// [`compare`], but of each tensor only what the generator kept of a big one.
fn compare_some(golden: &Golden, case: &str, out: Result<Tensor>, leaves: &[(&str, &Var)], samples: Option<usize>) {
    let out = out.unwrap_or_else(|e| panic!("{case}: {e}"));
    let check = |name: &str, found: &Tensor| match samples {
        Some(samples) => golden.summary(name, found, samples),
        None => golden.tensor(name, found),
    };
    check(&format!("{case}.out"), &out);
    let cotangent = filled(&format!("{case}.cotangent"), out.dims(), 1.0, 0.0);
    let grads = (out * cotangent).unwrap().sum_all().unwrap().backward().unwrap();
    for (name, var) in leaves {
        let grad = grads.get(var).unwrap_or_else(|| panic!("{case}: no gradient for {name}"));
        check(&format!("{case}.grad.{name}"), grad);
    }
}

/// Compares a loss and its gradient.
fn compare_loss(golden: &Golden, case: &str, loss: Result<Tensor>, name: &str, x: &Var) {
    let loss = loss.unwrap_or_else(|e| panic!("{case}: {e}"));
    golden.tensor(&format!("{case}.loss"), &loss);
    let grads = loss.backward().unwrap();
    golden.tensor(&format!("{case}.grad.{name}"), grads.get(x).unwrap());
}

#[test]
fn convolutions() {
    let golden = open();
    for (name, p) in golden.notes("case conv.") {
        let case = format!("conv.{name}");
        let (x_shape, w_shape) = (list(&p["x"]), list(&p["w"]));
        let fan_in: usize = w_shape[1..].iter().product();
        let x = leaf(&format!("{case}.x"), &x_shape, 1.0, 0.0);
        let w = leaf(&format!("{case}.w"), &w_shape, (3.0 / fan_in as f64).sqrt(), 0.0);
        let out = w_shape[0];
        let vector = |name: &str, scale: f64, offset: f64| fill(&format!("{case}.{name}"), out, scale, offset);
        let affine = if let Some(eps) = p.get("frozen").and_then(Value::as_f64) {
            let (gamma, beta) = (vector("weight", 0.5, 1.0), vector("bias", 0.3, 0.0));
            let (mean, var) = (vector("running_mean", 0.3, 0.0), vector("running_var", 0.02, 0.021));
            Some(Affine::from_batch_norm(&gamma, &beta, &mean, &var, eps))
        } else {
            flag(p, "affine")
                .then(|| Affine { scale: vector("scale", 0.5, 1.0).into(), shift: vector("shift", 0.3, 0.0).into() })
        };
        let bias = leaf(&format!("{case}.bias"), &[out], 0.3, 0.0);
        // A residual has the input's shape in these cases.
        let residual = leaf(&format!("{case}.residual"), &x_shape, 1.0, 0.0);
        let mut leaves = vec![("x", &x), ("w", &w)];
        let addend = match p.get("addend").and_then(Value::as_str) {
            Some("bias") => {
                leaves.push(("bias", &bias));
                BiasOrResidual::Bias(&bias)
            }
            Some("residual") => {
                leaves.push(("residual", &residual));
                BiasOrResidual::Residual(&residual)
            }
            _ => BiasOrResidual::None,
        };
        let params = Conv2dParams {
            stride: number(p, "stride", 1),
            padding: number(p, "padding", 0),
            dilation: number(p, "dilation", 1),
            groups: number(p, "groups", 1),
        };
        let y = docent_ops::conv2d(&x, &w, addend, affine.as_ref(), flag(p, "relu"), &params);
        let samples = p.get("samples").map(|_| number(p, "samples", 0));
        compare_some(&golden, &case, y, &leaves, samples);
    }
    golden.finish(&["conv."]);
}

#[test]
fn linear_layers() {
    let golden = open();
    for (name, p) in golden.notes("case linear.") {
        let case = format!("linear.{name}");
        let x = leaf(&format!("{case}.x"), &[5, 19], 1.0, 0.0);
        let w = leaf(&format!("{case}.w"), &[7, 19], 0.3, 0.0);
        let bias = leaf(&format!("{case}.bias"), &[7], 0.3, 0.0);
        let mut leaves = vec![("x", &x), ("w", &w)];
        if flag(p, "bias") {
            leaves.push(("bias", &bias));
        }
        let b = flag(p, "bias").then(|| bias.as_tensor());
        compare(&golden, &case, docent_ops::linear(&x, &w, b, flag(p, "relu")), &leaves);
    }
    golden.finish(&["linear."]);
}

#[test]
fn norms() {
    let golden = open();
    let three = |case: &str, x: &[usize], c: usize| {
        let x = leaf(&format!("{case}.x"), x, 1.5, 0.5);
        let gamma = leaf(&format!("{case}.gamma"), &[c], 0.5, 1.0);
        let beta = leaf(&format!("{case}.beta"), &[c], 0.3, 0.0);
        (x, gamma, beta)
    };
    for (case, relu) in [("batch_norm.plain", false), ("batch_norm.relu", true)] {
        let (x, gamma, beta) = three(case, &[2, 3, 5, 7], 3);
        let (y, stats) = docent_ops::batch_norm_train(&x, &gamma, &beta, 1e-5, None, relu).unwrap();
        compare(&golden, case, Ok(y), &[("x", &x), ("gamma", &gamma), ("beta", &beta)]);
        golden.compare_f32(&format!("{case}.mean"), &stats.mean);
        golden.compare_f32(&format!("{case}.var_unbiased"), &stats.var_unbiased);
    }
    for (case, groups, relu) in [("group_norm.2", 2, false), ("group_norm.3_relu", 3, true)] {
        let (x, gamma, beta) = three(case, &[2, 6, 5, 3], 6);
        let y = docent_ops::group_norm(&x, &gamma, &beta, groups, 1e-5, relu);
        compare(&golden, case, y, &[("x", &x), ("gamma", &gamma), ("beta", &beta)]);
    }
    golden.finish(&["batch_norm.", "group_norm."]);
}

#[test]
fn maps() {
    let golden = open();
    let unary = |case: &str, shape: &[usize], op: &dyn Fn(&Tensor) -> Result<Tensor>| {
        let x = leaf(&format!("{case}.x"), shape, 2.0, 0.0);
        compare(&golden, case, op(&x), &[("x", &x)]);
    };
    unary("relu", &[2, 3, 5, 7], &docent_ops::relu);
    unary("softmax", &[7, 11], &docent_ops::softmax);
    unary("subsample", &[2, 3, 7, 10], &|x| docent_ops::subsample(x, 2));
    let index = list(&golden.note("case index_rows")["index"]);
    unary("index_rows", &[6, 3, 2], &|x| docent_ops::index_rows(x, &index));
    for (name, p) in golden.notes("case max_pool.") {
        let side = |key| number(p, key, 0);
        unary(&format!("max_pool.{name}"), &list(&p["x"]), &|x| {
            docent_ops::max_pool2d(x, side("kernel"), side("stride"), side("padding"))
        });
    }
    let x = Var::from_vec(golden.input("max_pool_ties.x"), (2, 3, 9, 10), &candle_core::Device::Cpu).unwrap();
    compare(&golden, "max_pool_ties", docent_ops::max_pool2d(&x, 3, 2, 1), &[("x", &x)]);
    for (name, p) in golden.notes("case upsample.") {
        let (shape, size) = (list(&p["x"]), list(&p["size"]));
        unary(&format!("upsample.{name}"), &shape, &|x| docent_ops::upsample_nearest(x, (size[0], size[1])));
        let case = format!("upsample_add.{name}");
        let top = leaf(&format!("{case}.top"), &shape, 1.0, 0.0);
        let lateral = leaf(&format!("{case}.lateral"), &[shape[0], shape[1], size[0], size[1]], 1.0, 0.0);
        compare(
            &golden,
            &case,
            docent_ops::upsample_nearest_add(&top, &lateral),
            &[("top", &top), ("lateral", &lateral)],
        );
    }
    let (a, b) = (leaf("add_relu.a", &[2, 3, 5, 7], 1.0, 0.0), leaf("add_relu.b", &[2, 3, 5, 7], 1.0, 0.0));
    compare(&golden, "add_relu", docent_ops::add_relu(&a, &b), &[("a", &a), ("b", &b)]);
    golden.finish(&["relu.", "softmax.", "subsample.", "index_rows.", "max_pool", "upsample", "add_relu."]);
}

#[test]
fn losses() {
    let golden = open();
    let indices = golden.counts("loss.picks");
    let logits = golden.input("bce.x");
    let x = Var::from_vec(logits, (3, 4, 5), &candle_core::Device::Cpu).unwrap();
    compare_loss(&golden, "bce", bce_with_logits(&x, &indices, &golden.input("bce.target"), 17.0), "x", &x);
    for (name, beta) in [("beta_ninth", 1.0 / 9.0), ("beta_1", 1.0), ("beta_0", 0.0)] {
        let case = format!("smooth_l1.{name}");
        let x = leaf(&format!("{case}.x"), &[3, 4, 5], 1.0, 0.0);
        let targets = fill(&format!("{case}.target"), indices.len(), 1.0, 0.0);
        compare_loss(&golden, &case, smooth_l1(&x, &indices, &targets, beta, 7.0), "x", &x);
    }
    let labels: Vec<u32> = golden.counts("cross_entropy.labels").iter().map(|&v| v as u32).collect();
    let x = leaf("cross_entropy.x", &[9, 6], 8.0, 0.0);
    compare_loss(&golden, "cross_entropy", softmax_cross_entropy(&x, &labels, 9.0), "x", &x);
    let student = leaf("masked_l2.student", &[2, 3, 5, 4], 1.0, 0.0);
    let teacher = filled("masked_l2.teacher", &[2, 3, 5, 4], 1.0, 0.0);
    let mask = fill("masked_l2.mask", 40, 0.5, 0.5);
    compare_loss(&golden, "masked_l2", masked_l2(&student, &teacher, &mask, 11.0), "student", &student);
    golden.finish(&["loss.", "bce.", "smooth_l1.", "cross_entropy.", "masked_l2."]);
}

#[test]
fn roi_align() {
    let golden = open();
    let rois: Vec<_> = boxes(&golden.input("roi.boxes")).into_iter().enumerate().map(|(i, b)| (i % 2, b)).collect();
    for (name, p) in golden.notes("case roi_align.") {
        let case = format!("roi_align.{name}");
        let params = RoiAlignParams {
            output: number(p, "output", 7),
            spatial_scale: 0.25,
            sampling_ratio: number(p, "sampling", 0),
            aligned: flag(p, "aligned"),
        };
        let x = leaf(&format!("{case}.x"), &[2, 3, 15, 20], 1.0, 0.0);
        compare(&golden, &case, docent_ops::roi_align(&x, &rois, &params), &[("x", &x)]);

        // PyTorch, given no boxes, returns no rows and a gradient of zeros.
        let none = docent_ops::roi_align(&x, &[], &params).unwrap();
        assert_eq!(none.dims(), [0, 3, params.output, params.output]);
        let grads = (none.sum_all().unwrap() + x.sum_all().unwrap()).unwrap().backward().unwrap();
        assert!(common::values(grads.get(&x).unwrap()).iter().all(|&g| g == 1.0));
    }
    golden.finish(&["roi.", "roi_align."]);
}

#[test]
fn boxes_and_coders() {
    let golden = open();
    let (a, b) = (boxes(&golden.input("boxes.a")), boxes(&golden.input("boxes.b")));
    golden.compare_f32("boxes.iou", &docent_ops::boxes::pairwise_iou(&a, &b));
    let each = |op: fn(&[f32; 4], &[f32; 4]) -> f32| {
        a.iter().flat_map(|x| b.iter().map(move |y| op(x, y))).collect::<Vec<_>>()
    };
    golden.compare_f32("boxes.iou", &each(docent_ops::boxes::iou));
    golden.compare_f32("boxes.giou", &each(docent_ops::boxes::giou));
    let clipped: Vec<f32> = a.iter().flat_map(|x| docent_ops::boxes::clip(x, (50.0, 70.0))).collect();
    golden.compare_f32("boxes.clip", &clipped);
    for (name, weights) in [("rpn", [1.0, 1.0, 1.0, 1.0]), ("head", [10.0, 10.0, 5.0, 5.0])] {
        let coder = BoxCoder { weights, clip: (1000.0f64 / 16.0).ln() as f32 };
        let encoded: Vec<f32> = a.iter().zip(&b).flat_map(|(proposal, truth)| coder.encode(truth, proposal)).collect();
        golden.compare_f32(&format!("coder.{name}.encode"), &encoded);
        let deltas = boxes(&golden.input(&format!("coder.{name}.deltas")));
        let decoded: Vec<f32> = deltas.iter().zip(&a).flat_map(|(d, proposal)| coder.decode(d, proposal)).collect();
        golden.compare_f32(&format!("coder.{name}.decode"), &decoded);
    }
    golden.finish(&["boxes.", "coder."]);
}

#[test]
fn suppression() {
    let golden = open();
    let candidates = boxes(&golden.input("nms.boxes"));
    let (scores, classes) = (golden.input("nms.scores"), golden.counts("nms.classes"));
    for threshold in ["0.3", "0.5", "0.7"] {
        let value: f32 = threshold.parse().unwrap();
        golden.compare_counts(&format!("nms.{threshold}"), &docent_ops::nms(&candidates, &scores, value));
        golden.compare_counts(
            &format!("batched_nms.{threshold}"),
            &docent_ops::batched_nms(&candidates, &scores, &classes, value),
        );
    }
    let many = boxes(&golden.input("nms_many.boxes"));
    let scores = fill("nms_many.scores", many.len(), 0.5, 0.5);
    let keep = docent_ops::batched_nms(&many, &scores, &golden.counts("nms_many.classes"), 0.5);
    golden.compare_counts("nms_many.keep", &keep);
    golden.finish(&["nms", "batched_nms."]);
}

#[test]
fn a_wrong_value_a_nan_and_a_missing_one_are_faults() {
    let name = "relu.out";
    let correct = open().input(name);
    let faults = |found: &[f32]| {
        let golden = open();
        golden.compare_f32(name, found);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| golden.finish(&[]))).is_err()
    };
    assert!(!faults(&correct));
    let with = |at: usize, value: f32| {
        let mut found = correct.clone();
        found[at] = value;
        found
    };
    assert!(faults(&with(7, correct[7] + 1e-4)));
    assert!(faults(&with(0, f32::NAN)));
    assert!(faults(&correct[1..]));
    let golden = open();
    let unread = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| golden.finish(&["relu."])));
    assert!(unread.is_err(), "a value that is never compared");
}
