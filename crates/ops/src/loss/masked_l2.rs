//! Masked squared distance between two feature maps.

use candle_core::Tensor;
use docent_tensor::{F32View, f32_operand};
use rayon::prelude::*;

use super::{FusedLoss, fused};
use crate::simd::wide;
use crate::{Error, Result};

/// `sum over b, c, h, w of mask[b, h, w] (student - teacher)²`, divided by `normalizer`.
///
/// The teacher is data: it gets no gradient, even if it hangs on a graph. Where the mask is 0, the gradient is 0 (for
/// finite maps).
///
/// # Shapes
/// `student`, `teacher`: [B, C, H, W]; `mask`: B * H * W values, at least 0, row-major, one map for all channels.
/// Result: `[]`.
///
/// # Errors
/// If the shapes do not fit, a mask value is negative or not finite, a tensor is not f32 on the CPU, or `normalizer` is
/// not finite and above 0.
pub fn masked_l2(student: &Tensor, teacher: &Tensor, mask: &[f32], normalizer: f32) -> Result<Tensor> {
    let op = MaskedL2::NAME;
    let &[batch, channels, h, w] = student.dims() else {
        return Err(Error::operand(op, format!("the student has shape {:?}; [B, C, H, W] is needed", student.dims())));
    };
    if teacher.dims() != student.dims() {
        return Err(Error::operand(
            op,
            format!("the student is {:?} and the teacher {:?}; adapt one to the other", student.dims(), teacher.dims()),
        ));
    }
    let plane = h * w;
    if mask.len() != batch * plane {
        let given = mask.len();
        return Err(Error::operand(op, format!("the mask has {given} values; [{batch}, {h}, {w}] is needed")));
    }
    if let Some((i, m)) = mask.iter().enumerate().find(|&(_, &m)| !(m.is_finite() && m >= 0.0)) {
        return Err(Error::operand(op, format!("mask value {i} is {m}; it must be finite and at least 0")));
    }
    // Detached, lest the op keep the teacher's graph alive.
    let teacher = f32_operand(op, "the teacher", &teacher.detach())?;
    fused(student, MaskedL2 { teacher, mask: mask.to_vec(), channels, plane }, normalizer)
}

struct MaskedL2 {
    teacher: Tensor,
    mask: Vec<f32>,
    channels: usize,
    plane: usize,
}

impl MaskedL2 {
    /// The mask of the plane with this index (image-major, channel-minor).
    fn mask_of(&self, plane: usize) -> &[f32] {
        let image = plane / self.channels;
        &self.mask[image * self.plane..][..self.plane]
    }
}

wide! {
    /// `sum m (s - t)²` over a plane, in eight interleaved sums of f64 that are added in order: quick, and always the same.
    fn plane_sum(s: &[f32], t: &[f32], m: &[f32]) -> f64 {
        let mut lanes = [0f64; 8];
        let term = |s: f32, t: f32, m: f32| {
            let d = f64::from(s) - f64::from(t);
            f64::from(m) * d * d
        };
        let (s, t, m) = (s.chunks_exact(8), t.chunks_exact(8), m.chunks_exact(8));
        let rest = s.remainder().iter().zip(t.remainder()).zip(m.remainder());
        let rest = rest.map(|((&s, &t), &m)| term(s, t, m)).sum::<f64>();
        for ((s, t), m) in s.zip(t).zip(m) {
            for (k, lane) in lanes.iter_mut().enumerate() {
                *lane += term(s[k], t[k], m[k]);
            }
        }
        lanes.iter().sum::<f64>() + rest
    }

    /// Writes `factor m (s - t)`.
    fn plane_gradient(d: &mut [f32], s: &[f32], t: &[f32], m: &[f32], factor: f32) {
        for (((d, s), t), m) in d.iter_mut().zip(s).zip(t).zip(m) {
            *d = factor * m * (s - t);
        }
    }
}

impl FusedLoss for MaskedL2 {
    const NAME: &'static str = "masked_l2";

    fn sum(&self, x: &[f32]) -> Result<f64> {
        if self.plane == 0 {
            return Ok(0.0);
        }
        let view = F32View::new(Self::NAME, &self.teacher);
        let teacher = view.values()?;
        let planes: Vec<f64> = x
            .par_chunks(self.plane)
            .zip(teacher.par_chunks(self.plane))
            .enumerate()
            .map(|(i, (s, t))| plane_sum(s, t, self.mask_of(i)))
            .collect();
        Ok(planes.iter().sum())
    }

    fn gradient(&self, x: &[f32], scale: f32, dx: &mut [f32]) -> Result<()> {
        if self.plane == 0 {
            return Ok(());
        }
        let view = F32View::new(Self::NAME, &self.teacher);
        let teacher = view.values()?;
        dx.par_chunks_mut(self.plane)
            .zip(x.par_chunks(self.plane).zip(teacher.par_chunks(self.plane)))
            .enumerate()
            .for_each(|(i, (d, (s, t)))| plane_gradient(d, s, t, self.mask_of(i), 2.0 * scale));
        Ok(())
    }
}
