//! Convolution against a naive reference; gradients; numbers of threads; what is frozen.

use candle_core::{Tensor, Var};

use super::*;
use crate::testing::{check_gradient, random, values};

/// The definition, in f64.
pub(super) fn naive(x: &[f32], w: &[f32], g: &Geometry) -> Vec<f64> {
    let (c_in, c_out) = (g.c_in_group(), g.c_out_group());
    let mut out = Vec::new();
    for (b, o) in (0..g.batch).flat_map(|b| (0..g.c_out).map(move |o| (b, o))) {
        for (oy, ox) in (0..g.h_out).flat_map(|y| (0..g.w_out).map(move |x| (y, x))) {
            let mut sum = 0.0;
            for (i, ky, kx) in (0..c_in).flat_map(|i| (0..g.kh).flat_map(move |y| (0..g.kw).map(move |x| (i, y, x)))) {
                let y = (oy * g.stride + ky * g.dilation) as isize - g.pad_h;
                let xx = (ox * g.stride + kx * g.dilation) as isize - g.pad_w;
                if y >= 0 && xx >= 0 && (y as usize) < g.h && (xx as usize) < g.w {
                    let plane = b * g.c_in + o / c_out * c_in + i;
                    let pixel = x[(plane * g.h + y as usize) * g.w + xx as usize];
                    sum += f64::from(pixel) * f64::from(w[((o * c_in + i) * g.kh + ky) * g.kw + kx]);
                }
            }
            out.push(sum);
        }
    }
    out
}

struct Case {
    x: [usize; 4],
    w: [usize; 4],
    p: Conv2dParams,
}

fn case(x: [usize; 4], w: [usize; 4], stride: usize, padding: usize, dilation: usize, groups: usize) -> Case {
    Case { x, w, p: Conv2dParams { stride, padding, dilation, groups } }
}

/// Small enough for differences: odd sizes, batch 2, parities of height and width that differ, every kind of path.
fn small() -> Vec<Case> {
    vec![
        case([2, 3, 7, 5], [4, 3, 3, 3], 1, 1, 1, 1),
        case([2, 3, 10, 9], [4, 3, 3, 3], 2, 1, 1, 1),
        case([2, 3, 9, 10], [2, 3, 7, 7], 2, 3, 1, 1),
        case([2, 5, 5, 7], [3, 5, 1, 1], 1, 0, 1, 1),
        case([2, 2, 5, 7], [5, 2, 1, 1], 1, 0, 1, 1),
        case([2, 3, 7, 6], [5, 3, 1, 1], 2, 0, 1, 1),
        case([2, 5, 7, 6], [3, 5, 1, 1], 3, 0, 1, 1),
        case([2, 4, 6, 7], [6, 2, 3, 3], 1, 1, 1, 2),
        case([2, 4, 9, 7], [2, 2, 3, 3], 2, 1, 1, 2),
        case([2, 3, 7, 5], [3, 1, 3, 3], 1, 1, 1, 3),
        case([2, 3, 8, 7], [6, 1, 3, 3], 2, 1, 1, 3),
        case([2, 2, 9, 8], [3, 2, 3, 3], 1, 2, 2, 1),
        case([2, 2, 9, 8], [3, 2, 3, 3], 2, 2, 2, 1),
        case([2, 2, 6, 5], [3, 2, 3, 2], 1, 0, 1, 1),
        // More padding than the kernel reaches: the input's gradient crops.
        case([2, 2, 4, 3], [3, 2, 1, 1], 1, 1, 1, 1),
        case([1, 2, 3, 4], [1, 2, 2, 3], 1, 3, 1, 1),
        case([2, 2, 3, 3], [4, 2, 3, 3], 1, 0, 1, 1),
    ]
}

