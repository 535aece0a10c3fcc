//! Element-wise operations and reductions.

use candle_core::op::CmpOp;
use candle_core::{D, DType};

use super::case::{Case, N, f32, matrix, methods, pairs, value};

pub fn cases() -> Vec<Case> {
    let mut all = methods!(matrix(); recip, neg, exp, log, sin, cos, tanh, abs, sqr, sqrt, gelu, gelu_erf, erf, relu, silu, ceil, floor,
        round, sign, sum_all, mean_all, max_all, min_all, norm);
    all.extend(pairs!(matrix(); add, sub, mul, div, maximum, minimum, broadcast_add, broadcast_sub, broadcast_mul, broadcast_div,
        broadcast_maximum, broadcast_minimum, broadcast_eq, broadcast_ne, broadcast_lt, broadcast_le, broadcast_gt, broadcast_ge, eq, ne,
        lt, le, gt, ge, pow, broadcast_pow));
    all.extend([
        value!("broadcast_add of a row", [matrix(), f32(&[1, N])], |t| t[0].broadcast_add(&t[1])),
        value!("broadcast_mul of a column", [matrix(), f32(&[N, 1])], |t| t[0].broadcast_mul(&t[1])),
        value!("affine", [matrix()], |t| t[0].affine(2.0, 1.0)),
        value!("affine of a strided view", [matrix()], |t| t[0].narrow(1, 1, N / 2)?.affine(2.0, 1.0)),
        value!("affine of one column", [matrix()], |t| t[0].narrow(1, 3, 1)?.affine(2.0, 1.0)),
        value!("elu", [matrix()], |t| t[0].elu(1.0)),
        value!("elu of a strided view", [matrix()], |t| t[0].narrow(1, 1, N / 2)?.elu(1.0)),
        value!("powf", [matrix()], |t| t[0].powf(1.5)),
        value!("powf of a strided view", [matrix()], |t| t[0].t()?.powf(1.5)),
        value!("exp of a strided view", [matrix()], |t| t[0].t()?.exp()),
        value!("exp of a column", [matrix()], |t| t[0].narrow(1, 3, 1)?.exp()),
        value!("clamp", [matrix()], |t| t[0].clamp(0.3f32, 0.6f32)),
        value!("round_to", [matrix()], |t| t[0].round_to(1)),
        value!("cmp", [matrix(), matrix()], |t| t[0].cmp(&t[1], CmpOp::Lt)),
        value!("cmp with a number", [matrix()], |t| t[0].cmp(0.5f32, CmpOp::Ge)),
        value!("maximum with a number", [matrix()], |t| t[0].maximum(0.5f32)),
        value!("sum", [matrix()], |t| t[0].sum(1)),
        value!("sum of columns", [matrix()], |t| t[0].sum(0)),
        value!("sum of a strided view", [matrix()], |t| t[0].t()?.sum(1)),
        value!("sum_keepdim", [matrix()], |t| t[0].sum_keepdim((0, 1))),
        value!("mean", [matrix()], |t| t[0].mean(1)),
        value!("mean_keepdim", [matrix()], |t| t[0].mean_keepdim(0)),
        value!("var", [matrix()], |t| t[0].var(1)),
        value!("var_keepdim", [matrix()], |t| t[0].var_keepdim(0)),
        value!("max", [matrix()], |t| t[0].max(D::Minus1)),
        value!("max_keepdim", [matrix()], |t| t[0].max_keepdim(0)),
        value!("min", [matrix()], |t| t[0].min(D::Minus1)),
        value!("min_keepdim", [matrix()], |t| t[0].min_keepdim(0)),
        value!("argmax", [matrix()], |t| t[0].argmax(D::Minus1)),
        value!("argmax_keepdim", [matrix()], |t| t[0].argmax_keepdim(0)),
        value!("argmin", [matrix()], |t| t[0].argmin(0)),
        value!("argmin_keepdim", [matrix()], |t| t[0].argmin_keepdim(D::Minus1)),
        value!("log_sum_exp", [matrix()], |t| t[0].log_sum_exp(1)),
        value!("cumsum", [f32(&[16, 32])], |t| t[0].cumsum(1)),
        value!("to_dtype f64", [matrix()], |t| t[0].to_dtype(DType::F64)),
        value!("to_dtype u8 and back", [matrix()], |t| t[0].to_dtype(DType::U8)?.to_dtype(DType::F32)),
        value!("to_dtype of a strided view", [matrix()], |t| t[0].t()?.to_dtype(DType::F64)),
        value!("to_dtype bf16", [matrix()], |t| t[0].to_dtype(DType::BF16)?.to_dtype(DType::F32)),
        value!("to_dtype f16", [matrix()], |t| t[0].to_dtype(DType::F16)?.to_dtype(DType::F32)),
        value!("to_dtype i64", [matrix()], |t| t[0].to_dtype(DType::I64)),
    ]);
    all
}
