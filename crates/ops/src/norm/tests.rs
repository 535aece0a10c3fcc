//! Both normalisations against their definitions; gradients; statistics; threads.

use candle_core::{Device, Tensor, Var};

use super::*;
use crate::Result;
use crate::conv::{BiasOrResidual, Conv2dParams, conv2d};
use crate::testing::{check_gradient, random};

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Away from zero after the normalisation, so that a ReLU's kink does not spoil the differences.
fn inputs(dims: [usize; 4]) -> [Tensor; 3] {
    let gamma = (random(2, dims[1]).unwrap() + 1.5).unwrap();
    [random(1, &dims[..]).unwrap(), gamma, random(3, dims[1]).unwrap()]
}

/// Normalises sets of elements: `set(i)` names the set of element i of [B, C, HW].
fn naive(x: &[f32], gamma: &[f32], beta: &[f32], plane: usize, set: impl Fn(usize) -> usize, eps: f64) -> Vec<f64> {
    let sets = (0..x.len()).map(&set).max().unwrap() + 1;
    let stats: Vec<(f64, f64)> = (0..sets)
        .map(|s| {
            let v: Vec<f64> = (0..x.len()).filter(|&i| set(i) == s).map(|i| f64::from(x[i])).collect();
            let mean = v.iter().sum::<f64>() / v.len() as f64;
            (mean, v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / v.len() as f64)
        })
        .collect();
    let value = |i: usize| {
        let (c, (mean, var)) = (i / plane % gamma.len(), stats[set(i)]);
        f64::from(gamma[c]) * (f64::from(x[i]) - mean) / (var + eps).sqrt() + f64::from(beta[c])
    };
    (0..x.len()).map(value).collect()
}

#[test]
fn batch_norm_is_the_definition_and_reports_its_statistics() {
    let [x, gamma, beta] = inputs([3, 4, 5, 7]);
    // A mean far from zero must not cost the variance its digits.
    let x = (x + 100.0).unwrap();
    for relu in [false, true] {
        let (y, stats) = batch_norm_train(&x, &gamma, &beta, 1e-5, None, relu).unwrap();
        let want = naive(&flat(&x), &flat(&gamma), &flat(&beta), 35, |i| i / 35 % 4, 1e-5);
        for (got, want) in flat(&y).iter().zip(want) {
            let want = if relu { want.max(0.0) } else { want };
            assert!((f64::from(*got) - want).abs() < 1e-4, "{got} against {want}");
        }
        let channel: Vec<f64> =
            flat(&x).iter().enumerate().filter(|(i, _)| i / 35 % 4 == 2).map(|(_, &v)| f64::from(v)).collect();
        let n = channel.len() as f64;
        let mean = channel.iter().sum::<f64>() / n;
        let var = channel.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        assert!(
            (f64::from(stats.mean[2]) - mean).abs() < 1e-5 && (f64::from(stats.var_unbiased[2]) - var).abs() < 1e-5
        );
    }
}

#[test]
fn group_norm_is_the_definition() {
    let [x, gamma, beta] = inputs([3, 6, 5, 7]);
    for (groups, relu) in [(1, false), (2, true), (3, false), (6, true)] {
        let y = group_norm(&x, &gamma, &beta, groups, 1e-5, relu).unwrap();
        let want = naive(&flat(&x), &flat(&gamma), &flat(&beta), 35, |i| i / (35 * 6 / groups), 1e-5);
        for (got, want) in flat(&y).iter().zip(want) {
            let want = if relu { want.max(0.0) } else { want };
            assert!((f64::from(*got) - want).abs() < 1e-5, "{groups}: {got} against {want}");
        }
    }
}

