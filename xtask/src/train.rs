//! `cargo xtask train` and `ablate`: a release build of the program, then `docent train` or `docent ablate`.

use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};

use crate::process;

#[derive(clap::Args)]
pub struct Args {
    /// Handed to the program as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds and starts `docent COMMAND`; the folder is the caller's, so that relative paths mean what they say. Ends with the
/// program's exit code.
pub fn run(subcommand: &str, args: &Args) -> Result<()> {
    let program = process::build_docent(true)?;
    let mut command = Command::new(program);
    command.arg(subcommand).args(&args.rest);
    if let Some(revision) = process::revision() {
        command.env("DOCENT_REVISION", revision);
    }
    match exit_code(wait_passing_signals(&mut command)?) {
        0 => Ok(()),
        // The program has said what there is to say.
        code => std::process::exit(code),
    }
}

/// The code that a shell would report.
fn exit_code(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return 128 + signal;
    }
    status.code().unwrap_or(1)
}

/// Runs `command`; SIGINT and SIGTERM go on to it, and this process waits until it has written its checkpoint.
///
/// From a terminal the program hears them as well, being in the same process group; it takes what comes together for one.
fn wait_passing_signals(command: &mut Command) -> Result<ExitStatus> {
    #[cfg(unix)]
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])?;
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    #[cfg(unix)]
    {
        let pid = child.id().to_string();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                // It fails when the program has just ended, and then there is nothing to do.
                let _ = Command::new("kill").args([format!("-{signal}"), pid.clone()]).status();
            }
        });
    }
    Ok(child.wait()?)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_signal_goes_to_the_program_and_its_answer_comes_back() {
        let dir = std::env::temp_dir().join(format!("docent-xtask-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let ready = dir.join("ready");
        let mut program = Command::new("sh");
        // It needs a while after the signal, as the writing of a checkpoint does.
        let script = "trap 'sleep 0.3; echo whole > done; exit 143' TERM; touch ready; while :; do sleep 0.02; done";
        program.args(["-c", script]).current_dir(&dir);
        let asker = std::thread::spawn(move || {
            while !ready.exists() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            signal_hook::low_level::raise(signal_hook::consts::SIGTERM)
        });
        let status = wait_passing_signals(&mut program).unwrap();
        asker.join().unwrap().unwrap();
        assert_eq!(exit_code(status), 143);
        assert_eq!(std::fs::read_to_string(dir.join("done")).unwrap(), "whole\n");
        std::fs::remove_dir_all(&dir).unwrap();
        // A program that a signal ended itself.
        assert_eq!(exit_code(Command::new("sh").args(["-c", "kill -9 $$"]).status().unwrap()), 137);
    }
}
