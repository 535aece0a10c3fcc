//! Criterion benches of the operations, at shapes that a detector's pyramid really has.
//!
//! `cargo bench -p docent-ops --bench ops -- conv2d` runs those whose name holds `conv2d`. What the throughput counts,
//! group by group:
//!
//! | group | an element is |
//! |---|---|
//! | `conv2d`, `linear` | a floating-point operation (a multiply-add is two), so Gelem/s reads as GFLOP/s |
//! | `norm`, `elementwise`, `softmax` | a value of the input |
//! | `max_pool2d`, `upsample_nearest_add`, `roi_align` | a value of the result |
//! | `nms` | a box |
//! | `loss` | a term of the sum |
//!
//! `forward` runs on plain tensors, so no graph is built. `forward+backward` tracks every operand and differentiates
//! the sum of the result; the operations of `conv2d` and `linear` are counted three times there (the product, and one for
//! each factor's gradient), the elements of the other groups once.

mod common;

use criterion::Criterion;

fn main() {
    common::process::run(bench);
}

fn bench() {
    let mut criterion = common::criterion();
    let groups: [fn(&mut Criterion); 8] = [
        common::conv::conv2d,
        common::dense::linear,
        common::dense::norm,
        common::dense::elementwise,
        common::dense::resampling,
        common::detection::roi_align,
        common::detection::nms,
        common::losses::loss,
    ];
    for group in groups {
        group(&mut criterion);
    }
    criterion.final_summary();
}
