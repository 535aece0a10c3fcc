//! `docent dataset import-voc` and `import-yolo`: other formats' annotations as COCO JSON.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use docent_coco::{Splits, YoloOptions, open_voc, open_yolo};

use crate::commands::train::quoted;
use crate::output::say;
use crate::reading::{ReadArgs, policies, policy};

#[derive(clap::Args)]
pub struct VocArgs {
    /// The folder that holds Annotations/ and JPEGImages/.
    src: PathBuf,
    /// The folder to write to; may be SRC itself.
    out: PathBuf,
    /// Where SRC has no lists of its splits: the share of images that is held out.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    val: f64,
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(clap::Args)]
pub struct YoloArgs {
    /// The folder that holds images/ and labels/, or data.yaml.
    src: PathBuf,
    /// The folder to write to; may be SRC itself.
    out: PathBuf,
    /// The classes: a text file with one name a line, or a data.yaml. Default: found in SRC.
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// Where SRC has one split alone: the share of images that is held out.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    val: f64,
    /// What is done about a kind of fault, as `missing_image=drop`. May be repeated.
    #[arg(long = "policy", value_name = "KEY=POLICY", value_parser = policy)]
    policies: Vec<(String, String)>,
}

/// Writes a VOC folder's annotations as COCO's.
pub fn voc(args: &VocArgs) -> Result<()> {
    write(&args.out, || {
        let options = docent_coco::OpenOptions { val_fraction: args.val, ..args.read.options()? };
        Ok(open_voc(&args.src, &options)?)
    })
}

/// Writes a YOLO folder's annotations as COCO's.
pub fn yolo(args: &YoloArgs) -> Result<()> {
    write(&args.out, || {
        let checks = policies(&args.policies)?;
        Ok(open_yolo(&args.src, &YoloOptions { classes: args.classes.clone(), val_fraction: args.val, checks })?)
    })
}

fn write(out: &Path, open: impl FnOnce() -> Result<Splits>) -> Result<()> {
    let folder = out.join("annotations");
    let files = ["train", "val"].map(|split| folder.join(format!("instances_{split}.json")));
    if let Some(there) = files.iter().find(|path| path.exists()) {
        bail!("{} is there already; choose another OUT, or take it away", there.display());
    }
    let Splits { train, val } = open()?;
    for (path, dataset) in files.iter().zip([&train, &val]) {
        for line in docent_coco::summarize(dataset.findings(), dataset.checks(), 10) {
            say!("{line}");
        }
        dataset.save(path)?;
        say!("{}: {} images, {} objects", path.display(), dataset.len(), dataset.all_annotations().len());
    }
    let mut words = vec![out.display().to_string()];
    // Where the images lie in OUT under a usual name, they are found there.
    let root = train.image_root();
    if ![out.to_owned(), out.join("images"), out.join("JPEGImages")].iter().any(|usual| usual == root) {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        words.extend(["--images".to_owned(), root.display().to_string()]);
    }
    let place = quoted(&words);
    say!("next: docent init {place}\n  or: docent train --recipe mine.toml --data {place}");
    Ok(())
}
