//! The built program under kills, signals, full disks and rivals: what it says, how it exits, and that nothing is lost.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

mod bench;
mod disk;
mod kill;
mod signals;
