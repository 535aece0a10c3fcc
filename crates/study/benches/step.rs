//! Criterion benches of one whole training step: forward, backward, clipping, update.
//!
//! The models are those of the recipe `bccd` at its size, batch 4 of 320x240 pixels: a ResNet-18 with a 64-channel
//! pyramid alone (`step/student`), and distilled from a frozen ResNet-50 (`step/distilled`). An element of the throughput is
//! an image.
//!
//! `images/N` and `boxes/N` are the distilled step of N images, and of two images with N boxes each: the cost must grow in
//! proportion to images, and with boxes at most so.

mod common;

use std::time::Duration;

use common::{Training, batch, crowd, recipe};
use criterion::{BenchmarkId, Criterion, Throughput};
use docent_train::Batch;

fn main() {
    common::run(bench);
}

fn bench() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let recipe = recipe(&[]);
    let usual = batch(recipe.train.batch, (240, 320));
    let mut group = criterion.benchmark_group("step");
    group.throughput(Throughput::Elements(usual.images.len() as u64));
    for (name, distils) in [("student", false), ("distilled", true)] {
        // Built by the first call, so that a step which is filtered out costs nothing.
        let mut training = None;
        group.bench_function(name, |b| {
            let training = training.get_or_insert_with(|| Training::new(&recipe, distils));
            b.iter(|| training.step(&usual));
        });
    }
    group.finish();

    let mut training = None;
    let mut grow = |criterion: &mut Criterion, name: &str, sizes: &[usize], batch: &dyn Fn(usize) -> Batch| {
        let mut group = criterion.benchmark_group(name);
        for &n in sizes {
            group.bench_function(BenchmarkId::from_parameter(n), |b| {
                let training = training.get_or_insert_with(|| Training::new(&recipe, true));
                let batch = batch(n);
                b.iter(|| training.step(&batch));
            });
        }
        group.finish();
    };
    grow(&mut criterion, "images", &[1, 2, 4, 8], &|n| batch(n, (240, 320)));
    grow(&mut criterion, "boxes", &[1, 10, 50, 100, 250, 500], &|n| crowd(2, (240, 320), n));
    criterion.final_summary();
}
