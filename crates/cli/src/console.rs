//! Events as a person wants them: progress bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use docent_train::Result;
use docent_train::events::{Event, EventSink, StepRecord};
use docent_train::summary::percent;
use indicatif::{ProgressBar, ProgressStyle};

/// Seconds between two plain lines of a run.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Writes events to the terminal or, where there is none, as lines.
pub struct Console {
    bar: Option<ProgressBar>,
    terminal: bool,
    run: String,
    last_line: Option<Instant>,
    /// When and at which step this start of the run began, for the time left.
    started: (Instant, usize),
}

impl Console {
    /// Looks whether standard error is a terminal.
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { bar: None, terminal, run: String::new(), last_line: None, started: (Instant::now(), 0) }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => println!("{text}"),
        }
    }

    fn step(&mut self, record: &StepRecord) {
        let losses = format!(
            "rpn {:.3}+{:.3} head {:.3}+{:.3}{}",
            record.rpn_objectness,
            record.rpn_box,
            record.head_class,
            record.head_box,
            record.distill.as_ref().map_or(String::new(), |d| {
                let terms: Vec<String> =
                    d.terms.iter().map(|t| format!("{} {:.3}>{:.3}", t.name, t.raw, t.weighted)).collect();
                format!(" | {} r {:.3} ratio {:.2}", terms.join(" "), d.decay, d.ratio)
            })
        );
        if let Some(bar) = &self.bar {
            bar.set_position(record.step as u64);
            bar.set_message(format!("epoch {} {losses}", record.epoch));
            return;
        }
        let due = self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY);
        if due || record.step == record.steps {
            self.last_line = Some(Instant::now());
            let (start, from) = self.started;
            let each = start.elapsed().as_secs_f64() / (record.step - from).max(1) as f64;
            println!(
                "{} step {}/{} epoch {} | {losses} | lr {:.4} grad {:.2} data {:.0}% left {}",
                self.run,
                record.step,
                record.steps,
                record.epoch,
                record.lr,
                record.grad_norm,
                100.0 * record.data_seconds / record.step_seconds.max(1e-9),
                clock(each * (record.steps - record.step) as f64)
            );
        }
    }
}

impl EventSink for Console {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::RunStarted { run, steps, done } => {
                self.run.clone_from(run);
                self.started = (Instant::now(), *done);
                self.last_line = None;
                if self.terminal {
                    let bar = ProgressBar::new(*steps as u64).with_position(*done as u64);
                    if let Ok(style) =
                        ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len} left {eta} {wide_msg}")
                    {
                        bar.set_style(style);
                    }
                    bar.set_prefix(run.clone());
                    self.bar = Some(bar);
                } else {
                    println!(
                        "{run}: {steps} steps{}",
                        if *done > 0 { format!(", {done} of them done") } else { String::new() }
                    );
                }
            }
            Event::RunSkipped { run } => self.say(&format!("{run}: finished before, kept")),
            Event::Step(record) => self.step(record),
            Event::Evaluating { done, total } => {
                if let Some(bar) = &self.bar {
                    bar.set_message(format!("evaluating {done}/{total}"));
                }
            }
            Event::Evaluated(e) => self.say(&format!(
                "{}: epoch {} AP {} AP50 {} AP75 {}",
                self.run,
                e.epoch,
                percent(e.ap),
                percent(e.ap50),
                percent(e.ap75)
            )),
            Event::Checkpoint { .. } => {}
            Event::RunFinished { run, seconds } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                println!("{run}: done in {}", clock(*seconds));
            }
            Event::Warning { text } => self.say(&format!("warning: {text}")),
            Event::Note { text } => self.say(text),
        }
        Ok(())
    }
}

/// Seconds as h:mm:ss or m:ss.
pub fn clock(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    if s >= 3600 {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    } else {
        format!("{}:{:02}", s / 60, s % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::clock;

    #[test]
    fn times_read_like_a_clock() {
        assert_eq!(clock(59.6), "1:00");
        assert_eq!(clock(3_725.0), "1:02:05");
        assert_eq!(clock(-1.0), "0:00");
    }
}
