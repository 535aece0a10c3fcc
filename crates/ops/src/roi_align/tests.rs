//! RoIAlign: torchvision's values, a naive reference, finite differences, thread counts, odd boxes.

use candle_core::{DType, Device, Tensor, Var};
use proptest::prelude::*;

use super::*;
use crate::testing::{check_gradient, random};

/// torchvision's kernel, sample by sample, in f64 from where a sample lies on.
fn naive(x: &Tensor, rois: &[(usize, BoxXyxy)], p: &RoiAlignParams) -> Vec<f32> {
    let (_, channels, h, w) = x.dims4().unwrap();
    let x: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    let mut out = Vec::new();
    for (image, b) in rois {
        let offset = if p.aligned { 0.5 } else { 0.0 };
        let edge = |v: f32| v * p.spatial_scale - offset;
        let side = |lo: f32, hi: f32| if p.aligned { edge(hi) - edge(lo) } else { (edge(hi) - edge(lo)).max(1.0) };
        let bins = [side(b[0], b[2]), side(b[1], b[3])].map(|s| s / p.output as f32);
        let grid = bins.map(|b| if p.sampling_ratio > 0 { p.sampling_ratio } else { b.ceil() as usize });
        for c in 0..channels {
            let value = |y: usize, x_at: usize| f64::from(x[((image * channels + c) * h + y) * w + x_at]);
            for i in 0..p.output {
                for j in 0..p.output {
                    let mut sum = 0f64;
                    for sy in 0..grid[1] {
                        let y = edge(b[1]) + i as f32 * bins[1] + (sy as f32 + 0.5) * bins[1] / grid[1] as f32;
                        for sx in 0..grid[0] {
                            let x = edge(b[0]) + j as f32 * bins[0] + (sx as f32 + 0.5) * bins[0] / grid[0] as f32;
                            sum += bilinear(&value, f64::from(y), f64::from(x), h, w);
                        }
                    }
                    out.push((sum / (grid[0] * grid[1]).max(1) as f64) as f32);
                }
            }
        }
    }
    out
}

fn bilinear(value: &dyn Fn(usize, usize) -> f64, y: f64, x: f64, h: usize, w: usize) -> f64 {
    if y < -1.0 || y > h as f64 || x < -1.0 || x > w as f64 {
        return 0.0;
    }
    let (y, x) = (y.clamp(0.0, (h - 1) as f64), x.clamp(0.0, (w - 1) as f64));
    let (top, left) = (y.floor(), x.floor());
    let (fy, fx) = (y - top, x - left);
    let (top, left) = (top as usize, left as usize);
    let (bottom, right) = ((top + 1).min(h - 1), (left + 1).min(w - 1));
    (value(top, left) * (1.0 - fx) + value(top, right) * fx) * (1.0 - fy)
        + (value(bottom, left) * (1.0 - fx) + value(bottom, right) * fx) * fy
}

fn params(sampling_ratio: usize, aligned: bool) -> RoiAlignParams {
    RoiAlignParams { output: 2, spatial_scale: 0.25, sampling_ratio, aligned }
}

const ROIS: [(usize, BoxXyxy); 4] = [
    (1, [3.0, 2.0, 21.0, 17.0]),
    (0, [-9.0, -7.0, 11.5, 6.0]),
    (1, [20.0, 11.0, 40.0, 33.0]),
    (0, [8.0, 8.0, 8.5, 9.0]),
];

fn host(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn close(got: &[f32], wanted: &[f32], tolerance: f32) {
    assert_eq!(got.len(), wanted.len());
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!((g - w).abs() <= tolerance, "value {i}: {g} instead of {w}");
    }
}

/// A case of torchvision 0.29's `roi_align`: channel 0 of the output, a row and the sums of the gradient of x.
struct Golden {
    p: RoiAlignParams,
    out: [f32; 16],
    row: [f32; 7],
    sums: [f32; 4],
}

