//! Which models, and how long they learn.

use std::path::{Path, PathBuf};
use std::time::Duration;

use docent_detect::backbone::{BackboneConfig, MobileNetV2Config, ResNetConfig};
use docent_detect::layers::NormKind;
use docent_model::import::Content;
use docent_model::read_weights;

use crate::budget::Fit;
use crate::error::{Error, Result};

/// With fewer steps a student learns little: a smaller pair is tried first.
pub(super) const FEW_STEPS: usize = 400;
/// More steps of a student than this are not proposed; small data would be learnt by heart.
const MOST_STEPS: usize = 6000;
/// Passes over the data at most.
const MOST_EPOCHS: usize = 60;
/// Steps that are proposed without a measurement.
const USUAL_STEPS: usize = 1000;
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
    let resnet18 = |width_multiplier: f64| -> BackboneConfig {
        ResNetConfig::default().depth(18).width_multiplier(width_multiplier).norm(NormKind::BatchNorm).into()
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
                    "{}; a suggested recipe starts its teacher from a backbone's ImageNet weights. A trained detector teaches by `docent train \
                     --teacher FILE`",
                    other.describe()
                ),
            ));
        }
    };
    let (backbone, students) = match backbone {
        BackboneConfig::ResNet(c) => {
            let students = if c.depth >= 50 { [whole, half] } else { [half, quarter] };
            let frozen = c.norm(NormKind::FrozenBatchNorm);
            (BackboneConfig::from(frozen), students)
        }
        BackboneConfig::MobileNetV2(c) => {
            let student = |width_multiplier: f64, fpn, hidden| {
                let norm = NormKind::BatchNorm;
                let small = MobileNetV2Config::default().width_multiplier(width_multiplier).norm(norm);
                of(BackboneConfig::from(small), fpn, hidden)
            };
            let students = [student(0.5 * c.width_multiplier, 64, 256), student(0.25 * c.width_multiplier, 32, 128)];
            (BackboneConfig::from(c.norm(NormKind::FrozenBatchNorm)), students)
        }
        other => {
            let what =
                format!("a backbone `{}`; recipes are suggested for resnet and mobilenet_v2", other.architecture());
            return Err(Error::file(path, what));
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

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
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
    /// Steps of an epoch.
    epoch: usize,
}

impl Schedule {
    /// What is proposed where nothing is measured.
    pub fn usual(images: usize, batch: usize) -> Self {
        let epoch = images.div_ceil(batch);
        Self::of(USUAL_STEPS.div_ceil(epoch).clamp(4, MOST_EPOCHS), batch, epoch)
    }

    fn of(epochs: usize, batch: usize, epoch: usize) -> Self {
        let lr = RATE_PER_IMAGE * batch as f64;
        Self { epochs, batch, lr, warmup: (epochs * epoch / 10).clamp(1, 50), epoch }
    }

    /// One epoch of so many images.
    pub fn one_epoch(images: usize, batch: usize) -> Self {
        Self::of(1, batch, images.div_ceil(batch))
    }

    /// Images of an epoch, the last batch counted whole.
    pub fn images(&self) -> usize {
        self.epoch * self.batch
    }

    /// Minutes of a study of usual length, where an image of an epoch takes so many seconds in all runs together.
    pub fn usual_minutes(&self, seconds_an_image: f64) -> f64 {
        (seconds_an_image * (USUAL_STEPS * self.batch) as f64 * 1.1 / 60.0).ceil()
    }

    /// The student's steps.
    pub fn steps(&self) -> usize {
        self.epochs * self.epoch
    }

    /// With the epochs that were found to fit, but no more than are of use.
    pub fn fitted(&self, fit: &Fit) -> Self {
        Self::of(fit.epochs.min(self.most_epochs()), self.batch, self.epoch)
    }

    fn most_epochs(&self) -> usize {
        MOST_EPOCHS.min(MOST_STEPS.div_ceil(self.epoch))
    }

    pub fn reason_unmeasured(&self) -> String {
        format!(
            "{} epochs of batch {}, about {USUAL_STEPS} steps: a usual length. The machine's speed was not measured; `docent train \
             --dry-run` says what it takes. The rate is {RATE_PER_IMAGE} for each image of a step.",
            self.epochs, self.batch
        )
    }

    /// A schedule that `fit` gave, in words.
    pub fn reason(&self, fit: &Fit, time: Duration) -> String {
        let called = |name: &'static str| if name == "alone" { "student alone" } else { name };
        let speeds: Vec<String> =
            fit.runs.iter().map(|run| format!("{} {:.2} s", called(run.name), run.step_seconds)).collect();
        let seconds = fit.runs.iter().map(|run| run.seconds).sum::<f64>() * self.epochs as f64 / fit.epochs as f64;
        let mut text = format!(
            "Measured here, a step of {} images: {}. {} ({} student steps) of the whole study, evaluations included, take about \
             {}. The rate is {RATE_PER_IMAGE} for each image of a step.",
            self.batch,
            speeds.join(", "),
            counted(self.epochs, "epoch"),
            self.steps(),
            minutes(seconds),
        );
        let asked = minutes(time.as_secs_f64());
        if self.epochs < fit.epochs {
            text += &format!(" The {asked} asked for would do for more, but so many passes are enough for this data.");
        } else if self.steps() < FEW_STEPS {
            let usual = seconds / self.steps() as f64 * USUAL_STEPS as f64 * 1.1;
            text += &format!(
                " That fills the {asked} asked for, and is little: {USUAL_STEPS} steps are a usual length, `--for {:.0}m`.",
                (usual / 60.0).ceil()
            );
        } else {
            text += &format!(" A tenth of the {asked} asked for is left over, for a machine that is busy later.");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::RunPlan;

    fn fit(epochs: usize, seconds: [f64; 3]) -> Fit {
        let run = |(name, seconds)| RunPlan { name, epochs, step_seconds: 0.25, evaluation_seconds: 0.0, seconds };
        let runs = ["teacher", "alone", "distilled"].into_iter().zip(seconds).map(run).collect();
        Fit { epochs, teacher_epochs: Some(epochs), runs, measuring: 0.0, notes: vec![] }
    }

    #[test]
    fn the_schedule_is_what_fits_and_no_more_than_is_of_use() {
        let usual = Schedule::usual(400, 4);
        assert_eq!((usual.epochs, usual.lr, usual.warmup, usual.steps()), (10, 0.02, 50, 1000));
        let asked = Duration::from_secs(1800);
        let some = fit(30, [800.0, 400.0, 420.0]);
        let schedule = usual.fitted(&some);
        assert_eq!((schedule.epochs, schedule.steps()), (30, 3000));
        let text = schedule.reason(&some, asked);
        assert!(
            text.contains("student alone 0.25 s") && text.contains("27 minutes") && text.contains("A tenth"),
            "{text}"
        );
        // Little: the time for a usual length is named.
        let few = fit(2, [800.0, 400.0, 400.0]);
        let schedule = usual.fitted(&few);
        assert!(schedule.steps() < FEW_STEPS && schedule.warmup == 20);
        let text = schedule.reason(&few, asked);
        assert!(text.contains("is little") && text.contains("--for 147m"), "{text}");
        // Time without end is not used up, by epochs or by steps.
        let many = fit(5000, [8e5, 4e5, 4e5]);
        assert_eq!(usual.fitted(&many).epochs, MOST_EPOCHS);
        assert!(usual.fitted(&many).reason(&many, asked).contains("enough for this data"));
        assert_eq!(Schedule::usual(40_000, 4).fitted(&many).epochs, 1);
        assert_eq!(ladder(None).unwrap()[0].teacher_epochs(31), 50);
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
