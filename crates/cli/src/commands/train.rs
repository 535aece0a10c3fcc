//! `docent train`: one recipe, one study.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use docent_train::Stop;
use docent_train::budget;
use docent_train::dry_run::dry_run;
use docent_train::manifest::Provenance;
use docent_train::recipe::{Recipe, Source, text_of};
use docent_train::schedule::MilestoneUnit;
use docent_train::study::{self, MoreEpochs, StudyOptions};

use crate::commands::time;
use crate::console::{Console, clock};
use crate::output::{print, say};
use crate::reading::ReadArgs;
use crate::signals;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  docent train\n  docent train --recipe shapes --seed 1\n  \
                        docent train --recipe bccd --data DIR --weights resnet50.safetensors\n  \
                        docent train --recipe mine.toml --data DIR --set schedule.epochs=12 --out runs/mine\n  \
                        docent train --recipe mine.toml --data DIR --for 30m --tensorboard")]
pub struct Args {
    /// A shipped recipe (see `docent recipe list`) or a TOML file.
    #[arg(long, default_value = "shapes")]
    recipe: String,
    /// The data folder (docs/data.md lists what opens as it stands). For `shapes`: where it is written.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Pre-trained backbone of the teacher, safetensors under torchvision's names.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// A trained teacher's checkpoint; no teacher is trained then.
    #[arg(long, value_name = "FILE")]
    teacher: Option<PathBuf>,
    /// Seed of everything random.
    #[arg(long)]
    seed: Option<u64>,
    /// Override a field of the recipe: `--set schedule.epochs=2`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Time for the whole study, evaluations included: 90s, 30m, 1h 30m. Each run is timed for a few steps, and the epochs are chosen
    /// to fit; student alone and distilled student get equally many.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
    /// Write TensorBoard event files into each run's folder (`log.tensorboard`).
    #[arg(long)]
    tensorboard: bool,
    /// The study's folder; default: runs/RECIPE-seedN, numbered where that exists.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on in the study's folder: finished runs are kept, a stopped one continues at its last checkpoint.
    #[arg(long)]
    resume: bool,
    /// Index the data, build the models, run three micro-steps of each run, and say what the whole would take. Writes nothing.
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
    #[command(flatten)]
    read: ReadArgs,
}

/// Resolves the recipe and runs the study.
pub fn run(args: Args) -> Result<()> {
    let mut recipe = Recipe::parse(&text_of(&args.recipe)?, &args.set).with_context(|| args.recipe.clone())?;
    if let Some(seed) = args.seed {
        recipe.seed = seed;
    }
    recipe.data.dir = data_folder(&recipe, args.data);
    let open = args.read.over(recipe.data.open_options())?;
    recipe.data.set_open_options(open);
    match (&mut recipe.teacher, args.weights, args.teacher) {
        (_, None, None) => {}
        (None, _, _) => bail!("recipe '{}' has no teacher, so --weights and --teacher mean nothing here", recipe.name),
        (Some(teacher), weights, checkpoint) => {
            teacher.init.backbone = weights.or(teacher.init.backbone.take());
            teacher.checkpoint = checkpoint.or(teacher.checkpoint.take());
        }
    }
    recipe.log.tensorboard |= args.tensorboard;
    recipe.validate()?;
    let out = match args.out {
        Some(out) => out,
        None => default_folder(&recipe, args.resume)?,
    };
    if let Some(time) = args.time {
        // What was chosen when the study began stands in its folder's recipe.
        let kept = out.join("recipe.toml");
        if args.resume && kept.exists() {
            let text = std::fs::read_to_string(&kept).with_context(|| format!("cannot read {}", kept.display()))?;
            let before = Recipe::parse(&text, &[]).with_context(|| {
                let kept = kept.display();
                format!("{kept} is of another build: choose another --out, or finish the study with that build")
            })?;
            budget::take_over(&mut recipe, &before);
            say!("epochs as chosen for --for at the beginning: {}", recipe.schedule.epochs);
        } else {
            fit_into(&mut recipe, time)?;
        }
    }
    if args.dry_run {
        return estimate(&recipe);
    }
    if let Some(more) = study::more_epochs(&recipe, &out)? {
        let MoreEpochs { done, asked, .. } = more;
        let command = more_command(&command_line()[0], &out, &recipe, &more)?;
        let moved = match recipe.schedule.rate.unit {
            MilestoneUnit::Epoch => "; its milestones are moved in proportion",
            MilestoneUnit::Fraction => "",
        };
        bail!(
            "{}: the study is finished after {done} epochs, and its learning rate has run down. {} more epochs are a study of their \
             own, in which each student goes on from its own weights (--set schedule.lr=.. for another rate{moved}):\n  {command}",
            out.display(),
            asked - done
        );
    }
    say!("recipe {} · seed {} · folder {}", recipe.name, recipe.seed, out.display());
    let stop = Stop::default();
    let watch = signals::watch(stop.clone())?;
    let options = StudyOptions { dir: out.clone(), resume: args.resume, provenance: provenance(), stop };
    let summary = study::run(&recipe, &options, &mut Console::new())
        .map_err(|e| watch.explain(e, || resume_command(command_line(), &out)))?;
    say!(
        "\n{} · {} training and {} held-out images",
        summary.dataset.name,
        summary.dataset.images[0],
        summary.dataset.images[1]
    );
    print(format_args!("{}", summary.table()));
    say!("study: {} (open {} in it)", out.display(), docent_train::report::FILE);
    Ok(())
}

