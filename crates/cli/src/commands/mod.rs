//! One file a command.

pub mod ablate;
pub mod dataset;
pub mod eval;
pub mod init;
pub mod predict;
pub mod recipe;
pub mod report;
pub mod serve;
pub mod train;
pub mod weights;

/// A length of time, for clap: more than none.
pub fn time(text: &str) -> Result<std::time::Duration, &'static str> {
    let time = humantime::parse_duration(text).ok().filter(|time| !time.is_zero());
    time.ok_or("give a length of time such as 90s, 30m or 1h 30m")
}
