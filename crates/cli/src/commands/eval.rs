//! `docent eval`: COCO's figures, of a checkpoint or of a file of detections.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use docent_coco::{CocoMetrics, Dataset, Evaluator, Metrics, STAT_NAMES, open_dir, read_results, write_results};
use docent_train::detector::Detector;
use docent_train::evaluate::evaluate_as;
use docent_train::recipe::DataRecipe;

use crate::reading::ReadArgs;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  docent eval --checkpoint runs/shapes-seed0/distilled/checkpoints/last.safetensors \
                        --data runs/data/shapes-v1\n  docent eval --results detections.json --annotations instances_val.json"
)]
pub struct Args {
    /// A detector that `docent train` or `docent weights convert` wrote.
    #[arg(long, value_name = "FILE", required_unless_present = "results", conflicts_with = "results")]
    checkpoint: Option<PathBuf>,
    /// Detections in COCO's results form; no model runs then.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// The data folder, whose held-out split is scored.
    #[arg(long, value_name = "DIR", required_unless_present = "annotations", conflicts_with = "annotations")]
    data: Option<PathBuf>,
    /// The annotations to score against, instead of a data folder's held-out ones.
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
    /// Also write the detections here.
    #[arg(long, value_name = "FILE", requires = "checkpoint")]
    save: Option<PathBuf>,
    /// Print JSON with every digit instead of a table.
    #[arg(long)]
    json: bool,
    /// Images a forward pass.
    #[arg(long, default_value_t = 4)]
    batch: usize,
}

/// Scores and prints.
pub fn run(args: &Args) -> Result<()> {
    let truth = Arc::new(truth(args)?);
    let metrics = match (&args.results, &args.checkpoint) {
        (Some(results), _) => CocoMetrics.evaluate(&truth, &read_results(results)?)?,
        (None, Some(checkpoint)) => score(args, checkpoint, &truth)?,
        (None, None) => bail!("name --checkpoint or --results"),
    };
    print(&metrics, args.json)
}

fn truth(args: &Args) -> Result<Dataset> {
    let options = args.read.options()?;
    if let Some(json) = &args.annotations {
        // Scoring detections reads no image; a folder is needed with --checkpoint alone.
        let beside = json.parent().unwrap_or(Path::new("."));
        return Ok(Dataset::load_with(json, args.read.images.as_deref().unwrap_or(beside), &options.checks)?);
    }
    let dir = args.data.as_ref().context("name --data or --annotations")?;
    Ok(open_dir(dir, &options)?.val)
}

fn score(args: &Args, checkpoint: &Path, truth: &Arc<Dataset>) -> Result<Metrics> {
    let detector = Detector::load(checkpoint)?;
    detector.meta.covers_categories(checkpoint, truth.categories())?;
    let data = DataRecipe::for_evaluation(detector.resize);
    // A detector may know more than the data asks for, as torchvision's do of COCO's ids.
    let asked = |id: &u64| truth.categories().iter().any(|c| c.id == *id);
    let category = |label| detector.category(label).map(|c| c.id).filter(asked);
    let result = evaluate_as(&detector.model, truth, &data, args.batch, category, |_, _| Ok(()))?;
    if let Some(path) = &args.save {
        write_results(path, &result.detections)?;
    }
    Ok(result.metrics)
}

fn print(metrics: &Metrics, json: bool) -> Result<()> {
    if json {
        let stats: serde_json::Map<String, serde_json::Value> =
            STAT_NAMES.iter().zip(metrics.stats).map(|(name, value)| ((*name).to_owned(), value.into())).collect();
        let classes: serde_json::Map<String, serde_json::Value> =
            metrics.per_class.iter().map(|c| (c.name.clone(), c.ap.into())).collect();
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "stats": stats, "per_class": classes }))?);
        return Ok(());
    }
    for (name, value) in STAT_NAMES.iter().zip(metrics.stats) {
        println!("{name:<6} {value:>9.6}");
    }
    println!("\nAP by category");
    for class in &metrics.per_class {
        println!("{:<20} {:>9.6}", class.name, class.ap);
    }
    Ok(())
}