/// Chooses the epochs that fit into `time`, and says which and why.
fn fit_into(recipe: &mut Recipe, time: Duration) -> Result<()> {
    say!("timing a few steps of each run for --for {}", humantime::format_duration(time));
    let fit = budget::fit(recipe, time)?;
    for note in &fit.notes {
        say!("{note}");
    }
    say!("{:<10}{:>9}{:>10}{:>14}{:>12}", "", "epochs", "s/step", "evaluation", "whole run");
    for run in &fit.runs {
        say!(
            "{:<10}{:>9}{:>10.2}{:>14}{:>12}",
            run.name,
            run.epochs,
            run.step_seconds,
            clock(run.evaluation_seconds),
            clock(run.seconds)
        );
    }
    let teacher = fit.teacher_epochs.map_or(String::new(), |epochs| format!(", teacher.epochs = {epochs}"));
    say!(
        "chosen: schedule.epochs = {}{teacher} (the recipe's own: {}); about {} of {}",
        fit.epochs,
        recipe.schedule.epochs,
        clock(fit.seconds()),
        clock(time.as_secs_f64())
    );
    fit.apply(recipe);
    Ok(())
}

/// Prints what the recipe's study would cost.
fn estimate(recipe: &Recipe) -> Result<()> {
    let dry = dry_run(recipe)?;
    let [train, val] = dry.data.images;
    say!("recipe {} · data {}: {train} training and {val} held-out images", recipe.name, dry.data.name);
    for note in &dry.notes {
        say!("{note}");
    }
    say!("{:<10}{:>24}{:>10}{:>9}{:>14}{:>13}", "", "s/image", "s/step", "steps", "whole run", "peak so far");
    for run in &dry.runs {
        let micro: Vec<String> = run.micro_seconds.iter().map(|s| format!("{s:.2}")).collect();
        say!(
            "{:<10}{:>24}{:>10.2}{:>9}{:>14}{:>13.0}",
            run.name,
            micro.join(" "),
            run.step_seconds,
            run.steps,
            clock(run.seconds()),
            run.peak_mib
        );
    }
    say!(
        "steps of {} images; evaluation is not counted; timed on the biggest images; memory in MiB",
        recipe.schedule.batch
    );
    Ok(())
}

/// The data folder: as given, as the recipe has it, or where `shapes` is drawn.
pub fn data_folder(recipe: &Recipe, given: Option<PathBuf>) -> Option<PathBuf> {
    let drawn = || Some(PathBuf::from(format!("runs/data/shapes-v{}", docent_coco::shapes::VERSION)));
    let default = || if recipe.data.source == Source::Shapes { drawn() } else { None };
    given.or_else(|| recipe.data.dir.clone()).or_else(default)
}

/// The words of the command line; what is no text in them is replaced.
pub fn command_line() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// This build and its command line.
pub fn provenance() -> Provenance {
    Provenance {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: std::env::var("DOCENT_REVISION").ok(),
        command: command_line(),
    }
}

