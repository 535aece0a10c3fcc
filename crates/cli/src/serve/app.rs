//! What the service's handlers share: limits, slots, the model's thread, the metrics.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::metrics::Metrics;
use super::worker::Worker;

/// What a request may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of an image's file.
    pub bytes: usize,
    /// Pixels of an image.
    pub pixels: u64,
    /// From a request's arrival to its answer.
    pub time: Duration,
    /// Requests that wait while one is worked on.
    pub queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 16 << 20, pixels: 32_000_000, time: Duration::from_secs(30), queue: 8 }
    }
}

/// What the handlers share.
pub struct App {
    pub limits: Limits,
    /// What is answered where a request names no threshold.
    pub threshold: f32,
    /// What the page and `/healthz` call the model.
    pub about: serde_json::Value,
    pub slots: Arc<Semaphore>,
    pub worker: Worker,
    pub metrics: Metrics,
}

impl App {
    pub fn slots(&self) -> usize {
        self.limits.queue + 1
    }

    /// Requests that hold a slot.
    pub fn busy(&self) -> usize {
        self.slots() - self.slots.available_permits().min(self.slots())
    }
}