/// Large enough that tiles, panels, blocks of channels and chunks of pixels have edges.
fn large() -> Vec<Case> {
    vec![
        case([2, 9, 37, 23], [67, 9, 3, 3], 1, 1, 1, 1),
        case([1, 130, 10, 10], [257, 130, 3, 3], 1, 1, 1, 1),
        case([2, 33, 41, 22], [50, 33, 3, 3], 2, 1, 1, 1),
        case([1, 3, 65, 70], [16, 3, 7, 7], 2, 3, 1, 1),
        case([2, 48, 31, 29], [130, 48, 1, 1], 1, 0, 1, 1),
        case([2, 70, 31, 29], [20, 70, 1, 1], 2, 0, 1, 1),
        case([2, 32, 20, 21], [64, 8, 3, 3], 1, 1, 1, 4),
        case([3, 40, 20, 21], [40, 1, 5, 5], 1, 2, 1, 40),
    ]
}

fn close(what: &str, got: &[f32], want: impl IntoIterator<Item = f64>, tol: f64) {
    let want: Vec<f64> = want.into_iter().collect();
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&g, w)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(g) - w).abs() <= tol * w.abs().max(1.0), "{what}, element {i}: {g} against {w}");
    }
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn forward_is_the_definition() {
    for Case { x, w, p } in small().into_iter().chain(large()) {
        let g = Geometry::new(x, w, &p).unwrap();
        let (x, w) = (random(1, &x[..]).unwrap(), random(2, &w[..]).unwrap());
        let y = conv2d(&x, &w, BiasOrResidual::None, None, false, &p).unwrap();
        assert_eq!(y.dims(), [g.batch, g.c_out, g.h_out, g.w_out]);
        // Sums of 1,000 terms have values of 10 and more: what Winograd's transforms round shows in those near 0.
        let tolerance = if winograd::applies(&g) { 1e-4 } else { 3e-5 };
        close(&format!("{g:?}"), &flat(&y), naive(&flat(&x), &flat(&w), &g), tolerance);
    }
}

#[test]
fn gradients_agree_with_differences() {
    for Case { x, w, p } in small() {
        let inputs = [random(1, &x[..]).unwrap(), random(2, &w[..]).unwrap()];
        // Linear in each operand: a large step loses nothing.
        check_gradient(|t| conv2d(&t[0], &t[1], BiasOrResidual::None, None, false, &p), &inputs, 0.25, 1e-3)
            .unwrap_or_else(|e| panic!("{x:?} {w:?} {p:?}: {e}"));
    }
}

/// <dy, conv(x, w)> is bilinear: its gradients are checked at sizes where differences of every element would take hours.
#[test]
fn large_gradients_are_adjoint_to_the_forward_pass() {
    for Case { x, w, p } in large() {
        let g = Geometry::new(x, w, &p).unwrap();
        let (xs, ws) = (values(1, x.iter().product()), values(2, w.iter().product()));
        let dy = values(3, g.elements()[1]);
        let (dx, dw) = if g.depthwise() {
            (depthwise::input_gradient(&g, &dy, &ws), depthwise::weight_gradient(&g, &xs, &dy))
        } else {
            (gemm::input_gradient(&g, &dy, &ws), gemm::weight_gradient(&g, &xs, &dy))
        };
        // Directions that are unit vectors at edges and random elsewhere.
        let dot = |a: &[f32], b: &[f64]| a.iter().zip(b).map(|(&a, b)| f64::from(a) * b).sum::<f64>();
        let dot32 = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let unit = |n: usize, i: usize| (0..n).map(|j| if i == j { 1.0 } else { 0.0 }).collect::<Vec<f32>>();
        for (seed, at) in [(5, None), (6, Some(0.0)), (7, Some(0.37)), (8, Some(0.999_999))] {
            let direction = |n: usize| at.map_or_else(|| values(seed, n), |f: f64| unit(n, (n as f64 * f) as usize));
            let (vx, vw) = (direction(xs.len()), direction(ws.len()));
            let (want_x, want_w) = (dot(&dy, &naive(&vx, &ws, &g)), dot(&dy, &naive(&xs, &vw, &g)));
            let (got_x, got_w) = (dot32(&dx, &vx), dot32(&dw, &vw));
            assert!((got_x - want_x).abs() < 2e-4 * want_x.abs().max(10.0), "{g:?} dx {got_x} against {want_x}");
            assert!((got_w - want_w).abs() < 2e-4 * want_w.abs().max(10.0), "{g:?} dw {got_w} against {want_w}");
        }
    }
}

