//! `docent ablate`: a grid of runs under one teacher.

use std::path::PathBuf;

use anyhow::Result;
use docent_study::Registry;
use docent_study::ablate::{AblateOptions, Ablation, Grid, MAIN, State, Tier};
use docent_train::CancelToken;
use docent_train::events::EventSink;

use crate::commands::train::{command_line, data_folder, provenance, quoted};
use crate::console::{Console, clock};
use crate::output::say;
use crate::signals;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  docent ablate --recipe bccd-ablation --seeds 0,1,2 --data DIR --weights resnet50.safetensors\n  \
                        docent ablate --recipe shapes-ablation --tier A --dry-run\n  \
                        docent ablate --recipe mine.toml --cells alone,full --seeds 0 --results mine.jsonl"
)]
pub struct Args {
    /// A shipped ablation (bccd-ablation, bccd-choice, shapes-ablation) or a TOML file.
    #[arg(long)]
    recipe: String,
    /// Seeds of the cells; one of tier B takes the first alone.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    seeds: Vec<u64>,
    /// The data folder. For `shapes`: where it is written.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Pre-trained backbone of the teachers that need one (`init.required`), safetensors under torchvision's names.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// A trained checkpoint for the main teacher, instead of training it.
    #[arg(long, value_name = "FILE")]
    teacher: Option<PathBuf>,
    /// Override a field of every recipe, teachers included. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// These cells alone.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    cells: Vec<String>,
    /// These tiers alone: A, B, C.
    #[arg(long, value_delimiter = ',', value_name = "TIERS")]
    tier: Vec<Tier>,
    /// Folder of the runs; default: runs/NAME. What is finished there is kept, what was stopped goes on.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The file of records; default: docs/results/NAME.jsonl. Table and plots stand beside it.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Runs made at a time, each on its share of the compute threads and with memory of its own. No result depends on it.
    #[arg(long, value_name = "N", default_value = "1")]
    jobs: std::num::NonZeroUsize,
    /// List the runs with their state and the time they will take, and train nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Lists, or runs what is missing and prints the table.
pub fn run(args: Args, registry: Registry) -> Result<()> {
    let grid = Grid::open(&args.recipe)?;
    let base = grid.teacher_recipe(MAIN, &args.set)?;
    let cancel = CancelToken::default();
    let options = AblateOptions {
        dir: args.out.unwrap_or_else(|| PathBuf::from("runs").join(&grid.name)),
        results: args.results.unwrap_or_else(|| PathBuf::from(format!("docs/results/{}.jsonl", grid.name))),
        seeds: args.seeds,
        set: args.set,
        data: data_folder(&base, args.data),
        weights: args.weights,
        teacher: args.teacher,
        cells: args.cells,
        tiers: args.tier,
        provenance: provenance(),
        cancel: cancel.clone(),
        registry,
    };
    let mut ablation = Ablation::open(&grid, &options)?;
    if args.dry_run {
        return list(&ablation);
    }
    say!("ablation {} · folder {} · records {}", grid.name, options.dir.display(), options.results.display());
    let watch = signals::watch(cancel)?;
    let again = || quoted(&command_line());
    // Two live views would draw over each other.
    let console = if args.jobs.get() == 1 { Console::new } else { Console::plain };
    let mut consoles: Vec<Console> = (0..args.jobs.get()).map(|_| console()).collect();
    let mut sinks: Vec<&mut (dyn EventSink + Send)> = consoles.iter_mut().map(|c| c as _).collect();
    let report = ablation.run(&mut sinks).map_err(|e| watch.explain(e, again))?;
    say!("\n{}", report.text);
    for file in report.files {
        say!("{}", file.display());
    }
    Ok(())
}

fn list(ablation: &Ablation<'_>) -> Result<()> {
    let plan = ablation.plan()?;
    say!("{:<5}{:<22}{:>5}  {:<18}{:>8}{:>12}", "tier", "cell", "seed", "state", "steps", "left");
    for run in &plan {
        let state = match run.state {
            State::Done => "done".to_owned(),
            State::Diverged => "diverged".to_owned(),
            State::Stopped(step) => format!("stopped at {step}"),
            State::NotRun => "not run".to_owned(),
        };
        let left = run.seconds.map_or("unknown".to_owned(), clock);
        let tier = format!("{:?}", run.tier);
        say!("{tier:<5}{:<22}{:>5}  {state:<18}{:>8}{left:>12}", run.cell, run.seed, run.steps);
    }
    let known: f64 = plan.iter().filter_map(|run| run.seconds).sum();
    let unknown = plan.iter().filter(|run| run.seconds.is_none()).count();
    say!(
        "left: {} of training one run after the other, and {unknown} runs of a kind that has not been timed yet",
        clock(known)
    );
    Ok(())
}
