//! `docent dataset to-coco`: whatever a folder's annotations are, as COCO JSON.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use docent_coco::{Format, OpenOptions, open_dir};

use crate::commands::train::quoted;
use crate::output::say;
use crate::reading::ReadArgs;

#[derive(clap::Args)]
pub struct Args {
    /// The data folder; for `split` also one COCO annotation file.
    pub src: PathBuf,
    /// The folder to write to; may be SRC itself.
    pub out: PathBuf,
    /// Where SRC has no split of its own, or one is made: the share of images that is held out.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    pub val: f64,
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Writes a folder's annotations as COCO's; `format` is what an older name of the command stands for.
pub fn run(args: &Args, format: Option<Format>) -> Result<()> {
    let Args { src, out, val, read } = args;
    let files = free_files(out)?;
    let mut options = read.options()?;
    options.read.val_fraction = *val;
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

/// The two files of `out`, where neither is there yet.
pub fn free_files(out: &Path) -> Result<[PathBuf; 2]> {
    let files = ["train", "val"].map(|split| out.join(format!("annotations/instances_{split}.json")));
    match files.iter().find(|path| path.exists()) {
        Some(there) => bail!("{} is there already; choose another OUT, or take it away", there.display()),
        None => Ok(files),
    }
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