fn affine(channels: usize) -> Affine {
    let (scale, shift) = (values(11, channels), values(12, channels));
    Affine { scale: scale.iter().map(|v| v + 1.5).collect(), shift: shift.into() }
}

#[test]
fn what_follows_the_sums_is_exact_and_has_its_gradients() {
    for p in [
        Conv2dParams { padding: 1, ..Default::default() },
        Conv2dParams { padding: 1, groups: 3, ..Default::default() },
    ] {
        let (x, w) = (random(1, (2, 3, 5, 7)).unwrap(), random(2, (6, 3 / p.groups, 3, 3)).unwrap());
        let (bias, residual) = (random(3, 6).unwrap(), random(4, (2, 6, 5, 7)).unwrap());
        let plain = conv2d(&x, &w, BiasOrResidual::None, None, false, &p).unwrap();
        let a = affine(6);
        for (with_affine, relu, third) in (0..12).map(|i| (i % 2 == 1, i / 2 % 2 == 1, i / 4)) {
            let affine = with_affine.then_some(&a);
            let column = |v: &[f32]| Tensor::from_slice(v, (6, 1, 1), x.device()).unwrap();
            let mut want = plain.clone();
            if with_affine {
                want = want.broadcast_mul(&column(&a.scale)).unwrap().broadcast_add(&column(&a.shift)).unwrap();
            }
            let (addend, extra) = match third {
                0 => (BiasOrResidual::None, None),
                1 => (BiasOrResidual::Bias(&bias), Some(bias.reshape((6, 1, 1)).unwrap())),
                _ => (BiasOrResidual::Residual(&residual), Some(residual.clone())),
            };
            if let Some(e) = &extra {
                want = want.broadcast_add(e).unwrap();
            }
            let want = flat(&want).into_iter().map(|v| f64::from(if relu { v.max(0.0) } else { v }));
            let got = conv2d(&x, &w, addend, affine, relu, &p).unwrap();
            close(&format!("{with_affine} {relu} {third}"), &flat(&got), want, 1e-5);

            let mut inputs = vec![x.clone(), w.clone()];
            inputs.extend(match third {
                0 => None,
                1 => Some(bias.clone()),
                _ => Some(residual.clone()),
            });
            let f = |t: &[Tensor], relu: bool| {
                let addend = match third {
                    0 => BiasOrResidual::None,
                    1 => BiasOrResidual::Bias(&t[2]),
                    _ => BiasOrResidual::Residual(&t[2]),
                };
                conv2d(&t[0], &t[1], addend, affine, relu, &p)
            };
            if !relu {
                check_gradient(|t| f(t, false), &inputs, 0.25, 1e-3)
                    .unwrap_or_else(|e| panic!("{with_affine} {third}: {e}"));
                continue;
            }
            // A difference that steps over a ReLU's kink says nothing: the fused one is held against the op of its own.
            let gradients = |fused: bool| {
                let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
                let t: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
                let y = if fused { f(&t, true).unwrap() } else { crate::relu(&f(&t, false).unwrap()).unwrap() };
                let loss = (y * &residual).unwrap().sum_all().unwrap();
                let loss = t.iter().fold(loss, |loss, t| (loss + t.sqr().unwrap().sum_all().unwrap()).unwrap());
                let grads = loss.backward().unwrap();
                t.iter().map(|t| flat(grads.get(t).unwrap())).collect::<Vec<_>>()
            };
            for (fused, apart) in gradients(true).iter().zip(gradients(false)) {
                close("ReLU's gradient", fused, apart.into_iter().map(f64::from), 1e-5);
            }
        }
    }
}

