//! `cargo xtask ci`: what continuous integration calls, and people may.

use anyhow::Result;

/// The tests, then the smoke run.
pub fn run() -> Result<()> {
    crate::test::run()?;
    crate::smoke::run()
}
