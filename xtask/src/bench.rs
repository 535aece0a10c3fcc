//! `cargo xtask bench`: the criterion benches.

use anyhow::Result;

use crate::process;

#[derive(clap::Args)]
pub struct Args {
    /// Only the benches whose name contains this.
    filter: Option<String>,
}

/// Runs every bench of the workspace, or those that match.
pub fn run(args: &Args) -> Result<()> {
    let mut command = process::cargo(&["bench", "--workspace", "--benches"])?;
    if let Some(filter) = &args.filter {
        command.args(["--", filter]);
    }
    process::run(&mut command)
}
