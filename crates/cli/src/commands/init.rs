//! `docent init`: a recipe for a data folder, with its reasons.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use docent_study::Registry;
use docent_study::suggest::{SuggestOptions, Suggestion, suggest};

use crate::commands::time;
use crate::commands::train::quoted;
use crate::output::{print, say, tell};
use crate::reading::ReadArgs;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  docent init cells --out cells.toml\n  docent init cells --weights resnet50.safetensors --for 30m --out cells.toml\n  \
                        docent init cells --no-measure > cells.toml\n\nThen: docent train --recipe cells.toml"
)]
pub struct Args {
    /// The data folder; docs/data.md lists what opens as it stands.
    dir: PathBuf,
    /// Write the recipe here instead of on standard output. A file that is there already is not overwritten.
    #[arg(long, value_name = "FILE.toml")]
    out: Option<PathBuf>,
    /// A backbone's ImageNet weights for the teacher, safetensors or `.pth` under torchvision's names.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// How long the whole study may take on this machine: 30m, 2h, 1h30m.
    #[arg(long = "for", value_name = "TIME", default_value = "30m", value_parser = time)]
    time: Duration,
    /// Do not run the suggested models; suggest a usual number of steps.
    #[arg(long)]
    no_measure: bool,
    #[command(flatten)]
    read: ReadArgs,
}

/// Suggests and writes.
pub fn run(args: &Args, registry: Registry) -> Result<()> {
    let options = SuggestOptions {
        dir: args.dir.clone(),
        open: args.read.options()?,
        weights: args.weights.clone(),
        time: args.time,
        measure: !args.no_measure,
        registry,
    };
    // Said before the time for measuring is spent.
    if let Some(out) = &args.out {
        ensure!(!out.exists(), "{} is there already; choose another --out, or take it away", out.display());
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
        ensure!(folder.is_none_or(Path::is_dir), "--out {}: there is no such folder", out.display());
    }
    if options.measure {
        tell!("measuring this machine: a few steps of each run of the suggested study");
    }
    let suggestion = suggest(&options)?;
    for note in &suggestion.notes {
        tell!("{note}");
    }
    let Some(out) = &args.out else {
        print(format_args!("{}", suggestion.toml));
        return Ok(());
    };
    std::fs::File::create_new(out)
        .and_then(|mut file| file.write_all(suggestion.toml.as_bytes()))
        .with_context(|| format!("cannot write {}", out.display()))?;
    explain(&suggestion);
    let train = ["docent", "train", "--recipe", &out.display().to_string()].map(str::to_owned);
    say!("recipe: {}\nnext: {}", out.display(), quoted(&train));
    Ok(())
}

/// The reasons, as paragraphs.
fn explain(suggestion: &Suggestion) {
    for reason in &suggestion.reasons {
        say!("{}\n  {}\n", reason.about, reason.text);
    }
}
