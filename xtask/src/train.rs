//! `cargo xtask train` and `ablate`: a release build of the program, then `docent train` or `docent ablate`.

use std::process::Command;

use anyhow::Result;

use crate::process;

#[derive(clap::Args)]
pub struct Args {
    /// Handed to the program as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds and starts `docent COMMAND`; the folder is the caller's, so that relative paths mean what they say.
pub fn run(subcommand: &str, args: &Args) -> Result<()> {
    let program = process::build_docent(true)?;
    let mut command = Command::new(program);
    command.arg(subcommand).args(&args.rest);
    if let Some(revision) = process::revision() {
        command.env("DOCENT_REVISION", revision);
    }
    process::run(&mut command)
}
