//! The gradient's norm and the factor that bounds it.

use candle_core::Var;
use candle_core::backprop::GradStore;
use docent_tensor::with_f32;
use rayon::prelude::*;

use crate::error::{Error, Result};

/// Values summed by one task: fixed, so that the sum's bits do not depend on the number of threads.
const CHUNK: usize = 1 << 15;

/// A gradient's norm, and what to multiply the gradient by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// 2-norm over all gradients together, before clipping. NaN or infinite when a gradient is: the loop must stop then.
    pub norm: f64,
    /// Hand this to [`crate::Sgd::step`], which multiplies while it reads; 1 when nothing is to be clipped.
    pub factor: f64,
}

impl Clip {
    /// Is the norm a number?
    pub fn is_finite(&self) -> bool {
        self.norm.is_finite()
    }

    /// Were the gradients above the bound?
    pub fn clipped(&self) -> bool {
        self.factor < 1.0
    }
}

/// The 2-norm of all gradients of `params`, and the factor that brings it to at most `max_norm`.
///
/// The factor is `min(1, max_norm / (norm + 1e-6))`, as `torch.nn.utils.clip_grad_norm_`'s. Squares are summed in f64: within fixed
/// chunks in index order, then the chunks, then the parameters in the order given (name order, from a store). A parameter without
/// a gradient counts as 0. `max_norm` of `None` or 0 only measures. Call it once for the student and once for the adapters: a noisy
/// adapter must not scale the student's step.
///
/// # Errors
/// A gradient that is not f32. A norm that is not finite is no error: it is reported by value, with factor 1.
pub fn clip_grad_norm(params: &[(String, Var)], grads: &GradStore, max_norm: Option<f64>) -> Result<Clip> {
    let mut sum = 0f64;
    for (name, var) in params {
        if let Some(grad) = grads.get(var) {
            sum += with_f32(grad, square_sum).map_err(|e| Error::param(name, format!("its gradient: {e}")))?;
        }
    }
    let norm = sum.sqrt();
    let factor = match max_norm {
        Some(bound) if bound > 0.0 && norm.is_finite() => (bound / (norm + 1e-6)).min(1.0),
        _ => 1.0,
    };
    Ok(Clip { norm, factor })
}

fn square_sum(values: &[f32]) -> f64 {
    // Eight sums side by side: one alone would wait for each addition.
    let square = |chunk: &[f32]| {
        let mut lanes = [0f64; 8];
        let whole = chunk.chunks_exact(8);
        let rest = whole.remainder().iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
        for values in whole {
            lanes.iter_mut().zip(values).for_each(|(lane, &v)| *lane += f64::from(v) * f64::from(v));
        }
        lanes.iter().sum::<f64>() + rest
    };
    if values.len() <= CHUNK {
        return square(values);
    }
    let parts: Vec<f64> = values.par_chunks(CHUNK).map(square).collect();
    parts.iter().sum()
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    /// Variables whose gradients are `grads`: the gradient of sum(v * g) with respect to v is g.
    fn with_grads(grads: &[Vec<f32>]) -> (Vec<(String, Var)>, GradStore) {
        let mut params = Vec::new();
        let mut loss = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu).unwrap();
        for (i, g) in grads.iter().enumerate() {
            let var = Var::from_vec(vec![1f32; g.len()], g.len(), &Device::Cpu).unwrap();
            let g = Tensor::from_slice(g, g.len(), &Device::Cpu).unwrap();
            loss = (loss + (var.as_tensor() * g).unwrap().sum_all().unwrap()).unwrap();
            params.push((format!("p{i}"), var));
        }
        (params, loss.backward().unwrap())
    }

    #[test]
    fn norm_and_factor_are_those_of_pytorch() {
        let (params, grads) = with_grads(&[vec![3.0, 0.0], vec![-4.0, 12.0]]);
        let clip = clip_grad_norm(&params, &grads, Some(6.5)).unwrap();
        assert_eq!(clip.norm, 13.0);
        // torch: clip_coef = 6.5 / (13 + 1e-6)
        assert!((clip.factor - 0.499_999_961_538_464_5).abs() < 1e-15);
        assert!(clip.clipped());
        let clip = clip_grad_norm(&params, &grads, Some(20.0)).unwrap();
        assert_eq!((clip.factor, clip.clipped()), (1.0, false));
        assert_eq!(clip_grad_norm(&params, &grads, None).unwrap(), Clip { norm: 13.0, factor: 1.0 });
        assert_eq!(clip_grad_norm(&params, &grads, Some(0.0)).unwrap().factor, 1.0);
    }

    #[test]
    fn a_parameter_without_a_gradient_counts_as_zero() {
        let (mut params, grads) = with_grads(&[vec![5.0]]);
        params.push(("unused".into(), Var::from_vec(vec![1f32], 1, &Device::Cpu).unwrap()));
        assert_eq!(clip_grad_norm(&params, &grads, Some(1.0)).unwrap().norm, 5.0);
        assert_eq!(clip_grad_norm(&[], &grads, Some(1.0)).unwrap(), Clip { norm: 0.0, factor: 1.0 });
    }

    #[test]
    fn what_is_not_finite_is_reported_by_value() {
        for bad in [f32::NAN, f32::INFINITY] {
            let (params, grads) = with_grads(&[vec![1.0, bad]]);
            let clip = clip_grad_norm(&params, &grads, Some(1.0)).unwrap();
            assert!(!clip.is_finite() && clip.factor == 1.0, "{clip:?}");
        }
    }

    #[test]
    fn the_sum_has_the_same_bits_for_any_number_of_threads() {
        let values: Vec<f32> = (0..3 * CHUNK + 17).map(|i| ((i * 7919) % 1013) as f32 * 1e-3 - 0.4).collect();
        let here = square_sum(&values);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(here.to_bits(), pool.install(|| square_sum(&values)).to_bits());
        }
        let plain: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
        assert!((here / plain - 1.0).abs() < 1e-12);
    }
}
