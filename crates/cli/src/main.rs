//! `docent`: trains object detectors and distils big ones into small ones. Arguments in, library calls, exit codes out.

mod commands;
mod console;
mod draw;
mod output;
mod reading;
mod runtime;
mod serve;
mod signals;

use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Parser, Subcommand};
use docent_study::Registry;

use crate::commands::predict::Incomplete;
use crate::output::{error_text, tell};
use crate::runtime::{compute, start_pool};
use crate::signals::Interrupted;

/// Trains object detectors and distils big ones into small ones.
#[derive(Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Examples, from a folder of images to a detector:\n  docent dataset check cells\n  docent init cells --out cells.toml\n  \
                  docent train --recipe cells.toml\n  docent predict --checkpoint \
                  runs/cells-seed0/distilled/checkpoints/last.safetensors --out found images/\n\n\
                  Exit codes:\n  0    done\n  1    something failed; the last line says what, and what to do\n  \
                  2    the command line is wrong\n  3    predict: some images could not be used, the others are done\n  101  a fault of the program itself: please report it\n  \
                  130  stopped by SIGINT (Ctrl-C), 143 by SIGTERM: a checkpoint was written, the command to go on is printed\n\n\
                  A second signal stops at once, under the same code; what the last checkpoint holds is kept."
)]
struct Args {
    /// Compute threads; default: one a core.
    #[arg(long, global = true, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look at a data folder and suggest a recipe for it, with the reasons.
    Init(commands::init::Args),
    /// Train a recipe's study: the teacher, the student alone, the distilled student.
    Train(commands::train::Args),
    /// Train the cells of an ablation under one teacher; write records, table and plots.
    Ablate(commands::ablate::Args),
    /// Score a checkpoint, or a file of detections, with COCO's metrics.
    Eval(commands::eval::Args),
    /// Detect objects in images: draw them, list them.
    Predict(commands::predict::Args),
    /// Write a study's or a run's report: figures, curves and images on one page.
    Report(commands::report::Args),
    /// Look into a data folder: checks, figures, images; split it, or bring VOC and YOLO annotations in.
    Dataset(commands::dataset::Args),
    /// Serve a detector over HTTP: a page to drop images on, and a JSON route.
    Serve(commands::serve::Args),
    /// List the shipped recipes, or print one.
    Recipe(commands::recipe::Args),
    /// Look into a weight file, or bring another program's weights in.
    Weights(commands::weights::Args),
}

/// An error's exit code.
fn code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Incomplete>() {
        return ExitCode::from(Incomplete::CODE);
    }
    error.downcast_ref::<Interrupted>().map_or(ExitCode::FAILURE, |stopped| ExitCode::from(stopped.code))
}

fn main() -> ExitCode {
    let outcome = runtime::prepare().and_then(|()| run(Args::parse()));
    let outcome = outcome.and_then(|()| match output::fault() {
        None => Ok(()),
        Some(error) => Err(anyhow!("standard output could not be written ({error}); apart from that, all is done")),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("docent: {}", error_text(&error));
            code(&error)
        }
    }
}

/// Runs the command with the detectors and methods that this program knows.
fn run(Args { threads, command }: Args) -> anyhow::Result<()> {
    let registry = Registry::builtin();
    match command {
        Command::Init(args) => compute(threads, || commands::init::run(&args, registry)),
        Command::Train(args) => compute(threads, || commands::train::run(args, registry)),
        Command::Ablate(args) => compute(threads, || commands::ablate::run(args, registry)),
        Command::Eval(args) => compute(threads, || commands::eval::run(&args, &registry)),
        Command::Predict(args) => compute(threads, || commands::predict::run(&args, &registry)),
        Command::Report(args) => compute(threads, || commands::report::run(&args)),
        // Its network must not wait on a compute thread: only its model does.
        Command::Serve(args) => start_pool(threads).and_then(|()| commands::serve::run(&args, &registry)),
        Command::Dataset(args) => commands::dataset::run(&args),
        Command::Recipe(args) => commands::recipe::run(&args, &registry),
        Command::Weights(args) => commands::weights::run(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn every_help_text_has_an_example() {
        fn look(command: &mut clap::Command, path: &str) {
            let help = command.render_long_help().to_string();
            let example = format!("docent {path}");
            assert!(help.contains("Example") && help.contains(&example), "{path}: {help}");
            let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
            // clap adds its own `help` to groups.
            for name in names.into_iter().filter(|name| name != "help") {
                let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
                if let Some(below) = command.find_subcommand_mut(&name) {
                    look(below, &path);
                }
            }
        }
        look(&mut super::Args::command(), "");
    }
}
