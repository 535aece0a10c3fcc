//! A time budget: how many epochs of a study fit into it.
//!
//! Each run of the study is timed for a few steps, a few images of evaluation and a write of its state, with the recipe's own
//! batches. Student alone and
//! distilled student keep one schedule: the dearer run does not get fewer epochs, both get what the study as a whole can pay for.

use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use docent_coco::Dataset;
use docent_detect::{FasterRcnn, Mode};

use crate::data::{Batch, Data, eval_loader, train_loader};
use crate::dry_run::median;
use crate::probe::{Probe, each_run};
use crate::recipe::Recipe;
use crate::{Error, Result, TeacherCache};

/// Steps of each run that are timed, after a first one that is not: it fills the allocator's and the loader's stores.
const STEPS: usize = 3;
/// Share of the budget that timing one run may take at most.
const PROBE_SHARE: f64 = 0.02;
/// Share of the budget that is planned for; the rest pays for first steps, scoring and a machine that is busy later.
const PLANNED_SHARE: f64 = 0.9;
/// The most epochs that are ever chosen.
const MOST_EPOCHS: usize = 10_000;

/// One run of the study, and what it was measured to cost.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPlan {
    /// The run's name in its study.
    pub name: &'static str,
    /// Epochs that were chosen.
    pub epochs: usize,
    /// Seconds of one step.
    pub step_seconds: f64,
    /// Seconds of one evaluation of the held-out split.
    pub evaluation_seconds: f64,
    /// Seconds of the whole run, evaluations included.
    pub seconds: f64,
}

/// A schedule that fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// Epochs of the students.
    pub epochs: usize,
    /// Epochs of the teacher, where one is trained.
    pub teacher_epochs: Option<usize>,
    /// Every run.
    pub runs: Vec<RunPlan>,
    /// Seconds that measuring took; they count.
    pub measuring: f64,
    /// What the log should say of first weights.
    pub notes: Vec<String>,
}

impl Fit {
    /// Seconds of measuring and of all runs together.
    pub fn seconds(&self) -> f64 {
        self.measuring + self.runs.iter().map(|run| run.seconds).sum::<f64>()
    }

    /// Writes the choice into `recipe`: epochs, the teacher's in the recipe's own proportion, and milestones that count epochs moved
    /// with them.
    pub fn apply(&self, recipe: &mut Recipe) {
        recipe.schedule.stretch_to(self.epochs);
        if let (Some(teacher), Some(epochs)) = (&mut recipe.teacher, self.teacher_epochs) {
            teacher.epochs = Some(epochs);
        }
    }
}

/// Takes over what a budget chose when the study in `kept` began.
pub fn take_over(recipe: &mut Recipe, kept: &Recipe) {
    recipe.schedule.epochs = kept.schedule.epochs;
    recipe.schedule.rate.milestones.clone_from(&kept.schedule.rate.milestones);
    if let (Some(teacher), Some(kept)) = (&mut recipe.teacher, &kept.teacher) {
        teacher.epochs = kept.epochs;
    }
}

/// Measures the runs of `recipe`'s study and chooses the most epochs with which all of it, evaluations and this measuring included,
/// stays within `budget`.
///
/// # Errors
/// Data or weights that do not fit; a budget in which not even one epoch fits, with what one would take.
pub fn fit(recipe: &Recipe, budget: Duration) -> Result<Fit> {
    recipe.validate()?;
    let start = Instant::now();
    let data = Data::open(&recipe.data)?;
    let most = PROBE_SHARE * budget.as_secs_f64();
    let (mut notes, mut costs) = (Vec::new(), Vec::new());
    each_run(recipe, &data, &mut notes, |probe| {
        costs.push(measure(probe, recipe, &data, most)?);
        Ok(())
    })?;
    let measuring = start.elapsed().as_secs_f64();
    let study = Costs { runs: costs, every: recipe.eval.every };
    let teacher_epochs = |epochs: usize| study.teacher_epochs(recipe, epochs);
    let room = PLANNED_SHARE * budget.as_secs_f64() - measuring;
    let fits = |epochs: &usize| study.seconds(*epochs, teacher_epochs(*epochs)) <= room;
    let Some(epochs) = (1..=MOST_EPOCHS).take_while(fits).last() else {
        return Err(Error::NoTime { seconds: study.seconds(1, teacher_epochs(1)), room });
    };
    let teacher = teacher_epochs(epochs);
    let runs = study.runs.iter().map(|run| {
        let epochs = if run.name == "teacher" { teacher.unwrap_or(epochs) } else { epochs };
        let seconds = run.seconds(epochs, study.every);
        let Cost { name, step, evaluation, .. } = *run;
        RunPlan { name, epochs, step_seconds: step, evaluation_seconds: evaluation, seconds }
    });
    Ok(Fit { epochs, teacher_epochs: teacher, runs: runs.collect(), measuring, notes })
}

/// What was measured of the study's runs.
struct Costs {
    runs: Vec<Cost>,
    /// Epochs between two evaluations.
    every: usize,
}

