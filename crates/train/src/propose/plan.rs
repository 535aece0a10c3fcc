//! Which models, and how long they learn.

use std::path::{Path, PathBuf};
use std::time::Duration;

use docent_detect::{BackboneConfig, MobileNetV2Config, NormKind, ResNetConfig};

use crate::dry_run::DryRun;
use crate::import::Content;
use crate::weights::read_weights;
use crate::{Error, Result};

/// With fewer steps a student learns little: a smaller pair is tried first.
pub(super) const FEW_STEPS: usize = 400;
/// More steps of a student than this are not proposed; small data would be learnt by heart.
const MOST_STEPS: usize = 6000;
/// Passes over the data at most.
const MOST_EPOCHS: usize = 60;
/// Steps that are proposed without a measurement.
const USUAL_STEPS: usize = 1000;
/// Share of the time that training gets; the rest is evaluation and files.
const TRAINING_SHARE: f64 = 0.9;
/// SGD's learning rate for each image of a step: 0.02 for four, as in the shipped recipes.
const RATE_PER_IMAGE: f64 = 0.005;
/// Teacher's epochs over the student's, where the teacher starts from random weights.
const TEACHER_LONGER: f64 = 1.6;

/// A detector's size.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Model {
    pub backbone: BackboneConfig,
    pub fpn_channels: usize,
    pub hidden: usize,
}

/// Who teaches whom.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    pub teacher: Model,
    pub student: Model,
    /// The teacher's first weights.
    pub weights: Option<PathBuf>,
}

/// The pairs that are tried, the bigger first.
///
/// With a backbone's weights the teacher is that backbone, its stem and first two stages frozen, over a student that starts from
/// random weights; without, both start from random weights.
pub(super) fn ladder(weights: Option<&Path>) -> Result<[Pair; 2]> {
    let resnet18 = |width: f64| -> BackboneConfig {
        ResNetConfig { depth: 18, width, norm: NormKind::BatchNorm, ..ResNetConfig::default() }.into()
    };
    let of = |backbone, fpn_channels, hidden| Model { backbone, fpn_channels, hidden };
    let (whole, half, quarter) = (of(resnet18(1.0), 64, 256), of(resnet18(0.5), 64, 256), of(resnet18(0.25), 32, 128));
    let Some(path) = weights else {
        let pair = |teacher: &Model, student: &Model| Pair {
            teacher: teacher.clone(),
            student: student.clone(),
            weights: None,
        };
        return Ok([pair(&whole, &half), pair(&half, &quarter)]);
    };
    let backbone = match Content::of(path, &read_weights(path)?)? {
        Content::Backbone { config, .. } => config,
        other => {
            return Err(Error::file(
                path,
                format!(
                    "{}; a proposal starts its teacher from a backbone's ImageNet weights. A trained detector teaches by `docent train \
                     --teacher FILE`",
                    other.describe()
                ),
            ));
        }
    };
    let (backbone, students) = match backbone {
        BackboneConfig::ResNet(c) => {
            let students = if c.depth >= 50 { [whole, half] } else { [half, quarter] };
            let frozen = ResNetConfig { norm: NormKind::FrozenBatchNorm, ..c };
            (BackboneConfig::from(frozen), students)
        }
        BackboneConfig::MobileNetV2(c) => {
            let student = |width: f64, fpn, hidden| {
                let small = MobileNetV2Config { width, norm: NormKind::BatchNorm, ..MobileNetV2Config::default() };
                of(BackboneConfig::from(small), fpn, hidden)
            };
            let students = [student(0.5 * c.width, 64, 256), student(0.25 * c.width, 32, 128)];
            (BackboneConfig::from(MobileNetV2Config { norm: NormKind::FrozenBatchNorm, ..c }), students)
        }
    };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let teacher = of(backbone, 64, 256);
    Ok(students.map(|student| Pair { teacher: teacher.clone(), student, weights: Some(path.clone()) }))
}

impl Pair {
    /// The teacher's epochs for so many of the student.
    pub fn teacher_epochs(&self, epochs: usize) -> usize {
        if self.weights.is_some() { epochs } else { (TEACHER_LONGER * epochs as f64).ceil() as usize }
    }