#[test]
fn values_and_gradients_are_torchvisions() {
    let goldens = [
        Golden {
            p: params(2, false),
            out: [
                0.1561914,
                -0.1258203,
                -0.2421582,
                -0.05467774,
                -0.25,
                -0.02867188,
                -0.1554687,
                0.172583,
                -0.4190235,
                0.0,
                0.0,
                0.0,
                0.32625,
                -0.06125001,
                0.13875,
                0.25625,
            ],
            row: [0.0, -0.1295776, -0.164917, -0.01239014, 0.1401367, 0.1101074, 0.0],
            sums: [0.5625, 1.34375, -1.125, -0.5],
        },
        Golden {
            p: params(0, false),
            out: [
                0.1673698,
                -0.1245052,
                -0.2451172,
                -0.04514323,
                -0.3333333,
                -0.06111113,
                -0.2072917,
                0.1087457,
                -0.1384645,
                0.0,
                0.0,
                0.0,
                0.32625,
                -0.06125001,
                0.13875,
                0.25625,
            ],
            row: [0.0, -0.125651, -0.1727702, -0.01180013, 0.1468099, 0.1067708, 0.0],
            sums: [0.5624999, 1.375, -0.8472222, -0.2916666],
        },
        Golden {
            p: params(2, true),
            out: [
                0.04470702,
                -0.05582029,
                -0.2145703,
                0.0547754,
                0.0,
                0.0,
                -0.3307813,
                -0.07238527,
                -0.214375,
                0.0,
                0.0,
                0.0,
                0.3086328,
                0.2996484,
                0.3327734,
                0.3395703,
            ],
            row: [-0.008972168, -0.04187012, -0.04486084, 0.03295898, 0.03076172, 0.001464844, -0.006591797],
            sums: [0.3125, 1.0, -1.125, -0.5],
        },
        Golden {
            p: params(0, true),
            out: [
                0.02958333,
                -0.0545052,
                -0.185638,
                0.02617188,
                0.0,
                0.0,
                -0.2205208,
                -0.06041232,
                -0.1638349,
                0.0,
                0.0,
                0.0,
                0.3086328,
                0.2996484,
                0.3327734,
                0.3395703,
            ],
            row: [-0.01196289, -0.0398763, -0.03694661, 0.02530925, 0.02828414, -0.005389179, -0.02126737],
            sums: [0.25, 0.9166666, -1.125, -0.5000001],
        },
    ];
    let ramp: Vec<f32> = (0..140).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let x = Var::from_vec(ramp, (2, 2, 5, 7), &Device::Cpu).unwrap();
    let weights: Vec<f32> = (0..32).map(|i| (i * 13 % 17) as f32 / 8.0 - 1.0).collect();
    let weights = Tensor::from_vec(weights, (4, 2, 2, 2), &Device::Cpu).unwrap();
    for g in goldens {
        let y = roi_align(&x, &ROIS, &g.p).unwrap();
        close(&host(&y.narrow(1, 0, 1).unwrap()), &g.out, 2e-6);
        let dx = (y * &weights).unwrap().sum_all().unwrap().backward().unwrap().remove(&x).unwrap();
        let dx = host(&dx);
        close(&dx[3 * 35 + 14..][..7], &g.row, 2e-6);
        let sums: Vec<f32> = dx.chunks(35).map(|p| p.iter().sum()).collect();
        close(&sums, &g.sums, 1e-5);
    }
}

#[test]
fn gradient_is_finite_difference() {
    let x = random(3, (2, 3, 5, 7)).unwrap();
    for p in [params(2, false), params(0, false), params(3, true), params(0, true)] {
        let p = RoiAlignParams { output: 3, ..p };
        check_gradient(|t| roi_align(&t[0], &ROIS, &p), std::slice::from_ref(&x), 1e-1, 1e-3).unwrap();
    }
}

#[test]
fn a_linear_map_is_read_exactly() {
    // x[r][c] = 10 r + c, and a box inside: the mean of a cell is the value at its centre.
    let x: Vec<f32> = (0..64).map(|i| (i / 8 * 10 + i % 8) as f32).collect();
    let x = Tensor::from_vec(x, (1, 1, 8, 8), &Device::Cpu).unwrap();
    let p = RoiAlignParams { output: 2, spatial_scale: 1.0, sampling_ratio: 2, aligned: false };
    let y = roi_align(&x, &[(0, [1.0, 2.0, 5.0, 6.0])], &p).unwrap();
    close(&host(&y), &[32.0, 34.0, 52.0, 54.0], 1e-5);
    let y = roi_align(&x, &[(0, [1.0, 2.0, 5.0, 6.0])], &RoiAlignParams { aligned: true, ..p }).unwrap();
    close(&host(&y), &[26.5, 28.5, 46.5, 48.5], 1e-5);
}

#[test]
fn no_rois_no_output_and_no_gradient() {
    let x = Var::ones((2, 3, 5, 7), DType::F32, &Device::Cpu).unwrap();
    let y = roi_align(&x, &[], &params(2, false)).unwrap();
    assert_eq!(y.dims(), [0, 3, 2, 2]);
    // Beside another consumer, and alone.
    let loss = (y.sum_all().unwrap() + x.sum_all().unwrap()).unwrap();
    assert_eq!(host(loss.backward().unwrap().get(&x).unwrap()), vec![1.0; 210]);
    assert_eq!(host(y.sum_all().unwrap().backward().unwrap().get(&x).unwrap()), vec![0.0; 210]);
}