/// What was measured of one run.
struct Cost {
    name: &'static str,
    /// Steps of an epoch.
    steps: usize,
    /// Seconds of a step, the teacher's pyramids found in their cache as often as they will be in the long run.
    step: f64,
    /// Seconds that each epoch's worth of new pyramids costs beyond that, and how many of those there are.
    new_views: (f64, f64),
    evaluation: f64,
    /// Seconds of writing the state and the weights at an epoch's end and between (all of an epoch), and of the weights alone where
    /// an evaluation was the best.
    saves: [f64; 2],
    /// Seconds at the end: images timed one by one; a trained teacher is measured once more.
    end: f64,
}

impl Costs {
    /// The teacher's epochs beside `epochs` of the students, in the recipe's own proportion.
    fn teacher_epochs(&self, recipe: &Recipe, epochs: usize) -> Option<usize> {
        self.runs.iter().find(|run| run.name == "teacher")?;
        let own = recipe.teacher.as_ref()?.epochs.unwrap_or(recipe.schedule.epochs);
        Some(((own * epochs) as f64 / recipe.schedule.epochs as f64).round().max(1.0) as usize)
    }

    fn seconds(&self, epochs: usize, teacher: Option<usize>) -> f64 {
        let of = |run: &Cost| match (run.name, teacher) {
            ("teacher", Some(teacher)) => run.seconds(teacher, self.every),
            _ => run.seconds(epochs, self.every),
        };
        self.runs.iter().map(of).sum()
    }
}

impl Cost {
    fn seconds(&self, epochs: usize, every: usize) -> f64 {
        // The end is always evaluated.
        let evaluations = (epochs - 1).checked_div(every).unwrap_or(0) + 1;
        let (new, rounds) = self.new_views;
        let steps = (epochs * self.steps) as f64 * self.step + new * rounds.min(epochs as f64);
        let [epoch_s, best_s] = self.saves;
        steps + epochs as f64 * epoch_s + evaluations as f64 * (self.evaluation + best_s) + self.end
    }
}

fn measure(probe: &Probe<'_>, recipe: &Recipe, data: &Data, most_seconds: f64) -> Result<Cost> {
    let s = &recipe.schedule;
    let mut stepper = probe.stepper()?;
    let cache = TeacherCache::new(recipe.teacher.as_ref().map_or(crate::CacheSize::OFF, |t| t.cache));
    // Whole steps, the wait for data included, as the loop counts them.
    let mut fresh = Vec::new();
    // The same without that wait, first as it comes and then with all of the teacher's pyramids in the cache; and the share of steps
    // that will be like the second.
    let (mut new, mut kept, mut kept_share) = (Vec::new(), Vec::new(), 0.0);
    let begin = Instant::now();
    let loader = train_loader(data, &recipe.data, s.batch, recipe.seed)?;
    let mut start = Instant::now();
    for (number, items) in loader.epoch(0).enumerate() {
        let items = items?;
        let parts = items.chunks(s.batch / s.accumulate).map(|part| Batch::new(part, &Device::Cpu));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let [passes, update] = stepper.step(&parts, Some(&cache))?;
        let seconds = start.elapsed().as_secs_f64();
        // A smaller last batch of an epoch costs less; the first step is counted only where there is no other.
        if number == 1 {
            [&mut fresh, &mut new, &mut kept].into_iter().for_each(Vec::clear);
        }
        let whole = s.batch as f64 / items.len() as f64;
        fresh.push(seconds * whole);
        if let Some((teacher, distiller)) = probe.taught.filter(|_| number <= 2)
            && !distiller.needs().stages
        {
            kept_share = share_kept(recipe, data, teacher, &parts)?;
            let again = stepper.step(&parts, Some(&cache))?;
            new.push((passes + update) * whole);
            kept.push((again[0] + again[1]) * whole);
        }
        if number >= STEPS || begin.elapsed().as_secs_f64() > most_seconds {
            break;
        }
        start = Instant::now();
    }
    let (fresh, steps) = (median(&fresh), data.train.len().div_ceil(s.batch));
    // On a busy machine one of two equal steps may take thrice as long: no step is taken for cheaper than one was.
    let cheapest = median(&kept).min(fresh);
    let saved = kept_share * (median(&new) - median(&kept)).clamp(0.0, fresh - cheapest);
    let [state, weights] = stepper.save_seconds()?;
    let writes = 1 + (steps - 1) / recipe.checkpoint.steps;
    let (image, count) = evaluation(&probe.built.model, &data.val, recipe, most_seconds)?;
    let evaluation = image * count as f64;
    let timed = image * recipe.eval.timed_images.clamp(1, count) as f64;
    Ok(Cost {
        name: probe.name,
        steps,
        step: fresh - saved,
        new_views: (saved * steps as f64, views(recipe)),
        evaluation,
        saves: [writes as f64 * (state + weights), weights],
        end: timed + if probe.name == "teacher" { evaluation } else { 0.0 },
    })
}

