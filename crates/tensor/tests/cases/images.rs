//! Convolution, pooling and resizing.

use super::case::{Case, f32, value};

#[cfg(not(miri))]
const SIDE: usize = 48;
#[cfg(miri)]
const SIDE: usize = 6;

fn map() -> super::Operand {
    f32(&[2, 16, SIDE, SIDE])
}

fn signal() -> super::Operand {
    f32(&[2, 16, 8 * SIDE])
}

pub fn cases() -> Vec<Case> {
    vec![
        value!("conv1d", [signal(), f32(&[8, 16, 3])], |t| t[0].conv1d(&t[1], 1, 1, 1, 1)),
        value!("conv1d in groups", [signal(), f32(&[8, 8, 3])], |t| t[0].conv1d(&t[1], 1, 2, 1, 2)),
        value!("conv1d of a strided kernel", [signal(), f32(&[8, 3, 16])], |t| {
            t[0].conv1d(&t[1].transpose(1, 2)?, 1, 1, 1, 1)
        }),
        value!("conv_transpose1d", [signal(), f32(&[16, 8, 3])], |t| t[0].conv_transpose1d(&t[1], 0, 0, 2, 1, 1)),
        value!("conv_transpose1d with padding", [signal(), f32(&[16, 8, 3])], |t| {
            t[0].conv_transpose1d(&t[1], 1, 1, 2, 1, 1)
        }),
        value!("conv2d", [map(), f32(&[8, 16, 3, 3])], |t| t[0].conv2d(&t[1], 1, 1, 1, 1)),
        value!("conv2d of 1x1", [map(), f32(&[8, 16, 1, 1])], |t| t[0].conv2d(&t[1], 0, 1, 1, 1)),
        value!("conv2d of 1x1 with a stride", [map(), f32(&[8, 16, 1, 1])], |t| t[0].conv2d(&t[1], 0, 2, 1, 1)),
        value!("conv2d in groups", [map(), f32(&[8, 4, 3, 3])], |t| t[0].conv2d(&t[1], 1, 2, 1, 4)),
        value!("conv_transpose2d", [map(), f32(&[16, 8, 3, 3])], |t| t[0].conv_transpose2d(&t[1], 1, 1, 2, 1)),
        value!("avg_pool2d", [map()], |t| t[0].avg_pool2d(2)),
        value!("avg_pool2d_with_stride", [map()], |t| t[0].avg_pool2d_with_stride(3, 2)),
        value!("max_pool2d", [map()], |t| t[0].max_pool2d(2)),
        value!("max_pool2d_with_stride", [map()], |t| t[0].max_pool2d_with_stride(3, 2)),
        value!("interpolate1d", [signal()], |t| t[0].interpolate1d(7)),
        value!("upsample_nearest1d", [signal()], |t| t[0].upsample_nearest1d(16 * SIDE)),
        value!("interpolate2d", [map()], |t| t[0].interpolate2d(7, 9)),
        value!("upsample_nearest2d", [map()], |t| t[0].upsample_nearest2d(2 * SIDE, 2 * SIDE)),
        value!("upsample_bilinear2d", [map()], |t| t[0].upsample_bilinear2d(2 * SIDE, 3 * SIDE, false)),
        value!("upsample_bilinear2d to the same size", [map()], |t| t[0].upsample_bilinear2d(SIDE, SIDE, true)),
        value!("upsample_bilinear2d_with_scale", [map()], |t| t[0].upsample_bilinear2d_with_scale(2.0, 1.5, false)),
    ]
}
