//! Running all inputs on two threads and printing one line for each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};

use super::expect::{Cases, Pair};
use super::fault::Fault;
use super::judge::{judge_any, judge_pair};
use super::program::{Docent, Reading};

/// Kinds that are no folders of data. Their READMEs say how they are checked.
const NOT_RUN: [&str; 4] = ["weights-ddp-prefix", "weights-torchvision-references", "serve-multipart", "predict-ids"];

const THREADS: usize = 2;

/// The longest a difference is printed, in characters, unless all of it is asked for.
const LONGEST: usize = 260;

pub struct Options<'a> {
    /// One kind, or one input.
    pub only: Option<&'a str>,
    /// Print every difference in full.
    pub verbose: bool,
    /// Print no line for an input that passes.
    pub only_failures: bool,
}

/// How many inputs passed.
pub struct Outcome {
    pub passed: usize,
    pub failed: usize,
}

impl Outcome {
    pub fn is_success(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

/// What one line is about.
enum Case<'a> {
    Input(&'a str),
    Pair(&'a Pair),
}

impl Case<'_> {
    fn name(&self) -> String {
        match self {
            Self::Input(key) => (*key).to_owned(),
            Self::Pair(pair) => format!("{} -> {}", pair.before, pair.after),
        }
    }
}

/// Runs the cases below `dir` and writes one line for each, in their order; the last line counts them.
pub fn run_all(dir: &Path, program: &Path, options: &Options, out: &mut dyn Write) -> Result<Outcome> {
    let cases = Cases::read(dir)?;
    let docent = Docent::new(program)?;
    let folders = input_folders(dir)?;
    let only = options.only.map(|only| only.trim_end_matches('/'));
    let is_wanted = |key: &str| {
        only.is_none_or(|only| key.strip_prefix(only).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    let keys: BTreeSet<&str> = folders.iter().chain(cases.inputs.keys()).map(String::as_str).collect();
    let inputs = keys.into_iter().filter(|key| is_wanted(key)).map(Case::Input);
    let pairs = cases.pairs.iter().filter(|pair| is_wanted(&pair.before) || is_wanted(&pair.after)).map(Case::Pair);
    let wanted: Vec<Case> = inputs.chain(pairs).collect();

    if !docent.has_to_coco {
        writeln!(
            out,
            "this program has no `dataset to-coco`: import-voc and import-yolo are used, and for COCO what check and stats say"
        )?;
    }
    let run_one = |case: &Case| match case {
        Case::Input(key) => run_input(dir, &docent, &cases, &folders, key),
        Case::Pair(pair) => run_pair(dir, &docent, &cases, pair),
    };
    let mut outcome = Outcome { passed: 0, failed: 0 };
    let mut silent = Vec::new();
    in_order(&wanted, run_one, |case, result| {
        let name = case.name();
        match result {
            Ok(()) => {
                outcome.passed += 1;
                if !options.only_failures {
                    writeln!(out, "{name}: ok")?;
                }
            }
            Err(Fault::Failed(error)) => return Err(error.context(name)),
            Err(fault) => {
                outcome.failed += 1;
                let class = if fault.is_silent() { "SILENT WRONG" } else { "WRONG" };
                writeln!(out, "{name}: {class}: {}", shortened(&fault.to_string(), options.verbose))?;
                if fault.is_silent() {
                    silent.push(name);
                }
            }
        }
        Ok(out.flush()?)
    })?;
    if only.is_none() && !options.only_failures {
        writeln!(out, "not run here, see their README: {}", NOT_RUN.join(", "))?;
    }
    if !silent.is_empty() {
        writeln!(out, "{} SILENT WRONG: {}", silent.len(), silent.join(", "))?;
    }
    writeln!(out, "{} passed, {} failed", outcome.passed, outcome.failed)?;
    Ok(outcome)
}

/// The folders of inputs: two levels below `dir`.
fn input_folders(dir: &Path) -> Result<BTreeSet<String>> {
    let subfolders = |dir: &Path| -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                names.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    };
    let mut folders = BTreeSet::new();
    for kind in subfolders(dir)?.iter().filter(|kind| !NOT_RUN.contains(&kind.as_str())) {
        folders.extend(subfolders(&dir.join(kind))?.iter().map(|name| format!("{kind}/{name}")));
    }
    Ok(folders)
}

fn run_input(dir: &Path, docent: &Docent, cases: &Cases, folders: &BTreeSet<String>, key: &str) -> Result<(), Fault> {
    let Some(input) = cases.inputs.get(key) else {
        return Err(Fault::Wrong("expect.json does not name it".to_owned()));
    };
    if !folders.contains(key) {
        return Err(Fault::Wrong("the folder is not there".to_owned()));
    }
    let source = dir.join(key);
    judge_any(&|format, flags| docent.read(&source, format, flags), &input.any_of)
}

fn run_pair(dir: &Path, docent: &Docent, cases: &Cases, pair: &Pair) -> Result<(), Fault> {
    let read = |key: &str| -> Result<Reading, Fault> {
        let input = &cases.inputs[key];
        docent.read(&dir.join(key), &input.format, &input.flags)
    };
    judge_pair((&pair.before, &read(&pair.before)?), (&pair.after, &read(&pair.after)?))
}

/// Runs `job` on every item, on two threads, and hands the results to `each` in the order of the items.
fn in_order<T: Sync, R: Send>(
    items: &[T],
    job: impl Fn(&T) -> R + Sync,
    mut each: impl FnMut(&T, R) -> Result<()>,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..THREADS {
            let (sender, next, job) = (sender.clone(), &next, &job);
            scope.spawn(move || {
                while let Some((i, item)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, items.get(i)?)))
                {
                    // A closed channel: the command ends early.
                    if sender.send((i, job(item))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut done = 0;
        for (i, result) in receiver {
            early.insert(i, result);
            while let Some(result) = early.remove(&done) {
                each(&items[done], result)?;
                done += 1;
            }
        }
        Ok(())
    })
}

fn shortened(what: &str, verbose: bool) -> String {
    if verbose || what.chars().count() <= LONGEST {
        return what.to_owned();
    }
    what.chars().take(LONGEST - 3).chain("...".chars()).collect()
}
