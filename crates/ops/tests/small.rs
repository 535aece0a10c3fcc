//! Each operation, forward and backward, at sizes that Miri can run: the same bits on one thread and on several.

#![allow(clippy::unwrap_used, clippy::panic)]

mod operations;

use candle_core::{Tensor, Var};
use docent_ops::testing::random;
use docent_tensor::backward_freeing;

use operations::{Operation, operations};

fn flat(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// The result, the operands' gradients from candle's backward pass and from the freeing one.
fn results(operation: &Operation) -> Vec<Vec<u32>> {
    let Operation { name, shapes, run } = operation;
    let vars: Vec<Var> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| Var::from_tensor(&random(i as u64 + 1, shape.clone()).unwrap()).unwrap())
        .collect();
    let operands: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = run(&operands).unwrap_or_else(|e| panic!("{name}: {e}"));
    let loss = y.sqr().unwrap().sum_all().unwrap();
    let mut all = vec![flat(&y)];
    for gradients in [loss.backward().unwrap(), backward_freeing(&loss).unwrap()] {
        all.extend(vars.iter().map(|v| flat(gradients.get(v).unwrap_or_else(|| panic!("{name}: no gradient")))));
    }
    all
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for operation in operations() {
        let [one, several] = [1, if cfg!(miri) { 2 } else { 3 }].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| results(&operation))
        });
        assert!(one == several, "{}: other bits on several threads", operation.name);
        assert!(one.iter().flatten().any(|&bits| bits != 0), "{}: zeros alone", operation.name);
    }
}
