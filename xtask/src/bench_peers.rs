//! `cargo xtask bench peers`: docent and PyTorch in turn at the same cases, medians, ratios and targets.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::process;

#[derive(clap::Args)]
pub struct Args {
    /// A Python with torch and torchvision. Without it docent is timed alone.
    #[arg(long)]
    python: Option<PathBuf>,
    /// Only the cases whose name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// How often the two take turns at a case.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Threads of both sides. Default: all of the machine's.
    #[arg(long)]
    threads: Option<usize>,
    /// Take the development build, which is optimised too and quicker to make.
    #[arg(long)]
    dev: bool,
    /// Where the JSON goes. Default target/bench/peers.json.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// A case and its targets as ratios to PyTorch: the one it must reach and the one it aims at.
struct Row {
    command: &'static str,
    case: String,
    must: f64,
    aim: f64,
}

/// Convolutions of a ResNet with a pyramid: batch, channels in and out, kernel, stride, height and width. The first at
/// 320x320 pixels, the last at 800x1333.
const CONVOLUTIONS: [[usize; 7]; 9] = [
    [1, 3, 64, 7, 2, 320, 320],
    [1, 64, 64, 3, 1, 80, 80],
    [1, 64, 256, 1, 1, 80, 80],
    [1, 128, 128, 3, 2, 80, 80],
    [1, 256, 512, 1, 2, 80, 80],
    [1, 256, 256, 3, 1, 20, 20],
    [1, 512, 512, 3, 1, 10, 10],
    [1, 256, 256, 3, 1, 80, 80],
    [1, 256, 256, 3, 1, 100, 168],
];

fn rows() -> Vec<Row> {
    let row = |command, case: String, must, aim| Row { command, case, must, aim };
    let mut rows = Vec::new();
    for c in CONVOLUTIONS {
        let sizes = c.map(|v| v.to_string()).join(" ");
        let winograd = c[3] == 3 && c[4] == 1;
        let (forward, both) = if winograd { ((0.6, 0.4), (0.75, 0.5)) } else { ((1.0, 0.8), (1.0, 0.8)) };
        rows.push(row("time", format!("conv {sizes} forward"), forward.0, forward.1));
        rows.push(row("time", format!("conv {sizes} both"), both.0, both.1));
    }
    for case in ["roi 512 256 100 168 forward", "roi 512 256 100 168 both", "nms 2000", "nms 10000"] {
        rows.push(row("time", case.to_owned(), 0.8, 0.5));
    }
    for case in ["detect 1", "detect 2"] {
        rows.push(row("time", case.to_owned(), 0.65, 0.45));
    }
    for (case, must, aim) in [("step r50", 0.8, 0.5), ("step r18", 0.8, 0.5), ("step distill", 0.7, 0.45)] {
        rows.push(row("time", case.to_owned(), must, aim));
        rows.push(row("memory", case.to_owned(), 0.9, 0.6));
    }
    rows
}

pub fn run(args: &Args) -> Result<()> {
    let threads = match args.threads {
        Some(n) => n,
        None => std::thread::available_parallelism()?.get(),
    };
    let program = build(args.dev)?;
    let ours = || {
        let mut command = Command::new(&program);
        command.env("RAYON_NUM_THREADS", threads.to_string());
        Peer::start(command)
    };
    let script = process::root()?.join("benches/peers/peer.py");
    let theirs = |python: &Path| {
        let mut command = Command::new(python);
        command.arg(&script).env("DOCENT_BENCH_THREADS", threads.to_string());
        let mut peer = Peer::start(command)?;
        let versions = peer.read()?;
        anyhow::Ok((peer, versions))
    };
    let mut versions = String::new();
    let mut running = match &args.python {
        None => None,
        Some(python) => match theirs(python) {
            Ok((peer, found)) => {
                versions = found;
                Some(peer)
            }
            Err(e) => {
                println!("No PyTorch with torchvision in {}: {e}", python.display());
                None
            }
        },
    };
    match running {
        Some(_) => println!("docent against {versions}"),
        None => println!("docent alone, {threads} threads (give --python for the other side)"),
    }
    println!("{:6} {:38} {:>12} {:>12} {:>6} {:>5} {:>5}", "", "case", "docent", "PyTorch", "ratio", "must", "aim");
    let mut us = ours()?;
    let mut results: Vec<Value> = Vec::new();
    let mut worst: Option<(f64, &Row)> = None;
    let rows = rows();
    for row in rows.iter().filter(|r| args.filter.as_ref().is_none_or(|f| r.case.contains(f.as_str()))) {
        let request = format!("{} {}", row.command, row.case);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        // Memory is a process' peak: each takes a fresh one, once.
        if row.command == "memory" {
            a.push(ours()?.number(&request)?);
            if let (Some(_), Some(python)) = (&running, &args.python) {
                b.push(theirs(python)?.0.number(&request)?);
            }
        } else {
            for _ in 0..args.rounds.max(1) {
                a.push(us.number(&request)?);
                if let Some(peer) = &mut running {
                    b.push(peer.number(&request)?);
                }
            }
        }
        let (a, b) = (median(a), median(b));
        let unit = if row.command == "memory" { "KiB" } else { "ms" };
        let ratio = b.zip(a).map(|(b, a)| a / b);
        let show = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.2} {unit}"));
        println!(
            "{:6} {:38} {:>12} {:>12} {:>6} {:>5} {:>5}",
            row.command,
            row.case,
            show(a),
            show(b),
            ratio.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}")),
            row.must,
            row.aim
        );
        let mut result = json!({ "kind": row.command, "case": row.case, "unit": unit, "docent": a, "pytorch": b,
            "ratio": ratio, "must": row.must, "aim": row.aim });
        if row.case.starts_with("step") && row.command == "time" {
            let shares = us.shares(&row.case)?;
            let total: f64 = shares.iter().sum();
            let [forward, backward, optimizer] = shares.map(|s| 100.0 * s / total);
            println!("{:45} forward {forward:.0}%, backward {backward:.0}%, optimizer {optimizer:.0}%", "");
            result["shares_ms"] = json!(shares);
        }
        results.push(result);
        let distance = |(ratio, row): (f64, &Row)| ratio / row.must;
        if let Some(r) = ratio
            && worst.is_none_or(|w| distance((r, row)) > distance(w))
        {
            worst = Some((r, row));
        }
    }
    let out = args.out.clone().map_or_else(|| anyhow::Ok(process::root()?.join("target/bench/peers.json")), Ok)?;
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let report = json!({ "revision": process::revision(), "host": host(), "threads": threads, "peer": versions,
        "profile": if args.dev { "dev" } else { "bench" }, "rounds": args.rounds, "rows": results });
    std::fs::write(&out, serde_json::to_string_pretty(&report)?).with_context(|| format!("{}", out.display()))?;
    println!("Written to {}", out.display());
    match worst {
        Some((ratio, row)) => {
            println!("Worst: {} {}: {ratio:.2}, must {}, aim {}", row.command, row.case, row.must, row.aim);
        }
        None => println!("No ratio: PyTorch was not there"),
    }
    Ok(())
}

