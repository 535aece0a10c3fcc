//! The log of a run: one line of JSON an event, `metrics.jsonl`.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use docent_model::files;
use docent_train::events::{Event, EventSink};

use crate::error::{Error, Result};

/// Writes steps, evaluations and notes as lines of JSON: `metrics.jsonl`.
pub struct JsonlWriter {
    path: PathBuf,
    file: BufWriter<File>,
    last_step: usize,
}

impl JsonlWriter {
    /// Opens `path`, keeping of an earlier start what came before a state of `steps` steps and `epochs` epochs with their evaluations.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn resume(path: &Path, steps: usize, epochs: usize) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let (mut kept, mut last_step) = (String::new(), 0);
        if steps > 0 {
            for line in files::read_lines(path)?.unwrap_or_default().lines() {
                // A line that a killed process left half-written ends what can be kept.
                let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { break };
                // What followed the state comes again.
                let later = |key: &str, bound: usize| event[key].as_u64().is_some_and(|n| n > bound as u64);
                if later("step", steps) || (event["event"] == "evaluated" && later("epoch", epochs)) {
                    break;
                }
                if event["event"] == "step" {
                    last_step = event["step"].as_u64().map_or(last_step, |step| step as usize);
                }
                kept.push_str(line);
                kept.push('\n');
            }
        }
        files::write_atomic(path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(io)?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), last_step })
    }

    /// The last step that an earlier start has left; 0 where there is none.
    pub fn last_step(&self) -> usize {
        self.last_step
    }
}

impl EventSink for JsonlWriter {
    fn event(&mut self, event: &Event) -> docent_train::Result<()> {
        if matches!(event, Event::Evaluating { .. }) {
            return Ok(());
        }
        let line = serde_json::to_string(event).map_err(|e| docent_train::Error::file(&self.path, e.to_string()))?;
        // One write a line: a reader never sees half a step while the run lives.
        writeln!(self.file, "{line}")
            .and_then(|()| self.file.flush())
            .map_err(|e| docent_train::Error::io(&self.path, e))
    }

    fn sync(&mut self) -> docent_train::Result<()> {
        self.file.get_ref().sync_data().map_err(|e| docent_train::Error::io(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use docent_train::events::EvalRecord;

    use super::*;

    fn scored(step: usize, epoch: usize) -> Event {
        Event::Evaluated(EvalRecord { step, epoch, ap: 0.5, ap50: 0.7, ap75: 0.4, seconds: 1.0 })
    }

    fn checkpoint(step: usize) -> Event {
        Event::Checkpoint { path: "last.state.safetensors".into(), step }
    }

    #[test]
    fn resuming_keeps_what_belongs_to_the_checkpoint_and_drops_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let write = |(steps, epochs): (usize, usize), events: &[Event]| {
            let mut writer = JsonlWriter::resume(&path, steps, epochs).unwrap();
            events.iter().for_each(|e| writer.event(e).unwrap());
        };
        let read = || -> Vec<Event> {
            let text = std::fs::read_to_string(&path).unwrap();
            text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
        };
        // Two epochs of two steps; the state of step 2 was written before the evaluation and after it.
        let whole =
            [checkpoint(1), checkpoint(2), scored(2, 1), checkpoint(2), checkpoint(3), checkpoint(4), scored(4, 2)];
        let progress = Event::Evaluating { done: 1, total: 2 };
        let begin = || write((0, 0), &[&whole[..], std::slice::from_ref(&progress)].concat());
        begin();
        assert_eq!(read(), whole, "progress of an evaluation is not kept");
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"event\":\"evalu");
        std::fs::write(&path, text).unwrap();
        write((4, 2), &[scored(5, 2)]);
        assert_eq!(read(), [&whole[..], &[scored(5, 2)]].concat(), "the torn line is gone");
        for (state, kept) in [((4, 1), 6), ((3, 1), 5), ((2, 1), 4), ((2, 0), 2), ((1, 0), 1), ((0, 0), 0)] {
            begin();
            write(state, &[]);
            assert_eq!(read(), whole[..kept], "{state:?}");
        }
        std::fs::remove_file(&path).unwrap();
        write((2, 1), &[checkpoint(3)]);
        assert_eq!(read(), [checkpoint(3)]);
    }
}
