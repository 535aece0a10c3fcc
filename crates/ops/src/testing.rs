//! Helpers for gradient tests: seeded tensors and a check against finite differences.

use std::fmt::Display;

use candle_core::{Device, Shape, Tensor, Var};

use crate::{Error, Result};

/// Seeded values spread over (-1, 1): a stand-in for `randn`, the same on every machine.
///
/// # Errors
/// Never for a shape that fits in memory.
pub fn random(seed: u64, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    Ok(Tensor::from_vec(values(seed, shape.elem_count()), shape, &Device::Cpu)?)
}

/// `n` seeded values in (-1, 1).
pub fn values(seed: u64, n: usize) -> Vec<f32> {
    // splitmix64, whose increments make neighbouring seeds unrelated.
    let mut state = seed.wrapping_mul(0x2545_F491_4F6C_DD1D).wrapping_add(0x9E37_79B9_7F4A_7C15);
    (0..n)
        .map(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            ((z >> 40) as f32 + 0.5) / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Compares candle's gradients of `f` with central differences of step `eps`.
///
/// The loss is `sum(r * f(inputs)) + sum of squares of every input`: `r` is a fixed pattern (with a plain sum, softmax
/// and normalisation would have no gradient to check), and the squares are a second consumer of each input. The
/// differences are taken in f64 of `f` alone; the squares' part is added exactly. An element passes when
/// `|analytic - numeric| <= tol * max(1, |numeric|)`.
///
/// # Errors
/// The first element that does not pass, a gradient that is missing, or any error of `f`.
pub fn check_gradient<E: Display>(
    f: impl Fn(&[Tensor]) -> std::result::Result<Tensor, E>,
    inputs: &[Tensor],
    eps: f32,
    tol: f32,
) -> Result<()> {
    let fail = |message: String| Error::operand("check_gradient", message);
    let call = |inputs: &[Tensor]| f(inputs).map_err(|e| fail(e.to_string()));

    let vars = inputs.iter().map(Var::from_tensor).collect::<candle_core::Result<Vec<_>>>()?;
    let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let out = call(&tracked)?;
    let pattern = random(17, out.shape().clone())?;
    let mut loss = (&out * &pattern)?.sum_all()?;
    for t in &tracked {
        loss = (loss + t.sqr()?.sum_all()?)?;
    }
    let grads = loss.backward()?;

    let pattern = pattern.flatten_all()?.to_vec1::<f32>()?;
    let value = |inputs: &[Tensor]| -> Result<f64> {
        let out = call(inputs)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(out.iter().zip(&pattern).map(|(&o, &r)| f64::from(o) * f64::from(r)).sum())
    };
    for (which, input) in inputs.iter().enumerate() {
        let analytic = grads.get(&tracked[which]).ok_or_else(|| fail(format!("input {which} has no gradient")))?;
        if analytic.dims() != input.dims() {
            return Err(fail(format!(
                "input {which} of shape {:?} has a gradient of shape {:?}",
                input.dims(),
                analytic.dims()
            )));
        }
        let analytic = analytic.flatten_all()?.to_vec1::<f32>()?;
        let values = input.flatten_all()?.to_vec1::<f32>()?;
        for i in 0..values.len() {
            let (up, down) = (values[i] + eps, values[i] - eps);
            let at = |v: f32| -> Result<f64> {
                let mut moved = values.clone();
                moved[i] = v;
                let mut all = inputs.to_vec();
                all[which] = Tensor::from_vec(moved, input.shape().clone(), &Device::Cpu)?;
                value(&all)
            };
            // The step as it is in f32, not as it was asked for.
            let numeric = (at(up)? - at(down)?) / (f64::from(up) - f64::from(down)) + 2.0 * f64::from(values[i]);
            let off = (f64::from(analytic[i]) - numeric).abs();
            if off.is_nan() || off > f64::from(tol) * numeric.abs().max(1.0) {
                return Err(fail(format!(
                    "input {which}, element {i}: gradient {} against a difference of {numeric}",
                    analytic[i]
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_gradient_passes_and_a_wrong_one_is_found() {
        let x = random(1, (2, 3)).unwrap();
        check_gradient(|t| (&t[0] * &t[0])?.exp(), std::slice::from_ref(&x), 1e-3, 1e-3).unwrap();
        // Detaching one factor halves the gradient.
        let wrong = check_gradient(|t| &t[0] * t[0].detach(), &[x], 1e-3, 1e-3);
        assert!(wrong.unwrap_err().to_string().contains("element"));
    }

    #[test]
    fn values_are_spread_and_the_same_for_ever() {
        let v = values(3, 4096);
        assert!(v.iter().all(|x| x.abs() < 1.0));
        assert!(v.iter().sum::<f32>().abs() / 4096.0 < 0.05);
        assert_eq!(values(3, 2), v[..2]);
        assert_ne!(values(4, 2), v[..2]);
    }
}
