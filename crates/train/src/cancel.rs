//! A request to stop, made by whoever holds a clone of it: a signal handler, a button, a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Asks a loop to stop where nothing is lost by it: after the current step, or between two batches of an evaluation.
///
/// Clones share the request, and it stays.
///
/// ```
/// let stop = docent_train::CancelToken::default();
/// let handler = stop.clone();
/// assert!(!stop.requested());
/// handler.request();
/// assert!(stop.requested());
/// ```
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Makes the request. May be called from any thread, any number of times.
    pub fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Was it made?
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// [`Error::Cancelled`] when it was made.
    ///
    /// # Errors
    /// As said.
    pub fn check(&self) -> Result<()> {
        if self.requested() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
