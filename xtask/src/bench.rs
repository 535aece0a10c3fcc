//! `cargo xtask bench`: the criterion benches, and the side-by-side against PyTorch.

use anyhow::Result;

use crate::{bench_peers, process};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only the benches whose name contains this.
    filter: Option<String>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Time docent and PyTorch in turn at the same work, and print one ratio a row.
    ///
    /// Without --python it prints docent's side alone.
    ///
    /// Example: cargo xtask bench peers --python ~/venv/bin/python --filter conv
    Peers(bench_peers::Args),
}

/// Runs every bench of the workspace, or those that match.
pub fn run(args: &Args) -> Result<()> {
    if let Some(Command::Peers(args)) = &args.command {
        return bench_peers::run(args);
    }
    // The peers' program waits for requests: it is none of criterion's.
    let benches = ["--package", "docent-ops", "--package", "docent-study", "--bench", "ops", "--bench", "step"];
    let mut command = process::cargo(&["bench"])?;
    command.args(benches);
    if let Some(filter) = &args.filter {
        command.args(["--", filter]);
    }
    process::run(&mut command)
}
