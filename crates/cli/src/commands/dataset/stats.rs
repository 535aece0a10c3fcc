//! `docent dataset stats`: both splits in figures, as text, JSON or a chart.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use docent_coco::{Distribution, Splits, Stats, chart, open_dir};

use crate::output::{say, tell};
use crate::reading::ReadArgs;

#[derive(clap::Args)]
pub struct Args {
    /// The data folder, or one annotation file; docs/data.md lists what opens as it stands.
    dir: PathBuf,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    /// Also draw the distribution here, as SVG.
    #[arg(long, value_name = "FILE.svg")]
    chart: Option<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
}

/// Counts and prints.
pub fn run(args: &Args) -> Result<()> {
    if let Some(path) = &args.chart {
        ensure!(
            path.extension().is_some_and(|e| e.eq_ignore_ascii_case("svg")),
            "--chart {}: the chart is SVG, which any browser opens; name a file that ends in .svg",
            path.display()
        );
    }
    let Splits { train, val, notes, .. } = open_dir(&args.dir, &args.read.options()?)?;
    for note in &notes {
        tell!("{note}");
    }
    let splits = [("training", Stats::of(&train)), ("held-out", Stats::of(&val))];
    if args.json {
        let map: serde_json::Map<_, _> = splits
            .iter()
            .map(|(name, stats)| Ok(((*name).to_owned(), serde_json::to_value(stats)?)))
            .collect::<Result<_>>()?;
        say!("{}", serde_json::to_string_pretty(&map)?);
    } else {
        for (name, stats) in &splits {
            text(name, stats);
        }
    }
    let Some(path) = &args.chart else { return Ok(()) };
    let svg = chart(&splits.each_ref().map(|(name, stats)| (*name, stats)))?;
    if path.is_dir() {
        bail!("--chart {} is a folder; name a file", path.display());
    }
    std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    if !args.json {
        say!("chart: {}", path.display());
    }
    Ok(())
}

fn text(name: &str, stats: &Stats) {
    say!(
        "{name}: {} images ({} without boxes), {} boxes, {} crowds, {} without area",
        stats.images,
        stats.empty_images,
        stats.boxes,
        stats.crowds,
        stats.degenerate
    );
    let sizes: Vec<String> =
        stats.sizes.iter().take(3).map(|s| format!("{}x{} ({})", s.width, s.height, s.images)).collect();
    let more = stats.distinct_sizes.saturating_sub(3);
    let more = if more > 0 { format!(" and {more} others") } else { String::new() };
    say!("  image sizes, width x height (images): {}{more}", sizes.join(", "));
    say!("  {:<24}{:>9}{:>9}{:>9}{:>9}{:>9}", "", "least", "5%", "median", "95%", "most");
    row("boxes an image", &stats.boxes_an_image, 0);
    row("box side, pixels", &stats.side, 1);
    row("box side / image side", &stats.relative_side, 3);
    row("box width / height", &stats.aspect, 2);
    let [small, medium, large] = stats.areas.shares().map(|share| 100.0 * share);
    say!("  area: {small:.0}% small (below 32x32 pixels), {medium:.0}% medium, {large:.0}% large (from 96x96 on)");
    say!(
        "  {:<24}{:>9}{:>9}{:>9}{:>9}{:>9}{:>12}",
        "class",
        "boxes",
        "images",
        "small",
        "medium",
        "large",
        "median side"
    );
    for class in &stats.classes {
        say!(
            "  {:<24}{:>9}{:>9}{:>9}{:>9}{:>9}{:>12.1}",
            format!("{} {}", class.id, class.name),
            class.boxes,
            class.images,
            class.areas.small,
            class.areas.medium,
            class.areas.large,
            class.side.median
        );
    }
    say!();
}

fn row(what: &str, distribution: &Distribution, digits: usize) {
    let figures = [distribution.least, distribution.p5, distribution.median, distribution.p95, distribution.most];
    let figures: Vec<String> = figures.iter().map(|v| format!("{v:>9.digits$}")).collect();
    say!("  {what:<24}{}", figures.concat());
}
