//! `cargo xtask train`: a release build of the program, then `docent train`.

use std::process::Command;

use anyhow::Result;

use crate::process;

#[derive(clap::Args)]
pub struct Args {
    /// Handed to `docent train` as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds and trains; the folder is the caller's, so that relative paths mean what they say.
pub fn run(args: &Args) -> Result<()> {
    let program = process::build_docent(true)?;
    let mut command = Command::new(program);
    command.arg("train").args(&args.rest);
    if let Some(revision) = process::revision() {
        command.env("DOCENT_REVISION", revision);
    }
    process::run(&mut command)
}
