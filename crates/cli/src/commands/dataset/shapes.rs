//! `docent dataset shapes`: the data set that docent draws itself, as a COCO folder.

use std::path::PathBuf;

use crate::output::say;
use anyhow::Result;
use docent_coco::shapes::{ShapesConfig, generate};

#[derive(clap::Args)]
pub struct Args {
    /// The folder to write; one that holds the same data set already is kept as it is.
    out: PathBuf,
    /// Training images.
    #[arg(long, value_name = "N", default_value_t = ShapesConfig::DEFAULT.train)]
    train: usize,
    /// Held-out images.
    #[arg(long, value_name = "N", default_value_t = ShapesConfig::DEFAULT.val)]
    val: usize,
    /// Seed of all scenes; not that of a training.
    #[arg(long, default_value_t = ShapesConfig::DEFAULT.seed)]
    seed: u64,
}

/// Writes the folder.
pub fn run(args: &Args) -> Result<()> {
    let config = ShapesConfig::default().train(args.train).val(args.val).seed(args.seed);
    let splits = generate(&args.out, &config)?;
    for (name, set) in [("training", &splits.train), ("held-out", &splits.val)] {
        say!("{name}: {} images, {} objects in {}", set.len(), set.all_annotations().len(), set.source().display());
    }
    Ok(())
}
