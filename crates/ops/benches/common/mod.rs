//! What the benches share: criterion's settings, seeded operands and the two ways to run an operation.

#![allow(clippy::expect_used, reason = "a bench stops with a panic, as a test does")]

pub mod conv;
pub mod dense;
pub mod detection;
pub mod losses;
pub mod process;

use std::cell::LazyCell;
use std::time::Duration;

use candle_core::{Tensor, Var};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use docent_ops::Result;
use docent_tensor::backward_freeing;

/// Short: the whole file runs in a few minutes. The command line can ask for more.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}

/// Seeded values in (-1, 1).
pub fn random(seed: u64, shape: &[usize]) -> Tensor {
    docent_ops::testing::random(seed, shape).expect("the tensor fits in memory")
}

/// [`random`] as a variable.
pub fn var(seed: u64, shape: &[usize]) -> Var {
    Var::from_tensor(&random(seed, shape)).expect("the tensor fits in memory")
}

/// Times `f`, which does the work that `elements` counts.
///
/// Big operands belong in a [`LazyCell`] that `f` reads: a bench that the filter leaves out then costs nothing.
pub fn time<T>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, elements: usize, mut f: impl FnMut() -> T) {
    group.throughput(Throughput::Elements(elements as u64));
    group.bench_function(name, |b| b.iter(&mut f));
}

/// Benches `op` on plain tensors of `shapes`, then forward and backward with all of them tracked.
///
/// `elements` are the forward pass's; `backward` says how often they count in both passes together.
pub fn both_ways(
    group: &mut BenchmarkGroup<'_, WallTime>,
    case: &str,
    shapes: &[&[usize]],
    (elements, backward): (usize, usize),
    op: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let plain = LazyCell::new(|| (1..).zip(shapes).map(|(seed, shape)| random(seed, shape)).collect::<Vec<_>>());
    time(group, &format!("{case}/forward"), elements, || op(&plain).expect("the operands fit"));
    drop(plain);

    // A variable's tensor is tracked as the variable is.
    let tracked = |(seed, shape): (u64, &&[usize])| var(seed, shape).as_tensor().clone();
    let tracked = LazyCell::new(|| (1..).zip(shapes).map(tracked).collect::<Vec<_>>());
    time(group, &format!("{case}/forward+backward"), elements * backward, || {
        backward_freeing(&op(&tracked).expect("the operands fit")).expect("the operation has a gradient")
    });
}
