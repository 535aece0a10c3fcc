//! Events as a person wants them: a live view on a terminal, plain lines elsewhere.

mod recent;
mod view;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use docent_study::summary::percent;
use docent_train::Result;
use docent_train::events::{Event, EventSink, StepRecord};

use crate::output::say;
pub use recent::clock;
use recent::{Recent, detection, distillation};
use view::View;

/// Seconds between two plain lines of a run.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Writes events to the terminal or, where there is none, as lines.
pub struct Console {
    terminal: bool,
    view: Option<View>,
    run: String,
    last_line: Option<Instant>,
    recent: Recent,
}

impl Console {
    /// Looks whether standard error is a terminal.
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), ..Self::plain() }
    }

    /// Lines, on a terminal too: for one of several that speak at a time.
    pub fn plain() -> Self {
        Self { terminal: false, view: None, run: String::new(), last_line: None, recent: Recent::default() }
    }

    fn say(&self, text: &str) {
        match &self.view {
            Some(view) => view.println(text),
            None => say!("{text}"),
        }
    }

    fn step(&mut self, record: &StepRecord) {
        self.recent.step(record);
        if let Some(view) = &self.view {
            view.step(record, &self.recent);
            return;
        }
        let due = self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY);
        if due || record.step == record.steps {
            self.last_line = Some(Instant::now());
            say!("{}", self.line(record));
        }
    }

    /// A step as one line.
    fn line(&self, record: &StepRecord) -> String {
        let distill = record.distill.as_ref().map_or(String::new(), |_| format!(" | {}", distillation(record)));
        let ap = self.recent.last.as_ref().map_or(String::new(), |e| format!("AP {} ", percent(e.ap)));
        format!(
            "{} step {}/{} epoch {} | {}{distill} | {ap}lr {:.4} grad {:.2} data {:.0}% left {}",
            self.run,
            record.step,
            record.steps,
            record.epoch,
            detection(record),
            record.lr,
            record.grad_norm,
            100.0 * self.recent.data_share(),
            clock(self.recent.seconds_left(record))
        )
    }
}

impl EventSink for Console {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::RunStarted { run, steps, done } => {
                self.run.clone_from(run);
                self.recent = Recent::default();
                self.last_line = None;
                if self.terminal {
                    self.view = Some(View::new(run, *steps, *done));
                } else {
                    say!(
                        "{run}: {steps} steps{}",
                        if *done > 0 { format!(", {done} of them done") } else { String::new() }
                    );
                }
            }
            Event::RunSkipped { run } => self.say(&format!("{run}: finished before, kept")),
            Event::Step(record) => self.step(record),
            Event::Evaluating { done, total } => {
                if let Some(view) = &self.view {
                    view.evaluating(*done, *total);
                }
            }
            Event::Evaluated(e) => {
                self.say(&format!(
                    "{}: epoch {} AP {} AP50 {} AP75 {}",
                    self.run,
                    e.epoch,
                    percent(e.ap),
                    percent(e.ap50),
                    percent(e.ap75)
                ));
                self.recent.evaluated(e);
                if let Some(view) = &self.view {
                    view.evaluated(&self.recent);
                }
            }
            Event::Checkpoint { .. } => {}
            Event::RunFinished { run, seconds } => {
                if let Some(view) = self.view.take() {
                    view.clear();
                }
                say!("{run}: done in {}", clock(*seconds));
            }
            Event::Warning { text } => self.say(&format!("warning: {text}")),
            Event::Note { text } => self.say(text),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use docent_train::events::{DistillRecord, EvalRecord, TermRecord};

    use super::recent::WINDOW;
    use super::*;

    fn step(step: usize, total: f64) -> StepRecord {
        StepRecord {
            step,
            steps: 100,
            epoch: 2,
            lr: 0.02,
            losses: vec![("rpn_objectness".into(), total), ("head_box".into(), 0.125)],
            total,
            grad_norm: 3.0,
            adapter_grad_norm: None,
            positives: 11,
            data_seconds: 0.05,
            step_seconds: 0.5,
            memory_mib: 100.0,
            distill: None,
            diagnosis: None,
        }
    }

    fn scored(epoch: usize, ap: f64) -> EvalRecord {
        EvalRecord { step: 50 * epoch, epoch, ap, ap50: 0.7, ap75: 0.4, seconds: 1.0 }
    }

    #[test]
    fn times_read_like_a_clock() {
        assert_eq!(clock(59.6), "1:00");
        assert_eq!(clock(3_725.0), "1:02:05");
        assert_eq!(clock(-1.0), "0:00");
    }

    #[test]
    fn recent_figures_are_means_and_what_is_left_follows_the_pace() {
        let mut recent = Recent::default();
        for i in 1..=40 {
            recent.step(&step(i, i as f64));
        }
        assert_eq!(recent.steps.len(), WINDOW);
        let mean = recent.smoothed(&step(40, 40.0));
        assert_eq!((mean.total, mean.loss("rpn_objectness"), mean.loss("head_box")), (30.5, Some(30.5), Some(0.125)));
        assert!((recent.seconds_left(&step(40, 40.0)) - 30.0).abs() < 1e-9);
        assert!((recent.data_share() - 0.1).abs() < 1e-9);
        assert_eq!(recent.ap(), "AP not measured yet");
        recent.evaluated(&scored(1, 0.3));
        assert_eq!(recent.ap(), "AP 30.0 after epoch 1");
        recent.evaluated(&scored(2, 0.25));
        assert_eq!(recent.ap(), "AP 25.0 after epoch 2 (best 30.0 after epoch 1)");
    }

    #[test]
    fn a_plain_line_has_losses_ap_data_time_and_time_left() {
        let mut console = Console { run: "distilled".into(), ..Console::plain() };
        let mut record = step(10, 0.5);
        record.distill = Some(DistillRecord {
            terms: vec![TermRecord { name: "feat".into(), raw: 1.5, weighted: 0.36 }],
            decay: 0.75,
            ratio: 0.3,
            stats: Vec::new(),
        });
        console.recent.step(&record);
        console.recent.evaluated(&scored(1, 0.312));
        assert_eq!(
            console.line(&record),
            "distilled step 10/100 epoch 2 | rpn_objectness 0.500 head_box 0.125 | feat 1.500>0.360 r 0.750 ratio 0.30 | \
             AP 31.2 lr 0.0200 grad 3.00 data 10% left 0:45"
        );
    }
}
