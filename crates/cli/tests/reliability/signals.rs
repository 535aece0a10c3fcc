//! Signals, and two programs in one folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use docent_study::run::{RunFolder, RunState};

use crate::bench::{Bench, RUNS, finish, log, send, wait_for};

/// Longer than a signal takes to arrive.
const LONGER: [&str; 4] = ["--set", "train.epochs=4", "--set", "teacher.epochs=4"];

fn steps(study: &Path, run: &str) -> usize {
    log(&study.join(run)).iter().filter(|e| e["event"] == "step").count()
}

#[test]
fn a_signal_stops_with_a_checkpoint_and_the_command_it_prints_goes_on() {
    let bench = Bench::new();
    bench.works("whole", &LONGER);
    // Where it comes: in the teacher, in an evaluation between two epochs, in the distilled run.
    for (i, (signal, code, run, at)) in
        [("INT", 130, "teacher", 1), ("TERM", 143, "alone", 3), ("INT", 130, "distilled", 5)].into_iter().enumerate()
    {
        let name = format!("it's {i}");
        let study = bench.path(&name);
        let child = bench.train(&name, &LONGER).spawn().unwrap();
        wait_for("a step", || steps(&study, run) >= at);
        send(&child, signal);
        let said = finish(child);
        assert_eq!(said.code, Some(code), "{signal}: {}", said.err);
        let (_, command) = said.err.split_once("To go on:\n").expect("a command");
        assert!(command.trim().ends_with("--resume") && command.contains(r"it'\''s"), "{command}");
        let folder = RunFolder::new(&study, run);
        let state = RunState::load(&folder.state()).unwrap();
        assert_eq!(state.trainer.step, steps(&study, run), "every step that was made is kept");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command.trim());
        bench.prepare(&mut shell);
        let said = bench.say(&mut shell);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(said.out.contains(&format!("{} of them done", state.trainer.step)), "{}", said.out);
        bench.assert_same("whole", &name);
    }
}

/// An image that never comes: the program waits for its data until somebody ends it.
struct Stuck {
    image: PathBuf,
    aside: PathBuf,
}

impl Stuck {
    fn new(bench: &Bench) -> Self {
        let find = |folder: &Path| -> Option<PathBuf> {
            fs::read_dir(folder)
                .ok()?
                .filter_map(|e| Some(e.ok()?.path()))
                .find(|p| p.extension().is_some_and(|e| e == "png"))
        };
        let folders = ["train", "images", "images/train", "train2017"].map(|f| bench.path("data").join(f));
        let image = folders.iter().find_map(|f| find(f)).expect("a training image");
        let aside = image.with_extension("aside");
        fs::rename(&image, &aside).unwrap();
        assert!(Command::new("mkfifo").arg(&image).status().unwrap().success());
        Self { image, aside }
    }

    fn mend(&self) {
        fs::rename(&self.aside, &self.image).unwrap();
    }
}

fn waits_for_data(bench: &Bench, name: &str) -> Child {
    let child = bench.train(name, &["--set", "train.batch=8"]).spawn().unwrap();
    let study = bench.path(name);
    wait_for("the first run", || !log(&study.join(RUNS[0])).is_empty());
    child
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let bench = Bench::new();
    let _stuck = Stuck::new(&bench);
    for (first, second, code) in [("INT", "INT", 130), ("TERM", "INT", 130), ("INT", "TERM", 143)] {
        let name = format!("{first}-{second}");
        let mut child = waits_for_data(&bench, &name);
        send(&child, first);
        // As `timeout` does: the same request twice is one.
        send(&child, first);
        std::thread::sleep(Duration::from_millis(400));
        assert!(child.try_wait().unwrap().is_none(), "one request waits for the step");
        let start = Instant::now();
        send(&child, second);
        let said = finish(child);
        assert_eq!(said.code, Some(code), "{name}: {}", said.err);
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(said.err.contains("a second signal") && !said.err.contains("To go on"), "{}", said.err);
    }
}

#[test]
fn a_second_program_in_a_folder_is_refused_and_a_killed_one_s_lock_is_taken_over() {
    let bench = Bench::new();
    let stuck = Stuck::new(&bench);
    let mut first = waits_for_data(&bench, "study");
    let before = fs::read(bench.path("study/teacher/manifest.json")).unwrap();
    for more in [&[][..], &["--resume"]] {
        let said = bench.say(&mut bench.train("study", more));
        assert_eq!(said.code, Some(1));
        let holder = format!("in use by process {} on ", first.id());
        assert!(said.err.contains(&holder) && said.err.contains("UTC") && said.err.contains("--out"), "{}", said.err);
    }
    assert_eq!(fs::read(bench.path("study/teacher/manifest.json")).unwrap(), before, "nothing was touched");
    assert!(first.try_wait().unwrap().is_none());
    let pid = first.id();
    first.kill().unwrap();
    first.wait().unwrap();
    stuck.mend();
    let out = bench.works("study", &["--set", "train.batch=8", "--resume"]);
    assert!(out.contains(&format!("warning: the lock of process {pid}")), "{out}");
}

#[test]
fn exit_codes_are_in_the_help() {
    let bench = Bench::new();
    let mut help = Command::new(env!("CARGO_BIN_EXE_docent"));
    help.arg("--help");
    bench.prepare(&mut help);
    let said = bench.say(&mut help);
    for part in ["Exit codes", "130", "143", "101", "second signal"] {
        assert!(said.out.contains(part), "no `{part}` in {}", said.out);
    }
    // The two that a wrong command line and a failure give.
    let code = |more: &[&str]| bench.say(&mut bench.train("none", more)).code;
    assert_eq!(code(&["--no-such-option"]), Some(2));
    assert_eq!(code(&["--set", "train.epoch=1"]), Some(1));
}
