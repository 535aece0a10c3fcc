//! The `docent` program's settings of the process, so that the benches measure what it runs.

/// Runs a bench with candle on one thread, and big buffers kept instead of handed back to the system after each operation (glibc
/// only), on a thread of the pool. Called before there is a second thread.
pub fn run(bench: fn()) {
    // candle's own pool spins while it waits and takes cores from the threads that compute.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread reads the environment yet.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt changes settings of the allocator alone; no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
    rayon::scope(|_| bench());
}
