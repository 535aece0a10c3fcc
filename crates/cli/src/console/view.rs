//! The live view of a run: a bar, and below it losses, distillation, AP and where the time goes.

use docent_train::events::StepRecord;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::recent::{Recent, clock, detection, distillation};

/// Lines on a terminal that are written over; what is printed stands above them.
pub struct View {
    lines: MultiProgress,
    bar: ProgressBar,
    losses: ProgressBar,
    distill: ProgressBar,
    figures: ProgressBar,
}

/// A style, or indicatif's own where the template is wrong.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

impl View {
    pub fn new(run: &str, steps: usize, done: usize) -> Self {
        let lines = MultiProgress::new();
        let bar = lines.add(ProgressBar::new(steps as u64).with_position(done as u64));
        bar.set_style(style("{prefix:>10.bold} [{bar:30.cyan}] {pos}/{len} {wide_msg}"));
        bar.set_prefix(run.to_owned());
        let line = |name: &str| {
            let line = lines.add(ProgressBar::new(0));
            line.set_style(style("{prefix:>10.dim} {wide_msg}"));
            line.set_prefix(name.to_owned());
            line
        };
        let [losses, distill, figures] = ["losses", "distill", ""].map(line);
        Self { lines, bar, losses, distill, figures }
    }

    /// Prints a line above the view.
    pub fn println(&self, text: &str) {
        // A terminal that is gone is no reason to end a training.
        let _ = self.lines.println(text);
    }

    pub fn step(&self, record: &StepRecord, recent: &Recent) {
        let mean = recent.smoothed(record);
        self.bar.set_position(record.step as u64);
        let pace = recent.mean(|s| s.step_seconds);
        let left = clock(recent.seconds_left(record));
        self.bar.set_message(format!("epoch {}  left {left}  {pace:.2} s/step", record.epoch));
        self.losses.set_message(format!("{}  total {:.3}", detection(&mean), mean.total));
        let terms = if mean.distill.is_some() { distillation(&mean) } else { "no teacher".to_owned() };
        self.distill.set_message(terms);
        self.figures.set_message(format!(
            "{}  lr {:.4}  grad {:.2}  waits for data {:.0}%  {:.0} MiB",
            recent.ap(),
            record.lr,
            mean.grad_norm,
            100.0 * recent.data_share(),
            record.memory_mib
        ));
    }

    pub fn evaluating(&self, done: usize, total: usize) {
        self.figures.set_message(format!("evaluating {done}/{total}"));
    }

    pub fn evaluated(&self, recent: &Recent) {
        self.figures.set_message(recent.ap());
    }

    /// Takes the lines away.
    pub fn clear(self) {
        // As above.
        let _ = self.lines.clear();
    }
}
