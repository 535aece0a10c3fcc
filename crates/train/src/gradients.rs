//! Sums of gradients in a fixed order, and what stands between the backward pass and clipping.

use candle_core::Var;
use candle_core::backprop::GradStore;

use crate::error::Result;

/// Named parameters, as an optimizer takes them.
pub type Params = [(String, Var)];

/// Combines a step's gradients with those of other processes, between the backward pass and clipping.
pub trait GradientReducer: Send {
    /// Replaces the gradients of `params` by those of the whole step.
    ///
    /// # Errors
    /// When the other processes cannot be reached.
    fn reduce(&mut self, gradients: &mut GradStore, params: &[&Params]) -> Result<()>;
}

/// One process alone: its gradients are the step's.
#[derive(Debug, Clone, Copy, Default)]
pub struct SingleProcess;

impl GradientReducer for SingleProcess {
    fn reduce(&mut self, _: &mut GradStore, _: &[&Params]) -> Result<()> {
        Ok(())
    }
}

/// Gradients of a step's parts, added in a balanced binary tree: two neighbours first, then their sums, and so on. The order of the
/// additions depends on the number of parts alone.
#[derive(Default)]
pub(crate) struct GradientTree {
    /// Sums of 1, 2, 4, .. parts; each holds more parts than the next, with the power of two that it stands for.
    sums: Vec<(u32, GradStore)>,
}

impl GradientTree {
    /// A tree of one part, all of whose gradients are kept.
    pub(crate) fn of(part: GradStore) -> Self {
        Self { sums: vec![(0, part)] }
    }

    /// Takes the gradients of `params` in the next part; the others are dropped.
    pub(crate) fn push(&mut self, mut part: GradStore, params: &[&Params]) -> Result<()> {
        let mut kept = GradStore::default();
        for (_, var) in params.iter().copied().flatten() {
            if let Some(gradient) = part.remove(var) {
                kept.insert(var, gradient);
            }
        }
        self.sums.push((0, kept));
        while let [.., (a, _), (b, _)] = self.sums.as_slice()
            && a == b
        {
            self.join(params)?;
        }
        Ok(())
    }

    /// The sum over all parts; without a part no gradient.
    pub(crate) fn finish(mut self, params: &[&Params]) -> Result<GradStore> {
        while self.sums.len() > 1 {
            self.join(params)?;
        }
        Ok(self.sums.pop().map_or_else(GradStore::default, |(_, sum)| sum))
    }

    /// Adds the last two sums, the earlier parts on the left.
    fn join(&mut self, params: &[&Params]) -> Result<()> {
        let (Some((_, mut right)), Some((power, left))) = (self.sums.pop(), self.sums.last_mut()) else {
            return Ok(());
        };
        *power += 1;
        for (_, var) in params.iter().copied().flatten() {
            let Some(gradient) = right.remove(var) else { continue };
            let gradient = match left.remove(var) {
                Some(before) => (before + gradient)?,
                None => gradient,
            };
            left.insert(var, gradient);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    fn sum(values: &[f32]) -> f32 {
        let var = Var::new(&[0f32], &Device::Cpu).unwrap();
        let params = [("w".to_owned(), var.clone())];
        let mut tree = GradientTree::default();
        for value in values {
            let mut part = GradStore::default();
            part.insert(&var, Tensor::new(&[*value], &Device::Cpu).unwrap());
            tree.push(part, &[&params]).unwrap();
        }
        let sum = tree.finish(&[&params]).unwrap();
        sum.get(&var).map_or(0.0, |sum| sum.to_vec1::<f32>().unwrap()[0])
    }

    #[test]
    fn neighbours_are_added_first() {
        // 2^24 + 1 is 2^24 in f32: from the left each 1 would be lost.
        let big = 16_777_216f32;
        assert_eq!(sum(&[big, 1.0, 1.0, 1.0]), (big + 1.0) + 2.0);
        assert_eq!(sum(&[1.0, 1.0, big, 1.0]), 2.0 + big);
        assert_eq!(sum(&[1.0, 1.0, 1.0, 1.0, big]), 4.0 + big);
        assert_eq!(sum(&[big, 1.0, 1.0]), big);
        assert_eq!(sum(&[big, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]), (big + 2.0) + (2.0 + 1.0));
        assert_eq!((sum(&[]), sum(&[3.0])), (0.0, 3.0));
    }

    #[test]
    fn a_parameter_that_one_part_lacks_keeps_the_others() {
        let vars = [Var::new(&[0f32], &Device::Cpu).unwrap(), Var::new(&[0f32], &Device::Cpu).unwrap()];
        let params: Vec<_> = vars.iter().enumerate().map(|(i, var)| (i.to_string(), var.clone())).collect();
        let mut tree = GradientTree::default();
        for var in &vars {
            let mut part = GradStore::default();
            part.insert(var, Tensor::new(&[2f32], &Device::Cpu).unwrap());
            tree.push(part, &[&params]).unwrap();
        }
        let sum = tree.finish(&[&params]).unwrap();
        assert!(vars.iter().all(|var| sum.get(var).unwrap().to_vec1::<f32>().unwrap() == [2.0]));
    }
}
