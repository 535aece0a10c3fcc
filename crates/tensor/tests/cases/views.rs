//! Views, copies and operations that are made of them.

use candle_core::{Device, IndexOp, Tensor, Var};

use super::case::{Case, N, effect, f32, matrix, value};

fn last(parts: candle_core::Result<Vec<Tensor>>) -> candle_core::Result<Tensor> {
    parts?.pop().ok_or_else(|| candle_core::Error::Msg("there is no part".into()))
}

pub fn cases() -> Vec<Case> {
    vec![
        value!("clone", [matrix()], |t| Ok(t[0].clone())),
        value!("copy", [matrix()], |t| t[0].copy()),
        value!("detach", [matrix()], |t| Ok(t[0].detach())),
        value!("contiguous", [matrix()], |t| t[0].t()?.contiguous()),
        value!("force_contiguous", [matrix()], |t| t[0].force_contiguous()),
        value!("reshape", [matrix()], |t| t[0].reshape((N / 2, 2 * N))),
        value!("reshape of a strided view", [matrix()], |t| t[0].t()?.reshape((N / 2, 2 * N))),
        value!("flatten_all", [matrix()], |t| t[0].flatten_all()),
        value!("flatten_from", [f32(&[4, 8, 16])], |t| t[0].flatten_from(1)),
        value!("flatten_to", [f32(&[4, 8, 16])], |t| t[0].flatten_to(1)),
        value!("flatten", [f32(&[4, 8, 16])], |t| t[0].flatten(0, 1)),
        value!("narrow", [matrix()], |t| t[0].narrow(0, 1, N / 2)),
        value!("chunk", [matrix()], |t| last(t[0].chunk(3, 1))),
        value!("get", [matrix()], |t| t[0].get(3)),
        value!("get_on_dim", [matrix()], |t| t[0].get_on_dim(1, 3)),
        value!("i", [matrix()], |t| t[0].i((1..3, ..4))),
        value!("t", [matrix()], |t| t[0].t()),
        value!("transpose", [f32(&[4, 8, 16])], |t| t[0].transpose(0, 2)),
        value!("permute", [f32(&[4, 8, 16])], |t| t[0].permute((2, 0, 1))),
        value!("squeeze", [f32(&[4, 1, 16])], |t| t[0].squeeze(1)),
        value!("unsqueeze", [matrix()], |t| t[0].unsqueeze(1)),
        value!("broadcast_as", [f32(&[N, 1])], |t| t[0].broadcast_as((N, 4))),
        value!("broadcast_left", [matrix()], |t| t[0].broadcast_left(2)),
        value!("expand", [f32(&[N, 1])], |t| t[0].expand((N, 4))),
        value!("repeat", [f32(&[8, 16])], |t| t[0].repeat((2, 3))),
        value!("roll", [matrix()], |t| t[0].roll(3, 0)),
        value!("flip", [matrix()], |t| t[0].flip(&[0])),
        value!("unfold", [matrix()], |t| t[0].unfold(1, 4, 2)),
        value!("pad_with_zeros", [matrix()], |t| t[0].pad_with_zeros(1, 2, 3)),
        value!("pad_with_same", [matrix()], |t| t[0].pad_with_same(1, 2, 3)),
        value!("to_device", [matrix()], |t| t[0].to_device(&Device::Cpu)),
        value!("apply", [matrix()], |t| t[0].apply(&|x: &Tensor| x.exp())),
        value!("Var::from_tensor", [matrix()], |t| Ok(Var::from_tensor(&t[0])?.as_tensor().clone())),
        effect!("Var::set", [matrix()], |t| Var::zeros((N, N), t[0].dtype(), &Device::Cpu)?.set(&t[0])),
        effect!("slice_set", [matrix(), f32(&[4, N])], |t| t[0].slice_set(&t[1], 0, 2)),
        effect!("zero_set", [matrix()], |t| t[0].zero_set()),
        effect!("one_set", [matrix()], |t| t[0].one_set()),
        effect!("const_set", [matrix()], |t| t[0].const_set(candle_core::scalar::Scalar::from(2f32))),
    ]
}
