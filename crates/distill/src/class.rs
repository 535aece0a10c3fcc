//! The classification term: soft targets from the teacher's head, straight from logits, and its least value.

use candle_core::Tensor;
use docent_ops::loss::{FusedLoss, fused};

use crate::config::{ClsLoss, ClsSelect};
use crate::error::{Error, Result};
use crate::probability::Row;

/// The RoIs the classification term reads, as rows of the heads' outputs. Reads values only: no gradient.
///
/// # Shapes
/// `student` and `teacher` `[R, K]` logits, `labels` R classes; `positives` are rows.
///
/// # Errors
/// [`Error::Mismatch`] if shapes, labels or rows do not fit.
pub fn select_rows(
    select: ClsSelect,
    student: &Tensor,
    teacher: &Tensor,
    labels: &[u32],
    positives: &[usize],
) -> Result<Vec<usize>> {
    let (rows, classes) = check(student, teacher, positives)?;
    if labels.len() != rows || labels.iter().any(|&y| y as usize >= classes) {
        return Err(Error::mismatch(
            "classification term",
            format!("{} labels for {rows} RoIs, each to be below the {classes} classes of the heads", labels.len()),
        ));
    }
    match select {
        ClsSelect::Positives => return Ok(positives.to_vec()),
        ClsSelect::All => return Ok((0..rows).collect()),
        ClsSelect::TeacherCorrect | ClsSelect::TeacherBetter => {}
    }
    let (s, t) = (values(student)?, values(teacher)?);
    let log_p = |logits: &[f32], r: usize| Row::new(&logits[r * classes..][..classes], 1.0);
    let keep = |&r: &usize| {
        let (y, teacher) = (labels[r] as usize, log_p(&t, r));
        match select {
            ClsSelect::TeacherCorrect => teacher.argmax == y,
            _ => teacher.log_p[y] > log_p(&s, r).log_p[y],
        }
    };
    Ok(positives.iter().copied().filter(keep).collect())
}

/// The classification term, over the rows given:
///
/// - [`ClsLoss::Bce`]: `1/normalizer * sum_r sum_c -( t_c log p_c + (1 - t_c) log(1 - p_c) )`, p and t the softmax
///   probabilities of student and teacher;
/// - [`ClsLoss::Kl`]: `T²/normalizer * sum_r sum_c t_c (log t_c - log p_c)` at temperature T;
/// - [`ClsLoss::SoftCe`]: `T²/normalizer * sum_r sum_c -t_c log p_c` at temperature T.
///
/// Works on logits: `log p` and `log(1 - p)` by log-sum-exp, where probabilities taken first would be wrong in f32
/// from a margin of about 8 on. Only the student gets a gradient. No row at all gives exactly 0 with a zero gradient.
///
/// # Shapes
/// `student` and `teacher` `[R, K]`; `rows` below R, repeats allowed. Returns a scalar, shape `[]`.
///
/// # Errors
/// [`Error::Mismatch`] if shapes or rows do not fit; [`Error::Ops`] if `normalizer` is not a positive number.
pub fn class_loss(
    student: &Tensor,
    teacher: &Tensor,
    rows: &[usize],
    kind: ClsLoss,
    temperature: f32,
    normalizer: f32,
) -> Result<Tensor> {
    let kernel = soft_target(student, teacher, rows, kind, temperature)?;
    Ok(fused(student, kernel, normalizer)?)
}

/// The least value [`class_loss`] can take over the same rows: the teacher's binary entropies for `bce`, T² times its
/// entropy for `soft_ce`, 0 for `kl`.
///
/// # Errors
/// As [`class_loss`].
pub fn teacher_entropy(
    teacher: &Tensor,
    rows: &[usize],
    kind: ClsLoss,
    temperature: f32,
    normalizer: f32,
) -> Result<f64> {
    let kernel = soft_target(teacher, teacher, rows, kind, temperature)?;
    // Rounded as the loss itself is, so that a student equal to its teacher is at the floor to the bit.
    Ok(f64::from((kernel.sum(&kernel.teacher)? / f64::from(normalizer)) as f32))
}

fn soft_target(
    student: &Tensor,
    teacher: &Tensor,
    rows: &[usize],
    kind: ClsLoss,
    temperature: f32,
) -> Result<SoftTarget> {
    let (_, classes) = check(student, teacher, rows)?;
    if !temperature.is_finite() || temperature <= 0.0 {
        return Err(Error::config(
            "temperature",
            format!("{temperature} is not a temperature; give a positive number"),
        ));
    }
    Ok(SoftTarget { teacher: values(teacher)?, rows: rows.to_vec(), classes, kind, temperature })
}

