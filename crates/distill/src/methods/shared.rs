//! Helpers that several methods share.

use candle_core::{DType, Device, Tensor};
use docent_detect::FeaturePyramid;

use crate::distiller::{DistillOutput, Stat, Term};
use crate::error::{Error, Result};
use crate::feature::{Adapters, check_pyramids};

/// A weight is a finite number of at least 0.
pub(super) fn check_weight(field: &'static str, weight: f64) -> Result<()> {
    if weight.is_finite() && weight >= 0.0 {
        return Ok(());
    }
    Err(Error::config(field, format!("{weight} is not a weight; give a finite number of at least 0")))
}

/// Each level's term, computed from the student's adapted map and the teacher's map. A level whose term is None is left out.
pub(super) fn by_level(
    (student, teacher): (&FeaturePyramid, &FeaturePyramid),
    adapters: &Adapters,
    mut term: impl FnMut(usize, &Tensor, &Tensor) -> Result<Option<Tensor>>,
) -> Result<Vec<Tensor>> {
    check_pyramids(student, teacher, teacher.levels.len())?;
    let mut terms = Vec::with_capacity(teacher.levels.len());
    for (level, (s, t)) in student.levels.iter().zip(&teacher.levels).enumerate() {
        terms.extend(term(level, &adapters.forward(level, s)?, t)?);
    }
    Ok(terms)
}

/// The mean of scalars; exactly 0 of none.
pub(super) fn mean(terms: &[Tensor]) -> Result<Tensor> {
    let Some((first, rest)) = terms.split_first() else { return Ok(Tensor::zeros((), DType::F32, &Device::Cpu)?) };
    let mut sum = first.clone();
    for term in rest {
        sum = (sum + term)?;
    }
    Ok((sum / terms.len() as f64)?)
}

/// An output without decay. What will not be summed need not keep its graph alive.
pub(super) fn undecayed(terms: Vec<(&'static str, Tensor, f64)>, stats: Vec<Stat>) -> DistillOutput {
    let term = |(name, raw, weight): (&'static str, Tensor, f64)| {
        let raw = if weight == 0.0 { raw.detach() } else { raw };
        Term { name, raw, weight }
    };
    DistillOutput { terms: terms.into_iter().map(term).collect(), decay: 1.0, stats }
}
