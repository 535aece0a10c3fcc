//! Losses: values of PyTorch, finite differences, hard logits, no indices, wrong input.
//!
//! The literals are PyTorch 2.15's, in f32: `reduction="sum"`, divided by the normaliser.

use candle_core::{DType, Device, Tensor, Var};

use super::*;
use crate::testing::{check_gradient, random, values as seeded};

const PICKS: [usize; 6] = [0, 1, 2, 3, 4, 6];

fn logits() -> Var {
    Var::new(&[0.5f32, -1.25, 40.0, -40.0, 3.0, 0.0, 100.0, -3.5], &Device::Cpu).unwrap()
}

fn scalar(t: &Tensor) -> f32 {
    assert!(t.dims().is_empty());
    t.to_scalar::<f32>().unwrap()
}

fn grad(loss: &Tensor, x: &Var) -> Vec<f32> {
    loss.backward().unwrap().get(x).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn close(got: &[f32], wanted: &[f32]) {
    assert_eq!(got.len(), wanted.len());
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!((g - w).abs() <= 2e-6 * (1.0 + w.abs()), "value {i}: {g} instead of {w}");
    }
}

#[test]
fn bce_is_pytorchs() {
    let x = logits();
    let l = bce_with_logits(&x, &PICKS, &[1.0, 0.0, 0.0, 1.0, 0.25, 1.0], 3.0).unwrap();
    close(&[scalar(&l)], &[27.674_866]);
    close(&grad(&l, &x), &[-0.1258469, 0.07423338, 0.3333333, -0.3333333, 0.2341914, 0.0, 0.0, 0.0]);
}

/// candle-nn's own is NaN at a logit of 40.
#[test]
fn bce_of_large_logits_is_finite() {
    for z in [40f32, -40.0, 88.0, -104.0, 1e4, -1e4, 3e38, -3e38] {
        for y in [0f32, 0.25, 1.0] {
            let x = Var::new(&[z], &Device::Cpu).unwrap();
            let l = bce_with_logits(&x, &[0], &[y], 1.0).unwrap();
            // Far out, the loss is the distance to the right side.
            let wanted = if z > 0.0 { z * (1.0 - y) } else { -z * y };
            close(&[scalar(&l)], &[wanted]);
            close(&grad(&l, &x), &[if z > 0.0 { 1.0 - y } else { -y }]);
        }
    }
    // Where log(sigmoid) has long run dry, the small side is still there.
    let x = Var::new(&[40f32], &Device::Cpu).unwrap();
    let l = scalar(&bce_with_logits(&x, &[0], &[1.0], 1.0).unwrap());
    assert!((l / (-40f32).exp() - 1.0).abs() < 1e-5, "{l}");
}

#[test]
fn smooth_l1_is_pytorchs() {
    let x = logits();
    let t = [0.45, -2.0, 38.0, -40.05, 3.0, 99.0];
    let l = smooth_l1(&x, &PICKS, &t, 1.0 / 9.0, 3.0).unwrap();
    close(&[scalar(&l)], &[1.201_944_2]);
    close(&grad(&l, &x), &[0.15, 0.3333333, 0.3333333, 0.1499977, 0.0, 0.0, 0.3333333, 0.0]);
    let l = smooth_l1(&x, &PICKS, &t, 1.0, 3.0).unwrap();
    close(&[scalar(&l)], &[0.761_25]);
    close(&grad(&l, &x), &[0.01666667, 0.25, 0.3333333, 0.01666641, 0.0, 0.0, 0.3333333, 0.0]);
    // Plain L1; its gradient is 0 where the distance is.
    let l = smooth_l1(&x, &PICKS, &t, 0.0, 3.0).unwrap();
    close(&[scalar(&l)], &[1.283_333]);
    close(&grad(&l, &x), &[0.3333333, 0.3333333, 0.3333333, 0.3333333, 0.0, 0.0, 0.3333333, 0.0]);
}

#[test]
fn cross_entropy_is_pytorchs() {
    let z = Var::new(&[[1f32, -2.0, 0.5], [100.0, 0.0, -100.0], [3.0, 3.0, 3.0]], &Device::Cpu).unwrap();
    let l = softmax_cross_entropy(&z, &[2, 1, 0], 2.0).unwrap();
    close(&[scalar(&l)], &[51.051_605]);
    close(&grad(&l, &z), &[0.3018745, 0.01502944, -0.3169039, 0.5, -0.5, 0.0, -0.3333333, 0.1666667, 0.1666667]);
    let huge = Var::new(&[[3e38f32, 0.0], [-3e38, -3e38]], &Device::Cpu).unwrap();
    let l = softmax_cross_entropy(&huge, &[0, 1], 1.0).unwrap();
    close(&[scalar(&l)], &[2f32.ln()]);
    close(&grad(&l, &huge), &[0.0, 0.0, 0.5, -0.5]);
}

