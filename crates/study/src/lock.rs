//! The lock of a study's folder: two programs must not write into one.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::holder::Holder;

/// Name of the lock file in a study's folder.
pub const LOCK_FILE: &str = "lock";

/// The right to write into a folder, until it is dropped or the process ends, however it ends.
///
/// It is the operating system's lock on a file, so a dead process holds none. The holder's text in the file is for people.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
    left_by: Option<Holder>,
}

impl FolderLock {
    /// Takes the lock of `dir`, which must exist.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process, or another part of this one, holds it; the system's errors.
    pub fn acquire(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK_FILE);
        let io = |e| Error::io(&path, e);
        // Not truncated: the text is the holder's as long as the lock is.
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked { dir: dir.to_owned(), holder: holder(&mut file).map(Box::new) });
            }
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {
                let what =
                    "this file system knows no locks, so nothing would keep a second run out; choose --out elsewhere";
                return Err(Error::file(&path, what));
            }
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        let left_by = holder(&mut file);
        let mine = Holder { pid: std::process::id(), host: host(), started: utc(SystemTime::now()) };
        let text = serde_json::to_string(&mine).map_err(|e| Error::json(&path, e))?;
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{text}")).map_err(io)?;
        Ok(Self { file, left_by })
    }

    /// Who held the lock before and died without letting go of it.
    pub fn left_by(&self) -> Option<&Holder> {
        self.left_by.as_ref()
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // An empty file says that nobody died holding it. The file stays: removing it would race with the next holder.
        let _ = self.file.set_len(0);
    }
}

/// The text in a lock file, where it is one; a holder that has just taken the lock may not have written it yet.
fn holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
    serde_json::from_str(&text).ok()
}

fn host() -> String {
    let file = PathBuf::from("/proc/sys/kernel/hostname");
    let name = std::fs::read_to_string(file).ok().or_else(|| std::env::var("HOSTNAME").ok());
    name.map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).unwrap_or_else(|| "an unnamed machine".to_owned())
}

/// `2026-01-31 23:59:59 UTC`. Years, months and days from a count of days as in H. Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`, for days after 1970.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(at(1_709_251_199), "2024-02-29 23:59:59 UTC");
        assert_eq!(at(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }

    #[test]
    fn one_holds_it_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let first = FolderLock::acquire(dir.path()).unwrap();
        assert_eq!(first.left_by(), None);
        let refused = FolderLock::acquire(dir.path()).unwrap_err();
        let Error::Locked { holder: Some(holder), .. } = &refused else { panic!("{refused}") };
        assert_eq!(holder.pid, std::process::id());
        let message = refused.to_string();
        assert!(message.contains(&format!("process {}", holder.pid)) && message.contains("--out"), "{message}");
        assert!(message.contains(&holder.host) && message.contains("UTC"), "{message}");
        drop(first);
        assert_eq!(FolderLock::acquire(dir.path()).unwrap().left_by(), None, "it was let go of");
    }

    #[test]
    fn what_a_dead_process_left_is_taken_over_and_nonsense_is_no_holder() {
        let dir = tempfile::tempdir().unwrap();
        let dead = Holder { pid: 1, host: "there".into(), started: "then".into() };
        std::fs::write(dir.path().join(LOCK_FILE), serde_json::to_string(&dead).unwrap()).unwrap();
        assert_eq!(FolderLock::acquire(dir.path()).unwrap().left_by(), Some(&dead));
        std::fs::write(dir.path().join(LOCK_FILE), [0xff, 0x00]).unwrap();
        assert_eq!(FolderLock::acquire(dir.path()).unwrap().left_by(), None);
        assert!(FolderLock::acquire(&dir.path().join("absent")).unwrap_err().to_string().contains("absent"));
    }
}
