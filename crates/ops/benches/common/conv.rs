//! Convolutions of a ResNet with a pyramid, at 320x320 pixels and at COCO's 800x1333.

use std::cell::LazyCell;

use criterion::Criterion;
use docent_ops::{Affine, BiasOrResidual, Conv2dParams, conv2d as convolve};
use docent_tensor::backward_freeing;

use super::{both_ways, random, time, var};

/// One convolution: square kernel, padded to keep the size at stride 1.
struct Case {
    name: &'static str,
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    /// Height and width of the input.
    size: [usize; 2],
}

const fn case(name: &'static str, channels: [usize; 2], kernel: usize, stride: usize, size: [usize; 2]) -> Case {
    Case { name, channels, kernel, stride, size }
}

const STEM: Case = case("stem_7x7s2_320x320", [3, 64], 7, 2, [320, 320]);
const LAYER1: Case = case("3x3_64_80x80", [64, 64], 3, 1, [80, 80]);

const CASES: [Case; 9] = [
    STEM,
    LAYER1,
    case("1x1_64-256_80x80", [64, 256], 1, 1, [80, 80]),
    case("3x3s2_128_80x80", [128, 128], 3, 2, [80, 80]),
    case("1x1s2_256-512_80x80", [256, 512], 1, 2, [80, 80]),
    case("3x3_256_20x20", [256, 256], 3, 1, [20, 20]),
    case("3x3_512_10x10", [512, 512], 3, 1, [10, 10]),
    // The pyramid's output convolutions: P2 of 320x320, and P3 of an image of 800x1333, padded to 1344.
    case("3x3_256_80x80", [256, 256], 3, 1, [80, 80]),
    case("3x3_256_100x168", [256, 256], 3, 1, [100, 168]),
];

impl Case {
    fn params(&self) -> Conv2dParams {
        Conv2dParams { stride: self.stride, padding: self.kernel / 2, ..Default::default() }
    }

    fn x(&self) -> [usize; 4] {
        [1, self.channels[0], self.size[0], self.size[1]]
    }

    fn w(&self) -> [usize; 4] {
        [self.channels[1], self.channels[0], self.kernel, self.kernel]
    }

    fn y(&self) -> [usize; 4] {
        let [h, w] = self.size.map(|side| side.div_ceil(self.stride));
        [1, self.channels[1], h, w]
    }

    /// Of the forward pass: two for each tap, output channel and pixel.
    fn flops(&self) -> usize {
        2 * self.y().iter().product::<usize>() * self.channels[0] * self.kernel * self.kernel
    }
}

/// Each shape forward, and forward and backward with image and weights tracked.
pub fn conv2d(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv2d");
    for case in &CASES {
        let p = case.params();
        both_ways(&mut group, case.name, &[&case.x(), &case.w()], (case.flops(), 3), |t| {
            convolve(&t[0], &t[1], BiasOrResidual::None, None, false, &p)
        });
    }

    // As a network runs it: nothing wants the image's gradient.
    let operands = LazyCell::new(|| (random(1, &STEM.x()), var(2, &STEM.w())));
    time(&mut group, &format!("{}/forward+weight_gradient", STEM.name), 2 * STEM.flops(), || {
        let (x, w) = &*operands;
        let y = convolve(x, w, BiasOrResidual::None, None, false, &STEM.params()).expect("the operands fit");
        backward_freeing(&y).expect("the operation has a gradient")
    });

    // The end of a residual block with frozen statistics, as one operation.
    let channels = LAYER1.channels[1];
    let ones = vec![1.0; channels];
    let norm = Affine::from_batch_norm(&ones, &ones, &vec![0.1; channels], &ones, 1e-5);
    let name = format!("{}_norm_residual_relu", LAYER1.name);
    both_ways(&mut group, &name, &[&LAYER1.x(), &LAYER1.w(), &LAYER1.y()], (LAYER1.flops(), 3), |t| {
        convolve(&t[0], &t[1], BiasOrResidual::Residual(&t[2]), Some(&norm), true, &LAYER1.params())
    });
    group.finish();
}
