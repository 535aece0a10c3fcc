//! What the tests share: data and a recipe of seconds, the program in a folder of its own, and the comparison of two studies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use docent_coco::shapes::{ShapesConfig, generate};
use serde_json::Value;
use tempfile::TempDir;

/// The recipe of the library's own tests.
const RECIPE: &str = include_str!("../../../study/tests/study/tiny.toml");

pub const RUNS: [&str; 3] = ["teacher", "alone", "distilled"];

/// What a call of the program came to.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Data and room for studies; gone when it is dropped.
pub struct Bench {
    root: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        generate(&root.path().join("data"), &ShapesConfig::default().train(8).val(4).seed(0)).unwrap();
        fs::write(root.path().join("tiny.toml"), RECIPE).unwrap();
        Self { root }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// `docent train` of the tiny recipe into folder `name`, not yet started.
    pub fn train(&self, name: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_docent"));
        command.args(Self::arguments(name)).args(more);
        self.prepare(&mut command);
        command
    }

    /// What `docent` is given to train into folder `name`.
    pub fn arguments(name: &str) -> [&str; 7] {
        ["train", "--recipe", "tiny.toml", "--data", "data", "--out", name]
    }

    /// The folder, one compute thread, and pipes for what is said.
    pub fn prepare(&self, command: &mut Command) {
        command.env("RAYON_NUM_THREADS", "1");
        command.current_dir(self.root.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    }

    /// Runs a command to its end. Whatever happens, a panic is a fault of the program.
    pub fn say(&self, command: &mut Command) -> Said {
        finish(command.spawn().unwrap())
    }

    /// Trains into `name` until it is finished.
    pub fn works(&self, name: &str, more: &[&str]) -> String {
        let said = self.say(&mut self.train(name, more));
        assert_eq!(said.code, Some(0), "{name} {more:?}: {}", said.err);
        said.out
    }

    /// Have two studies the same weights and figures, to the last bit? Times and memory apart.
    pub fn assert_same(&self, a: &str, b: &str) {
        for run in RUNS {
            let [x, y] = [a, b].map(|study| self.path(study).join(run));
            for which in ["last", "best"] {
                let [p, q] =
                    [&x, &y].map(|run| fs::read(run.join(format!("checkpoints/{which}.safetensors"))).unwrap());
                assert!(p == q, "{which} of {run} differs between {a} and {b}");
            }
            let [p, q] = [&x, &y].map(|run| timeless(run));
            assert_eq!(p, q, "{run} in {a} and {b}");
        }
        let [p, q] = [a, b].map(|study| {
            let text = fs::read_to_string(self.path(study).join("summary.json")).unwrap();
            let mut value: Value = serde_json::from_str(&text).unwrap();
            RUNS.iter().for_each(|run| forget(&mut value[run], &["seconds", "ms_per_image"]));
            value
        });
        assert_eq!(p, q, "summary.json of {a} and {b}");
    }
}

/// Waits for a started program.
pub fn finish(child: Child) -> Said {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let said = Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!said.err.contains("panicked") && said.code != Some(101), "{}", said.err);
    said
}

/// Waits until `there` says so, for at most a minute.
pub fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a signal by its name, as a shell does.
pub fn send(child: &Child, signal: &str) {
    let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", child.id())).status().unwrap();
    assert!(status.success(), "cannot send {signal}");
}

/// The whole lines of a run's log; what a killed process left half-written is none.
pub fn log(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Steps and evaluations of a run's log without what a clock or the system's memory decides.
fn timeless(run: &Path) -> Vec<Value> {
    let mut events = log(run);
    events.retain(|e| e["event"] == "step" || e["event"] == "evaluated");
    events.iter_mut().for_each(|e| forget(e, &["data_seconds", "step_seconds", "memory_mib", "seconds"]));
    events
}

fn forget(value: &mut Value, keys: &[&str]) {
    if let Some(object) = value.as_object_mut() {
        object.retain(|key, _| !keys.contains(&key.as_str()));
    }
}