/// The command line that goes on with the study in `out`, quoted for a shell.
fn resume_command(mut words: Vec<String>, out: &Path) -> String {
    if !words.iter().any(|w| w == "--out" || w.starts_with("--out=")) {
        words.extend(["--out".to_owned(), out.display().to_string()]);
    }
    if !words.iter().any(|w| w == "--resume") {
        words.push("--resume".to_owned());
    }
    quoted(&words)
}

/// The command that trains the finished study's students for the epochs that are missing.
fn more_command(program: &str, out: &Path, recipe: &Recipe, more: &MoreEpochs) -> Result<String> {
    let text = |path: &Path| path.to_str().map(str::to_owned).with_context(|| format!("{}: no UTF-8", path.display()));
    // The whole table: a backbone's file has no place beside these weights. JSON's texts are TOML's too.
    let from = serde_json::to_string(&text(&more.baseline)?)?;
    let distilled = match &more.distilled {
        Some(path) => format!(", distilled_from = {}", serde_json::to_string(&text(path)?)?),
        None => String::new(),
    };
    let freeze = match recipe.student.init.freeze_at {
        0 => String::new(),
        n => format!(", freeze_at = {n}"),
    };
    let folder = text(out)?;
    let numbered = |n: usize| if n == 1 { format!("{folder}-more") } else { format!("{folder}-more{n}") };
    let new = (1..).map(numbered).find(|name| !Path::new(name).exists()).context("no free folder name")?;
    let mut words = vec![
        program.to_owned(),
        "train".to_owned(),
        "--recipe".to_owned(),
        text(&out.join("recipe.toml"))?,
        "--set".to_owned(),
        format!("student.init={{ from = {from}{distilled}{freeze} }}"),
        "--set".to_owned(),
        format!("schedule.epochs={}", more.asked - more.done),
    ];
    // The recipe has the epochs that are asked for, and milestones for those that are done.
    let mut schedule = recipe.schedule.clone();
    schedule.epochs = more.done;
    schedule.stretch_to(more.asked - more.done);
    if schedule.rate.milestones != recipe.schedule.rate.milestones {
        let milestones = serde_json::to_string(&schedule.rate.milestones)?;
        words.extend(["--set".to_owned(), format!("schedule.rate.milestones={milestones}")]);
    }
    // Data may have moved since the recipe was written.
    let data = &recipe.data;
    for (option, path) in [
        ("--data", &data.dir),
        ("--train-annotations", &data.train_annotations),
        ("--val-annotations", &data.val_annotations),
        ("--images", &data.images),
        ("--teacher", &more.teacher),
    ] {
        if let Some(path) = path {
            words.extend([option.to_owned(), text(path)?]);
        }
    }
    words.extend(["--out".to_owned(), new]);
    Ok(quoted(&words))
}

/// The words as a shell would take them.
pub fn quoted(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let quote = |w: &String| {
        if !w.is_empty() && w.chars().all(plain) { w.clone() } else { format!("'{}'", w.replace('\'', "'\\''")) }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// `runs/NAME-seedN`; a new study takes the next free number, a resumed one the last that is there.
fn default_folder(recipe: &Recipe, resume: bool) -> Result<PathBuf> {
    let numbered = |n: usize| {
        let name = format!("{}-seed{}", recipe.name, recipe.seed);
        Path::new("runs").join(if n == 1 { name } else { format!("{name}-{n}") })
    };
    let free = (1..).find(|&n| !numbered(n).exists()).context("no free folder name")?;
    match (resume, free) {
        (false, n) => Ok(numbered(n)),
        (true, 1) => bail!("nothing to resume: {} does not exist", numbered(1).display()),
        (true, n) => Ok(numbered(n - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_go_on_is_the_one_that_was_given_and_more() {
        let command =
            |args: &[&str]| resume_command(args.iter().map(|a| (*a).to_owned()).collect(), Path::new("runs/my study"));
        assert_eq!(command(&["docent", "train"]), "docent train --out 'runs/my study' --resume");
        assert_eq!(
            command(&["docent", "train", "--out", "here", "--set", "name=it's", "--resume"]),
            "docent train --out here --set 'name=it'\\''s' --resume"
        );
        assert_eq!(command(&["docent", "train", "--out=here"]), "docent train --out=here --resume");
    }
}
