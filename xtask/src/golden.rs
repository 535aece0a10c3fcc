//! `cargo xtask golden`: the reference values of the tests, from PyTorch, torchvision and pycocotools.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf, absolute};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process;

#[derive(clap::Args)]
pub struct Args {
    /// Compute again and compare with the files that stand here; write nothing.
    #[arg(long)]
    check: bool,
    /// A Python with the packages of xtask/golden/requirements.txt. Without it, an environment is made and kept.
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Where the environment is made and kept, outside the repository.
    ///
    /// Default: the variable DOCENT_GOLDEN_ENV, or `docent/golden` in the user's cache folder.
    #[arg(long, value_name = "DIR", conflicts_with = "python")]
    env: Option<PathBuf>,
    /// Only the golden files whose path contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Writes the golden files, or checks them.
pub fn run(args: &Args) -> Result<()> {
    let root = process::root()?;
    let scripts = root.join("xtask/golden");
    let python = match &args.python {
        Some(python) => python.clone(),
        None => {
            let chosen = args.env.clone().or_else(|| env::var_os("DOCENT_GOLDEN_ENV").map(PathBuf::from));
            let dir = chosen.or_else(|| Some(cache_dir(env::var_os)?.join("docent").join("golden")));
            environment(&dir.context("no cache folder is known; name one with --env DIR")?, &root, &scripts)?
        }
    };
    let mut command = Command::new(python);
    command.arg(scripts.join("generate.py")).arg(if args.check { "--check" } else { "--out" }).arg(&root);
    if let Some(only) = &args.only {
        command.args(["--only", only]);
    }
    process::run(&mut command)
}

/// The interpreter of the environment in `dir`, which is made where it is missing or was made for other requirements.
fn environment(dir: &Path, root: &Path, scripts: &Path) -> Result<PathBuf> {
    let dir = absolute(dir)?;
    ensure!(!dir.starts_with(root), "{} lies in the repository; the environment must not", dir.display());
    let file = scripts.join("requirements.txt");
    let wanted = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
    let python = if cfg!(windows) { dir.join("Scripts/python.exe") } else { dir.join("bin/python") };
    // Written last, so that a broken installation is made again.
    let stamp = dir.join("installed.txt");
    if python.is_file() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("making a Python environment in {} (some GB, once)", dir.display());
    let base = if cfg!(windows) { "python" } else { "python3" };
    process::run(Command::new(base).args(["-m", "venv", "--clear"]).arg(&dir))
        .context("Python 3 with its module venv is needed; or name an interpreter with --python")?;
    process::run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&file))?;
    fs::write(&stamp, wanted)?;
    Ok(python)
}

/// The platform's folder for what can be made again.
fn cache_dir(var: impl Fn(&'static str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &'static str| var(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        Some(folder("HOME")?.join("Library/Caches"))
    } else {
        // A relative path there is to be ignored, says the XDG specification.
        folder("XDG_CACHE_HOME").filter(|dir| dir.is_absolute()).or_else(|| Some(folder("HOME")?.join(".cache")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_stays_outside_the_repository() {
        let root = process::root().unwrap();
        let scripts = root.join("xtask/golden");
        let error = environment(&root.join("target/golden"), &root, &scripts).unwrap_err();
        assert!(error.to_string().contains("lies in the repository"), "{error}");
    }

    #[test]
    #[cfg(all(unix, not(target_os = "macos")))]
    fn the_cache_folder_is_the_users() {
        let of = |pairs: &'static [(&'static str, &'static str)]| {
            cache_dir(move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).into()))
        };
        assert_eq!(of(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]), Some("/c".into()));
        assert_eq!(of(&[("XDG_CACHE_HOME", "c"), ("HOME", "/h")]), Some("/h/.cache".into()));
        assert_eq!(of(&[("XDG_CACHE_HOME", "")]), None);
    }
}
