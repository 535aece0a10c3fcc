//! `cargo xtask cases DIR`: runs docent on every input of a folder of cases and compares what it reads with `expect.json`.
//!
//! Each input is copied to a fresh folder under the name `data`. `docent dataset to-coco data out` and
//! `docent dataset check data` run there, and the files in `out/annotations` are compared with the ground truth.

mod coco;
mod compare;
mod expect;
mod fault;
mod judge;
mod program;
mod report;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process;
use report::{Options, Outcome, run_all};

#[derive(clap::Args)]
pub struct Args {
    /// Folder of the cases: `expect.json`, and a folder for each kind.
    dir: PathBuf,
    /// A program that exists. Default: a release build of these sources.
    #[arg(long, value_name = "PATH")]
    docent: Option<PathBuf>,
    /// Only one kind (`exif`), or one input (`exif/exif3`).
    #[arg(long, value_name = "KIND")]
    only: Option<String>,
    /// Print every difference in full.
    #[arg(long)]
    verbose: bool,
}

/// Runs the cases and prints one line for each. Ends with exit code 1 unless all pass; without the folder they are skipped.
pub fn run(args: &Args) -> Result<()> {
    if is_absent(&args.dir, &args.dir.to_string_lossy()) {
        return Ok(());
    }
    let program = match &args.docent {
        Some(program) => program.clone(),
        None => process::build_docent(true)?,
    };
    let options = Options { only: args.only.as_deref(), verbose: args.verbose, only_failures: false };
    let outcome = run_cases(&args.dir, &program, &options)?;
    if !outcome.is_success() {
        // The lines above say what failed.
        std::process::exit(1);
    }
    Ok(())
}

/// Runs the cases in `../shared/cases` with the program that `cargo test` has built. Prints the failures and the counts.
pub fn run_with_test_build() -> Result<()> {
    const NAME: &str = "../shared/cases";
    let dir = process::root()?.join(NAME);
    if is_absent(&dir, NAME) {
        return Ok(());
    }
    println!("cases of {NAME}:");
    let options = Options { only: None, verbose: false, only_failures: true };
    let outcome = run_cases(&dir, &process::docent_path(false)?, &options)?;
    ensure!(outcome.is_success(), "{} cases of {NAME} failed", outcome.failed);
    Ok(())
}

/// Whether there are no cases to run; then a line says so.
fn is_absent(dir: &Path, name: &str) -> bool {
    let absent = !dir.exists();
    if absent {
        println!("skipped: {name} is not there");
    }
    absent
}

fn run_cases(dir: &Path, program: &Path, options: &Options) -> Result<Outcome> {
    ensure!(program.is_file(), "there is no program {}; build it with cargo build -p docent", program.display());
    // Each run has a folder of its own.
    let program = std::path::absolute(program).with_context(|| format!("no path to {}", program.display()))?;
    run_all(dir, &program, options, &mut io::stdout().lock())
}
