//! A finished study that is asked for more epochs says how to get them, and the command that it prints works.

use std::process::Command;

use serde_json::Value;

use crate::bench::Bench;

#[test]
fn the_command_for_more_epochs_works() {
    let bench = Bench::new();
    let rate = ["--set", "schedule.rate.unit=epoch", "--set", "schedule.rate.milestones=[0.5]"];
    bench.works("run", &[&rate[..], &["--set", "schedule.epochs=1"]].concat());
    let asked = |more: &[&str]| {
        let args = [&rate[..], &["--resume"], more].concat();
        bench.say(&mut bench.train("run", &args))
    };
    let said = asked(&["--set", "schedule.epochs=3"]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.err.contains("finished after 1 epochs") && said.err.contains("2 more epochs"), "{}", said.err);
    let command = said.err.lines().last().unwrap().trim();
    assert!(said.err.contains("milestones are moved in proportion"), "{}", said.err);
    for part in [
        "schedule.rate.milestones=[1.0]",
        "from = \"run/baseline/checkpoints/last.safetensors\", distilled_from = \"run/distilled/checkpoints/last.safetensors\"",
        "--data data",
        "--teacher run/teacher/checkpoints/last.safetensors",
    ] {
        assert!(command.contains(part), "{command}");
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", command]);
    bench.prepare(&mut shell);
    let more = bench.say(&mut shell);
    assert_eq!(more.code, Some(0), "{command}: {}", more.err);
    for run in ["baseline", "distilled"] {
        let from = format!("{run}: first weights: run/{run}/checkpoints/last.safetensors");
        assert!(more.out.contains(&from), "{}", more.out);
    }
    let summary: Value = serde_json::from_slice(&std::fs::read(bench.path("run-more/summary.json")).unwrap()).unwrap();
    // Three steps an epoch.
    assert_eq!((summary["distilled"]["steps"].as_u64(), summary["teacher"]["steps"].as_u64()), (Some(6), Some(0)));

    // The next one goes elsewhere; without more epochs the finished study is just shown, and other settings are another experiment.
    let again = asked(&["--set", "schedule.epochs=3"]);
    assert!(again.err.trim_end().ends_with("--out run-more2"), "{}", again.err);
    let shown = asked(&["--set", "schedule.epochs=1"]);
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    let other = asked(&["--set", "schedule.epochs=3", "--set", "schedule.lr=0.01"]);
    assert!(other.code == Some(1) && other.err.contains("is another experiment"), "{}", other.err);
}
