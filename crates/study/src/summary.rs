//! `summary.json` and the comparison that a person reads.

use std::fmt::Write as _;
use std::path::PathBuf;

use docent_coco::Metrics;
use docent_train::evaluate::Cost;
use serde::{Deserialize, Serialize};

use crate::data::DataSummary;

/// AP of one category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassSummary {
    /// The category's name.
    pub name: String,
    /// AP at IoU 0.50:0.95; -1 where the split holds no such object.
    pub ap: f64,
}

/// What one run came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// AP at IoU 0.50:0.95, all sizes, at most 100 detections an image. -1, here as below, means that there was no truth.
    pub ap: f64,
    /// AP at IoU 0.50.
    pub ap50: f64,
    /// AP at IoU 0.75.
    pub ap75: f64,
    /// AP of objects below 32² pixels.
    pub ap_small: f64,
    /// AP of objects of 32² to 96² pixels.
    pub ap_medium: f64,
    /// AP of objects above 96² pixels.
    pub ap_large: f64,
    /// AP of each category.
    pub per_class: Vec<ClassSummary>,
    /// Parameters, frozen ones included, buffers not.
    pub params: usize,
    /// 1e9 floating-point operations of one image's inference (a multiply-add is two).
    pub gflops: f64,
    /// Median milliseconds of one image's inference at batch 1, decoding not counted.
    pub ms_per_image: f64,
    /// Seconds of training, evaluation not counted, summed over resumes; 0 for a teacher that was given.
    pub seconds: f64,
    /// Training steps; 0 for a teacher that was given.
    pub steps: usize,
    /// The reported weights: relative to the study's folder, or absolute for a teacher that was given.
    pub checkpoint: PathBuf,
}

impl RunSummary {
    /// Puts together what was measured in different places.
    pub fn new(metrics: &Metrics, cost: &Cost, seconds: f64, steps: usize, checkpoint: PathBuf) -> Self {
        let per_class = metrics.per_class.iter().map(|c| ClassSummary { name: c.name.clone(), ap: c.ap }).collect();
        Self {
            ap: metrics.ap(),
            ap50: metrics.ap50(),
            ap75: metrics.ap75(),
            ap_small: metrics.ap_small(),
            ap_medium: metrics.ap_medium(),
            ap_large: metrics.ap_large(),
            per_class,
            params: cost.params,
            gflops: cost.gflops,
            ms_per_image: cost.ms_per_image,
            seconds,
            steps,
            checkpoint,
        }
    }
}

/// What a study came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudySummary {
    /// The recipe's name.
    pub recipe: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Data set, digest, sizes.
    pub dataset: DataSummary,
    /// The teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<RunSummary>,
    /// The student alone.
    pub alone: RunSummary,
    /// The student with its teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distilled: Option<RunSummary>,
    /// AP of the distilled student minus AP of the student alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
}

impl StudySummary {
    /// The comparison as a plain-text table, and the gain in a sentence.
    pub fn table(&self) -> String {
        let rows: Vec<(&str, &RunSummary)> = [
            ("teacher", self.teacher.as_ref()),
            ("student alone", Some(&self.alone)),
            ("distilled", self.distilled.as_ref()),
        ]
        .into_iter()
        .filter_map(|(name, run)| Some((name, run?)))
        .collect();
        let mut text = format!(
            "{:<14}{:>7}{:>7}{:>7}{:>7}{:>7}{:>7}{:>10}{:>8}{:>10}{:>8}{:>9}\n",
            "", "AP", "AP50", "AP75", "APs", "APm", "APl", "params M", "GFLOPs", "ms/image", "steps", "minutes"
        );
        for (name, run) in rows {
            // Writing to a String cannot fail.
            let _ = write!(text, "{name:<14}");
            for figure in [run.ap, run.ap50, run.ap75, run.ap_small, run.ap_medium, run.ap_large] {
                let _ = write!(text, "{:>7}", percent(figure));
            }
            let _ = writeln!(
                text,
                "{:>10.2}{:>8.2}{:>10.1}{:>8}{:>9.1}",
                run.params as f64 / 1e6,
                run.gflops,
                run.ms_per_image,
                run.steps,
                run.seconds / 60.0
            );
        }
        if let (Some(gain), Some(distilled)) = (self.gain, &self.distilled) {
            let _ = write!(text, "gain {:+.1} AP: the distilled student against the same student alone", gain * 100.0);
            if let Some(teacher) = &self.teacher {
                let _ = write!(text, "; {:+.1} AP against its teacher", (distilled.ap - teacher.ap) * 100.0);
            }
            text.push('\n');
        }
        text
    }
}

/// A COCO figure for people: in points, and a dash where there was no truth (-1).
pub fn percent(figure: f64) -> String {
    if figure < 0.0 { "-".to_owned() } else { format!("{:.1}", figure * 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ap: f64) -> RunSummary {
        RunSummary {
            ap,
            ap50: 0.9,
            ap75: 0.5,
            ap_small: -1.0,
            ap_medium: 0.1,
            ap_large: 0.2,
            per_class: vec![ClassSummary { name: "disc".into(), ap }],
            params: 1_500_000,
            gflops: 1.25,
            ms_per_image: 3.0,
            seconds: 90.0,
            steps: 10,
            checkpoint: "alone/checkpoints/last.safetensors".into(),
        }
    }

    #[test]
    fn the_table_shows_losses_as_well_as_gains() {
        let mut summary = StudySummary {
            recipe: "r".into(),
            seed: 0,
            dataset: DataSummary { name: "d".into(), digest: String::new(), images: [2, 1] },
            teacher: Some(run(0.6)),
            alone: run(0.5),
            distilled: Some(run(0.45)),
            gain: Some(-0.05),
        };
        let table = summary.table();
        assert!(table.contains("gain -5.0 AP") && table.contains("-15.0 AP against its teacher"), "{table}");
        assert_eq!(table.lines().count(), 5);
        summary.teacher = None;
        summary.distilled = None;
        summary.gain = None;
        let table = summary.table();
        assert_eq!(table.lines().count(), 2);
        assert!(!table.contains("gain"));
        // No truth of a size is a dash, not a zero.
        assert!(table.lines().nth(1).is_some_and(|l| l.split_whitespace().any(|w| w == "-")), "{table}");
        let json = serde_json::to_string(&summary).unwrap();
        assert_eq!(serde_json::from_str::<StudySummary>(&json).unwrap(), summary);
    }
}
