//! `cargo xtask soak`: what takes too long for the tests. Each part prints `METRIC:name:value:unit` lines; a table ends it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;

#[derive(clap::Args)]
pub struct Args {
    /// Only this part; default: all, one after the other.
    #[arg(value_enum)]
    part: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// 30 kills by SIGKILL at random moments, the final bits compared each time.
    Kills,
    /// Memory over 2,000 training steps.
    Memory,
    /// An index of COCO's size: seconds and bytes.
    Index,
}

/// A measured figure.
struct Metric {
    name: String,
    value: String,
    unit: String,
}

/// Runs the parts; the first that fails ends it.
pub fn run(args: &Args) -> Result<()> {
    let mut table = Vec::new();
    for part in [Part::Kills, Part::Memory, Part::Index] {
        if args.part.is_some_and(|only| only != part) {
            continue;
        }
        let start = Instant::now();
        let (name, metrics) = match part {
            Part::Kills => ("kills", kills()?),
            Part::Memory => ("memory", memory()?),
            Part::Index => ("index", index()?),
        };
        ensure!(!metrics.is_empty(), "part {name} measured nothing");
        table.push((name, metrics, start.elapsed().as_secs_f64()));
    }
    println!("\n{:<10}{:<34}{:>14} unit", "part", "figure", "value");
    for (part, metrics, seconds) in table {
        for Metric { name, value, unit } in metrics {
            println!("{part:<10}{name:<34}{value:>14} {unit}");
        }
        println!("{part:<10}{:<34}{seconds:>14.0} s", "the part's time, builds included");
    }
    println!("every bound was kept");
    Ok(())
}

fn kills() -> Result<Vec<Metric>> {
    measure(&mut process::cargo(&[
        "test",
        "--package",
        "docent",
        "--test",
        "reliability",
        "--",
        "--ignored",
        "--exact",
        "--nocapture",
        "kill::thirty_killed_studies_end_with_the_same_bits",
    ])?)
}

fn index() -> Result<Vec<Metric>> {
    measure(&mut process::cargo(&["run", "--release", "--package", "docent-coco", "--example", "index_scale"])?)
}

/// Runs a command, shows what it prints and keeps its METRIC lines.
fn measure(command: &mut Command) -> Result<Vec<Metric>> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {command:?}"))?;
    let mut metrics = Vec::new();
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        println!("{line}");
        metrics.extend(parse(&line));
    }
    let status = child.wait()?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(metrics)
}

/// A `METRIC:name:value:unit` line, which the test harness may have put after its own words.
fn parse(line: &str) -> Option<Metric> {
    let mut words = line.split_once("METRIC:")?.1.trim().splitn(3, ':').map(str::to_owned);
    Some(Metric { name: words.next()?, value: words.next()?, unit: words.next()? })
}

/// Steps of the measured run, and those before which memory may still grow: buffers, caches and threads come into being.
const STEPS: usize = 2000;
const WARM_UP: usize = 200;

/// What the resident memory may grow by over the measured steps, and by how much its highest value may stand above the first.
const GROWTH_MIB: f64 = 8.0;
const RISE_MIB: f64 = 32.0;

fn memory() -> Result<Vec<Metric>> {
    // The development build, which is optimised and there already.
    let program = process::build_docent(false)?;
    let out = std::env::temp_dir().join(format!("docent-soak-{}", std::process::id()));
    let result = train_and_measure(&program, &out);
    let _ = fs::remove_dir_all(&out);
    result
}

/// Trains the recipe `smoke`, on small images, for [`STEPS`] steps with a teacher, and reads the log's memory.
fn train_and_measure(program: &Path, out: &Path) -> Result<Vec<Metric>> {
    let study = out.join("study");
    let mut train = Command::new(program);
    train.args(["train", "--recipe", "smoke", "--out"]).arg(&study).arg("--data").arg(out.join("shapes"));
    // Two steps an epoch; scored now and then, so that evaluations count too.
    let epochs = format!("train.epochs={}", STEPS / 2);
    for set in [
        &epochs,
        "teacher.epochs=2",
        "teacher.min_ap=0.0",
        "data.resize.shortest=64",
        "data.resize.longest=80",
        "data.flip=0.5",
        "eval.every=100",
    ] {
        train.args(["--set", set]);
    }
    process::run(&mut train)?;

    let path = study.join("distilled/metrics.jsonl");
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    let events = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let used: Vec<f64> =
        events.iter().filter(|e| e["event"] == "step").filter_map(|e| e["memory_mib"].as_f64()).collect();
    ensure!(used.len() == STEPS, "{} steps in {}, {STEPS} expected", used.len(), path.display());
    let used = &used[WARM_UP..];
    ensure!(used.iter().all(|mib| *mib > 0.0), "this system does not tell a process's resident memory");
    let slope = slope(used);
    let (first, most) = (used[0], used.iter().copied().fold(0.0, f64::max));
    let metrics = [
        ("memory_steps", used.len() as f64, "count"),
        ("memory_after_warm_up", first, "MiB"),
        ("memory_most", most, "MiB"),
        ("memory_slope_per_1000_steps", slope * 1000.0, "MiB"),
    ];
    for (name, value, unit) in metrics {
        println!("METRIC:{name}:{value:.2}:{unit}");
    }
    let growth = slope * used.len() as f64;
    ensure!(growth <= GROWTH_MIB, "memory grows by {growth:.1} MiB over {} steps, at most {GROWTH_MIB}", used.len());
    ensure!(most - first <= RISE_MIB, "memory rises from {first:.1} to {most:.1} MiB, at most by {RISE_MIB}");
    let metric = |(name, value, unit): (&str, f64, &str)| Metric {
        name: name.to_owned(),
        value: format!("{value:.2}"),
        unit: unit.to_owned(),
    };
    Ok(metrics.into_iter().map(metric).collect())
}

/// Slope of the least-squares line through `y` at 0, 1, 2, ...
fn slope(y: &[f64]) -> f64 {
    let n = y.len() as f64;
    let (mean_x, mean_y) = ((n - 1.0) / 2.0, y.iter().sum::<f64>() / n);
    let (mut xy, mut xx) = (0.0, 0.0);
    for (i, v) in y.iter().enumerate() {
        let x = i as f64 - mean_x;
        xy += x * (v - mean_y);
        xx += x * x;
    }
    xy / xx
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_lines_are_found() {
        let metric = parse("test kill::x ... METRIC:kills:30:count\n").unwrap();
        assert_eq!((metric.name.as_str(), metric.value.as_str(), metric.unit.as_str()), ("kills", "30", "count"));
        assert!(parse("METRIC:kills").is_none() && parse("kills:30:count").is_none());
    }

    #[test]
    fn the_slope_is_the_lines() {
        assert!((slope(&[1.0, 3.0, 5.0, 7.0]) - 2.0).abs() < 1e-12);
        assert_eq!(slope(&[4.0; 5]), 0.0);
        assert!(slope(&[0.0, 1.0, 0.0, -1.0, 0.0]).abs() < 0.3);
    }
}
