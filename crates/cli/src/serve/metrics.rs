//! Counters in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Upper bounds of the times' buckets, in seconds.
const BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What is counted. Everything is cheap, so one lock does.
#[derive(Default)]
pub struct Metrics(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    requests: BTreeMap<(&'static str, u16), u64>,
    errors: BTreeMap<&'static str, u64>,
    request_seconds: BTreeMap<&'static str, Histogram>,
    detect_seconds: Histogram,
    wait_seconds: Histogram,
    detections: u64,
}

#[derive(Default, Clone)]
struct Histogram {
    /// Observations up to each bound, and of any size.
    buckets: [u64; BOUNDS.len() + 1],
    sum: f64,
}

impl Histogram {
    fn add(&mut self, seconds: f64) {
        for (bucket, bound) in self.buckets.iter_mut().zip(BOUNDS.into_iter().chain([f64::INFINITY])) {
            *bucket += u64::from(seconds <= bound);
        }
        self.sum += seconds;
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        for (bucket, bound) in
            self.buckets.iter().zip(BOUNDS.map(|b| b.to_string()).into_iter().chain(["+Inf".to_owned()]))
        {
            // A String takes whatever is written, here and below.
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {bucket}");
        }
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "{name}_sum{braces} {}", self.sum);
        let _ = writeln!(out, "{name}_count{braces} {}", self.buckets[BOUNDS.len()]);
    }
}

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Counters are whole at any moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request is answered.
    pub fn request(&self, route: &'static str, status: u16, seconds: f64, error: Option<&'static str>) {
        let mut counts = self.counts();
        *counts.requests.entry((route, status)).or_default() += 1;
        counts.request_seconds.entry(route).or_default().add(seconds);
        if let Some(error) = error {
            *counts.errors.entry(error).or_default() += 1;
        }
    }

    /// The model is done with an image.
    pub fn detected(&self, waited: f64, seconds: f64, detections: usize) {
        let mut counts = self.counts();
        counts.wait_seconds.add(waited);
        counts.detect_seconds.add(seconds);
        counts.detections += detections as u64;
    }

    /// Mean seconds that an image takes; half a second before the first.
    pub fn usual_seconds(&self) -> f64 {
        let counts = self.counts();
        let images = counts.detect_seconds.buckets[BOUNDS.len()];
        if images == 0 { 0.5 } else { counts.detect_seconds.sum / images as f64 }
    }

    /// All of it, with the queue as it is now.
    pub fn text(&self, waiting: usize, queue: usize) -> String {
        let counts = self.counts();
        let mut out = String::new();
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        head(&mut out, "docent_requests_total", "counter", "Answered requests.");
        for ((route, status), n) in &counts.requests {
            let _ = writeln!(out, "docent_requests_total{{route=\"{route}\",status=\"{status}\"}} {n}");
        }
        head(
            &mut out,
            "docent_errors_total",
            "counter",
            "Requests that were refused or failed, by the code of their answer.",
        );
        for (code, n) in &counts.errors {
            let _ = writeln!(out, "docent_errors_total{{code=\"{code}\"}} {n}");
        }
        head(&mut out, "docent_request_seconds", "histogram", "From a request's arrival to its answer.");
        for (route, histogram) in &counts.request_seconds {
            histogram.write(&mut out, "docent_request_seconds", &format!("route=\"{route}\""));
        }
        head(&mut out, "docent_detect_seconds", "histogram", "The model's work on an image, decoding with it.");
        counts.detect_seconds.write(&mut out, "docent_detect_seconds", "");
        head(&mut out, "docent_wait_seconds", "histogram", "From an image's arrival to the model's beginning.");
        counts.wait_seconds.write(&mut out, "docent_wait_seconds", "");
        head(&mut out, "docent_detections_total", "counter", "Boxes that were answered.");
        let _ = writeln!(out, "docent_detections_total {}", counts.detections);
        head(&mut out, "docent_queue_length", "gauge", "Requests that wait.");
        let _ = writeln!(out, "docent_queue_length {waiting}");
        head(&mut out, "docent_queue_limit", "gauge", "Requests that may wait.");
        let _ = writeln!(out, "docent_queue_limit {queue}");
        out
    }
}
