//! candle-nn's functions and layers.

use candle_core::{D, Module, ModuleT, Tensor};
use candle_nn::attention::AttnMask;
use candle_nn::{ops, rotary_emb};

use super::case::{Case, N, f32, matrix, u32, value};

fn heads() -> super::Operand {
    f32(&[1, 16, 4, 32])
}

fn angles() -> super::Operand {
    f32(&[4, 16])
}

pub fn cases() -> Vec<Case> {
    vec![
        value!("softmax", [matrix()], |t| ops::softmax(&t[0], 1)),
        value!("log_softmax", [matrix()], |t| ops::log_softmax(&t[0], D::Minus1)),
        value!("softmax_last_dim", [matrix()], |t| ops::softmax_last_dim(&t[0])),
        value!("sigmoid", [matrix()], |t| ops::sigmoid(&t[0])),
        value!("sigmoid of a strided view", [matrix()], |t| ops::sigmoid(&t[0].t()?)),
        value!("hard_sigmoid", [matrix()], |t| ops::hard_sigmoid(&t[0])),
        value!("ops::silu", [matrix()], |t| ops::silu(&t[0])),
        value!("swiglu", [matrix()], |t| ops::swiglu(&t[0])),
        value!("mish", [matrix()], |t| ops::mish(&t[0])),
        value!("selu", [matrix()], |t| ops::selu(&t[0], 1.6, 1.05)),
        value!("leaky_relu", [matrix()], |t| ops::leaky_relu(&t[0], 0.1)),
        value!("dropout", [matrix()], |t| ops::dropout(&t[0], 0.5)),
        value!("rms_norm", [matrix(), f32(&[N])], |t| ops::rms_norm(&t[0], &t[1], 1e-5)),
        value!("rms_norm_slow", [matrix(), f32(&[N])], |t| ops::rms_norm_slow(&t[0], &t[1], 1e-5)),
        value!("layer_norm", [matrix(), f32(&[N]), f32(&[N])], |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-5)),
        value!("layer_norm_slow", [matrix(), f32(&[N]), f32(&[N])], |t| ops::layer_norm_slow(
            &t[0], &t[1], &t[2], 1e-5
        )),
        value!("pixel_shuffle", [f32(&[1, 8, 12, 12])], |t| ops::pixel_shuffle(&t[0], 2)),
        value!("pixel_unshuffle", [f32(&[1, 8, 12, 12])], |t| ops::pixel_unshuffle(&t[0], 2)),
        value!("replication_pad2d", [f32(&[1, 8, 12, 12])], |t| ops::replication_pad2d(&t[0], 1)),
        value!("rope", [f32(&[1, 3, 4, 32]), angles(), angles()], |t| rotary_emb::rope(&t[0], &t[1], &t[2])),
        value!("rope_slow", [f32(&[1, 3, 4, 32]), angles(), angles()], |t| rotary_emb::rope_slow(&t[0], &t[1], &t[2])),
        value!("rope_i", [f32(&[1, 3, 4, 32]), angles(), angles()], |t| rotary_emb::rope_i(&t[0], &t[1], &t[2])),
        value!("rope_i_slow", [f32(&[1, 3, 4, 32]), angles(), angles()], |t| {
            rotary_emb::rope_i_slow(&t[0], &t[1], &t[2])
        }),
        value!("rope_thd", [f32(&[1, 4, 3, 32]), angles(), angles()], |t| rotary_emb::rope_thd(&t[0], &t[1], &t[2])),
        value!("flash_attn", [heads(), heads(), heads()], |t| {
            candle_nn::attention::flash_attn::<f32>(&t[0], &t[1], &t[2], 1.0, AttnMask::None, None, None)
        }),
        value!("flash_attn, causal", [heads(), heads(), heads()], |t| {
            candle_nn::attention::flash_attn::<f32>(&t[0], &t[1], &t[2], 1.0, AttnMask::causal(), None, None)
        }),
        value!("gumbel_softmax", [f32(&[N])], |t| candle_nn::sampling::gumbel_softmax(&t[0], 0.5, 0)),
        value!("Linear", [matrix(), matrix(), f32(&[N])], |t| {
            candle_nn::Linear::new(t[1].clone(), Some(t[2].clone())).forward(&t[0])
        }),
        value!("Embedding", [u32(&[16]), matrix()], |t| candle_nn::Embedding::new(t[1].clone(), N).forward(&t[0])),
        value!("Conv2d", [f32(&[1, 8, 12, 12]), f32(&[4, 8, 3, 3]), f32(&[4])], |t| {
            candle_nn::Conv2d::new(t[1].clone(), Some(t[2].clone()), Default::default()).forward(&t[0])
        }),
        value!("LayerNorm", [matrix(), f32(&[N]), f32(&[N])], |t| {
            candle_nn::LayerNorm::new(t[1].clone(), t[2].clone(), 1e-5).forward(&t[0])
        }),
        value!("GroupNorm", [f32(&[1, 8, 12, 12]), f32(&[8]), f32(&[8])], |t| {
            candle_nn::GroupNorm::new(t[1].clone(), t[2].clone(), 8, 2, 1e-5)?.forward(&t[0])
        }),
        value!("BatchNorm", [f32(&[2, 8, 12, 12]), f32(&[8]), f32(&[8]), f32(&[8]), f32(&[8])], |t| {
            let [mean, var, weight, bias] = [1, 2, 3, 4].map(|i| t[i].clone());
            candle_nn::BatchNorm::new(8, mean, var, weight, bias, 1e-5)?.forward_t(&t[0], false)
        }),
        value!("PReLU", [matrix(), f32(&[1])], |t| candle_nn::PReLU::new(t[1].clone(), true).forward(&t[0])),
        value!("loss::mse", [matrix(), matrix()], |t| candle_nn::loss::mse(&t[0], &t[1])),
        value!("loss::huber", [matrix(), matrix()], |t| candle_nn::loss::huber(&t[0], &t[1], 0.3)),
        value!("loss::binary_cross_entropy_with_logit", [matrix(), matrix()], |t| {
            candle_nn::loss::binary_cross_entropy_with_logit(&t[0], &t[1])
        }),
        value!("loss::nll", [matrix(), u32(&[N])], |t| candle_nn::loss::nll(&t[0], &t[1])),
        value!("loss::cross_entropy", [matrix(), u32(&[N])], |t| candle_nn::loss::cross_entropy(&t[0], &t[1])),
        value!("encoding::one_hot", [u32(&[16])], |t| candle_nn::encoding::one_hot::<f32>(t[0].clone(), 4, 1.0, 0.0)),
        value!("KvCache", [f32(&[1, 2, 4, 8]), f32(&[1, 2, 4, 8])], |t| {
            let (k, v): (Tensor, Tensor) = candle_nn::kv_cache::KvCache::new(2, 64).append(&t[0], &t[1])?;
            k + v
        }),
    ]
}
