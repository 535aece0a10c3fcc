//! TensorBoard's event files, as one more writer of events.
//!
//! A run's numbers stand in `metrics.jsonl`; this is the same in the form that `tensorboard --logdir` reads. One file a run, which a
//! resumed run cuts back to its checkpoint and goes on with.

mod record;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use docent_model::files;
use docent_train::events::{EvalRecord, Event, EventSink, StepRecord};
use docent_train::{Error, Result};

use record::{Record, Summary, VERSION, Value, frame, records};

/// The file in the folder; TensorBoard looks for `tfevents` in a name.
pub const FILE_NAME: &str = "events.out.tfevents.docent";

/// An evaluation's tag by which a resumed run knows whether its state has seen it.
const EPOCH_TAG: &str = "eval/epoch";

/// Writes steps and evaluations as scalars, and the recipe as text.
///
/// | tags | what |
/// |---|---|
/// | `loss/..` | `total`, and each detection loss under the detector's name of it |
/// | `distill_raw/..`, `distill_weighted/..` | each term before weight and decay, and as it reaches the total |
/// | `distill/..` | `decay` (r(t)), `ratio`, and the method's own figures (gated share, mask sum, ...) |
/// | `diagnose/..` | `cosine`, `norm_ratio`, in the steps that look |
/// | `optimizer/..` | `lr`, `grad_norm`, `adapter_grad_norm` |
/// | `loop/..` | `epoch`, `positives`, `data_seconds`, `step_seconds`, `memory_mib` |
/// | `eval/..` | `AP`, `AP50`, `AP75`, `epoch`, `seconds` |
pub struct TensorBoardWriter {
    path: PathBuf,
    file: File,
}

impl TensorBoardWriter {
    /// Opens the event file in `folder`, cutting from an earlier start what came after a state of `steps` steps and `epochs` epochs
    /// with their evaluations. `recipe` is the text that a new file begins with.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn resume(folder: &Path, steps: usize, epochs: usize, recipe: &str) -> Result<Self> {
        files::create_dir(folder)?;
        let path = folder.join(FILE_NAME);
        let io = |e| Error::io(&path, e);
        let kept = if steps > 0 && path.exists() { kept(&std::fs::read(&path).map_err(io)?, steps, epochs) } else { 0 };
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io)?;
        file.set_len(kept as u64).map_err(io)?;
        let mut writer = Self { path, file };
        if kept == 0 {
            writer.write(Record { file_version: Some(VERSION.to_owned()), ..Record::default() })?;
            let text = Value::text("recipe/text_summary", format!("```toml\n{recipe}```\n"));
            writer.write(Record { summary: Some(Summary { value: vec![text] }), ..Record::default() })?;
        }
        Ok(writer)
    }

    fn write(&mut self, record: Record) -> Result<()> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let record = Record { wall_time: since.map_or(0.0, |d| d.as_secs_f64()), ..record };
        // One write a frame: a reader never sees half of one while the run lives.
        self.file.write_all(&frame(&record)).map_err(|e| Error::io(&self.path, e))
    }

    fn scalars(&mut self, step: usize, value: Vec<Value>) -> Result<()> {
        self.write(Record { step: step as i64, summary: Some(Summary { value }), ..Record::default() })
    }
}

impl EventSink for TensorBoardWriter {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Step(record) => self.scalars(record.step, of_step(record)),
            Event::Evaluated(record) => self.scalars(record.step, of_evaluation(record)),
            _ => Ok(()),
        }
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(&self.path, e))
    }
}

/// How many bytes of a file belong to a state of `steps` steps and `epochs` epochs.
fn kept(file: &[u8], steps: usize, epochs: usize) -> usize {
    let epoch = |record: &Record| {
        let values = record.summary.iter().flat_map(|s| &s.value);
        values.filter(|v| v.tag == EPOCH_TAG).find_map(|v| v.simple_value).unwrap_or(0.0)
    };
    let of_state = |record: &Record| record.step <= steps as i64 && f64::from(epoch(record)) <= epochs as f64;
    records(file).take_while(|(record, _)| of_state(record)).last().map_or(0, |(_, end)| end)
}

fn of_step(r: &StepRecord) -> Vec<Value> {
    let mut values: Vec<Value> = [
        ("loss/total", r.total),
        ("optimizer/lr", r.lr),
        ("optimizer/grad_norm", r.grad_norm),
        ("loop/epoch", r.epoch as f64),
        ("loop/positives", r.positives as f64),
        ("loop/data_seconds", r.data_seconds),
        ("loop/step_seconds", r.step_seconds),
        ("loop/memory_mib", r.memory_mib),
    ]
    .map(|(tag, value)| Value::scalar(tag, value))
    .into();
    values.extend(r.losses.iter().map(|(name, loss)| Value::scalar(format!("loss/{name}"), *loss)));
    values.extend(r.adapter_grad_norm.map(|norm| Value::scalar("optimizer/adapter_grad_norm", norm)));
    if let Some(d) = &r.distill {
        for term in &d.terms {
            values.push(Value::scalar(format!("distill_raw/{}", term.name), term.raw));
            values.push(Value::scalar(format!("distill_weighted/{}", term.name), term.weighted));
        }
        values.push(Value::scalar("distill/decay", d.decay));
        values.push(Value::scalar("distill/ratio", d.ratio));
        values.extend(d.stats.iter().map(|(name, value)| Value::scalar(format!("distill/{name}"), *value)));
    }
    if let Some(d) = &r.diagnosis {
        values.push(Value::scalar("diagnose/cosine", d.cosine));
        values.push(Value::scalar("diagnose/norm_ratio", d.norm_ratio));
    }
    values
}

fn of_evaluation(r: &EvalRecord) -> Vec<Value> {
    [
        ("eval/AP", r.ap),
        ("eval/AP50", r.ap50),
        ("eval/AP75", r.ap75),
        (EPOCH_TAG, r.epoch as f64),
        ("eval/seconds", r.seconds),
    ]
    .map(|(tag, value)| Value::scalar(tag, value))
    .into()
}

#[cfg(test)]
mod tests;
