//! `docent dataset check`: what is in a data folder and what is wrong with it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use docent_coco::{CheckConfig, Dataset, Error, Finding, FindingKind, Policy, open_dir};

use crate::output::say;
use crate::reading::ReadArgs;

#[derive(clap::Args)]
pub struct Args {
    /// The data folder, or one annotation file; docs/data.md lists what opens as it stands.
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

/// Reports.
pub fn run(args: &Args) -> Result<()> {
    let given = args.read.options()?;
    // Dropping what cannot be read takes a look at every pixel.
    let unreadable_image = if args.headers { Policy::Error } else { Policy::Drop };
    let checks =
        CheckConfig::lenient().unreadable_image(unreadable_image).truncated_image(given.checks.truncated_image);
    let options = given.clone().checks(checks);
    let policies = given.checks;
    // Faults that no policy forgives are listed in full like the others.
    let (splits, mut findings) = match open_dir(&args.dir, &options) {
        Ok(splits) => (Some(splits), Vec::new()),
        Err(Error::Annotations { findings, .. }) => (None, findings),
        Err(e) => return Err(e.into()),
    };
    if let Some(splits) = &splits {
        for (name, dataset) in [("training", &splits.train), ("held-out", &splits.val)] {
            describe(name, dataset);
            findings.extend(dataset.findings().iter().cloned());
        }
        for note in &splits.notes {
            say!("{note}");
        }
    }
    let stopping = report(&findings, &policies, args.list);
    match &splits {
        Some(splits) => splits.require_targets()?,
        None => say!("image files and what else there is are checked once these are gone"),
    }
    ensure!(stopping == 0, "{stopping} fault(s) would stop a training");
    say!("nothing here stops a training");
    Ok(())
}

/// What a split holds.
fn describe(name: &str, dataset: &Dataset) {
    let crowds = dataset.all_annotations().iter().filter(|a| a.iscrowd).count();
    let empty = (0..dataset.len()).filter(|&i| dataset.annotations(i).is_empty()).count();
    say!("{name}: {}", dataset.source().display());
    say!(
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
        say!(
            "  sizes (width x height): smallest {}, largest {}, most often {} ({} images)",
            text(least),
            text(most),
            text(usual),
            usual.1
        );
    }
    say!("  {:<24} {:>8} {:>8}", "class", "boxes", "images");
    for category in dataset.categories() {
        let of =
            |i: usize| dataset.annotations(i).iter().filter(|a| a.category_id == category.id && !a.iscrowd).count();
        let (boxes, images) = (0..dataset.len()).map(of).fold((0, 0), |(b, n), k| (b + k, n + usize::from(k > 0)));
        say!("  {:<24} {boxes:>8} {images:>8}", format!("{} {}", category.id, category.name));
    }
}

/// Prints the faults kind by kind and returns how many of them stop a training.
fn report(findings: &[Finding], policies: &CheckConfig, shown: usize) -> usize {
    say!("faults: {}", findings.len());
    for line in docent_coco::summarize(findings, policies, shown) {
        say!("  {line}");
    }
    let stops = |f: &&Finding| policies.policy(f.kind) == Policy::Error;
    let stopping: Vec<FindingKind> = findings.iter().filter(stops).map(|f| f.kind).collect();
    let remedies: std::collections::BTreeSet<&str> = stopping.iter().filter_map(|kind| kind.remedy()).collect();
    if !remedies.is_empty() {
        let flags: Vec<String> = remedies.iter().map(|remedy| format!("--policy {remedy}")).collect();
        say!("correct or remove what is listed, or go on with {} (docs/data.md says what each does)", flags.join(" "));
    } else if !stopping.is_empty() {
        say!("correct or remove what is listed");
    }
    stopping.len()
}
