//! This crate's operations under docent-tensor's freeing backward pass: candle's gradients, and freed tensors refused.

#![allow(clippy::unwrap_used, clippy::panic)]

mod operations;

use candle_core::{CpuStorage, Device, Shape, Storage, Tensor, Var};
use docent_ops::testing::random;
use docent_ops::{
    BiasOrResidual, BoxXyxy, Conv2dParams, RoiAlignParams, RoiLevel, batch_norm_train, conv_batch_norm_train, conv2d,
    linear, relu, roi_linear, softmax, upsample_nearest_add,
};
use docent_tensor::{backward_freeing, release};

use operations::{Operation, operations};

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn var(seed: u64, shape: impl Into<Shape>) -> Var {
    Var::from_tensor(&random(seed, shape).unwrap()).unwrap()
}

/// A small net with what the backward pass must compute correctly: a Var with three consumers, one whose consumers are candle's, views, values
/// with two consumers, fused norms, a released value and one that is read for the last time.
struct Net {
    vars: [Var; 7],
    x: Tensor,
}

impl Net {
    fn new() -> Self {
        let vars = [
            var(1, (4, 4, 3, 3)),
            var(2, (4, 4, 1, 1)),
            var(3, 4),
            var(4, 4),
            var(5, (6, 4 * 5 * 7)),
            var(6, (2, 4, 5, 7)),
            var(8, 4),
        ];
        Self { vars, x: random(7, (2, 4, 5, 7)).unwrap() }
    }

    /// A value from the middle of the graph, and the loss.
    fn forward(&self) -> (Tensor, Tensor) {
        let [w, w1, gamma, beta, fc, own, bias] = &self.vars;
        let p = Conv2dParams { padding: 1, ..Default::default() };
        let (a, _) = conv_batch_norm_train(&self.x, w, gamma, beta, 1e-5, true, &p).unwrap();
        let b = conv2d(&a, w, BiasOrResidual::None, None, false, &p).unwrap();
        let (b, _) = batch_norm_train(&b, gamma, beta, 1e-5, Some(&a), true).unwrap();
        let lateral = conv2d(&b, w1, BiasOrResidual::Bias(bias), None, false, &Conv2dParams::default()).unwrap();
        let merged = upsample_nearest_add(&b, &lateral).unwrap();
        release(lateral).unwrap();
        let c = conv2d(&merged, w, BiasOrResidual::Residual(&a), None, true, &p).unwrap();
        let c = (c * own.as_tensor()).unwrap();
        let rows = Tensor::cat(&[&c, &merged], 0).unwrap().flatten_from(1).unwrap();
        let rows = linear(&rows, fc, None, true).unwrap();
        let loss = softmax(&rows).unwrap().sqr().unwrap().sum_all().unwrap();
        (a, (loss + own.sqr().unwrap().sum_all().unwrap()).unwrap())
    }
}

#[test]
fn gradients_are_candles() {
    let net = Net::new();
    let (a, loss) = net.forward();
    let value = loss.to_scalar::<f32>().unwrap();
    let want = loss.backward().unwrap();
    let got = backward_freeing(&loss).unwrap();
    for (i, v) in net.vars.iter().enumerate() {
        // As numbers: 0 added to -0 is 0.
        assert_eq!(flat(got.get(v).unwrap()), flat(want.get(v).unwrap()), "variable {i}");
    }
    assert_eq!(got.get_ids().count(), net.vars.len());
    assert_eq!(loss.to_scalar::<f32>().unwrap(), value, "a scalar is kept");
    assert!(net.vars.iter().all(|v| flat(v).len() == v.elem_count()));

    assert!(relu(&a).unwrap_err().to_string().contains("freed"));
}

#[test]
fn a_second_walk_is_refused() {
    let loss = relu(&var(1, 5)).unwrap().sum_all().unwrap();
    backward_freeing(&loss).unwrap();
    assert!(backward_freeing(&loss).unwrap_err().to_string().contains("freed"));
}

#[test]
fn a_plain_walk_frees_nothing() {
    let (a, loss) = Net::new().forward();
    let before = flat(&a);
    loss.backward().unwrap();
    assert_eq!(flat(&a), before);
    loss.backward().unwrap();
}

/// The lines that ended in SIGSEGV while a freed tensor kept an empty `f32` storage.
#[test]
fn an_alias_of_a_released_result_is_refused_by_candles_matmul() -> Result<(), Box<dyn std::error::Error>> {
    let x = Var::zeros((512, 512), candle_core::DType::F32, &Device::Cpu)?;
    let b = Tensor::ones((512, 512), candle_core::DType::F32, &Device::Cpu)?;
    let y = relu(&x)?;
    let alias = y.clone();
    release(y)?;
    assert!(alias.matmul(&b).is_err() && b.matmul(&alias).is_err());
    Ok(())
}

/// Every tensor of a graph has the values that its shape and strides tell of.
#[test]
fn no_node_of_a_graph_has_fewer_values_than_its_shape() {
    let maps = [var(1, (1, 4, 8, 8)), var(2, (1, 4, 4, 4))];
    let roi: BoxXyxy = [1.0, 1.0, 6.0, 6.0];
    let level = |(map, spatial_scale)| RoiLevel {
        map,
        rois: vec![(0, roi)],
        params: RoiAlignParams { output: 2, spatial_scale, sampling_ratio: 2, aligned: false },
    };
    let levels: Vec<_> = maps.iter().map(Var::as_tensor).zip([1.0, 0.5]).map(level).collect();
    let heads = roi_linear(&levels, &var(3, (5, 16)), &var(4, 5), true).unwrap();
    let loss = (Net::new().forward().1 + heads.sum_all().unwrap()).unwrap();
    for node in loss.sorted_nodes() {
        let (storage, layout) = node.storage_and_layout();
        let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
            // The net's released lateral.
            assert!(matches!(&*storage, Storage::Cpu(CpuStorage::F4(_))));
            continue;
        };
        let end = layout.contiguous_offsets().map(|(_, end)| end);
        assert!(end.is_none_or(|end| values.len() >= end), "{:?} has {} values", layout.shape(), values.len());
    }
}

/// Every operation of this crate, with each operand freed in turn.
#[test]
fn each_operation_refuses_freed_operands() {
    for Operation { name, shapes, run } in operations() {
        let operands = || -> Vec<Tensor> {
            shapes.iter().enumerate().map(|(i, s)| var(i as u64, s.clone()).affine(1.0, 0.0).unwrap()).collect()
        };
        run(&operands()).unwrap_or_else(|e| panic!("{name} does not run: {e}"));
        for freed in 0..shapes.len() {
            let given = operands();
            release(given[freed].clone()).unwrap();
            assert!(run(&given).is_err(), "{name} reads operand {freed}, which is freed");
            // A value that is freed after the forward pass: an error, or a gradient that does not need it.
            let given = operands();
            let loss = run(&given).unwrap().sqr().unwrap().sum_all().unwrap();
            release(given[freed].clone()).unwrap();
            drop(loss.backward());
            drop(backward_freeing(&loss));
        }
    }
}