/// How many different images a training sees of each picture.
fn views(recipe: &Recipe) -> f64 {
    if recipe.data.flip > 0.0 && recipe.data.flip < 1.0 { 2.0 } else { 1.0 }
}

/// The share of a training's images whose pyramids the cache has room for; 0 where no image comes twice.
fn share_kept(recipe: &Recipe, data: &Data, teacher: &FasterRcnn, parts: &[Batch]) -> Result<f64> {
    let bound = recipe.teacher.as_ref().map_or(0, |t| t.cache.bytes() + t.cache_disk.bytes()) as f64;
    let augment = &recipe.data.augment;
    let Some(part) = parts.first().filter(|_| augment.is_off() && bound > 0.0) else { return Ok(0.0) };
    let pyramid = teacher.features(&part.images, Mode::Eval)?;
    let bytes = 4 * pyramid.levels.iter().map(Tensor::elem_count).sum::<usize>();
    let all = bytes as f64 / part.ids.len() as f64 * data.train.len() as f64 * views(recipe);
    Ok((bound / all).min(1.0))
}

/// Seconds of one image's evaluation, and how many images there are.
fn evaluation(model: &FasterRcnn, val: &Dataset, recipe: &Recipe, most_seconds: f64) -> Result<(f64, usize)> {
    let batch = recipe.eval.batch;
    let few: Vec<usize> = (0..val.len().min(3 * batch)).collect();
    let subset = val.subset(&few).into();
    let mut seconds = Vec::new();
    let begin = Instant::now();
    let loader = eval_loader(&subset, &recipe.data, batch)?;
    // The wait for pictures is part of an evaluation.
    let mut start = begin;
    for items in loader.epoch(0) {
        let items = items?;
        model.detect(&Batch::new(&items, &Device::Cpu)?.images)?;
        seconds.push(start.elapsed().as_secs_f64() / items.len() as f64);
        start = Instant::now();
        if begin.elapsed().as_secs_f64() > most_seconds {
            break;
        }
    }
    Ok((median(&seconds), val.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::text_of;
    use crate::schedule::MilestoneUnit;

    fn cost(name: &'static str, step: f64) -> Cost {
        Cost { name, steps: 10, step, new_views: (0.0, 2.0), evaluation: 5.0, saves: [0.0, 0.0], end: 1.0 }
    }

    #[test]
    fn a_run_s_seconds_are_steps_new_views_evaluations_and_its_end() {
        let run = cost("baseline", 2.0);
        assert_eq!(run.seconds(4, 0), 80.0 + 5.0 + 1.0);
        assert_eq!(run.seconds(4, 1), 80.0 + 20.0 + 1.0);
        // After epochs 2 and 4, and at the end.
        assert_eq!(run.seconds(5, 2), 100.0 + 15.0 + 1.0);
        let taught = Cost { new_views: (7.0, 2.0), ..cost("distilled", 2.0) };
        assert_eq!(taught.seconds(1, 0), 20.0 + 7.0 + 6.0);
        assert_eq!(taught.seconds(4, 0), 80.0 + 14.0 + 6.0);
        let saving = Cost { saves: [0.5, 0.25], ..cost("baseline", 2.0) };
        assert_eq!(saving.seconds(4, 2), 80.0 + 10.0 + 1.0 + 4.0 * 0.5 + 2.0 * 0.25);
    }

    #[test]
    fn the_teacher_keeps_its_proportion_and_a_given_one_costs_nothing() {
        let mut recipe =
            Recipe::parse(&text_of("shapes").unwrap(), &["schedule.epochs=10".into(), "teacher.epochs=16".into()])
                .unwrap();
        let study = Costs { runs: vec![cost("teacher", 3.0), cost("baseline", 1.0), cost("distilled", 2.0)], every: 0 };
        assert_eq!(study.teacher_epochs(&recipe, 5), Some(8));
        assert_eq!(study.teacher_epochs(&recipe, 1), Some(2));
        assert_eq!(study.seconds(5, Some(8)), (240.0 + 6.0) + (50.0 + 6.0) + (100.0 + 6.0));
        let given = Costs { runs: vec![cost("baseline", 1.0), cost("distilled", 2.0)], every: 0 };
        assert_eq!(given.teacher_epochs(&recipe, 5), None);

        recipe.schedule.rate.unit = MilestoneUnit::Epoch;
        recipe.schedule.rate.milestones = vec![6.0, 9.0];
        let fit = Fit { epochs: 5, teacher_epochs: Some(8), runs: Vec::new(), measuring: 0.0, notes: Vec::new() };
        let mut fitted = recipe.clone();
        fit.apply(&mut fitted);
        assert_eq!((fitted.schedule.epochs, fitted.teacher.as_ref().unwrap().epochs), (5, Some(8)));
        assert_eq!(fitted.schedule.rate.milestones, [3.0, 4.5]);
        take_over(&mut recipe, &fitted);
        assert_eq!(recipe, fitted);
    }
}
