//! `cargo xtask smoke`: eight images, overfitted through the whole real path.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;

/// Files that a study's folder must hold, besides `summary.json`.
const RUN_FILES: [&str; 5] =
    ["recipe.toml", "manifest.json", "metrics.jsonl", "checkpoints/last.safetensors", "checkpoints/best.safetensors"];

/// Trains the recipe `smoke` with the development build and checks what it leaves behind.
pub fn run() -> Result<()> {
    let program = process::build_docent(false)?;
    let out = std::env::temp_dir().join(format!("docent-smoke-{}", std::process::id()));
    let result = train_and_check(&program, &out);
    // The folder goes in either case; a failure has printed what matters.
    let _ = fs::remove_dir_all(&out);
    result
}

fn train_and_check(program: &Path, out: &Path) -> Result<()> {
    let study = out.join("study");
    let mut train = Command::new(program);
    train.args(["train", "--recipe", "smoke", "--out"]).arg(&study).arg("--data").arg(out.join("shapes"));
    process::run(&mut train)?;

    let path = study.join("summary.json");
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    let summary: Value = serde_json::from_str(&text)?;
    for run in ["teacher", "alone", "distilled"] {
        for file in RUN_FILES {
            let path = study.join(run).join(file);
            ensure!(fs::metadata(&path).is_ok_and(|m| m.len() > 0), "{} is missing or empty", path.display());
        }
        let steps = fs::read_to_string(study.join(run).join("metrics.jsonl"))?
            .lines()
            .map(serde_json::from_str::<Value>)
            .collect::<Result<Vec<_>, _>>()?
            .iter()
            .filter(|event| event["event"] == "step")
            .count();
        ensure!(summary[run]["steps"] == steps, "{run}: {steps} steps logged, summary says {}", summary[run]["steps"]);
    }
    for run in ["alone", "distilled"] {
        let ap = summary[run]["ap"].as_f64().context("no ap")?;
        ensure!(ap > 0.8, "{run} reaches AP {ap:.3} on the 8 images it was trained on; more than 0.8 is expected");
    }
    println!(
        "smoke: 8 images overfitted, AP {} alone and {} distilled; the study's folder is complete",
        summary["alone"]["ap"], summary["distilled"]["ap"]
    );
    Ok(())
}