#[test]
fn gradients_flow_through_the_statistics() {
    let batch = |relu: bool| {
        move |t: &[Tensor]| -> Result<Tensor> { Ok(batch_norm_train(&t[0], &t[1], &t[2], 1e-3, None, relu)?.0) }
    };
    check_gradient(batch(false), &inputs([2, 3, 5, 3]), 1e-2, 5e-3).unwrap();
    check_gradient(batch(true), &inputs([2, 3, 5, 3]), 5e-4, 2e-2).unwrap();
    for groups in [1, 2, 4] {
        let group = |relu: bool| move |t: &[Tensor]| group_norm(&t[0], &t[1], &t[2], groups, 1e-3, relu);
        check_gradient(group(false), &inputs([2, 4, 3, 5]), 1e-2, 5e-3).unwrap();
        check_gradient(group(true), &inputs([2, 4, 3, 5]), 5e-4, 2e-2).unwrap();
    }
}

/// Values and gradients of all operands, with a second consumer of x and of the result.
fn bits(operands: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) -> Vec<Vec<u32>> {
    let vars: Vec<Var> = operands.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let t: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&t);
    let loss = ((y.sqr().unwrap().sum_all().unwrap() + y.sum_all().unwrap()).unwrap()
        + t[0].sqr().unwrap().sum_all().unwrap())
    .unwrap();
    let grads = loss.backward().unwrap();
    let values = std::iter::once(&y).chain(t.iter().map(|t| grads.get(t).unwrap()));
    // A sum with candle's zeros turns -0 into 0.
    values.map(|t| flat(t).iter().map(|v| (v + 0.0).to_bits()).collect()).collect()
}

#[test]
fn what_is_fused_has_the_bits_of_its_parts() {
    let [x, gamma, beta] = inputs([2, 4, 7, 5]);
    let residual = random(4, x.dims()).unwrap();
    for relu in [false, true] {
        let operands = [x.clone(), gamma.clone(), beta.clone(), residual.clone()];
        let fused = bits(&operands, |t| batch_norm_train(&t[0], &t[1], &t[2], 1e-5, Some(&t[3]), relu).unwrap().0);
        let parts = bits(&operands, |t| {
            let y = batch_norm_train(&t[0], &t[1], &t[2], 1e-5, None, false).unwrap().0;
            if relu { crate::add_relu(&y, &t[3]).unwrap() } else { (y + &t[3]).unwrap() }
        });
        assert!(fused == parts, "residual, relu {relu}");
        // Winograd, strided, 1x1 and one filter a channel.
        for (kernel, stride, c_in) in [(3, 1, 18), (3, 2, 3), (1, 1, 5), (3, 1, 0)] {
            let groups = if c_in == 0 { 18 } else { 1 };
            let p = Conv2dParams { stride, padding: kernel / 2, groups, ..Default::default() };
            let w = random(5, (18, c_in.max(1), kernel, kernel)).unwrap();
            let image = random(6, (2, c_in.max(groups * usize::from(c_in == 0)), 9, 11)).unwrap();
            let [_, gamma, beta] = inputs([1, 18, 1, 1]);
            let operands = [image, w, gamma, beta];
            let fused =
                bits(&operands, |t| conv_batch_norm_train(&t[0], &t[1], &t[2], &t[3], 1e-5, relu, &p).unwrap().0);
            let parts = bits(&operands, |t| {
                let sums = conv2d(&t[0], &t[1], BiasOrResidual::None, None, false, &p).unwrap();
                batch_norm_train(&sums, &t[2], &t[3], 1e-5, None, relu).unwrap().0
            });
            assert!(fused == parts, "kernel {kernel}, stride {stride}, relu {relu}");
        }
    }
}

