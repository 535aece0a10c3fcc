//! The `docent` program's settings of the process, so that the benches measure what it runs.

/// Runs a bench with these settings, on a thread of the pool. Called first in `main`.
pub fn run(bench: fn()) {
    docent_tensor::process::prepare(None).expect("main has one thread, and no pool has been started");
    rayon::scope(|_| bench());
}
