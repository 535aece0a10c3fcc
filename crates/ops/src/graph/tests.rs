use candle_core::{Device, Var};

use super::*;
use crate::testing::random;
use crate::{
    Addend, Conv2dParams, batch_norm_train, conv_batch_norm_train, conv2d, linear, relu, softmax, upsample_nearest_add,
};

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn var(seed: u64, shape: impl Into<Shape>) -> Var {
    Var::from_tensor(&random(seed, shape).unwrap()).unwrap()
}

/// A small net with what the walk has to get right: a Var with three consumers, one whose consumers are candle's, views, values with
/// two consumers, fused norms, a released value and one that is read for the last time.
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
        let b = conv2d(&a, w, Addend::None, None, false, &p).unwrap();
        let (b, _) = batch_norm_train(&b, gamma, beta, 1e-5, Some(&a), true).unwrap();
        let lateral = conv2d(&b, w1, Addend::Bias(bias), None, false, &Conv2dParams::default()).unwrap();
        let merged = upsample_nearest_add(&b, &lateral).unwrap();
        release(lateral).unwrap();
        let c = conv2d(&merged, w, Addend::Residual(&a), None, true, &p).unwrap();
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
fn a_second_walk_is_refused_and_over() {
    let loss = relu(&var(1, 5)).unwrap().sum_all().unwrap();
    backward_freeing(&loss).unwrap();
    assert!(backward_freeing(&loss).unwrap_err().to_string().contains("freed"));
    assert!(WALKS.with_borrow(Vec::is_empty));
}

#[test]
fn a_plain_walk_frees_nothing() {
    let (a, loss) = Net::new().forward();
    let before = flat(&a);
    loss.backward().unwrap();
    assert_eq!(flat(&a), before);
    loss.backward().unwrap();
}

/// An operation in whose backward pass another graph is walked, as a thread of the pool may that waits for others.
struct Meanwhile(Tensor);

impl CustomOp1 for Meanwhile {
    fn name(&self) -> &'static str {
        "meanwhile"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((x.clone(), lx.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        self.0.backward()?;
        Ok(Some(dy.clone()))
    }
}

#[test]
fn a_plain_walk_within_one_that_frees_keeps_its_values_and_gradients() {
    let w = var(1, (3, 4));
    let inner = linear(&random(2, (5, 4)).unwrap(), &w, None, true).unwrap();
    let before = flat(&inner);
    let x = var(3, (2, 3));
    let outer = relu(&apply1(&x, Meanwhile(inner.sqr().unwrap().sum_all().unwrap())).unwrap()).unwrap();
    let gradients = backward_freeing(&outer.sum_all().unwrap()).unwrap();
    assert!(gradients.get(&x).is_some() && gradients.get(&w).is_none());
    assert_eq!(flat(&inner), before);
    assert!(relu(&outer).is_err());
}

#[test]
fn release_spares_what_is_not_the_graphs() {
    let v = var(1, 3);
    assert!(release(v.as_tensor().clone()).unwrap_err().to_string().contains("Var"));
    let plain = random(2, 3).unwrap();
    release(plain.clone()).unwrap();
    assert_eq!(flat(&plain).len(), 3);
    let y = relu(&v).unwrap();
    release(y.clone()).unwrap();
    assert_eq!(y.dims(), [3]);
    assert!(relu(&y).unwrap_err().to_string().contains("freed"));
    assert!(Tensor::zeros(0, candle_core::DType::F32, &Device::Cpu).is_ok_and(|empty| relu(&empty).is_ok()));
}
