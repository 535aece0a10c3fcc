//! The losses at the sizes of one image of 800x1333, forward and backward.

use criterion::Criterion;
use docent_ops::loss::{bce_with_logits, masked_l2, smooth_l1, softmax_cross_entropy};
use docent_ops::testing::values;

use super::{both_ways, random};

/// RPN, box head and distillation.
pub fn loss(c: &mut Criterion) {
    let mut group = c.benchmark_group("loss");

    // Three anchors a cell of P3, of which the sampler picks 256.
    let map = [1, 3, 100, 168];
    let indices: Vec<usize> = (0..256).map(|i| i * 196).collect();
    let targets: Vec<f32> = (0..256).map(|i| f32::from(u8::from(i % 2 == 0))).collect();
    both_ways(&mut group, "bce_with_logits/256_of_3x100x168", &[&map], (256, 1), |t| {
        bce_with_logits(&t[0], &indices, &targets, 256.0)
    });

    let map = [1, 12, 100, 168];
    let indices: Vec<usize> = (0..512).map(|i| i * 393).collect();
    let targets = values(5, 512);
    both_ways(&mut group, "smooth_l1/512_of_12x100x168", &[&map], (512, 1), |t| {
        smooth_l1(&t[0], &indices, &targets, 1.0 / 9.0, 256.0)
    });

    let labels: Vec<u32> = (0..512).map(|i| if i % 4 == 0 { 1 + i % 90 } else { 0 }).collect();
    both_ways(&mut group, "softmax_cross_entropy/512x91", &[&[512, 91]], (512, 1), |t| {
        softmax_cross_entropy(&t[0], &labels, 512.0)
    });

    let shape = [1, 256, 100, 168];
    let teacher = random(9, &shape);
    let mask: Vec<f32> = (0..100 * 168).map(|i| ((i % 168) / 42 % 2) as f32).collect();
    both_ways(&mut group, "masked_l2/256x100x168", &[&shape], (shape.iter().product(), 1), |t| {
        masked_l2(&t[0], &teacher, &mask, 1000.0)
    });
    group.finish();
}
