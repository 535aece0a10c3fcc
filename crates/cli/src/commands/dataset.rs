//! `docent dataset`: what is in a data folder and what is wrong with it; PASCAL VOC to COCO.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use docent_coco::{
    CheckConfig, Dataset, Error, Finding, FindingKind, Look, OpenOptions, Policy, Splits, open_dir, open_voc,
};

use crate::reading::ReadArgs;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  docent dataset check DIR\n  docent dataset import-voc VOCdevkit/VOC2012 voc2012-coco"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Report on a data folder: sizes, classes, and every fault of annotations and image files.
    ///
    /// Exit code 0: nothing would stop a training under the policies; 1: something would, or the folder cannot be opened; 2: wrong
    /// arguments.
    #[command(after_help = "Examples:\n  docent dataset check DIR\n  \
                            docent dataset check DIR --policy missing_image=drop --policy unreadable_image=drop\n\n\
                            A policy is error, drop or (for outside) clip; `--set data.checks.KEY=POLICY` gives it to a training.")]
    Check(CheckArgs),
    /// Write a PASCAL VOC folder's annotations as COCO JSON: OUT/annotations/instances_train.json and instances_val.json.
    ///
    /// Images stay where they are. Files that are there already are not overwritten.
    #[command(after_help = "Examples:\n  docent dataset import-voc VOCdevkit/VOC2012 voc2012-coco\n  \
                            docent dataset import-voc cells cells-coco --boxes edges --classes WBC,RBC,Platelets")]
    ImportVoc(ImportArgs),
}

#[derive(clap::Args)]
struct CheckArgs {
    /// The data folder, COCO's or PASCAL VOC's.
    dir: PathBuf,
    /// Read image files' headers alone: faster, but a file that is cut or damaged further on is not found.
    #[arg(long)]
    headers: bool,
    /// How many faults of a kind are listed; the rest is counted.
    #[arg(long, value_name = "N", default_value_t = 10)]
    list: usize,
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(clap::Args)]
struct ImportArgs {
    /// The folder that holds Annotations/ and JPEGImages/.
    src: PathBuf,
    /// The folder to write to; may be SRC itself.
    out: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
}

/// Reports or writes.
pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Check(args) => check(args),
        Command::ImportVoc(args) => import(args),
    }
}

fn check(args: &CheckArgs) -> Result<()> {
    let OpenOptions { checks: policies, .. } = args.read.options()?;
    let options = OpenOptions { checks: CheckConfig::lenient(), ..args.read.options()? };
    // Faults that no policy forgives are listed in full like the others.
    let (splits, mut findings) = match open_dir(&args.dir, &options) {
        Ok(splits) => (Some(splits), Vec::new()),
        Err(Error::Annotations { findings, .. }) => (None, findings),
        Err(e) => return Err(e.into()),
    };
    if let Some(Splits { train, val }) = &splits {
        for (name, dataset) in [("training", train), ("held-out", val)] {
            describe(name, dataset);
            findings.extend(dataset.findings().iter().cloned());
            findings.extend(dataset.check_images(if args.headers { Look::Header } else { Look::Pixels }));
        }
    }
    let stopping = report(&findings, &policies, args.list);
    if splits.is_none() {
        println!("image files and what else there is are checked once these are gone");
    }
    ensure!(stopping == 0, "{stopping} fault(s) would stop a training");
    println!("nothing here stops a training");
    Ok(())
}

/// What a split holds.
fn describe(name: &str, dataset: &Dataset) {
    let crowds = dataset.all_annotations().iter().filter(|a| a.iscrowd).count();
    let empty = (0..dataset.len()).filter(|&i| dataset.annotations(i).is_empty()).count();
    println!("{name}: {}", dataset.source().display());
    println!(
        "  {} images in {} ({empty} without boxes), {} boxes, {crowds} crowds",
        dataset.len(),
        dataset.image_root().display(),
        dataset.all_annotations().len() - crowds
    );
    let mut sizes: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for image in dataset.images() {
        *sizes.entry((image.width, image.height)).or_default() += 1;
    }
    let by_area = |((w, h), _): &(&(u32, u32), &usize)| u64::from(*w) * u64::from(*h);
    if let (Some(least), Some(most), Some(usual)) =
        (sizes.iter().min_by_key(by_area), sizes.iter().max_by_key(by_area), sizes.iter().max_by_key(|(_, n)| **n))
    {
        let text = |((w, h), _): (&(u32, u32), &usize)| format!("{w}x{h}");
        println!(
            "  sizes (width x height): smallest {}, largest {}, most often {} ({} images)",
            text(least),
            text(most),
            text(usual),
            usual.1
        );
    }
    println!("  {:<24} {:>8} {:>8}", "class", "boxes", "images");
    for category in dataset.categories() {
        let of =
            |i: usize| dataset.annotations(i).iter().filter(|a| a.category_id == category.id && !a.iscrowd).count();
        let (boxes, images) = (0..dataset.len()).map(of).fold((0, 0), |(b, n), k| (b + k, n + usize::from(k > 0)));
        println!("  {:<24} {boxes:>8} {images:>8}", format!("{} {}", category.id, category.name));
    }
}

/// Prints the faults kind by kind and returns how many of them stop a training.
fn report(findings: &[Finding], policies: &CheckConfig, shown: usize) -> usize {
    println!("faults: {}", findings.len());
    for line in docent_coco::summarize(findings, policies, shown) {
        println!("  {line}");
    }
    let stops = |f: &&Finding| policies.policy(f.kind) == Policy::Error;
    let stopping: Vec<FindingKind> = findings.iter().filter(stops).map(|f| f.kind).collect();
    let keys: std::collections::BTreeSet<&str> = stopping.iter().filter_map(|kind| kind.key()).collect();
    if !keys.is_empty() {
        let each: Vec<String> = keys.iter().map(|key| format!("--set data.checks.{key}=drop")).collect();
        println!("correct or remove what is listed, or train without it: {}", each.join(" "));
    } else if !stopping.is_empty() {
        println!("correct or remove what is listed");
    }
    stopping.len()
}

fn import(args: &ImportArgs) -> Result<()> {
    let folder = args.out.join("annotations");
    let files = ["train", "val"].map(|split| folder.join(format!("instances_{split}.json")));
    if let Some(there) = files.iter().find(|path| path.exists()) {
        bail!("{} is there already; choose another OUT, or take it away", there.display());
    }
    let Splits { train, val } = open_voc(&args.src, &args.read.options()?)?;
    for (path, dataset) in files.iter().zip([&train, &val]) {
        for line in docent_coco::summarize(dataset.findings(), dataset.checks(), 10) {
            println!("{line}");
        }
        dataset.save(path)?;
        println!("{}: {} images, {} objects", path.display(), dataset.len(), dataset.all_annotations().len());
    }
    println!("to train: docent train --data {} --images {}", args.out.display(), shown(train.image_root()));
    Ok(())
}

fn shown(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
