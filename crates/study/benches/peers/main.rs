//! docent's side of `cargo xtask bench peers`: times named cases on request, one a line of standard input.
//!
//! ```text
//! time CASE             -> milliseconds of one call, the mean over as many calls as fill a fifth of a second
//! shares CASE           -> milliseconds of a step's forward pass, backward pass and optimizer
//! memory CASE           -> KiB that three calls need at most beyond what the model and data took
//! ```
//!
//! `benches/peers/peer.py` answers the same lines for PyTorch. What a case is stands in `cases.rs` and there.

#![allow(clippy::expect_used, clippy::panic, reason = "a bench stops with a panic, as a test does")]

mod cases;
#[path = "../common/mod.rs"]
mod common;

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

/// A sample is at least as long.
const SAMPLE: Duration = Duration::from_millis(200);

fn main() {
    common::run(answer);
}

/// Answers all requests.
fn answer() {
    let mut current: Option<(String, cases::Case)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("standard input holds text");
        let (command, case) = line.split_once(' ').unwrap_or((line.as_str(), ""));
        if current.as_ref().is_none_or(|(name, _)| name != case) {
            // The old case's memory goes first.
            drop(current.take());
            current = Some((case.to_owned(), cases::Case::new(case)));
        }
        let Some((_, case)) = &mut current else { continue };
        let answer = match command {
            "time" => time(case).to_string(),
            "shares" => shares(case),
            "memory" => memory(case).to_string(),
            other => panic!("unknown command {other}: time, shares or memory"),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}").and_then(|()| out.flush()).expect("the reader listens");
    }
}

/// Mean milliseconds of a call, after one that nobody counts.
fn time(case: &mut cases::Case) -> f64 {
    case.call();
    let (start, mut calls) = (Instant::now(), 0);
    while start.elapsed() < SAMPLE {
        case.call();
        calls += 1;
    }
    start.elapsed().as_secs_f64() * 1e3 / f64::from(calls)
}

fn shares(case: &mut cases::Case) -> String {
    case.call();
    let s = case.shares();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    format!("{} {} {}", ms(s.forward), ms(s.backward), ms(s.optimizer))
}

/// VmHWM after three calls less VmRSS before, in KiB; 0 where the system does not say.
fn memory(case: &mut cases::Case) -> u64 {
    common::trim();
    let before = status("VmRSS:");
    (0..3).for_each(|_| case.call());
    status("VmHWM:").saturating_sub(before)
}

fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key));
    line.and_then(|l| l.split_whitespace().next()).and_then(|v| v.parse().ok()).unwrap_or(0)
}
