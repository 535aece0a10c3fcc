//! What a recipe would cost: its data indexed, its models built, three micro-steps of each run.

use candle_core::Device;
use docent_train::Batch;

use crate::data::{Data, DataSummary, train_loader};
use crate::error::Result;
use crate::manifest::peak_mib;
use crate::recipe::Recipe;
use crate::registry::Registry;
use crate::timed_runs::{TimedRun, each_run};

/// Images that go through each run's network, one by one: those that are biggest as the network sees them.
pub const MICRO_STEPS: usize = 3;

/// One run's cost.
#[derive(Debug, Clone, PartialEq)]
pub struct RunCost {
    /// The run's name in its study.
    pub name: &'static str,
    /// Seconds of each micro-step: one image forward and backward, with its teacher where there is one.
    pub micro_seconds: Vec<f64>,
    /// Seconds of one step: as many micro-steps of the median as a step has images, and the update.
    pub step_seconds: f64,
    /// Steps of the whole run.
    pub steps: usize,
    /// Highest resident memory of the process up to this run's end, in MiB: the runs before it have their part in it.
    pub peak_mib: f64,
}

impl RunCost {
    /// Seconds of the whole run, evaluation not counted.
    pub fn seconds(&self) -> f64 {
        self.step_seconds * self.steps as f64
    }
}

/// A study's cost.
#[derive(Debug, Clone, PartialEq)]
pub struct DryRun {
    /// Data set, digest, sizes.
    pub data: DataSummary,
    /// What a log should say: files of first weights, and where random ones stood in.
    pub notes: Vec<String>,
    /// The runs that the study would make.
    pub runs: Vec<RunCost>,
}

/// Indexes the data, builds the models with the weights that are given, and times each run of the study on the biggest training
/// images. Where a step accumulates gradients, two of these go through once more as one step, so that the highest memory has the sum
/// beside an image's own. Nothing is written, and nothing is kept of what was learnt. Where a file of first weights is missing, random ones stand
/// in: they cost the same.
///
/// # Errors
/// Data or weights that do not fit.
pub fn dry_run(recipe: &Recipe, registry: &Registry) -> Result<DryRun> {
    recipe.check(registry)?;
    let mut data = Data::open(&recipe.data)?;
    let summary = data.summary();
    let epoch = data.train.len().div_ceil(recipe.train.batch);
    data.train = data.train.subset(&biggest(&data, recipe)).into();
    let (mut notes, mut runs) = (Vec::new(), Vec::new());
    each_run(recipe, &data, registry, &mut notes, |run| {
        runs.push(cost_of(run, recipe, &data, epoch)?);
        Ok(())
    })?;
    Ok(DryRun { data: summary, notes, runs })
}

/// The training images with the most pixels after resizing; of equal ones the first.
fn biggest(data: &Data, recipe: &Recipe) -> Vec<usize> {
    let pixels = |i: &usize| {
        let image = &data.train.images()[*i];
        let (height, width) = recipe.data.resize.output_size(image.height as usize, image.width as usize);
        std::cmp::Reverse(height * width)
    };
    let mut order: Vec<usize> = (0..data.train.len()).collect();
    order.sort_by_cached_key(pixels);
    order.truncate(MICRO_STEPS);
    order
}

fn cost_of(run: &TimedRun<'_>, recipe: &Recipe, data: &Data, epoch: usize) -> Result<RunCost> {
    let mut timer = run.timer()?;
    let (mut parts, mut micro, mut updates) = (Vec::new(), Vec::new(), 0.0);
    for items in train_loader(data, &recipe.data, 1, recipe.seed)?.epoch(0) {
        parts.push(Batch::new(&items?, &Device::Cpu)?);
        let [passes, update] = timer.step(&parts[parts.len() - 1..], None)?;
        micro.push(passes);
        updates = update;
    }
    if recipe.train.accumulation_steps > 1 {
        timer.step(&parts[..parts.len().min(2)], None)?;
    }
    Ok(RunCost {
        name: run.name,
        step_seconds: recipe.train.batch as f64 * median(&micro) + updates,
        micro_seconds: micro,
        steps: run.epochs * epoch,
        peak_mib: peak_mib(),
    })
}

/// The middle of some times; 0 of none.
pub(crate) fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
