//! Settings of the process that make training fast: the allocator's, candle's and the compute threads'.
#![allow(unsafe_code)]

use std::num::NonZeroUsize;

use crate::error::{Error, Result};

/// Stack in bytes that a thread should have to train on: the backward pass walks the network's graph by recursion, and that of a
/// deep backbone needs more than a main thread's.
pub const STACK_BYTES: usize = 256 << 20;

/// Makes the process ready to compute: [`tune`], then [`start_pool`]. Call it first in `main`, and compute in `rayon::scope`: an
/// operation that is called from outside the pool wakes a thread of it and sleeps until that is done, some thousand times in a
/// training step.
///
/// ```
/// fn main() -> docent_tensor::Result<()> {
/// # if false {
///     docent_tensor::process::prepare(None)?;
/// # }
///     rayon::scope(|_| train())
/// }
/// # fn train() -> docent_tensor::Result<()> { Ok(()) }
/// ```
///
/// # Errors
/// As [`tune`] and [`start_pool`].
pub fn prepare(threads: Option<NonZeroUsize>) -> Result<()> {
    tune()?;
    start_pool(threads)
}

/// Tells glibc to keep big buffers and to use one heap, and candle to compute on one thread where `CANDLE_NUM_THREADS` says nothing.
///
/// Each operation allocates its output. glibc maps a buffer beyond a threshold anew every time and unmaps it when it is freed, so that
/// every page is zeroed and faulted in again: measured, up to four fifths of an element-wise operation's time. And one heap serves all
/// threads, which allocate rarely: with one for each, a step needs 2 to 16% more memory. candle splits its element-wise operations over
/// a pool of its own whose caller spins until the other side is done. Next to rayon's threads, which do our operations, the other side
/// often waits for a core, and the spinning takes it away.
///
/// # Errors
/// On Linux, if the process has more than one thread: the environment and the allocator's settings must not change then. Elsewhere
/// nothing is changed, because the threads cannot be counted.
pub fn tune() -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
        if threads != 1 {
            let what = format!("the process has {threads} threads; call this first in main");
            return Err(Error::operand("settings of the process", what));
        }
        if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
            // SAFETY: this is the only thread, so no other reads the environment.
            unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
        }
        #[cfg(target_env = "gnu")]
        {
            const GIBIBYTE: libc::c_int = 1 << 30;
            // SAFETY: mallopt changes settings of the allocator alone, and no other thread allocates.
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, GIBIBYTE);
                libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
                libc::mallopt(libc::M_ARENA_MAX, 1);
            }
        }
    }
    Ok(())
}

/// Starts rayon's global pool, one thread a core unless told otherwise, with stacks of [`STACK_BYTES`].
///
/// # Errors
/// When the system has no room for the stacks, or the pool was started before.
pub fn start_pool(threads: Option<NonZeroUsize>) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.map_or(0, NonZeroUsize::get));
    pool.stack_size(STACK_BYTES).build_global().map_err(|error| {
        let each = STACK_BYTES >> 20;
        Error::operand(
            "compute threads",
            format!("{error}; each reserves {each} MiB of address space: use fewer, or raise `ulimit -v`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_left_alone() {
        // libtest runs this on a thread of its own.
        if cfg!(target_os = "linux") {
            assert!(tune().unwrap_err().to_string().contains("first in main"));
        }
    }
}