#[test]
fn frozen_operands_get_no_gradient() {
    let p = Conv2dParams { padding: 1, ..Default::default() };
    let tensors =
        [random(1, (2, 3, 5, 7)).unwrap(), random(2, (4, 3, 3, 3)).unwrap(), random(3, (2, 4, 5, 7)).unwrap()];
    for tracked in 0..8u32 {
        let is = |i: usize| tracked >> i & 1 == 1;
        let vars: Vec<Tensor> = tensors
            .iter()
            .enumerate()
            .map(|(i, t)| if is(i) { Var::from_tensor(t).unwrap().into_inner() } else { t.clone() })
            .collect();
        let y = conv2d(&vars[0], &vars[1], BiasOrResidual::Residual(&vars[2]), Some(&affine(4)), true, &p).unwrap();
        assert_eq!(y.track_op(), tracked != 0, "without a tracked operand there is no graph");
        let grads = y.sum_all().unwrap().backward().unwrap();
        for (i, v) in vars.iter().enumerate() {
            assert_eq!(grads.get(v).is_some(), is(i), "operand {i} of {tracked:03b}");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for Case { x, w, p } in large() {
        let run = || {
            let x = Var::from_tensor(&random(1, &x[..]).unwrap()).unwrap();
            let w = Var::from_tensor(&random(2, &w[..]).unwrap()).unwrap();
            let a = affine(w.dims()[0]);
            let y = conv2d(&x, &w, BiasOrResidual::None, Some(&a), true, &p).unwrap();
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            [flat(&y), flat(grads.get(&x).unwrap()), flat(grads.get(&w).unwrap())]
                .map(|v| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
        };
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run);
        let one = on(1);
        for threads in [2, 3] {
            assert!(one == on(threads), "{x:?} {w:?} {p:?} on {threads} threads");
        }
    }
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let p = Conv2dParams::default();
    let (x, w) = (random(1, (1, 3, 5, 5)).unwrap(), random(2, (4, 3, 3, 3)).unwrap());
    let fails = |r: crate::Result<Tensor>, word: &str| {
        let message = r.unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    };
    fails(conv2d(&x, &w, BiasOrResidual::Bias(&random(3, 3).unwrap()), None, false, &p), "bias");
    fails(conv2d(&x, &w, BiasOrResidual::Residual(&x), None, false, &p), "residual");
    fails(conv2d(&x, &w, BiasOrResidual::None, Some(&affine(3)), false, &p), "affine");
    fails(conv2d(&x.get(0).unwrap(), &w, BiasOrResidual::None, None, false, &p), "[B, C, H, W]");
    fails(conv2d(&x.to_dtype(candle_core::DType::F64).unwrap(), &w, BiasOrResidual::None, None, false, &p), "f32");
}

#[test]
fn no_images_are_no_images() {
    let x = Var::from_tensor(&random(1, (0, 3, 5, 5)).unwrap()).unwrap();
    let w = Var::from_tensor(&random(2, (4, 3, 3, 3)).unwrap()).unwrap();
    for stride in [1, 2] {
        let y =
            conv2d(&x, &w, BiasOrResidual::None, None, true, &Conv2dParams { stride, ..Default::default() }).unwrap();
        assert_eq!(y.dims()[..2], [0, 4]);
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert!(flat(grads.get(&w).unwrap()).iter().all(|&v| v == 0.0));
    }
}

#[test]
fn batch_norm_folds_into_an_affine() {
    let a = Affine::from_batch_norm(&[2.0, 1.0], &[0.5, -1.0], &[3.0, 0.0], &[3.0, 0.0], 1.0);
    assert_eq!((&*a.scale, &*a.shift), (&[1.0f32, 1.0][..], &[-2.5f32, -1.0][..]));
}
