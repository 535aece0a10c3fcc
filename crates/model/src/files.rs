//! Files that are replaced whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Makes a folder and those above it, durably.
///
/// # Errors
/// The system's, with the path.
pub fn create_dir(path: &Path) -> Result<()> {
    let new: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(path).map_err(|e| Error::io(path, e))?;
    new.into_iter().filter(|folder| !folder.as_os_str().is_empty()).try_for_each(sync_folder)
}

/// Is there something at `path`? A disk that does not answer, or a folder that may not be entered, is an error and no "no".
///
/// # Errors
/// The system's, with the path.
pub fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|e| Error::io(path, e))
}

/// Reads a file of lines, if it is there. A line that a killed program left unfinished may end within a character; it ends before it.
///
/// # Errors
/// The system's; a finished line that is no UTF-8 text. Both name the path.
pub fn read_lines(path: &Path) -> Result<Option<String>> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|e| Error::io(path, e))?,
    };
    let text = String::from_utf8(bytes).or_else(|e| {
        let (end, mut bytes) = (e.utf8_error().valid_up_to(), e.into_bytes());
        if bytes[end..].contains(&b'\n') {
            let line = 1 + bytes[..end].iter().filter(|&&b| b == b'\n').count();
            return Err(Error::file(path, format!("line {line} is no UTF-8 text: correct it or take it out")));
        }
        bytes.truncate(end);
        String::from_utf8(bytes).map_err(|e| Error::file(path, e.to_string()))
    });
    text.map(Some)
}

/// Puts what `write` writes in the place of the file at `path`, which the one at `previous` outlives where that is named.
///
/// The bytes go to `<name>.tmp` in the same folder, are synced and renamed over `path`, and the folder is synced: a reader, or
/// whoever comes after a crash, finds the old file or the new one, whatever happens in between.
///
/// # Errors
/// `write`'s own and the system's (full disk, no permission), which name `path`. The old file still stands then, and no temporary
/// one is left.
pub fn replace<T>(
    path: &Path,
    previous: Option<&Path>,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<T>,
) -> Result<T> {
    let io = |e| Error::io(path, e);
    let mut name = path.file_name().ok_or_else(|| Error::file(path, "this is no file name"))?.to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let whole = || -> Result<T> {
        let mut out = BufWriter::with_capacity(1 << 16, File::create(&temporary).map_err(io)?);
        let value = write(&mut out)?;
        let file = out.into_inner().map_err(|e| io(e.into_error()))?;
        file.sync_all().map_err(io)?;
        if let Some(previous) = previous {
            keep(path, previous).map_err(io)?;
        }
        fs::rename(&temporary, path).map_err(io)?;
        Ok(value)
    };
    let value = whole().inspect_err(|_| {
        // The first error is the one to tell; a temporary file that cannot be removed is overwritten by the next write.
        let _ = fs::remove_file(&temporary);
    })?;
    sync_folder(path)?;
    Ok(value)
}

/// Gives the file at `path`, where there is one, a second name in place of what had that name.
fn keep(path: &Path, previous: &Path) -> io::Result<()> {
    if !path.try_exists()? {
        return Ok(());
    }
    match fs::remove_file(previous) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // Where the file system has no links, the file moves; a crash before the new one comes leaves it under that name alone.
    fs::hard_link(path, previous).or_else(|_| fs::rename(path, previous))
}

/// Makes a new name in `path`'s folder durable.
///
/// # Errors
/// The system's, with the folder.
pub fn sync_folder(path: &Path) -> Result<()> {
    // Only Unix opens a folder as a file; elsewhere the rename is durable when the system says so.
    if cfg!(unix) {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::io(folder, e))?;
    }
    Ok(())
}

/// Writes a small file with [`replace`].
///
/// # Errors
/// As [`replace`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, None, |out| out.write_all(bytes).map_err(|e| Error::io(path, e)))
}

/// Writes readable JSON, as [`write_atomic`].
///
/// # Errors
/// A value that has no JSON form; as [`write_atomic`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::json(path, e))?;
    text.push('\n');
    write_atomic(path, text.as_bytes())
}

/// Reads JSON.
///
/// # Errors
/// The system's; text that is no JSON or of another form. Both name the path.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::json(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_within_a_character_ends_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        assert_eq!(read_lines(&path).unwrap(), None);
        fs::write(&path, b"one\nJ\xc3").unwrap();
        assert_eq!(read_lines(&path).unwrap().unwrap(), "one\nJ");
        fs::write(&path, b"one\nJ\xc3\nthree\n").unwrap();
        let message = read_lines(&path).unwrap_err().to_string();
        assert!(message.contains("log.jsonl") && message.contains("line 2"), "{message}");
    }
}
