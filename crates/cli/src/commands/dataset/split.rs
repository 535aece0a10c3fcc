//! `docent dataset split`: one data set made a training and a held-out part.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use docent_coco::{SplitConfig, annotation_file, split_json};

use super::to_coco;
use crate::output::say;
use crate::reading::ReadArgs;

#[derive(clap::Args)]
pub struct Args {
    /// A COCO annotation file, or a data folder.
    src: PathBuf,
    /// The data folder to write to.
    out: PathBuf,
    /// The share of images that is held out.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    val: f64,
    /// Split each class's images by the share: rare classes get their part of both. Images may change sides when others are added.
    #[arg(long)]
    stratify: bool,
    #[command(flatten)]
    read: ReadArgs,
}

/// Writes both files.
pub fn run(args: &Args) -> Result<()> {
    let options = args.read.options()?;
    let file = if args.src.is_dir() { annotation_file(&args.src, &options)? } else { Some(args.src.clone()) };
    match file {
        Some(json) => split(args, &json),
        // Other formats have no file whose keys could be kept.
        None if args.stratify => bail!(
            "--stratify splits a COCO file: write one first (docent dataset to-coco {} OUT), or leave --stratify out",
            args.src.display()
        ),
        None => to_coco::write(&args.src, &args.out, args.val, &args.read, None),
    }
}

fn split(args: &Args, json: &Path) -> Result<()> {
    let files = ["train", "val"].map(|split| args.out.join(format!("annotations/instances_{split}.json")));
    if let Some(there) = files.iter().find(|path| path.exists()) {
        bail!("{} is there already; choose another OUT, or take it away", there.display());
    }
    let bytes = std::fs::read(json).with_context(|| format!("cannot read {}", json.display()))?;
    let config = SplitConfig { val_share: args.val, stratify: args.stratify, checks: args.read.options()?.checks };
    let sides = split_json(&bytes, json, &config)?;
    for (path, side) in files.iter().zip(&sides) {
        side.save(path)?;
        say!("{}: {} images, {} annotations", path.display(), side.images, side.annotations);
    }
    Ok(())
}