/// Builds docent's side and gives its path.
fn build(dev: bool) -> Result<PathBuf> {
    let profile = if dev { "dev" } else { "bench" };
    let mut command =
        process::cargo(&["build", "--package", "docent-study", "--bench", "peers", "--profile", profile])?;
    let output = command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("the bench `peers` does not build");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program =
        messages.filter(|m| m["target"]["name"] == "peers").find_map(|m| m["executable"].as_str().map(PathBuf::from));
    program.context("cargo names no program for the bench `peers`")
}

/// A process that answers requests, one a line.
struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let (to, from) = (child.stdin.take().context("no input")?, child.stdout.take().context("no output")?);
        Ok(Self { child, to, from: BufReader::new(from) })
    }

    fn read(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!("the peer has ended: {}", self.child.wait()?);
        }
        Ok(line.trim().to_owned())
    }

    fn ask(&mut self, request: &str) -> Result<String> {
        writeln!(self.to, "{request}")?;
        self.to.flush()?;
        self.read().with_context(|| format!("after `{request}`"))
    }

    fn number(&mut self, request: &str) -> Result<f64> {
        let answer = self.ask(request)?;
        answer.parse().with_context(|| format!("`{answer}` is no number, after `{request}`"))
    }

    /// Milliseconds of forward pass, backward pass and optimizer.
    fn shares(&mut self, case: &str) -> Result<[f64; 3]> {
        let answer = self.ask(&format!("shares {case}"))?;
        let parts = answer.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        parts.try_into().map_err(|_| anyhow::anyhow!("`{answer}` is not three numbers"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A process of ours that only waits for requests; it may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (middle, n) = (values.len() / 2, values.len());
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The processor's name and what this program was built for.
fn host() -> Value {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    json!({ "cpu": name, "cores": cores, "os": std::env::consts::OS, "arch": std::env::consts::ARCH })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn every_target_of_the_table_is_a_row() {
        let rows = rows();
        let find = |command: &str, case: &str| rows.iter().find(|r| r.command == command && r.case == case);
        assert_eq!(find("time", "conv 1 256 256 3 1 80 80 both").map(|r| (r.must, r.aim)), Some((0.75, 0.5)));
        assert_eq!(find("time", "conv 1 128 128 3 2 80 80 forward").map(|r| (r.must, r.aim)), Some((1.0, 0.8)));
        assert_eq!(find("time", "step distill").map(|r| (r.must, r.aim)), Some((0.7, 0.45)));
        assert_eq!(find("memory", "step distill").map(|r| (r.must, r.aim)), Some((0.9, 0.6)));
    }
}
