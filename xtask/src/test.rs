//! `cargo xtask test`: house rules, format, clippy, tests, docs, cases.

use anyhow::Result;

use crate::{cases, process, tidy};

/// Runs the checks, those that fail fastest first.
pub fn run() -> Result<()> {
    tidy::run()?;
    process::run(&mut process::cargo(&["fmt", "--all", "--check"])?)?;
    process::run(&mut process::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?)?;
    // The data crate without its optional parts, which the workspace's own build has all.
    let reduced = ["-p", "docent-coco", "--no-default-features"];
    process::run(process::cargo(&["clippy"])?.args(reduced).args(["--lib", "--", "-D", "warnings"]))?;
    process::run(&mut process::cargo(&["test", "--workspace"])?)?;
    process::run(process::cargo(&["test", "--test", "reduced"])?.args(reduced))?;
    process::run(process::cargo(&["doc", "--workspace", "--no-deps"])?.env("RUSTDOCFLAGS", "-D warnings"))?;
    cases::run_with_test_build()
}
