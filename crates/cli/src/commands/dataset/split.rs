//! `docent dataset split`: one COCO JSON file made a training and a held-out one.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use docent_coco::{SplitConfig, split_json};

use crate::output::say;
use crate::reading::{policies, policy};

#[derive(clap::Args)]
pub struct Args {
    /// The annotation file.
    json: PathBuf,
    /// The data folder to write to.
    out: PathBuf,
    /// The share of images that is held out.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    val: f64,
    /// Split each class's images by the share: rare classes get their part of both. Images may change sides when others are added.
    #[arg(long)]
    stratify: bool,
    /// What is done about a kind of fault, as `unlisted_image=drop`. May be repeated.
    #[arg(long = "policy", value_name = "KEY=POLICY", value_parser = policy)]
    policies: Vec<(String, String)>,
}

/// Writes both files.
pub fn run(args: &Args) -> Result<()> {
    let files = ["train", "val"].map(|split| args.out.join(format!("annotations/instances_{split}.json")));
    if let Some(there) = files.iter().find(|path| path.exists()) {
        bail!("{} is there already; choose another OUT, or take it away", there.display());
    }
    let bytes = std::fs::read(&args.json).with_context(|| format!("cannot read {}", args.json.display()))?;
    let config = SplitConfig { val_share: args.val, stratify: args.stratify, checks: policies(&args.policies)? };
    let sides = split_json(&bytes, &args.json, &config)?;
    for (path, side) in files.iter().zip(&sides) {
        side.save(path)?;
        say!("{}: {} images, {} annotations", path.display(), side.images, side.annotations);
    }
    Ok(())
}
