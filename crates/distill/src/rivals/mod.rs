//! Rival methods behind the same [`Distiller`](crate::Distiller) trait, to be compared under one loop and one schedule.
//!
//! Each is one file, written from its paper's formulas; the paper is named there. The papers' code was not consulted. What a
//! paper leaves open, or what we could not check, is marked \[ours\]: above all the sharing out over the levels of a pyramid
//! (everywhere the mean over levels, so that the number of levels does not act as a weight) and the weights, which the papers give for COCO's
//! channels. None of them decays.

mod defeat;
mod fgfi;
mod fitnets;
mod pkd;

pub use defeat::{Defeat, DefeatConfig};
pub use fgfi::{Fgfi, FgfiConfig, imitation_mask};
pub use fitnets::{Fitnets, FitnetsConfig};
pub use pkd::{Pkd, PkdConfig};

use candle_core::{DType, Device, Tensor};
use docent_detect::Features;

use crate::distiller::{DistillOutput, Term};
use crate::error::{Error, Result};
use crate::feature::{Adapters, check_pyramids};

/// A weight is a finite number of at least 0.
fn check_weight(field: &'static str, weight: f64) -> Result<()> {
    if weight.is_finite() && weight >= 0.0 {
        return Ok(());
    }
    Err(Error::config(field, format!("{weight} is not a weight; give a finite number of at least 0")))
}

/// What each level's term is, of the adapted student's map and the teacher's; None where the level has nothing to say.
fn by_level(
    student: &FeaturePyramid,
    teacher: &FeaturePyramid,
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
fn mean(terms: &[Tensor]) -> Result<Tensor> {
    let Some((first, rest)) = terms.split_first() else { return Ok(Tensor::zeros((), DType::F32, &Device::Cpu)?) };
    let mut sum = first.clone();
    for term in rest {
        sum = (sum + term)?;
    }
    Ok((sum / terms.len() as f64)?)
}

/// An output without decay. What will not be summed need not keep its graph alive.
fn undecayed(terms: Vec<(&'static str, Tensor, f64)>, stats: Vec<(&'static str, f64)>) -> DistillOutput {
    let term = |(name, raw, weight): (&'static str, Tensor, f64)| {
        let raw = if weight == 0.0 { raw.detach() } else { raw };
        Term { name, raw, weight }
    };
    DistillOutput { terms: terms.into_iter().map(term).collect(), decay: 1.0, stats }
}