/// The sides of an inverted or degenerate box are 1 cell where the legacy rule says so, and never NaN.
#[test]
fn degenerate_and_absurd_boxes() {
    let x = random(4, (1, 2, 6, 6)).unwrap();
    let boxes = [[8.0, 8.0, 8.0, 8.0], [16.0, 16.0, 4.0, 2.0], [-1e6, -1e6, -1e5, -1e5], [-1e4, -2.0, 1e4, 30.0]];
    let rois = boxes.map(|b| (0, b));
    for p in [params(2, false), params(2, true), params(0, false), params(0, true)] {
        close(&host(&roi_align(&x, &rois, &p).unwrap()), &naive(&x, &rois, &p), 1e-5);
        // No grid as large as the box is made.
        let absurd = [(0, [-3e38, -3e38, 3e38, 3e38]), (0, [0.0, 0.0, 1e30, 1e9])];
        assert!(host(&roi_align(&x, &absurd, &p).unwrap()).iter().all(|v| v.is_finite()));
    }
}

#[test]
fn the_result_does_not_depend_on_threads() {
    let x = Var::from_tensor(&random(5, (2, 5, 23, 31)).unwrap()).unwrap();
    let rois: Vec<(usize, BoxXyxy)> = (0..50)
        .map(|i| {
            let (a, b) = ((i * 29 % 90) as f32, (i * 17 % 70) as f32);
            (i % 2, [a, b, a + 10.0 + (i * 13 % 60) as f32, b + 10.0 + (i * 7 % 60) as f32])
        })
        .collect();
    let p = RoiAlignParams { output: 7, spatial_scale: 0.25, sampling_ratio: 2, aligned: false };
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let y = roi_align(&x, &rois, &p).unwrap();
            let dx = y.sqr().unwrap().sum_all().unwrap().backward().unwrap().remove(&x).unwrap();
            (host(&y), host(&dx))
        })
    };
    let one = with(1);
    assert_eq!(one, with(3));
    close(&one.0, &naive(&x, &rois, &p), 1e-5);
}

#[test]
fn wrong_input_is_named() {
    let x = Tensor::zeros((2, 1, 4, 4), DType::F32, &Device::Cpu).unwrap();
    let p = params(2, false);
    let says = |rois: &[(usize, BoxXyxy)], p: &RoiAlignParams, parts: &[&str]| {
        let e = roi_align(&x, rois, p).unwrap_err().to_string();
        assert!(parts.iter().all(|s| e.contains(s)), "{e}");
    };
    says(&[ROIS[0], (2, [0.0; 4])], &p, &["roi_align", "RoI 1", "image 2", "has 2"]);
    says(&[(0, [0.0, f32::NAN, 1.0, 1.0])], &p, &["RoI 0", "NaN"]);
    says(&[(0, [0.0, 0.0, f32::INFINITY, 1.0])], &p, &["RoI 0", "inf"]);
    says(&ROIS, &RoiAlignParams { output: 0, ..p }, &["output size"]);
    says(&ROIS, &RoiAlignParams { spatial_scale: 0.0, ..p }, &["spatial scale"]);
    says(&ROIS, &RoiAlignParams { sampling_ratio: 1 << 20, ..p }, &["sampling ratio", "1048576"]);
    assert!(roi_align(&x.flatten_all().unwrap(), &ROIS, &p).unwrap_err().to_string().contains("[B, C, H, W]"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_with_the_naive_kernel(
        (h, w, output) in (1usize..9, 1usize..9, 1usize..5),
        boxes in prop::collection::vec((0usize..2, -30f32..60.0, -30f32..60.0, 0f32..50.0, 0f32..50.0), 0..5),
        sampling_ratio in 0usize..4,
        aligned: bool,
        spatial_scale in prop::sample::select(vec![0.25f32, 0.5, 0.3, 1.0]),
    ) {
        let x = random(6, (2, 3, h, w)).unwrap();
        let rois: Vec<(usize, BoxXyxy)> = boxes.into_iter().map(|(i, x, y, w, h)| (i, [x, y, x + w, y + h])).collect();
        let p = RoiAlignParams { output, spatial_scale, sampling_ratio, aligned };
        close(&host(&roi_align(&x, &rois, &p).unwrap()), &naive(&x, &rois, &p), 2e-5);
    }
}
