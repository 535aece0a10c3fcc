//! Settings of the process that must stand before its first thread does, and its compute threads.
#![allow(unsafe_code)]

use std::num::NonZeroUsize;

use anyhow::{Context, Result};
use docent_tensor::process;

/// Call it first in `main`, while the process has one thread.
///
/// # Errors
/// When the process has more than one.
pub fn prepare() -> Result<()> {
    end_with_the_pipe();
    outlive_the_file_limit();
    Ok(process::tune()?)
}

/// Starts the compute threads, one a core unless told otherwise.
///
/// # Errors
/// When the system has no room for them.
pub fn start_pool(threads: Option<NonZeroUsize>) -> Result<()> {
    process::start_pool(threads).context("cannot start the compute threads, whose number is --threads")
}

/// Starts the compute threads and runs a command on one of them.
///
/// # Errors
/// Those of [`start_pool`] and the command's own.
pub fn compute(threads: Option<NonZeroUsize>, command: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    start_pool(threads)?;
    on_the_pool(command)
}

/// Runs `f` on a compute thread, as [`process::prepare`] advises. `f` must not wait for anybody who needs the pool too.
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
