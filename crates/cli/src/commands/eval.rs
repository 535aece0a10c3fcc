//! `docent eval`: COCO's figures, of a checkpoint or of a file of detections.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use docent_coco::{
    Analysis, Dataset, Detection, Metrics, NamedDetection, STAT_NAMES, analyze, open_annotations, open_dir, other_ids,
    read_named_results, write_results,
};
use docent_model::Predictor;
use docent_study::Registry;
use docent_train::evaluate::{EvalLoading, evaluate_as};

use crate::output::{say, tell};
use crate::reading::ReadArgs;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  docent eval --checkpoint runs/shapes-seed0/distilled/checkpoints/last.safetensors \
                        --data runs/data/shapes-v1\n  docent eval --results detections.json --annotations instances_val.json\n\n\
                  Printed are COCO's twelve figures, those of each class, and what AP50 is lost to (kinds of error as TIDE has them, \
                  arXiv 2008.08115). -1 stands where there is no truth to score."
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
pub fn run(args: &Args, registry: &Registry) -> Result<()> {
    let truth = Arc::new(truth(args)?);
    let detections = match (&args.results, &args.checkpoint) {
        (Some(results), _) => read(results, &truth)?,
        (None, Some(checkpoint)) => detect(args, registry, checkpoint, &truth)?,
        (None, None) => bail!("name --checkpoint or --results"),
    };
    let analysis = analyze(&truth, &detections)?;
    if args.json { print_json(&analysis) } else { print(&analysis) }
}

fn truth(args: &Args) -> Result<Dataset> {
    let options = args.read.options()?;
    if let Some(json) = &args.annotations {
        if args.checkpoint.is_some() {
            return Ok(open_annotations(json, &options)?);
        }
        // Scoring detections reads no image.
        let beside = json.parent().unwrap_or(Path::new("."));
        return Ok(Dataset::load_with(json, args.read.images.as_deref().unwrap_or(beside), &options.checks)?);
    }
    let dir = args.data.as_ref().context("name --data or --annotations")?;
    let splits = open_dir(dir, &options)?;
    for note in &splits.notes {
        tell!("{note}");
    }
    Ok(splits.val)
}

/// The detections of a file, whose image ids must be those of `truth`.
///
/// Ids of other images score like bad detections, without an error: a name beside an id tells them apart.
fn read(path: &Path, truth: &Dataset) -> Result<Vec<Detection>> {
    let named = read_named_results(path)?;
    let (results, annotations) = (path.display(), truth.source().display());
    // VOC's and YOLO's are a folder.
    let file = if truth.source().is_file() { annotations.to_string() } else { "FILE".to_owned() };
    let advice = format!("docent predict --annotations {file} gives the annotations' ids");
    if let [first, more @ ..] = other_ids(truth, &named).as_slice() {
        let more = if more.is_empty() { String::new() } else { format!(" (and {} more files)", more.len()) };
        bail!("{results} has other image ids than {annotations}: {first}{more}. {advice}");
    }
    let without_name: HashSet<u64> =
        named.iter().filter(|d| d.file_name.is_none()).map(|d| d.detection.image_id).collect();
    let annotated: HashSet<u64> = truth.all_annotations().iter().map(|a| a.image_id).collect();
    let known = without_name.intersection(&annotated).count();
    if known * 2 < without_name.len() {
        tell!(
            "docent: warning: of the {} image ids in {results}, {known} have an annotation in {annotations}: are they ids of other \
             images? {advice}",
            without_name.len()
        );
    }
    Ok(named.into_iter().map(|NamedDetection { detection, .. }| detection).collect())
}

fn detect(args: &Args, registry: &Registry, checkpoint: &Path, truth: &Arc<Dataset>) -> Result<Vec<Detection>> {
    let predictor = Predictor::load(checkpoint, &registry.models)?;
    predictor.meta.covers_categories(checkpoint, truth.categories())?;
    let loading = EvalLoading::new(predictor.resize);
    // A detector may know more than the data asks for, as torchvision's do of COCO's ids.
    let asked = |id: &u64| truth.categories().iter().any(|c| c.id == *id);
    let category = |label| predictor.category(label).map(|c| c.id).filter(asked);
    let result = evaluate_as(&*predictor.model, truth, &loading, args.batch, category, |_, _| Ok(()))?;
    if let Some(path) = &args.save {
        write_results(path, &result.detections)?;
    }
    Ok(result.detections)
}

fn print_json(analysis: &Analysis) -> Result<()> {
    let Metrics { stats, per_class } = &analysis.metrics;
    let stats: serde_json::Map<String, serde_json::Value> =
        STAT_NAMES.iter().zip(stats).map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    let value = serde_json::json!({ "stats": stats, "per_class": per_class, "errors": analysis.errors });
    say!("{}", serde_json::to_string_pretty(&value)?);
    Ok(())
}

fn print(analysis: &Analysis) -> Result<()> {
    let Metrics { stats, per_class } = &analysis.metrics;
    for (name, value) in STAT_NAMES.iter().zip(stats) {
        say!("{name:<6} {value:>9.6}");
    }
    let widest = per_class.iter().map(|c| c.name.chars().count()).max().unwrap_or(0).max(20);
    say!("\n{:<widest$}{:>10}{:>10}{:>10}{:>9}{:>12}", "class", "AP", "AP50", "AR", "objects", "detections");
    for c in per_class {
        let (name, objects, detections) = (&c.name, c.objects, c.detections);
        say!("{name:<widest$}{:>10.6}{:>10.6}{:>10.6}{objects:>9}{detections:>12}", c.ap, c.ap50, c.ar);
    }
    let errors = &analysis.errors;
    say!(
        "\nwhat AP50 is lost to: each kind of error, how often, AP50 gained if it alone were set right, share of all kinds"
    );
    for e in &errors.kinds {
        let share = 100.0 * errors.share(e.kind);
        say!("{:<12}{:>9}{:>10.6}{share:>7.1}%  {}", e.kind.name(), e.count, e.cost, e.kind.meaning());
    }
    say!(
        "without any false positive {:+.6}, without any object missed {:+.6}",
        errors.false_positives,
        errors.false_negatives
    );
    Ok(())
}