fn check(student: &Tensor, teacher: &Tensor, rows: &[usize]) -> Result<(usize, usize)> {
    if student.dims() != teacher.dims() {
        return Err(Error::mismatch(
            "classification term",
            format!(
                "the student's logits are {:?}, the teacher's {:?}; both heads must see the same RoIs and know the \
                 same classes in the same order",
                student.dims(),
                teacher.dims()
            ),
        ));
    }
    let (count, classes) = student.dims2()?;
    if classes < 2 {
        return Err(Error::mismatch("classification term", "the heads have no class beside the background"));
    }
    match rows.iter().find(|&&r| r >= count) {
        Some(r) => Err(Error::mismatch(
            "classification term",
            format!("RoI {r} is asked for, but the heads' outputs have {count} rows"),
        )),
        None => Ok((count, classes)),
    }
}

/// The numbers of a tensor, row-major, without its graph.
pub(crate) fn values(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.detach().flatten_all()?.to_vec1::<f32>()?)
}

/// One scalar from the student's logits; the teacher's are plain data, so that no gradient can reach them.
struct SoftTarget {
    teacher: Vec<f32>,
    rows: Vec<usize>,
    classes: usize,
    kind: ClsLoss,
    temperature: f32,
}

impl SoftTarget {
    fn pair(&self, student: &[f32], r: usize) -> (Row, Row) {
        let span = r * self.classes..(r + 1) * self.classes;
        (Row::new(&student[span.clone()], self.temperature), Row::new(&self.teacher[span], self.temperature))
    }
}

impl FusedLoss for SoftTarget {
    const NAME: &'static str = "distill-class-loss";

    fn sum(&self, student: &[f32]) -> docent_ops::Result<f64> {
        let t2 = self.temperature * self.temperature;
        let row = |&r: &usize| -> f64 {
            let (p, t) = self.pair(student, r);
            let class = |c: usize| match self.kind {
                ClsLoss::Bce => -(t.p(c) * p.log_p[c] + t.q(c) * p.log_q[c]),
                ClsLoss::Kl => t2 * t.p(c) * (t.log_p[c] - p.log_p[c]),
                ClsLoss::SoftCe => -t2 * t.p(c) * p.log_p[c],
            };
            (0..self.classes).map(|c| f64::from(class(c))).sum()
        };
        Ok(self.rows.iter().map(row).sum())
    }

