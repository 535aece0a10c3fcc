//! Linear layers, normalisation, element-wise operations, pooling and upsampling.

use criterion::Criterion;
use docent_ops::{add_relu, batch_norm_train, group_norm, linear as affine, max_pool2d, softmax, upsample_nearest_add};

use super::both_ways;

/// The box head's layers: fc6 of torchvision's head with 512 RoIs, and that of the small student with 256.
pub fn linear(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear");
    for (name, [rows, inputs, outputs]) in
        [("fc6_512_12544-1024", [512, 256 * 7 * 7, 1024]), ("fc6_256_3136-256", [256, 64 * 7 * 7, 256])]
    {
        let flops = 2 * rows * inputs * outputs;
        both_ways(&mut group, name, &[&[rows, inputs], &[outputs, inputs], &[outputs]], (flops, 3), |t| {
            affine(&t[0], &t[1], Some(&t[2]), true)
        });
    }
    group.finish();
}

/// Batch statistics on the small student's stem and first stage (batch 4, 256x320), groups on a pyramid level.
pub fn norm(c: &mut Criterion) {
    let mut group = c.benchmark_group("norm");
    for (name, shape) in
        [("batch_norm_train/4x64x128x160", [4, 64, 128, 160]), ("batch_norm_train/4x64x64x80", [4, 64, 64, 80])]
    {
        let [channels, values] = [shape[1], shape.iter().product()];
        both_ways(&mut group, name, &[&shape, &[channels], &[channels]], (values, 1), |t| {
            Ok(batch_norm_train(&t[0], &t[1], &t[2], 1e-5, None, true)?.0)
        });
    }
    let shape = [1, 256, 80, 80];
    both_ways(&mut group, "group_norm_32/1x256x80x80", &[&shape, &[256], &[256]], (shape.iter().product(), 1), |t| {
        group_norm(&t[0], &t[1], &t[2], 32, 1e-5, true)
    });
    group.finish();
}

/// A residual block's end, and class probabilities of 1000 RoIs over COCO's classes.
pub fn elementwise(c: &mut Criterion) {
    let mut group = c.benchmark_group("elementwise");
    let shape = [4, 64, 64, 80];
    both_ways(&mut group, "add_relu/4x64x64x80", &[&shape, &shape], (shape.iter().product(), 1), |t| {
        add_relu(&t[0], &t[1])
    });
    both_ways(&mut group, "softmax/1000x91", &[&[1000, 91]], (1000 * 91, 1), |t| softmax(&t[0]));
    group.finish();
}

/// The stem's pooling, and the pyramid's merge at 320x320 and at 800x1333 (P4 into P3).
pub fn resampling(c: &mut Criterion) {
    let mut group = c.benchmark_group("max_pool2d");
    let values = 64 * 80 * 80;
    both_ways(&mut group, "3x3s2_64_160x160", &[&[1, 64, 160, 160]], (values, 1), |t| max_pool2d(&t[0], 3, 2, 1));
    group.finish();

    let mut group = c.benchmark_group("upsample_nearest_add");
    for (name, top, lateral) in [
        ("256_20x20-40x40", [1, 256, 20, 20], [1, 256, 40, 40]),
        ("256_50x84-100x168", [1, 256, 50, 84], [1, 256, 100, 168]),
    ] {
        both_ways(&mut group, name, &[&top, &lateral], (lateral.iter().product(), 1), |t| {
            upsample_nearest_add(&t[0], &t[1])
        });
    }
    group.finish();
}
