//! `docent dataset split`: one data set made a training and a held-out part.

use std::path::Path;

use anyhow::{Context, Result, bail};
use docent_coco::{SplitConfig, annotation_file, split_json};

use super::to_coco;
use crate::output::say;

#[derive(clap::Args)]
// clap names a group after the struct, and the flattened one is called `Args` too.
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    to: to_coco::Args,
    /// Split each class's images by the share: rare classes get their part of both. Images may change sides when others are added.
    #[arg(long)]
    stratify: bool,
}

/// Writes both files.
pub fn run(args: &Args) -> Result<()> {
    let to_coco::Args { src, read, .. } = &args.to;
    let file = if src.is_dir() { annotation_file(src, &read.options()?)? } else { Some(src.clone()) };
    match file {
        Some(json) => split(args, &json),
        // Other formats have no file whose keys could be kept.
        None if args.stratify => bail!(
            "--stratify splits a COCO file: write one first (docent dataset to-coco {} OUT), or leave --stratify out",
            src.display()
        ),
        None => to_coco::run(&args.to, None),
    }
}

fn split(args: &Args, json: &Path) -> Result<()> {
    let to_coco::Args { out, val, read, .. } = &args.to;
    let files = to_coco::free_files(out)?;
    let bytes = std::fs::read(json).with_context(|| format!("cannot read {}", json.display()))?;
    let config = SplitConfig::default().val_share(*val).stratify(args.stratify).checks(read.options()?.checks);
    let sides = split_json(&bytes, json, &config)?;
    for (path, side) in files.iter().zip(&sides) {
        side.save(path)?;
        say!("{}: {} images, {} annotations", path.display(), side.images, side.annotations);
    }
    Ok(())
}