#[test]
fn gradients_of_what_is_fused() {
    let residual = |relu: bool| {
        move |t: &[Tensor]| -> Result<Tensor> { Ok(batch_norm_train(&t[0], &t[1], &t[2], 1e-3, Some(&t[3]), relu)?.0) }
    };
    let [x, gamma, beta] = inputs([2, 3, 5, 3]);
    let operands = [x, gamma, beta, random(7, (2, 3, 5, 3)).unwrap()];
    check_gradient(residual(false), &operands, 1e-2, 5e-3).unwrap();
    check_gradient(residual(true), &operands, 5e-4, 2e-2).unwrap();
    let p = Conv2dParams { padding: 1, stride: 2, ..Default::default() };
    let conv = |relu: bool| {
        move |t: &[Tensor]| -> Result<Tensor> {
            Ok(conv_batch_norm_train(&t[0], &t[1], &t[2], &t[3], 1e-3, relu, &p)?.0)
        }
    };
    let [_, gamma, beta] = inputs([1, 4, 1, 1]);
    let operands = [random(8, (2, 3, 7, 5)).unwrap(), random(9, (4, 3, 3, 3)).unwrap(), gamma, beta];
    check_gradient(conv(false), &operands, 1e-2, 5e-3).unwrap();
    check_gradient(conv(true), &operands, 5e-4, 2e-2).unwrap();
}

#[test]
fn frozen_operands_get_no_gradient() {
    let all = inputs([2, 4, 3, 5]);
    for tracked in 1..8u32 {
        let is = |i: usize| tracked >> i & 1 == 1;
        let t: Vec<Tensor> = all
            .iter()
            .enumerate()
            .map(|(i, t)| if is(i) { Var::from_tensor(t).unwrap().into_inner() } else { t.clone() })
            .collect();
        for y in [
            batch_norm_train(&t[0], &t[1], &t[2], 1e-5, None, true).unwrap().0,
            group_norm(&t[0], &t[1], &t[2], 2, 1e-5, true).unwrap(),
        ] {
            let grads = y.sum_all().unwrap().backward().unwrap();
            assert!((0..3).all(|i| grads.get(&t[i]).is_some() == is(i)), "{tracked:03b}");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let run = || {
        let [x, gamma, beta] = inputs([2, 16, 41, 37]).map(|t| Var::from_tensor(&t).unwrap());
        let batch = batch_norm_train(&x, &gamma, &beta, 1e-5, None, true).unwrap().0;
        let group = group_norm(&x, &gamma, &beta, 4, 1e-5, true).unwrap();
        [batch, group].map(|y| {
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            [flat(&y), flat(grads.get(&x).unwrap()), flat(grads.get(&gamma).unwrap()), flat(grads.get(&beta).unwrap())]
        })
    };
    let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run);
    assert_eq!(on(1), on(2));
}

#[test]
fn what_cannot_be_normalised_is_named() {
    let [_, gamma, beta] = inputs([1, 4, 1, 1]);
    let one = random(1, (1, 4, 1, 1)).unwrap();
    assert!(batch_norm_train(&one, &gamma, &beta, 1e-5, None, false).unwrap_err().to_string().contains("at least 2"));
    assert!(group_norm(&one, &gamma, &beta, 3, 1e-5, false).unwrap_err().to_string().contains("3 groups"));
    // A constant channel has variance 0: eps carries it.
    let flat_map = Tensor::full(7.0f32, (2, 4, 3, 3), one.device()).unwrap();
    let y = batch_norm_train(&flat_map, &gamma, &beta, 1e-5, None, false).unwrap().0;
    assert!(flat(&y).iter().all(|v| v.is_finite()));
}

#[test]
fn a_variance_that_overflows_shows() {
    let x = Tensor::from_slice(&[0.0f32, 4e19, 1.0, 2.0], (1, 2, 1, 2), &Device::Cpu).unwrap();
    let [gamma, beta] = [1.0f32, 0.0].map(|v| Tensor::full(v, 2, &Device::Cpu).unwrap());
    let (y, stats) = batch_norm_train(&x, &gamma, &beta, 1e-5, None, false).unwrap();
    let y: Vec<f32> = y.flatten_all().unwrap().to_vec1().unwrap();
    assert!(y[0].is_nan() && stats.var_unbiased[0].is_nan() && y[2..].iter().all(|v| v.is_finite()), "{y:?}");
    let y: Vec<f32> = group_norm(&x, &gamma, &beta, 2, 1e-5, false).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    assert!(y[0].is_nan() && y[2..].iter().all(|v| v.is_finite()), "{y:?}");
}