#[test]
fn masked_l2_is_pytorchs() {
    let ramp = |step: usize, m: usize, half: f32| -> Vec<f32> {
        (0..24).map(|i| (i * step % m) as f32 / half - 1.0).collect()
    };
    let s = Var::from_vec(ramp(7, 11, 5.0), (2, 2, 2, 3), &Device::Cpu).unwrap();
    let t = Var::from_vec(ramp(5, 13, 6.0), (2, 2, 2, 3), &Device::Cpu).unwrap();
    let mask: Vec<f32> = (0..12).map(|i| (i * 3 % 4) as f32 / 3.0).collect();
    let l = masked_l2(&s, &t, &mask, 5.0).unwrap();
    close(&[scalar(&l)], &[1.506_666_8]);
    close(
        &grad(&l, &s),
        &[
            0.0,
            0.2266667,
            -0.2844445,
            0.2222222,
            0.0,
            -0.64,
            0.0,
            -0.2,
            0.008888881,
            0.08000001,
            0.0,
            -0.2,
            0.01777778,
            0.08000001,
            0.0,
            -0.1866667,
            0.01777778,
            0.08444445,
            -0.2666667,
            -0.06222223,
            0.0,
            0.2533333,
            -0.2666667,
            -0.05777778,
        ],
    );
    // The teacher stays out of the graph, though it is a variable here.
    assert!(l.backward().unwrap().get(&t).is_none());
    assert_eq!(scalar(&masked_l2(&s, s.as_tensor(), &mask, 5.0).unwrap()), 0.0);
}

#[test]
fn gradients_are_finite_differences() {
    // 2 x 3 x 5 x 7, indices in any order and one twice; away from smooth L1's kink by chance of the seed.
    let x = random(5, (2, 3, 5, 7)).unwrap();
    let indices: Vec<usize> = (0..40).map(|i| i * 67 % 210).chain([67]).collect();
    let targets: Vec<f32> = seeded(6, 41);
    let probabilities: Vec<f32> = targets.iter().map(|t| 0.5 + 0.5 * t).collect();
    let one = std::slice::from_ref(&x);
    check_gradient(|t| bce_with_logits(&t[0], &indices, &probabilities, 0.5), one, 1e-2, 2e-3).unwrap();
    for beta in [1.0 / 9.0, 1.0] {
        check_gradient(|t| smooth_l1(&t[0], &indices, &targets, beta, 0.5), one, 1e-3, 2e-2).unwrap();
    }
    let teacher = random(7, (2, 3, 5, 7)).unwrap();
    let mask: Vec<f32> = seeded(8, 70).into_iter().map(|m| m.max(0.0)).collect();
    check_gradient(|t| masked_l2(&t[0], &teacher, &mask, 0.7), one, 1e-2, 2e-3).unwrap();
    let z = random(9, (5, 7)).unwrap();
    check_gradient(|t| softmax_cross_entropy(&t[0], &[6, 0, 3, 3, 1], 0.3), &[z], 1e-2, 2e-3).unwrap();
}

/// A loss is one of several consumers, may be scaled, and may see a view of a tensor.
#[test]
fn views_and_scaled_losses() {
    let x = Var::from_tensor(&random(11, (3, 4)).unwrap()).unwrap();
    let turned = x.t().unwrap();
    let l = (smooth_l1(&turned, &[1], &[0.0], 0.0, 1.0).unwrap() * 3.0).unwrap();
    // Element (0, 1) of the transposed is (1, 0).
    let at = x.to_vec2::<f32>().unwrap()[1][0];
    assert_eq!(scalar(&l), 3.0 * at.abs());
    let mut wanted = vec![0f32; 12];
    wanted[4] = 3.0 * at.signum();
    assert_eq!(grad(&l, &x), wanted);
    let row = x.narrow(0, 1, 2).unwrap();
    let l = smooth_l1(&row, &[0], &[0.0], 0.0, 1.0).unwrap();
    assert_eq!(scalar(&l), at.abs());
}

