//! `cargo xtask tidy`: the house rules for Rust files, as a check.
//!
//! | file | what lives there |
//! |---|---|
//! | `source` | a file's imports, paths and modules, from its tokens |
//! | `module_tree` | the modules of a crate, and the file that a path leads to |
//! | `cycles` | files of a crate that import each other |

mod cycles;
mod module_tree;
mod source;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process;

/// Folders whose Rust files the rules hold for.
const FOLDERS: [&str; 4] = ["crates", "xtask", "fuzz", "benches"];

/// The longest file, in lines.
const MAX_LINES: usize = 500;

/// Crates that still have import cycles. One without cycles must leave this list, and then cannot get any again.
const WITH_CYCLES: [&str; 3] = ["crates/detect/src/lib.rs", "crates/distill/src/lib.rs", "crates/train/src/lib.rs"];

/// Checks all files of the workspace and prints what breaks a rule.
pub fn run() -> Result<()> {
    let root = process::root()?;
    let faults = check(&root, &WITH_CYCLES)?;
    for fault in &faults {
        println!("{fault}");
    }
    if !faults.is_empty() {
        bail!("tidy: {} fault(s), listed above", faults.len());
    }
    Ok(())
}

/// What breaks a rule in the Rust files under `root`. Import cycles of the crates `with_cycles` are passed over.
fn check(root: &Path, with_cycles: &[&str]) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for folder in FOLDERS.iter().map(|folder| root.join(folder)).filter(|folder| folder.is_dir()) {
        collect(&folder, &mut files)?;
    }
    let mut faults = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(file);
        faults.extend(check_text(name, &text));
    }
    for file in files.iter().filter(|file| is_crate_root(file)) {
        let cycles = cycles::find(root, file)?;
        let name = file.strip_prefix(root).unwrap_or(file);
        if !with_cycles.iter().any(|known| name == Path::new(known)) {
            faults.extend(cycles);
        } else if cycles.is_empty() {
            faults.push(format!(
                "{}: no import cycle: take it off the list WITH_CYCLES in xtask/src/tidy/mod.rs",
                name.display()
            ));
        }
    }
    Ok(faults)
}

/// What breaks a rule that one file can break.
fn check_text(name: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        faults.push(format!("{}: {lines} lines; the most is {MAX_LINES}: split it by topic", name.display()));
    }
    let first = text.lines().next().unwrap_or_default();
    let describes = |comment: &str| first.strip_prefix(comment).is_some_and(|words| !words.trim().is_empty());
    if !(describes("//! ") || is_test(name) && describes("// ")) {
        faults.push(format!("{}:1: the first line must be `//! ` and what lives in the file", name.display()));
    }
    faults
}

fn is_test(name: &Path) -> bool {
    name.components().any(|part| part.as_os_str() == "tests") || name.file_stem().is_some_and(|stem| stem == "tests")
}

/// Whether rustc starts a crate at this file: a library, a program, an integration test, a bench, an example.
fn is_crate_root(file: &Path) -> bool {
    let is_package = |dir: Option<&Path>| dir.is_some_and(|dir| dir.join("Cargo.toml").is_file());
    let (Some(dir), Some(name)) = (file.parent(), file.file_name()) else { return false };
    match dir.file_name().and_then(|name| name.to_str()) {
        Some("src") => name == "lib.rs" || name == "main.rs",
        Some("tests" | "benches" | "examples" | "fuzz_targets") if is_package(dir.parent()) => true,
        _ => name == "main.rs" && is_package(dir.parent().and_then(Path::parent)),
    }
}

/// Adds the Rust files under `dir`, in order, without what cargo builds.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let mut paths: Vec<PathBuf> =
        entries.with_context(|| format!("cannot list {}", dir.display()))?.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
