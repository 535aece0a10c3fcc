//! RoIAlign and non-maximum suppression on boxes such as a proposal network gives.

use criterion::Criterion;
use docent_ops::testing::values;
use docent_ops::{BoxXyxy, RoiAlignParams, nms as suppress, roi_align as align};

use super::{both_ways, time};

/// Height and width of COCO's usual input, padded.
const COCO: (f32, f32) = (800.0, 1344.0);

/// `n` boxes with sides between 16 and 16 + `side`, anywhere in an image.
fn spread((height, width): (f32, f32), side: f32, n: usize) -> Vec<BoxXyxy> {
    let unit: Vec<f32> = values(n as u64, 4 * n).iter().map(|v| (v + 1.0) / 2.0).collect();
    let at = |u: &[f32]| {
        let (w, h) = (16.0 + side * u[2], 16.0 + side * u[3]);
        let (x, y) = (u[0] * (width - w), u[1] * (height - h));
        [x, y, x + w, y + h]
    };
    unit.chunks_exact(4).map(at).collect()
}

/// `n` boxes that are 50 boxes moved and stretched by up to a fifth of their sides.
fn crowded(size: (f32, f32), n: usize) -> Vec<BoxXyxy> {
    let objects = spread(size, 200.0, 50);
    let jitter = values(7, 4 * n);
    let near = |(i, j): (usize, &[f32])| {
        let [x0, y0, x1, y1] = objects[i % objects.len()];
        let (w, h) = (0.2 * (x1 - x0), 0.2 * (y1 - y0));
        [x0 + w * j[0], y0 + h * j[1], x1 + w * j[2], y1 + h * j[3]]
    };
    jitter.chunks_exact(4).enumerate().map(near).collect()
}

/// 512 boxes on one image's P3 (256 channels, 800x1333), and on the small student's P2 (64 channels, batch 4, 256x320).
pub fn roi_align(c: &mut Criterion) {
    let mut group = c.benchmark_group("roi_align");
    for (name, map, size, side, stride) in [
        ("512_boxes_256_100x168", [1, 256, 100, 168], COCO, 200.0, 8.0),
        ("512_boxes_4x64_64x80", [4, 64, 64, 80], (256.0, 320.0), 96.0, 4.0),
    ] {
        let boxes = spread(size, side, 512);
        let rois: Vec<_> = boxes.into_iter().enumerate().map(|(i, b)| (i % map[0], b)).collect();
        let p = RoiAlignParams { output: 7, spatial_scale: 1.0 / stride, sampling_ratio: 2, aligned: false };
        let values = rois.len() * map[1] * p.output * p.output;
        both_ways(&mut group, name, &[&map], (values, 1), |t| align(&t[0], &rois, &p));
    }
    group.finish();
}

/// Few boxes fall when they are spread over the image (the dear case), most when they crowd around 50 objects.
pub fn nms(c: &mut Criterion) {
    let mut group = c.benchmark_group("nms");
    for n in [2_000, 10_000] {
        let scores = values(3, n);
        for (name, boxes) in [("spread", spread(COCO, 200.0, n)), ("crowded", crowded(COCO, n))] {
            time(&mut group, &format!("{n}_boxes_{name}"), n, || suppress(&boxes, &scores, 0.7));
        }
    }
    group.finish();
}
