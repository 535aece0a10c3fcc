//! `cargo xtask`: the project's own commands. It builds and starts the programs and never links them.

mod bench;
mod bench_peers;
mod cases;
mod ci;
mod golden;
mod miri;
mod process;
mod smoke;
mod soak;
mod test;
mod tidy;
mod train;

use clap::{Parser, Subcommand};

/// docent's own commands. Nothing needs installing but Rust.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a teacher, the student alone and the distilled student, and print what distilling gained.
    ///
    /// Without arguments: the embedded data set `shapes`, seed 0. Everything after `train` goes to `docent train`;
    /// `cargo xtask train --help` lists it.
    ///
    /// Example: cargo xtask train --recipe bccd --data DIR --weights FILE
    #[command(disable_help_flag = true)]
    Train(train::Args),
    /// Train the cells of an ablation under one teacher; write records, table and plots.
    ///
    /// Everything after `ablate` goes to `docent ablate`; `cargo xtask ablate --help` lists it. Finished runs are kept.
    ///
    /// Example: cargo xtask ablate --recipe bccd-ablation --seeds 0,1,2 --data DIR --weights FILE
    #[command(disable_help_flag = true)]
    Ablate(train::Args),
    /// Check the house rules, format and clippy, run all tests, build the docs, run the cases of `../shared/cases` where they are.
    Test,
    /// Check the house rules: files of at most 500 lines, whose first line says what lives there; no import cycles.
    ///
    /// `test` does this first. It prints each fault with its file and line.
    Tidy,
    /// Run the tests of the tensor and operation crates under Miri, which finds undefined behaviour.
    ///
    /// Needs rustup and a nightly toolchain with Miri; Miri interprets, so it takes long. Example: cargo xtask miri
    Miri(miri::Args),
    /// Run docent on every input of a folder of cases and compare what it reads with `expect.json`.
    ///
    /// Prints one line an input: `ok`, `WRONG: ..` or `SILENT WRONG: ..` (exit code 0, and the boxes, the classes or the
    /// split are wrong). Without the folder the cases are skipped.
    ///
    /// Example: cargo xtask cases ../shared/cases --only exif
    Cases(cases::Args),
    /// Overfit 8 images through the whole real path and check the run's folder (under 3 minutes).
    Smoke,
    /// What takes too long for the tests: 30 kills, memory over 2,000 steps, an index of COCO's size (about 15 minutes).
    ///
    /// Example: cargo xtask soak memory
    Soak(soak::Args),
    /// Run the criterion benches (every op and one whole training step), or time docent against PyTorch.
    ///
    /// Examples: cargo xtask bench conv2d; cargo xtask bench peers --python PATH
    Bench(bench::Args),
    /// Compute the tests' reference values with PyTorch in float64 and write them, or check those that stand here.
    ///
    /// Tests and CI need no Python; this does. Example: cargo xtask golden --check
    Golden(golden::Args),
    /// What continuous integration runs: `test`, then `smoke`.
    Ci,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Train(args) => train::run("train", &args),
        Command::Ablate(args) => train::run("ablate", &args),
        Command::Test => test::run(),
        Command::Tidy => tidy::run(),
        Command::Miri(args) => miri::run(&args),
        Command::Cases(args) => cases::run(&args),
        Command::Smoke => smoke::run(),
        Command::Soak(args) => soak::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Golden(args) => golden::run(&args),
        Command::Ci => ci::run(),
    }
}
