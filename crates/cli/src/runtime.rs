//! Settings of the process that must stand before its first thread does: the allocator's, candle's, and of signals that writing brings.
#![allow(unsafe_code)]

use std::num::NonZeroUsize;

use anyhow::{Context, Result};
use rayon::ThreadPoolBuilder;

/// Call it first in `main`, while the process has one thread.
pub fn prepare() {
    keep_big_buffers();
    end_with_the_pipe();
    outlive_the_file_limit();
    // candle splits its element-wise operations over a pool of its own whose caller spins until the other side is done. Next to
    // rayon's threads, which do our operations, the other side often waits for a core, and the spinning takes it away.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread reads the environment yet.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
}

/// Starts the compute threads, one a core unless told otherwise, with stacks to train on.
///
/// # Errors
/// When the system has no room for them.
pub fn start_pool(threads: Option<NonZeroUsize>) -> Result<()> {
    let (threads, stack) = (threads.map_or(0, NonZeroUsize::get), docent_train::STACK_BYTES);
    ThreadPoolBuilder::new().num_threads(threads).stack_size(stack).build_global().with_context(|| {
        let each = stack >> 20;
        format!("cannot start the compute threads, which reserve {each} MiB each: use fewer (--threads), or raise `ulimit -v`")
    })
}

/// Starts the compute threads and runs a command on one of them.
///
/// # Errors
/// Those of [`start_pool`] and the command's own.
pub fn compute(threads: Option<NonZeroUsize>, command: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    start_pool(threads)?;
    on_the_pool(command)
}

/// Runs `f` on a compute thread. Each operation that is called from outside the pool wakes a thread of it and sleeps until that is
/// done, some thousand times in a training step; a thread of the pool begins with the work itself. `f` must not wait for anybody
/// who needs the pool too.
pub fn on_the_pool<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| f())
}

/// `docent recipe list | head -1` ends as other programs do: Rust's start-up has turned that off, and printing would panic.
fn end_with_the_pipe() {
    #[cfg(unix)]
    // SAFETY: the default action is no handler, and no other thread runs yet.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// A service outlives a client that breaks off: writing to it is then an error like any other.
pub fn outlive_clients() {
    #[cfg(unix)]
    // SAFETY: to ignore a signal is no handler.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// A file beyond `ulimit -f` is then an error like a full disk, with a message and nothing lost, instead of the program's end.
fn outlive_the_file_limit() {
    #[cfg(unix)]
    // SAFETY: to ignore a signal is no handler, and no other thread runs yet.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Each operation allocates its output. glibc maps a buffer beyond a threshold anew every time and unmaps it when it is freed, so
/// that every page is zeroed and faulted in again: measured, up to four fifths of an element-wise operation's time. And one heap serves
/// all threads, which allocate rarely: with one for each, a step needs 2 to 16% more memory (docs/benchmarks.md).
fn keep_big_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const GIBIBYTE: libc::c_int = 1 << 30;
        // SAFETY: mallopt changes settings of the allocator alone, and no other thread allocates yet.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, GIBIBYTE);
            libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}
