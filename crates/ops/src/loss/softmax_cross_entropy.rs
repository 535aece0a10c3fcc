//! Cross-entropy of a softmax against one label a row.

use candle_core::Tensor;

use super::{FusedLoss, fused};
use crate::{Error, Result};

/// `-ln softmax(logits)[label]`, summed over the rows and divided by `normalizer`.
///
/// Computed as `ln sum exp(z - max) + max - z[label]`, so no logit is too large for it.
///
/// # Shapes
/// `logits`: [R, K]; `labels`: R, each below K. Result: `[]`. R may be 0.
///
/// # Errors
/// If `logits` is not of rank 2, there is not one label a row, a label is K or more, `logits` is not f32 on the CPU, or
/// `normalizer` is not finite and above 0.
pub fn softmax_cross_entropy(logits: &Tensor, labels: &[u32], normalizer: f32) -> Result<Tensor> {
    let op = CrossEntropy::NAME;
    let &[rows, classes] = logits.dims() else {
        return Err(Error::operand(op, format!("logits have shape {:?}; [R, K] is needed", logits.dims())));
    };
    if labels.len() != rows {
        return Err(Error::operand(op, format!("{} labels for logits of shape [{rows}, {classes}]", labels.len())));
    }
    let labels: Vec<usize> = labels.iter().map(|&l| l as usize).collect();
    if let Some((row, label)) = labels.iter().enumerate().find(|&(_, &l)| l >= classes) {
        return Err(Error::operand(op, format!("the label of row {row} is {label}, but there are {classes} classes")));
    }
    fused(logits, CrossEntropy { labels, classes }, normalizer)
}

struct CrossEntropy {
    labels: Vec<usize>,
    classes: usize,
}

impl CrossEntropy {
    /// Each row with its label.
    fn rows<'a>(&'a self, x: &'a [f32]) -> impl Iterator<Item = (&'a [f32], usize)> {
        // Without rows, `classes` may be 0, which is no length of a chunk.
        x.chunks_exact(self.classes.max(1)).zip(self.labels.iter().copied())
    }
}

/// The greatest logit, and the sum of `exp(z - greatest)`.
fn exponentials(row: &[f32]) -> (f64, f64) {
    let top = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    (top, row.iter().map(|&z| (f64::from(z) - top).exp()).sum())
}

impl FusedLoss for CrossEntropy {
    const NAME: &'static str = "softmax_cross_entropy";

    fn sum(&self, x: &[f32]) -> Result<f64> {
        let terms = self.rows(x).map(|(row, label)| {
            let (top, sum) = exponentials(row);
            sum.ln() + (top - f64::from(row[label]))
        });
        Ok(terms.sum())
    }

    fn gradient(&self, x: &[f32], scale: f32, dx: &mut [f32]) -> Result<()> {
        for ((row, label), out) in self.rows(x).zip(dx.chunks_exact_mut(self.classes.max(1))) {
            let (top, sum) = exponentials(row);
            for (k, (&z, d)) in row.iter().zip(out).enumerate() {
                let p = (f64::from(z) - top).exp() / sum;
                *d = scale * (p - f64::from(u8::from(k == label))) as f32;
            }
        }
        Ok(())
    }
}
