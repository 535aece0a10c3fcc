//! The trait of a distillation method, its needs and its result.

use candle_core::{DType, Device, Tensor};

use crate::context::StepContext;
use crate::error::{Error, Result};

/// The parts of the teacher that a method reads; the others need not be computed. The fields are those of
/// [`ModelView`](crate::ModelView).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// The backbone's maps.
    pub stages: bool,
    /// The pyramid.
    pub pyramid: bool,
    /// The dense head's maps.
    pub dense: bool,
    /// The region heads on the student's RoIs.
    pub regions: bool,
    /// RoIs sampled from the teacher's proposals, with both models' heads on them.
    pub teacher_regions: bool,
}

/// One term of a distillation loss.
#[derive(Debug, Clone)]
pub struct Term {
    /// Its name in logs: `feat`, `cls`, `reg`.
    pub name: &'static str,
    /// The loss before its weight: a scalar, shape `[]`. Methods detach it where the weight is 0.
    pub raw: Tensor,
    /// Its weight, before the decay.
    pub weight: f64,
}

impl Term {
    /// The loss before its weight, as a number.
    ///
    /// # Errors
    /// If `raw` is not a scalar of f32.
    pub fn value(&self) -> Result<f64> {
        Ok(f64::from(self.raw.to_scalar::<f32>()?))
    }
}

/// A method's result for one step.
#[derive(Debug, Clone)]
pub struct DistillOutput {
    /// The terms, each with its weight.
    pub terms: Vec<Term>,
    /// The factor over all terms: r(t) times the warm-up.
    pub decay: f64,
    /// Further numbers for the log.
    pub stats: Vec<Stat>,
}

/// A number for the log beside the terms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stat {
    /// Its name in logs.
    pub name: &'static str,
    /// Its value in this step.
    pub value: f64,
    /// Whether it is a count, which is summed over the parts of a batch; otherwise it is averaged, weighted by images.
    pub count: bool,
}

impl Stat {
    /// A count or another sum.
    pub fn sum(name: &'static str, value: f64) -> Self {
        Self { name, value, count: true }
    }

    /// A mean or another ratio.
    pub fn mean(name: &'static str, value: f64) -> Self {
        Self { name, value, count: false }
    }
}

impl DistillOutput {
    /// `decay * sum of weight * raw`, to be added to the detection loss.
    ///
    /// A term whose weight times decay is 0 is left out of the sum instead of being multiplied by 0. Nothing of it is in the graph
    /// that `backward` walks, and the other gradients keep their bits, even where the term is infinite. When every term is left
    /// out, the result is a constant 0, so distillation at weight 0 is plain training. Parameters that only a left-out term reads
    /// (the adapters, for the feature term) have no gradient.
    ///
    /// # Shapes
    /// Returns a scalar, shape `[]`.
    ///
    /// # Errors
    /// A term that is not a scalar.
    pub fn total(&self) -> Result<Tensor> {
        let mut total: Option<Tensor> = None;
        for term in &self.terms {
            if term.raw.rank() != 0 {
                return Err(Error::mismatch(
                    "distillation loss",
                    format!("term `{}` has shape {:?}; a scalar is needed", term.name, term.raw.dims()),
                ));
            }
            let factor = self.decay * term.weight;
            if factor == 0.0 {
                continue;
            }
            let weighted = (&term.raw * factor)?;
            total = Some(match total {
                None => weighted,
                Some(sum) => (sum + weighted)?,
            });
        }
        match total {
            Some(total) => Ok(total),
            None => {
                let device = self.terms.first().map_or(&Device::Cpu, |term| term.raw.device());
                Ok(Tensor::zeros((), DType::F32, device)?)
            }
        }
    }

    /// One of [`DistillOutput::stats`].
    pub fn stat(&self, name: &str) -> Option<f64> {
        self.stats.iter().find(|stat| stat.name == name).map(|stat| stat.value)
    }

    /// Every number of the step by name, for a log: `raw_{term}` and `weighted_{term}` (weight and decay applied) for
    /// each term, `decay`, then the stats.
    ///
    /// # Errors
    /// A term that is not a scalar of f32.
    pub fn report(&self) -> Result<Vec<(String, f64)>> {
        let mut report = Vec::with_capacity(2 * self.terms.len() + 1 + self.stats.len());
        for term in &self.terms {
            let raw = term.value()?;
            let factor = self.decay * term.weight;
            report.push((format!("raw_{}", term.name), raw));
            report.push((format!("weighted_{}", term.name), if factor == 0.0 { 0.0 } else { factor * raw }));
        }
        report.push(("decay".to_string(), self.decay));
        report.extend(self.stats.iter().map(|stat| (stat.name.to_string(), stat.value)));
        Ok(report)
    }
}

/// A distillation method.
///
/// A loop asks what the method [needs](Distiller::needs), gives its [parameters](Distiller::params) to the optimizer, and adds the
/// [total](DistillOutput::total) of its [loss](Distiller::loss) to the student's detection loss.
pub trait Distiller: Send {
    /// The method's name, for logs and manifests.
    fn name(&self) -> &str;

    /// The parts of the teacher that the method reads.
    fn needs(&self) -> Needs;

    /// The method's own parameters by name, in a fixed order; they are trained with the student and dropped afterwards.
    fn params(&self) -> Vec<(String, Tensor)>;

    /// The loss of one step.
    ///
    /// # Errors
    /// Inputs that do not fit each other, or an operation that failed.
    fn loss(&self, step: &StepContext<'_>) -> Result<DistillOutput>;
}
