//! SIGINT and SIGTERM: the first asks the study to stop, a second one ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::output::tell;
use anyhow::Result;
use docent_study::Error;
use docent_train::CancelToken;

/// The study was stopped by a signal; not a fault, and told to the caller by the usual exit code.
#[derive(Debug)]
pub struct Interrupted {
    /// 130 after SIGINT, 143 after SIGTERM.
    pub code: u8,
    /// What was done, and how to go on.
    pub text: String,
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Interrupted {}

/// The signal that came first.
pub struct Watch(Arc<AtomicI32>);

impl Watch {
    /// 128 and the signal's number: what a shell reports of a program that a signal ended.
    fn exit_code(&self) -> u8 {
        const SIGINT: i32 = 2;
        let signal = self.0.load(Ordering::Acquire);
        128 + u8::try_from(if signal == 0 { SIGINT } else { signal }).unwrap_or(0)
    }

    /// Names the command to go on with where the error is that the study was stopped.
    pub fn explain(&self, error: Error, resume: impl FnOnce() -> String) -> anyhow::Error {
        match error {
            Error::Stopped { run, step } => {
                let text =
                    format!("stopped in run {run} after step {step}; nothing is lost. To go on:\n  {}", resume());
                Interrupted { code: self.exit_code(), text }.into()
            }
            error => error.into(),
        }
    }
}

/// Turns signals into a request to stop, from now until the program ends.
pub fn watch(cancel: CancelToken) -> Result<Watch> {
    let first = Arc::new(AtomicI32::new(0));
    #[cfg(unix)]
    unix::watch(cancel, Arc::clone(&first))?;
    #[cfg(not(unix))]
    drop(cancel);
    Ok(Watch(first))
}

#[cfg(unix)]
mod unix {
    use std::time::{Duration, Instant};

    use anyhow::Context;
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::exit;

    use super::*;

    /// Signals that come this soon after the first are the same request: `timeout` and `cargo xtask` send one to the program and to
    /// its process group.
    const SAME: Duration = Duration::from_millis(300);

    pub fn watch(cancel: CancelToken, first: Arc<AtomicI32>) -> Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen to signals")?;
        let listen = move || {
            let mut since: Option<Instant> = None;
            for signal in signals.forever() {
                match since {
                    None => {
                        since = Some(Instant::now());
                        first.store(signal, Ordering::Release);
                        cancel.request();
                        tell!("docent: stopping after this step; a second signal stops at once");
                    }
                    Some(since) if since.elapsed() < SAME => {}
                    // What a checkpoint holds is whole at any moment, so nothing needs to be put in order.
                    Some(_) => exit(128 + signal),
                }
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(listen).context("cannot listen to signals")?;
        Ok(())
    }
}
