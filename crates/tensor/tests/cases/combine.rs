//! Products, sums of products and joins of tensors.

use candle_core::Tensor;
use candle_core::streaming::{BinOp, StreamTensor, StreamingBinOp};

use super::case::{Case, N, f32, matrix, pairs, u8, value};

pub fn cases() -> Vec<Case> {
    let mut all = pairs!(matrix(); matmul, broadcast_matmul);
    all.extend([
        value!("matmul of a transposed left side", [matrix(), matrix()], |t| t[0].t()?.matmul(&t[1])),
        value!("matmul of a transposed right side", [matrix(), matrix()], |t| t[0].matmul(&t[1].t()?)),
        value!("matmul in f64", [f32(&[64, 64]), f32(&[64, 64])], |t| {
            use candle_core::DType::F64;
            t[0].to_dtype(F64)?.matmul(&t[1].to_dtype(F64)?)
        }),
        value!("matmul of batches", [f32(&[3, 64, 128]), f32(&[3, 128, 32])], |t| t[0].matmul(&t[1])),
        value!("broadcast_matmul of batches", [f32(&[3, 64, 128]), f32(&[128, 32])], |t| t[0].broadcast_matmul(&t[1])),
        value!("dot", [f32(&[N * N]), f32(&[N * N])], |t| t[0].dot(&t[1])),
        value!("mv", [matrix(), f32(&[N])], |t| t[0].mv(&t[1])),
        value!("cat of rows", [matrix(), matrix()], |t| Tensor::cat(&[&t[0], &t[1]], 0)),
        value!("cat of columns", [matrix(), matrix()], |t| Tensor::cat(&[&t[0], &t[1]], 1)),
        value!("cat of strided views", [matrix(), matrix()], |t| Tensor::cat(&[t[0].t()?, t[1].t()?], 0)),
        value!("cat of three", [matrix(), matrix(), matrix()], |t| Tensor::cat(t, 1)),
        value!("stack", [matrix(), matrix()], |t| Tensor::stack(t, 1)),
        value!("where_cond", [u8(&[N, N]), matrix(), matrix()], |t| t[0].where_cond(&t[1], &t[2])),
        value!("where_cond of strided views", [u8(&[N, N]), matrix(), matrix()], |t| {
            t[0].t()?.where_cond(&t[1].t()?, &t[2])
        }),
        value!("meshgrid", [f32(&[N]), f32(&[N])], |t| {
            let grids = Tensor::meshgrid(t, true)?;
            &grids[0] + &grids[1]
        }),
        value!("slice_scatter", [matrix(), f32(&[N, 4])], |t| t[0].slice_scatter(&t[1], 1, 2)),
        value!("slice_scatter0", [matrix(), f32(&[4, N])], |t| t[0].slice_scatter0(&t[1], 2)),
        value!("slice_assign", [matrix(), f32(&[4, 4])], |t| t[0].slice_assign(&[1..5, 2..6], &t[1])),
        value!("StreamTensor::cat2", [matrix(), matrix()], |t| {
            let [a, b] = [0, 1].map(|i| StreamTensor::from_tensor(t[i].clone()));
            let all = a.cat2(&b, 0)?;
            all.as_option().cloned().ok_or_else(|| candle_core::Error::Msg("the stream is empty".into()))
        }),
        value!("StreamingBinOp", [matrix(), matrix()], |t| {
            StreamingBinOp::new(BinOp::Add, candle_core::D::Minus1).forward(&t[0], &t[1])
        }),
    ]);
    all
}
