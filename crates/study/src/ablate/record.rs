//! The records of an ablation: one line of JSON for every finished run, appended at once.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use docent_model::files;
use serde::{Deserialize, Serialize};

use crate::ablate::grid::Tier;
use crate::data::DataSummary;
use crate::error::{Error, Result};
use crate::manifest::{FileHash, Provenance};
use crate::summary::RunSummary;

/// One line of `NAME.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// A teacher was measured.
    Teacher(TeacherRecord),
    /// A cell's run has finished.
    Cell(Record),
    /// A cell's run has left the numbers. It would again, so it is not repeated unless somebody asks for its cell by name.
    Diverged(DivergedRecord),
}

/// A measured teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TeacherRecord {
    /// Its name in the grid.
    pub name: String,
    /// Its checkpoint; the hash identifies it.
    pub file: FileHash,
    /// Data that it was measured on.
    pub data: DataSummary,
    /// Its detections on the held-out split: relative to the ablation's folder.
    pub detections: FileHash,
    /// The program.
    pub provenance: Provenance,
    /// Its figures.
    pub summary: RunSummary,
}

/// A finished run of a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The cell.
    pub cell: String,
    /// Its tier at that time.
    pub tier: Tier,
    /// Seed of everything random but the teacher.
    pub seed: u64,
    /// The cell's overrides over the base recipe, and those of the command line.
    pub set: Vec<String>,
    /// [`crate::ablate::Grid::settings`].
    pub settings: String,
    /// SHA-256 of the teacher's checkpoint, where there is a teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// Data set, digest, sizes.
    pub data: DataSummary,
    /// Detections on the held-out split, image by image, for the bootstrap: relative to the ablation's folder.
    pub detections: FileHash,
    /// The program, its revision and its command line.
    pub provenance: Provenance,
    /// The run's figures, of its last weights.
    pub summary: RunSummary,
}

/// A run that came to a loss, a gradient or a weight that is no number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DivergedRecord {
    /// The cell.
    pub cell: String,
    /// Seed of everything random but the teacher.
    pub seed: u64,
    /// [`crate::ablate::Grid::settings`]: with others it need not diverge.
    pub settings: String,
    /// The error: step, images, which number.
    pub what: String,
    /// The program, its revision and its command line.
    pub provenance: Provenance,
}

/// The file, made if it is not there, and not emptied.
fn writable(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        files::create_dir(folder)?;
    }
    let new = !files::exists(path)?;
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(|e| Error::io(path, e))?;
    if new {
        files::sync_folder(path)?;
    }
    Ok(file)
}

/// The file of records.
#[derive(Debug, Clone)]
pub struct Records {
    path: PathBuf,
    lines: Vec<Line>,
    /// Bytes up to a line that was left half-written.
    torn: Option<u64>,
    /// The file, where this program alone may write it.
    file: Option<Arc<File>>,
}

impl Records {
    /// Reads `path`; a file that is not there yet holds no record.
    ///
    /// # Errors
    /// A line that is no record (its number is named), or a file that cannot be read. A last line without its end, which a
    /// killed program left, is dropped when the next record is written.
    pub fn open(path: &Path) -> Result<Self> {
        let (mut lines, mut torn) = (Vec::new(), None);
        if let Some(text) = files::read_lines(path)? {
            let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
            for (number, line) in whole.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let line = serde_json::from_str(line)
                    .map_err(|e| Error::file(path, format!("line {} is no record: {e}", number + 1)))?;
                lines.push(line);
            }
            torn = (whole.len() < text.len()).then_some(whole.len() as u64);
        }
        Ok(Self { path: path.to_owned(), lines, torn, file: None })
    }

    /// [`Self::open`], and keeps every other program that asks likewise from writing the file until this is dropped.
    ///
    /// # Errors
    /// Another program that does so, and those of [`Self::open`].
    pub fn open_alone(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let file = writable(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = "another ablation adds records to this file: wait for it, or choose another --results";
                return Err(Error::file(path, what));
            }
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        Ok(Self { file: Some(Arc::new(file)), ..Self::open(path)? })
    }

    /// Lets other programs write the file again.
    pub fn release(&mut self) {
        self.file = None;
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run of a cell under a seed. Of several, the last.
    pub fn cell(&self, cell: &str, seed: u64) -> Option<&Record> {
        self.cells().rfind(|r| r.cell == cell && r.seed == seed)
    }

    /// Every finished run.
    pub fn cells(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.lines.iter().filter_map(|line| if let Line::Cell(record) = line { Some(record) } else { None })
    }

    /// What is recorded of a run that diverged, if that is the last word on it.
    pub fn diverged(&self, cell: &str, seed: u64) -> Option<&DivergedRecord> {
        let of_it = self.lines.iter().rfind(|line| match line {
            Line::Cell(r) => r.cell == cell && r.seed == seed,
            Line::Diverged(r) => r.cell == cell && r.seed == seed,
            Line::Teacher(_) => false,
        });
        if let Some(Line::Diverged(record)) = of_it { Some(record) } else { None }
    }

    /// The teacher of that name. Of several, the last.
    pub fn teacher(&self, name: &str) -> Option<&TeacherRecord> {
        self.teachers().rfind(|t| t.name == name)
    }

    /// Every teacher that was measured.
    pub fn teachers(&self) -> impl DoubleEndedIterator<Item = &TeacherRecord> {
        self.lines.iter().filter_map(|line| if let Line::Teacher(record) = line { Some(record) } else { None })
    }

    /// Appends one line, on the disk before this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, line: Line) -> Result<()> {
        let io = |e| Error::io(&self.path, e);
        let mut text = serde_json::to_string(&line).map_err(|e| Error::json(&self.path, e))?;
        text.push('\n');
        let file = self.file.clone().map_or_else(|| writable(&self.path).map(Arc::new), Ok)?;
        if let Some(len) = self.torn {
            file.set_len(len).map_err(io)?;
        }
        let before = (&*file).seek(SeekFrom::End(0)).map_err(io)?;
        self.torn = None;
        (&*file).write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| {
            // Half a line would be in the way of the next one. Where even this fails, the next write tries it again.
            self.torn = file.set_len(before).is_err().then_some(before);
            io(e)
        })?;
        self.lines.push(line);
        Ok(())
    }
}
