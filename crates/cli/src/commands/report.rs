//! `docent report`: a study or a run as one page.

use std::path::PathBuf;

use crate::output::{say, tell};
use anyhow::Result;
use docent_study::report;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  docent report runs/shapes-seed0\n  docent report runs/shapes-seed0/distilled\n\n\
                        A study and each of its runs get their report.html at their end; this makes it again, or of a study that is \
                        not finished. The page is one file, opens from disk and needs no network. For its images and curves of \
                        precision the data folder must lie where the recipe names it.")]
pub struct Args {
    /// The folder of a study, or of a run in it.
    dir: PathBuf,
}

/// Writes the page and says where it is.
pub fn run(args: &Args) -> Result<()> {
    let written = report::write(&args.dir, None)?;
    for note in written.notes {
        tell!("note: {note}");
    }
    say!("{}", written.path.display());
    Ok(())
}
