//! Running docent on a copy of an input.

use std::fs;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::coco::Coco;
use super::fault::Fault;

/// The longest time that one run of the program may take.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// The program under test.
pub struct Docent {
    program: PathBuf,
    /// Whether it knows `dataset to-coco`. Without it `import-voc`, `import-yolo` and `stats` are used, which show less.
    pub has_to_coco: bool,
    time_limit: Duration,
}

/// What docent did with an input under some flags.
#[derive(Debug, Default)]
pub struct Reading {
    /// Exit code of `to-coco`: 0 opened, 1 refused.
    pub code: i32,
    /// Exit code of `check`; `None` where it was not run.
    pub check: Option<i32>,
    /// All that was printed.
    pub text: String,
    /// What was written.
    pub splits: Option<BySplit<Coco>>,
    /// What `stats` counts, where nothing can be written.
    pub counts: Option<BySplit<Counts>>,
}

/// One value for each side of the split.
#[derive(Debug, Default)]
pub struct BySplit<T> {
    pub train: T,
    pub val: T,
}

impl<T> BySplit<T> {
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        [("train", &self.train), ("val", &self.val)].into_iter()
    }
}

/// `docent dataset stats --json` of one side.
#[derive(Debug, Default, Deserialize)]
pub struct Counts {
    pub images: usize,
    pub classes: Vec<ClassCount>,
}

#[derive(Debug, Deserialize)]
pub struct ClassCount {
    pub name: String,
    pub boxes: usize,
}

impl Docent {
    pub fn new(program: &Path) -> Result<Self> {
        let mut docent = Self { program: program.to_owned(), has_to_coco: false, time_limit: TIME_LIMIT };
        let help = docent.run(&["dataset", "to-coco", "--help"], &std::env::temp_dir());
        docent.has_to_coco = match help {
            Ok((code, _)) => code == 0,
            Err(Fault::Failed(error)) => return Err(error),
            Err(fault) => anyhow::bail!("{fault}"),
        };
        Ok(docent)
    }

    /// Reads a copy of `source` in a fresh folder, under a name that tells nothing.
    pub fn read(&self, source: &Path, format: &str, flags: &[String]) -> Result<Reading, Fault> {
        let folder = tempfile::Builder::new().prefix("docent-").tempdir().context("no temporary folder")?;
        copy_folder(source, &folder.path().join("data"))?;
        self.read_in(folder.path(), format, flags)
    }

    fn read_in(&self, folder: &Path, format: &str, flags: &[String]) -> Result<Reading, Fault> {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let dataset = |words: &[&str]| self.run(&[&["dataset"], words, &flags].concat(), folder);
        let writer = match format {
            _ if self.has_to_coco => Some("to-coco"),
            "voc" => Some("import-voc"),
            "yolo" => Some("import-yolo"),
            _ => None,
        };
        let mut reading = Reading::default();
        if let Some(writer) = writer {
            (reading.code, reading.text) = dataset(&[writer, "data", "out"])?;
            if reading.code == 0 {
                reading.splits = Some(BySplit { train: Coco::read(folder, "train")?, val: Coco::read(folder, "val")? });
            }
        }
        if self.has_to_coco || format != "yolo" {
            let (code, text) = dataset(&["check", "data", "--list", "1000"])?;
            reading.check = Some(code);
            reading.text.push_str(&text);
            if writer.is_none() {
                reading.code = code;
                if code == 0 {
                    reading.counts = counts(dataset(&["stats", "data", "--json"])?)?;
                }
            }
        }
        for code in [Some(reading.code), reading.check].into_iter().flatten() {
            if code != 0 && code != 1 {
                let flags = if flags.is_empty() { "no flags".to_owned() } else { flags.join(" ") };
                return Err(Fault::Wrong(format!("exit code {code} with {flags}: {}", gist(&reading.text))));
            }
        }
        Ok(reading)
    }

    /// Runs the program in `folder`. Gives its exit code, -1 where a signal ended it, and what it printed.
    fn run(&self, arguments: &[&str], folder: &Path) -> Result<(i32, String), Fault> {
        let start = || format!("cannot start {}", self.program.display());
        // A file: what is printed is in its order, and the program never waits for a reader.
        let mut output = tempfile::tempfile().context("no temporary file")?;
        let mut child = Command::new(&self.program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().with_context(start)?)
            .stderr(output.try_clone().with_context(start)?)
            .spawn()
            .with_context(start)?;
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().with_context(start)? {
                break status;
            }
            if begin.elapsed() > self.time_limit {
                let _ = child.kill();
                let _ = child.wait();
                let seconds = self.time_limit.as_secs_f64();
                return Err(Fault::Wrong(format!("still running after {seconds} s: docent {}", arguments.join(" "))));
            }
            thread::sleep(Duration::from_millis(2));
        };
        let mut bytes = Vec::new();
        output.rewind().with_context(start)?;
        output.read_to_end(&mut bytes).with_context(start)?;
        Ok((status.code().unwrap_or(-1), String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// The counts that `stats` printed; `None` where it refused.
fn counts((code, text): (i32, String)) -> Result<Option<BySplit<Counts>>, Fault> {
    #[derive(Deserialize)]
    struct Stats {
        training: Counts,
        #[serde(rename = "held-out")]
        held_out: Counts,
    }
    if code != 0 {
        return Ok(None);
    }
    let stats: Stats = serde_json::from_str(&text).map_err(|e| Fault::NoCoco(format!("what stats prints: {e}")))?;
    Ok(Some(BySplit { train: stats.training, val: stats.held_out }))
}

/// The line of a message that tells most: the first that begins with the program's name, or else the last.
pub fn gist(text: &str) -> String {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find(|line| line.starts_with("docent:")).or_else(|| lines().next_back());
    line.unwrap_or("nothing was printed").chars().take(200).collect()
}

/// Copies a folder with everything in it, names that start with a dot too.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let copy = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &copy)?;
        } else {
            fs::copy(&path, &copy).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn sh(time_limit: Duration) -> Docent {
        Docent { program: "/bin/sh".into(), has_to_coco: true, time_limit }
    }

    #[test]
    fn output_and_exit_code_come_back() {
        let run = |script: &str| sh(TIME_LIMIT).run(&["-c", script], Path::new("/")).unwrap();
        assert_eq!(run("echo one; echo two >&2; echo three; exit 1"), (1, "one\ntwo\nthree\n".to_owned()));
        assert_eq!(run("kill -9 $$").0, -1);
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let fault = sh(Duration::from_millis(100)).run(&["-c", "exec sleep 60"], Path::new("/")).unwrap_err();
        assert!(matches!(&fault, Fault::Wrong(what) if what.contains("still running after 0.1 s")), "{fault:?}");
    }
}
