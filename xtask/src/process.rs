//! Starting cargo and the programs it builds.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The workspace's root folder.
pub fn root() -> Result<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).context("xtask stands in a workspace")
}

/// `cargo` with the workspace as its folder.
pub fn cargo(args: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()?).args(args);
    Ok(command)
}

/// Runs a command whose output the user sees; a failure names it.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{} failed: {status}", describe(command));
    }
    Ok(())
}

/// Builds the program `docent` and gives its path.
pub fn build_docent(release: bool) -> Result<PathBuf> {
    let mut args = vec!["build", "--package", "docent"];
    if release {
        args.push("--release");
    }
    run(&mut cargo(&args)?)?;
    docent_path(release)
}

/// Where cargo puts the program `docent`.
pub fn docent_path(release: bool) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root()?.join("target"), PathBuf::from);
    let target = if target.is_absolute() { target } else { root()?.join(target) };
    let profile = if release { "release" } else { "debug" };
    Ok(target.join(profile).join("docent").with_extension(std::env::consts::EXE_EXTENSION))
}

/// The sources' revision, with `-dirty` where they differ from it.
pub fn revision() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .current_dir(root().ok()?)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}