    /// The pair in words.
    pub fn reason(&self) -> String {
        let (teacher, student) = (&self.teacher.backbone, &self.student.backbone);
        match &self.weights {
            Some(path) => format!(
                "{teacher} teaches {student}. The teacher starts from {}, with its stem, first two stages and norms frozen; the \
                 student starts from random weights.",
                path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
            ),
            None => format!(
                "{teacher} teaches {student}; both start from random weights, so the teacher trains {TEACHER_LONGER} times as long. \
                 With ImageNet weights (`docent init --weights FILE`) the teacher would be better."
            ),
        }
    }
}

/// Images a step: as many as a step of 8 small or 4 bigger images has pixels, and never so many that an epoch is a few steps.
pub(super) fn batch(pixels: f64, images: usize) -> usize {
    let fits = match pixels {
        p if p <= 160.0 * 192.0 => 8,
        p if p <= 400.0 * 533.0 => 4,
        _ => 2,
    };
    fits.min((images / 8).max(1))
}

/// How long the study may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Budget {
    pub seconds: f64,
}

impl Budget {
    pub fn of(time: Duration) -> Self {
        Self { seconds: time.as_secs_f64() }
    }

    fn minutes(&self) -> String {
        minutes(self.seconds)
    }
}

fn minutes(seconds: f64) -> String {
    match (seconds / 60.0).round() {
        m if m <= 1.0 => "1 minute".to_owned(),
        m => format!("{m} minutes"),
    }
}

/// Length and rate.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schedule {
    pub epochs: usize,
    pub batch: usize,
    pub lr: f64,
    pub warmup: usize,
}

/// A schedule that fits the time, and what it comes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fit {
    pub schedule: Schedule,
    /// The student's steps.
    pub steps: usize,
    /// Seconds of the whole study's training.
    seconds: f64,
    /// Whether the least that is proposed takes longer than the time.
    over: bool,
}

impl Schedule {
    /// What is proposed where nothing is measured.
    pub fn usual(images: usize, batch: usize) -> Self {
        let epoch = images.div_ceil(batch);
        Self::of(USUAL_STEPS.div_ceil(epoch).clamp(4, MOST_EPOCHS), batch, epoch)
    }

    fn of(epochs: usize, batch: usize, epoch: usize) -> Self {
        let lr = RATE_PER_IMAGE * batch as f64;
        Self { epochs, batch, lr, warmup: (epochs * epoch / 10).clamp(1, 50) }
    }

    /// The longest schedule of `pair` within the time, at the speed that `dry` measured.
    pub fn within(&self, budget: &Budget, pair: &Pair, dry: &DryRun, images: usize) -> Fit {
        let epoch = images.div_ceil(self.batch);
        let step = |name: &str| dry.runs.iter().find(|run| run.name == name).map_or(0.0, |run| run.step_seconds);
        let seconds = |epochs: usize| {
            let (teacher, student) = (pair.teacher_epochs(epochs) * epoch, epochs * epoch);
            teacher as f64 * step("teacher") + student as f64 * (step("baseline") + step("distilled"))
        };
        let most = MOST_EPOCHS.min(MOST_STEPS.div_ceil(epoch)).max(2);
        let fits = |epochs: &usize| seconds(*epochs) <= TRAINING_SHARE * budget.seconds;
        let epochs = (2..=most).rev().find(fits);
        let (over, epochs) = (epochs.is_none(), epochs.unwrap_or(2));
        Fit { schedule: Self::of(epochs, self.batch, epoch), steps: epochs * epoch, seconds: seconds(epochs), over }
    }

    pub fn reason_unmeasured(&self) -> String {
        format!(
            "{} epochs of batch {}, about {USUAL_STEPS} steps: a usual length. The machine's speed was not measured; `docent train \
             --dry-run` says what it takes. The rate is {RATE_PER_IMAGE} for each image of a step.",
            self.epochs, self.batch
        )
    }
}

