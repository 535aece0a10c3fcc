//! The built program under kills, signals, full disks, a second program and further wishes: what it says, how it exits, and that nothing is lost.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

mod bench;
mod disk;
mod kill;
mod more;
mod signals;