    fn gradient(&self, student: &[f32], scale: f32, gradient: &mut [f32]) -> docent_ops::Result<()> {
        for &r in &self.rows {
            let (p, t) = self.pair(student, r);
            let out = &mut gradient[r * self.classes..][..self.classes];
            match self.kind {
                ClsLoss::Bce => bce_gradient(&p, &t, scale, out),
                // T² from the loss, 1/T from the logits.
                ClsLoss::Kl | ClsLoss::SoftCe => {
                    for (c, g) in out.iter_mut().enumerate() {
                        *g += scale * self.temperature * p.minus(&t, c);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Adds `scale * dL/dz` of one row of the binary cross-entropy to `out`.
///
/// With `d_c = p_c - t_c`, the chain rule over the softmax gives
/// `dL/dz_k = d_k - sum_{c != k} d_c p_k / (1 - p_c)`.
/// Only the most probable class m can have a vanishing `1 - p_m`; there the ratio is taken as `exp(log p_k - log(1 -
/// p_m))`, which is at most 1.
fn bce_gradient(p: &Row, t: &Row, scale: f32, out: &mut [f32]) {
    let m = p.argmax;
    let ratio = |c: usize| p.minus(t, c) / p.q(c);
    let others: f32 = (0..out.len()).filter(|&c| c != m).map(ratio).sum();
    let dm = p.minus(t, m);
    for (k, g) in out.iter_mut().enumerate() {
        let dk = p.minus(t, k);
        *g += scale
            * if k == m {
                dk - p.p(k) * others
            } else {
                dk - p.p(k) * (others - ratio(k)) - (p.log_p[k] - p.log_q[m]).exp() * dm
            };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use proptest::prelude::*;

    fn tensor(rows: &[&[f32]]) -> Tensor {
        let flat: Vec<f32> = rows.concat();
        Tensor::from_vec(flat, (rows.len(), rows[0].len()), &Device::Cpu).unwrap()
    }

    fn value_and_gradient(student: &[f32], teacher: &[f32], kind: ClsLoss, temperature: f32) -> (f32, Vec<f32>) {
        let s = Var::from_tensor(&tensor(&[student])).unwrap();
        let loss = class_loss(s.as_tensor(), &tensor(&[teacher]), &[0], kind, temperature, 1.0).unwrap();
        let gradients = loss.backward().unwrap();
        (loss.to_scalar().unwrap(), values(gradients.get(s.as_tensor()).unwrap()).unwrap())
    }

    /// The same in f64, by the chain rule over the softmax, with every `1 - p` summed from the other classes.
    fn reference(student: &[f32], teacher: &[f32]) -> (f64, Vec<f64>) {
        let softmax = |z: &[f32]| {
            let e: Vec<f64> = z.iter().map(|&v| f64::from(v).exp()).collect();
            let sum: f64 = e.iter().sum();
            let q = |c: usize| e.iter().enumerate().filter(|(o, _)| *o != c).map(|(_, v)| v / sum).sum::<f64>();
            let p: Vec<f64> = e.iter().map(|v| v / sum).collect();
            ((0..z.len()).map(q).collect::<Vec<_>>(), p)
        };
        let ((q, p), (tq, t)) = (softmax(student), softmax(teacher));
        let n = p.len();
        let loss = (0..n).map(|c| -(t[c] * p[c].ln() + tq[c] * q[c].ln())).sum();
        let slope = |c: usize| tq[c] / q[c] - t[c] / p[c];
        let jacobian = |c: usize, k: usize| if c == k { p[c] * q[c] } else { -p[c] * p[k] };
        let gradient = (0..n).map(|k| (0..n).map(|c| slope(c) * jacobian(c, k)).sum()).collect();
        (loss, gradient)
    }

    fn close(a: f32, b: f64, tolerance: f64) -> bool {
        (f64::from(a) - b).abs() <= tolerance * b.abs().max(1.0)
    }

    #[test]
    fn f32_is_right_at_every_margin() {
        for margin in [0.0f32, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 30.0, 36.0, 40.0] {
            let student = [0.0, margin, -0.5, 0.3];
            let teachers: [[f32; 4]; 4] = [
                [0.0, margin, -0.5, 0.3],
                [0.0, margin + 1.0, 0.2, 0.0],
                [margin, 0.0, 0.1, -0.2],
                [0.0, 1.0, 0.5, 0.0],
            ];
            for teacher in &teachers {
                for (s, t) in [(&student, teacher), (teacher, &student)] {
                    let (loss, gradient) = value_and_gradient(s, t, ClsLoss::Bce, 1.0);
                    let (want, wants) = reference(s, t);
                    assert!(close(loss, want, 1e-5), "margin {margin}: {loss} for {want}");
                    for (g, w) in gradient.iter().zip(&wants) {
                        assert!(close(*g, *w, 3e-6), "margin {margin}: {gradient:?} for {wants:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn small_gradients_keep_their_digits() {
        // Both certain of one class by different margins: gradients near exp(-16), where 1 - p taken from p is a few
        // ulps.
        let (s, t) = ([0.0, 16.0, -1.0], [0.0, 18.0, -2.0]);
        let (_, gradient) = value_and_gradient(&s, &t, ClsLoss::Bce, 1.0);
        let (_, wants) = reference(&s, &t);
        for (g, w) in gradient.iter().zip(&wants) {
            assert!((f64::from(*g) / w - 1.0).abs() < 1e-4, "{gradient:?} for {wants:?}");
        }
    }

    #[test]
    fn a_teacher_like_the_student_is_the_minimum() {
        let z = [2.5, -1.0, 0.125, 7.0];
        for (kind, temperature) in [(ClsLoss::Bce, 1.0), (ClsLoss::Kl, 2.0), (ClsLoss::SoftCe, 3.0)] {
            let (loss, gradient) = value_and_gradient(&z, &z, kind, temperature);
            assert_eq!(gradient, [0.0; 4], "{kind:?}");
            let floor = teacher_entropy(&tensor(&[&z]), &[0], kind, temperature, 1.0).unwrap();
            assert_eq!(f64::from(loss), floor, "{kind:?}");
            if kind == ClsLoss::Kl {
                assert_eq!(floor, 0.0);
            } else {
                assert!(floor > 0.0);
            }
        }
    }

    #[test]
    fn no_row_is_exactly_zero() {
        let s = Var::from_tensor(&tensor(&[&[f32::INFINITY, 1.0], &[0.0, 1.0]])).unwrap();
        let loss = class_loss(s.as_tensor(), s.as_tensor(), &[], ClsLoss::Bce, 1.0, 1.0).unwrap();
        assert_eq!(loss.to_scalar::<f32>().unwrap(), 0.0);
        let gradients = loss.backward().unwrap();
        assert_eq!(values(gradients.get(s.as_tensor()).unwrap()).unwrap(), [0.0; 4]);
        assert_eq!(teacher_entropy(s.as_tensor(), &[], ClsLoss::Bce, 1.0, 1.0).unwrap(), 0.0);
    }

    #[test]
    fn selections() {
        let student = tensor(&[&[0., 1., 0.], &[0., 3., 0.], &[0., 0., 2.], &[1., 0., 0.]]);
        // Row 0: right and surer than the student. Row 1: right, less sure. Row 2: wrong, and less sure of class 2.
        let teacher = tensor(&[&[0., 2., 0.], &[0., 1., 0.], &[5., 0., 4.], &[2., 0., 0.]]);
        let select = |s, labels: &[u32]| select_rows(s, &student, &teacher, labels, &[0, 1, 2]).unwrap();
        let labels = [1, 1, 2, 0];
        assert_eq!(select(ClsSelect::Positives, &labels), [0, 1, 2]);
        assert_eq!(select(ClsSelect::All, &labels), [0, 1, 2, 3]);
        assert_eq!(select(ClsSelect::TeacherCorrect, &labels), [0, 1]);
        assert_eq!(select(ClsSelect::TeacherBetter, &labels), [0]);
        // Other labels: class 0 on row 2 makes the teacher right; class 2 on row 1 makes it surer without being right.
        assert_eq!(select(ClsSelect::TeacherCorrect, &[1, 1, 0, 0]), [0, 1, 2]);
        assert_eq!(select(ClsSelect::TeacherBetter, &[1, 2, 2, 0]), [0, 1]);
        assert_eq!(select(ClsSelect::TeacherCorrect, &[1, 2, 2, 0]), [0]);
    }

    #[test]
    fn misfits_are_named() {
        let (a, b) = (tensor(&[&[0., 1., 2.]]), tensor(&[&[0., 1.]]));
        let message = class_loss(&a, &b, &[0], ClsLoss::Bce, 1.0, 1.0).unwrap_err().to_string();
        assert!(message.contains("[1, 3]") && message.contains("[1, 2]"), "{message}");
        assert!(class_loss(&a, &a, &[1], ClsLoss::Bce, 1.0, 1.0).is_err());
        assert!(class_loss(&a, &a, &[0], ClsLoss::Bce, 1.0, 0.0).is_err());
        assert!(class_loss(&a, &a, &[0], ClsLoss::Kl, 0.0, 1.0).is_err());
        assert!(select_rows(ClsSelect::Positives, &a, &a, &[3], &[0]).is_err());
        assert!(select_rows(ClsSelect::Positives, &a, &a, &[], &[]).is_err());
    }

    proptest! {
        #[test]
        fn finite_at_and_above_the_floor(
            s in prop::array::uniform5(-60.0f32..60.0), t in prop::array::uniform5(-60.0f32..60.0),
        ) {
            let (loss, gradient) = value_and_gradient(&s, &t, ClsLoss::Bce, 1.0);
            let floor = teacher_entropy(&tensor(&[&t]), &[0], ClsLoss::Bce, 1.0, 1.0).unwrap() as f32;
            prop_assert!(loss.is_finite() && loss >= floor - 1e-5 * floor.max(1.0), "{loss} below {floor}");
            // Softmax does not see a constant added to all logits: the gradient sums to nothing.
            prop_assert!(gradient.iter().all(|g| g.is_finite()));
            prop_assert!(gradient.iter().sum::<f32>().abs() < 1e-4);
            let (want, wants) = reference(&s, &t);
            prop_assert!(close(loss, want, 1e-5));
            prop_assert!(gradient.iter().zip(&wants).all(|(g, w)| close(*g, *w, 1e-5)), "{gradient:?} for {wants:?}");
        }
    }
}