impl Fit {
    /// The schedule in words.
    pub fn reason(&self, budget: &Budget, dry: &DryRun, batch: usize) -> String {
        let speeds: Vec<String> = dry
            .runs
            .iter()
            .map(|run| {
                format!("{} {:.2} s", if run.name == "baseline" { "student alone" } else { run.name }, run.step_seconds)
            })
            .collect();
        let mut text = format!(
            "Measured here, a step of {batch} images: {}. {} epochs ({} student steps) of the whole study take about {}. The rate \
             is {RATE_PER_IMAGE} for each image of a step.",
            speeds.join(", "),
            self.schedule.epochs,
            self.steps,
            minutes(self.seconds),
        );
        let usual = || {
            let seconds = self.seconds / self.steps as f64 * USUAL_STEPS as f64 / TRAINING_SHARE;
            format!("{USUAL_STEPS} steps are a usual length: `--for {:.0}m`.", (seconds / 60.0).ceil())
        };
        if self.over {
            text += &format!(" Even so few take longer than the {} asked for. {}", budget.minutes(), usual());
        } else if self.steps < FEW_STEPS {
            text += &format!(" That fills the {} asked for, and is little. {}", budget.minutes(), usual());
        } else {
            text += &format!(" Of the {} asked for, a tenth is left for evaluation.", budget.minutes());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataSummary;
    use crate::dry_run::RunCost;

    fn dry(seconds: [f64; 3]) -> DryRun {
        let run = |(name, step_seconds)| RunCost { name, micro_seconds: vec![], step_seconds, steps: 1, peak_mib: 0.0 };
        let names = ["teacher", "baseline", "distilled"];
        let data = DataSummary { name: "x".into(), digest: String::new(), images: [0, 0] };
        DryRun { data, notes: vec![], runs: names.into_iter().zip(seconds).map(run).collect() }
    }

    fn minutes(n: u64) -> Budget {
        Budget::of(Duration::from_secs(60 * n))
    }

    #[test]
    fn the_schedule_fills_the_time_and_no_more() {
        let pair = ladder(None).unwrap()[0].clone();
        let usual = Schedule::usual(400, 4);
        assert_eq!((usual.epochs, usual.lr, usual.warmup), (10, 0.02, 50));
        // An epoch: 100 steps of 0.1 + 0.1 s, and 160 of the teacher's 0.2 s: 52 s.
        let fit = usual.within(&minutes(30), &pair, &dry([0.2, 0.1, 0.1]), 400);
        assert_eq!((fit.schedule.epochs, fit.steps, fit.over), (31, 3100, false));
        assert!(fit.seconds <= 0.9 * 1800.0 && fit.seconds > 0.85 * 1800.0, "{}", fit.seconds);
        assert_eq!(pair.teacher_epochs(31), 50);
        // Ten times slower: little, and said so.
        let slow = dry([2.0, 1.0, 1.0]);
        let fit = usual.within(&minutes(30), &pair, &slow, 400);
        assert_eq!((fit.schedule.epochs, fit.over), (3, false));
        assert!(fit.reason(&minutes(30), &slow, 4).contains("and is little"));
        let fit = usual.within(&minutes(5), &pair, &slow, 400);
        assert!(fit.over && fit.reason(&minutes(5), &slow, 4).contains("longer than the 5 minutes asked for"));
        // Time without end is not used up.
        assert_eq!(usual.within(&minutes(6000), &pair, &dry([0.2, 0.1, 0.1]), 400).schedule.epochs, 60);
        assert_eq!(usual.within(&minutes(600_000), &pair, &dry([0.2, 0.1, 0.1]), 40_000).steps, 10_000 * 2);
    }

    #[test]
    fn batches_are_small_where_images_are_big_or_few() {
        assert_eq!((batch(128.0 * 160.0, 800), batch(240.0 * 320.0, 205), batch(640.0 * 853.0, 205)), (8, 4, 2));
        assert_eq!((batch(128.0 * 160.0, 20), batch(128.0 * 160.0, 3)), (2, 1));
    }

    #[test]
    fn the_bigger_pair_comes_first() {
        let [first, second] = ladder(None).unwrap();
        assert_eq!(first.student, second.teacher);
        assert!(first.reason().contains("ResNet-18 teaches ResNet-18, width 0.5"), "{}", first.reason());
        assert!(ladder(Some(Path::new("no.safetensors"))).is_err());
    }
}
