//! Tests of custom operations whose results the backward pass frees.

use candle_core::{DType, Device, Var};

use super::*;
use crate::backward::no_walk_is_open;
use crate::{F32View, backward_freeing, f32_tensor, f32_values, release};

/// `2 x`, whose gradient is computed or, with `pass`, passed on as it came or as a view of it (which is wrong by a factor, and shows who
/// owns it).
struct Double {
    pass: Option<fn(&Tensor) -> candle_core::Result<Tensor>>,
}

const DOUBLE: Double = Double { pass: None };

impl CustomOp1 for Double {
    fn name(&self) -> &'static str {
        "double"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = f32_values("double", x, lx)?.iter().map(|v| 2.0 * v).collect();
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        // As an operation that needs its result.
        F32View::new("double's backward pass", y).values()?;
        Ok(Some(match self.pass {
            Some(pass) => pass(dy)?,
            None => (dy * 2.0)?,
        }))
    }
}

/// `x y`, which saves the product.
struct Product {
    saved: Tensor,
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        lx: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = F32View::new("product", &self.saved).values()?.to_vec();
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        out: &Tensor,
        d: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dy) = ((&self.saved * d)?.div(x)?, (&self.saved * d)?.div(y)?);
        free_saved(out, &self.saved)?;
        Ok((Some(dx), Some(dy)))
    }
}

fn var(values: &[f32]) -> Var {
    Var::new(values, &Device::Cpu).unwrap()
}

fn double(x: &Tensor) -> Tensor {
    apply_op1(x, DOUBLE).unwrap()
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn gradients_are_candles_and_results_are_freed() {
    let (x, y) = (var(&[3.0, -1.0, 0.5]), var(&[2.0, 4.0, -8.0]));
    let a = double(&x);
    let b = apply_op2(&a, &y, Product { saved: (&a * &*y).unwrap().detach() }).unwrap();
    // x has a consumer of each kind, and two of one kind.
    let loss = ((&b + double(&x)).unwrap() + x.sqr().unwrap()).unwrap().sum_all().unwrap();
    let value = loss.to_scalar::<f32>().unwrap();
    let want = loss.backward().unwrap();
    assert_eq!(flat(&a), [6.0, -2.0, 1.0], "candle's backward pass frees nothing");
    let got = backward_freeing(&loss).unwrap();
    for v in [&x, &y] {
        assert_eq!(flat(got.get(v).unwrap()), flat(want.get(v).unwrap()));
    }
    assert_eq!(got.get_ids().count(), 2);
    assert_eq!(loss.to_scalar::<f32>().unwrap(), value);
    assert_eq!((flat(&x).len(), flat(&y).len()), (3, 3));
    for freed in [&a, &b] {
        assert!(message(apply_op1(freed, DOUBLE)).contains("freed"));
        assert!(freed.to_vec1::<f32>().is_err());
    }
    assert!(message(backward_freeing(&loss)).contains("freed"));
    assert!(no_walk_is_open());
}

#[test]
fn what_an_operation_has_saved_goes_only_in_a_walk_that_frees() {
    let (x, y) = (var(&[3.0, -1.0]), var(&[2.0, 4.0]));
    let saved = (&*x * &*y).unwrap().detach();
    let loss = apply_op2(&x, &y, Product { saved: saved.clone() }).unwrap().sum_all().unwrap();
    loss.backward().unwrap();
    assert_eq!(flat(&saved), [6.0, -4.0]);
    backward_freeing(&loss).unwrap();
    assert!(saved.to_vec1::<f32>().is_err());
}

#[test]
fn a_gradient_that_is_passed_on_is_not_freed() {
    let as_it_is: fn(&Tensor) -> candle_core::Result<Tensor> = |d| Ok(d.clone());
    let as_a_view: fn(&Tensor) -> candle_core::Result<Tensor> = |d| d.reshape((1, 3))?.reshape(3);
    for pass in [as_it_is, as_a_view] {
        let x = var(&[3.0, -1.0, 0.5]);
        let y = apply_op1(&double(&x), Double { pass: Some(pass) }).unwrap();
        let gradients = backward_freeing(&y.sqr().unwrap().sum_all().unwrap()).unwrap();
        assert_eq!(flat(gradients.get(&x).unwrap()), [48.0, -16.0, 8.0]);
    }
}

#[test]
fn gradients_of_other_types_and_layouts_are_added_too() {
    let x = Var::new(&[[1f64, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
    struct Same;
    impl CustomOp1 for Same {
        fn name(&self) -> &'static str {
            "same"
        }
        fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
            Ok((x.clone(), lx.shape().clone()))
        }
        fn bwd(&self, _: &Tensor, _: &Tensor, d: &Tensor) -> candle_core::Result<Option<Tensor>> {
            d.t()?.contiguous()?.t().map(Some)
        }
    }
    let same = || apply_op1(&x, Same).unwrap();
    let loss = (same() + same().sqr().unwrap()).unwrap().sum_all().unwrap();
    let gradients = backward_freeing(&loss).unwrap();
    assert_eq!(gradients.get(&x).unwrap().to_vec2::<f64>().unwrap(), [[3.0, 5.0], [7.0, 9.0]]);
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
    let w = var(&[1.0, 2.0]);
    let inner = double(&w);
    let before = flat(&inner);
    let x = var(&[3.0, -2.0]);
    let outer = double(&apply_op1(&x, Meanwhile(inner.sqr().unwrap().sum_all().unwrap())).unwrap());
    let gradients = backward_freeing(&outer.sum_all().unwrap()).unwrap();
    assert!(gradients.get(&x).is_some() && gradients.get(&w).is_none());
    assert_eq!(flat(&inner), before);
    assert!(outer.to_vec1::<f32>().is_err());
}

#[test]
fn release_keeps_what_is_not_the_graphs() {
    let v = var(&[1.0, 2.0, 3.0]);
    assert!(message(release(v.as_tensor().clone())).contains("Var"));
    let plain = f32_tensor(vec![1.0; 3], 3).unwrap();
    release(plain.clone()).unwrap();
    assert_eq!(flat(&plain).len(), 3);
    let y = double(&v);
    release(y.clone()).unwrap();
    release(y.clone()).unwrap();
    assert_eq!(y.dims(), [3]);
    assert!(message(apply_op1(&y, DOUBLE)).contains("freed"));
    let empty = Tensor::zeros(0, DType::F32, &Device::Cpu).unwrap();
    assert!(apply_op1(&empty, DOUBLE).is_ok());
}