#[test]
fn no_indices_is_exactly_zero() {
    // Not even a NaN elsewhere gets in.
    let x = Var::new(&[f32::NAN, 1.0, f32::INFINITY], &Device::Cpu).unwrap();
    for l in [bce_with_logits(&x, &[], &[], 1.0).unwrap(), smooth_l1(&x, &[], &[], 1.0, 1.0).unwrap()] {
        assert_eq!(scalar(&l).to_bits(), 0f32.to_bits());
        assert_eq!(grad(&l, &x), [0.0; 3]);
    }
    let z = Var::zeros((0, 5), DType::F32, &Device::Cpu).unwrap();
    let l = softmax_cross_entropy(&z, &[], 1.0).unwrap();
    assert_eq!(scalar(&l), 0.0);
    assert_eq!(l.backward().unwrap().get(&z).unwrap().dims(), [0, 5]);
    let s = Var::ones((2, 3, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let t = Tensor::zeros((2, 3, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let l = masked_l2(&s, &t, &[0.0; 8], 1.0).unwrap();
    assert_eq!(scalar(&l), 0.0);
    assert_eq!(grad(&l, &s), [0.0; 24]);
    let s = Var::zeros((2, 3, 0, 2), DType::F32, &Device::Cpu).unwrap();
    let l = masked_l2(&s, &s.as_tensor().detach(), &[], 1.0).unwrap();
    assert_eq!(scalar(&l), 0.0);
    assert!(grad(&l, &s).is_empty());
}

/// candle-nn's losses average over the batch whatever the caller wants.
#[test]
fn the_normaliser_is_the_callers() {
    let x = logits();
    let at = |n: f32| scalar(&bce_with_logits(&x, &PICKS, &[0.5; 6], n).unwrap());
    assert!((at(1.0) / at(8.0) - 8.0).abs() < 1e-5);
    for n in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let e = smooth_l1(&x, &[0], &[0.0], 1.0, n).unwrap_err().to_string();
        assert!(e.contains("smooth_l1") && e.contains("normalizer"), "{e}");
    }
}

#[test]
fn the_sum_does_not_depend_on_threads() {
    let s = random(12, (2, 5, 33, 29)).unwrap();
    let t = random(13, (2, 5, 33, 29)).unwrap();
    let mask: Vec<f32> = seeded(14, 2 * 33 * 29).iter().map(|m| m.abs()).collect();
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| scalar(&masked_l2(&s, &t, &mask, 3.0).unwrap())).to_bits()
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn wrong_input_is_named() {
    let x = logits();
    let says = |r: Result<Tensor>, parts: &[&str]| {
        let e = r.unwrap_err().to_string();
        assert!(parts.iter().all(|p| e.contains(p)), "{e}");
    };
    says(bce_with_logits(&x, &[0, 8], &[0.0, 0.0], 1.0), &["bce_with_logits", "indices[1] is 8", "8 values"]);
    says(bce_with_logits(&x, &[0], &[1.5], 1.0), &["targets[0]", "1.5"]);
    says(bce_with_logits(&x, &[0], &[], 1.0), &["1 indices", "0 targets"]);
    says(smooth_l1(&x, &[99], &[0.0], 1.0, 1.0), &["smooth_l1", "indices[0] is 99"]);
    says(smooth_l1(&x, &[1], &[f32::NEG_INFINITY], 1.0, 1.0), &["smooth_l1", "targets[0]", "-inf"]);
    says(smooth_l1(&x, &[1], &[0.0], -1.0, 1.0), &["beta", "-1"]);
    says(softmax_cross_entropy(&x, &[0], 1.0), &["[R, K]"]);
    let z = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    says(softmax_cross_entropy(&z, &[0], 1.0), &["1 labels", "[2, 3]"]);
    says(softmax_cross_entropy(&z, &[0, 3], 1.0), &["row 1", "3 classes"]);
    let m = Tensor::zeros((1, 2, 3, 3), DType::F32, &Device::Cpu).unwrap();
    says(masked_l2(&m, &z, &[0.0; 9], 1.0), &["masked_l2", "[2, 3]"]);
    says(masked_l2(&m, &m, &[0.0; 18], 1.0), &["18 values", "[1, 3, 3]"]);
    says(masked_l2(&m, &m, &[-1.0; 9], 1.0), &["mask value 0"]);
    says(masked_l2(&z, &z, &[0.0; 6], 1.0), &["[B, C, H, W]"]);
    let wide = Tensor::zeros(3, DType::F64, &Device::Cpu).unwrap();
    says(bce_with_logits(&wide, &[0], &[0.0], 1.0), &["bce_with_logits", "F64"]);
}
