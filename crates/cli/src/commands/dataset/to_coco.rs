//! `docent dataset to-coco`: whatever a folder's annotations are, as COCO JSON.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use docent_coco::{Format, OpenOptions, open_dir};

use crate::commands::train::quoted;
use crate::output::say;
use crate::reading::ReadArgs;

#[derive(clap::Args)]
pub struct Args {
    /// The data folder.
    src: PathBuf,
    /// The folder to write to; may be SRC itself.
    out: PathBuf,
    /// Where SRC has no split of its own: the share of images that is held out.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    val: f64,
    #[command(flatten)]
    read: ReadArgs,
}

/// Writes a folder's annotations as COCO's; `format` is what an older name of the command stands for.
pub fn run(args: &Args, format: Option<Format>) -> Result<()> {
    write(&args.src, &args.out, args.val, &args.read, format)
}

/// Writes what `src` holds to `out`.
pub fn write(src: &Path, out: &Path, val: f64, read: &ReadArgs, format: Option<Format>) -> Result<()> {
    let files = ["train", "val"].map(|split| out.join(format!("annotations/instances_{split}.json")));
    if let Some(there) = files.iter().find(|path| path.exists()) {
        bail!("{} is there already; choose another OUT, or take it away", there.display());
    }
    let mut options = read.options()?;
    options.read.val_fraction = val;
    options.read.format = options.read.format.or(format);
    let splits = open_dir(src, &options)?;
    report(&splits, &options);
    let root = common_root(splits.train.image_root(), splits.val.image_root());
    for (path, dataset) in files.iter().zip([&splits.train, &splits.val]) {
        let dataset = dataset.clone().below(&root);
        dataset.save(path)?;
        say!("{}: {} images, {} objects", path.display(), dataset.len(), dataset.all_annotations().len());
    }
    let mut words = vec![out.display().to_string()];
    // Where the images lie in OUT, they are found there.
    if !root.starts_with(out) {
        let root = std::path::absolute(&root).unwrap_or(root);
        words.extend(["--images".to_owned(), root.display().to_string()]);
    }
    words.extend(read.words());
    let place = quoted(&words);
    say!("next: docent init {place}\n  or: docent train --recipe mine.toml --data {place}");
    Ok(())
}

/// Notes and faults of both splits together: a count is that of the whole folder.
pub fn report(splits: &docent_coco::Splits, options: &OpenOptions) {
    for note in &splits.notes {
        say!("{note}");
    }
    let findings: Vec<_> = splits.train.findings().iter().chain(splits.val.findings()).cloned().collect();
    for line in docent_coco::summarize(&findings, &options.checks, 10) {
        say!("{line}");
    }
}

/// The deepest folder that holds both.
fn common_root(a: &Path, b: &Path) -> PathBuf {
    a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}
