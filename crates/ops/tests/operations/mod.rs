//! Every differentiable operation of the crate at small sizes, which Miri can run.

use candle_core::Tensor;
use docent_ops::{
    Affine, BiasOrResidual, BoxXyxy, Conv2dParams, Result, RoiAlignParams, RoiLevel, add_relu, batch_norm_train,
    conv_batch_norm_train, conv2d, group_norm, index_rows, linear, max_pool2d, relu, relu6, roi_align, roi_linear,
    softmax, subsample, upsample_nearest, upsample_nearest_add,
};

/// An operation and the shapes of its operands.
pub struct Operation {
    pub name: &'static str,
    pub shapes: Vec<Vec<usize>>,
    pub run: fn(&[Tensor]) -> Result<Tensor>,
}

const fn conv(stride: usize, padding: usize, dilation: usize, groups: usize) -> Conv2dParams {
    Conv2dParams { stride, padding, dilation, groups }
}

/// A convolution of an odd map, which takes its operands x and w.
macro_rules! convolution {
    ($name:literal, $x:expr, $w:expr, $params:expr) => {
        Operation {
            name: $name,
            shapes: vec![$x.to_vec(), $w.to_vec()],
            run: |t| conv2d(&t[0], &t[1], BiasOrResidual::None, None, false, &$params),
        }
    };
}

const ROI: RoiAlignParams = RoiAlignParams { output: 2, spatial_scale: 1.0, sampling_ratio: 2, aligned: false };

fn rois() -> Vec<(usize, BoxXyxy)> {
    vec![(0, [1.0, 1.0, 6.0, 6.0]), (0, [-3.0, 2.5, 4.0, 9.0])]
}

fn level(map: &Tensor, spatial_scale: f32) -> RoiLevel<'_> {
    RoiLevel { map, rois: rois(), params: RoiAlignParams { spatial_scale, ..ROI } }
}

/// All of them.
pub fn operations() -> Vec<Operation> {
    let map = || vec![1, 5, 7, 5];
    let operation = |name, shapes, run| Operation { name, shapes, run };
    vec![
        operation("relu", vec![map()], |t| relu(&t[0])),
        operation("relu6", vec![map()], |t| relu6(&t[0])),
        operation("add_relu", vec![map(), map()], |t| add_relu(&t[0], &t[1])),
        operation("softmax", vec![map()], |t| softmax(&t[0])),
        operation("index_rows", vec![vec![3, 35, 2]], |t| index_rows(&t[0], &[1, 2, 1])),
        operation("max_pool2d", vec![map()], |t| max_pool2d(&t[0], 3, 2, 1)),
        operation("subsample", vec![map()], |t| subsample(&t[0], 2)),
        operation("upsample_nearest", vec![map()], |t| upsample_nearest(&t[0], (11, 14))),
        operation("upsample_nearest_add", vec![map(), vec![1, 5, 14, 10]], |t| upsample_nearest_add(&t[0], &t[1])),
        operation("linear", vec![vec![7, 13], vec![50, 13], vec![50]], |t| linear(&t[0], &t[1], Some(&t[2]), true)),
        // By Winograd's algorithm; for Miri, whose thresholds are lower: many tiles, few, and both ways of the weights' gradient.
        convolution!("conv2d of 3x3, 16 channels, two images", [2, 16, 8, 8], [16, 16, 3, 3], conv(1, 1, 1, 1)),
        convolution!("conv2d of 3x3, 16 channels", [1, 16, 7, 8], [17, 16, 3, 3], conv(1, 1, 1, 1)),
        convolution!("conv2d of 3x3, 32 channels", [1, 32, 8, 7], [32, 32, 3, 3], conv(1, 1, 1, 1)),
        convolution!("conv2d of 3x3, 40 channels", [1, 32, 7, 8], [40, 32, 3, 3], conv(1, 1, 1, 1)),
        convolution!("conv2d of 3x3, few channels", [1, 3, 9, 7], [5, 3, 3, 3], conv(1, 1, 1, 1)),
        convolution!("conv2d of 3x3 with a stride", [1, 4, 9, 7], [5, 4, 3, 3], conv(2, 1, 1, 1)),
        convolution!("conv2d of 3x3 with a dilation", [1, 3, 9, 7], [5, 3, 3, 3], conv(1, 2, 2, 1)),
        convolution!("conv2d of 3x2 in groups", [1, 4, 9, 7], [6, 2, 3, 2], conv(1, 1, 1, 2)),
        convolution!("conv2d, depthwise", [1, 4, 9, 7], [4, 1, 3, 3], conv(2, 1, 1, 4)),
        convolution!("conv2d of 1x1", [2, 5, 9, 7], [9, 5, 1, 1], conv(1, 0, 1, 1)),
        convolution!("conv2d of 1x1 with a stride", [1, 5, 9, 7], [9, 5, 1, 1], conv(2, 0, 1, 1)),
        operation("conv2d with a bias", vec![vec![1, 3, 9, 7], vec![5, 3, 3, 3], vec![5]], |t| {
            conv2d(&t[0], &t[1], BiasOrResidual::Bias(&t[2]), None, true, &conv(1, 1, 1, 1))
        }),
        operation("conv2d with a residual", vec![vec![1, 3, 9, 7], vec![5, 3, 3, 3], vec![1, 5, 9, 7]], |t| {
            let affine = Affine { scale: vec![0.5; 5].into(), shift: vec![0.1; 5].into() };
            conv2d(&t[0], &t[1], BiasOrResidual::Residual(&t[2]), Some(&affine), true, &conv(1, 1, 1, 1))
        }),
        operation("batch_norm_train", vec![map(), vec![5], vec![5]], |t| {
            Ok(batch_norm_train(&t[0], &t[1], &t[2], 1e-5, None, true)?.0)
        }),
        operation("batch_norm_train with a residual", vec![map(), vec![5], vec![5], map()], |t| {
            Ok(batch_norm_train(&t[0], &t[1], &t[2], 1e-5, Some(&t[3]), true)?.0)
        }),
        operation("conv_batch_norm_train", vec![vec![1, 3, 9, 7], vec![5, 3, 3, 3], vec![5], vec![5]], |t| {
            Ok(conv_batch_norm_train(&t[0], &t[1], &t[2], &t[3], 1e-5, true, &conv(1, 1, 1, 1))?.0)
        }),
        operation("group_norm", vec![vec![2, 6, 9, 7], vec![6], vec![6]], |t| {
            group_norm(&t[0], &t[1], &t[2], 3, 1e-5, true)
        }),
        operation("roi_align", vec![map()], |t| roi_align(&t[0], &rois(), &ROI)),
        operation("roi_linear", vec![vec![1, 5, 9, 7], vec![1, 5, 5, 4], vec![6, 20], vec![6]], |t| {
            roi_linear(&[level(&t[0], 1.0), level(&t[1], 0.5)], &t[2], &t[3], true)
        }),
    ]
}
