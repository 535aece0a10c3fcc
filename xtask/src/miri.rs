//! `cargo xtask miri`: the tests of the crates with unsafe code, and of those that build on it, under Miri.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::process;

#[derive(clap::Args)]
pub struct Args {
    /// The toolchain that has Miri, by rustup's name.
    #[arg(long, default_value = "nightly")]
    toolchain: String,
}

/// crossbeam's list of threads breaks the rules of stacked borrows, not those of tree borrows; rayon's threads never end; the tests read
/// clocks and the number of cores; and they compare the bits of two runs, where Miri would vary the last bit of an exponential.
const FLAGS: &str = "-Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks -Zmiri-disable-isolation \
                     -Zmiri-deterministic-floats";

/// The tests of `docent-tensor`, and each operation of `docent-ops` at small sizes, without the kernels for AVX: Miri's CPU has SSE2.
pub fn run(args: &Args) -> Result<()> {
    let version = miri(&args.toolchain).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        let toolchain = &args.toolchain;
        bail!("toolchain `{toolchain}` has no Miri: rustup toolchain install {toolchain} --component miri,rust-src");
    }
    test(args, &["--package", "docent-tensor"])?;
    test(args, &["--package", "docent-ops", "--test", "small"])
}

fn miri(toolchain: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", toolchain, "cargo", "miri"]);
    command
}

/// Runs tests under Miri.
fn test(args: &Args, tests: &[&str]) -> Result<()> {
    let mut command = miri(&args.toolchain);
    command.current_dir(process::root()?).arg("test").args(tests).env("MIRIFLAGS", FLAGS);
    // candle's errors hold backtraces, which would take most of the time.
    command.env("RUST_BACKTRACE", "0");
    process::run(&mut command)
}
