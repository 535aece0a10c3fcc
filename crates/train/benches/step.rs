//! Criterion benches of one whole training step: forward, backward, clipping, update.
//!
//! The models are those of the recipe `bccd` at its size, batch 4 of 320x240 pixels: a ResNet-18 with a 64-channel
//! pyramid alone (`step/student`), and taught by a frozen ResNet-50 (`step/distilled`). An element of the throughput is
//! an image.

mod common;

use std::time::Duration;

use common::{Class, batch, prepare, recipe};
use criterion::{Criterion, Throughput};

fn main() {
    prepare();
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let recipe = recipe(&[]);
    let batch = batch(recipe.schedule.batch, (240, 320));
    let mut group = criterion.benchmark_group("step");
    group.throughput(Throughput::Elements(batch.ids.len() as u64));
    for (name, taught) in [("student", false), ("distilled", true)] {
        // Built by the first call, so that a step which is filtered out costs nothing.
        let mut class = None;
        group.bench_function(name, |b| {
            let class = class.get_or_insert_with(|| Class::new(&recipe, taught));
            b.iter(|| class.step(&batch));
        });
    }
    group.finish();
    criterion.final_summary();
}
