//! Tests of RoIAlign and a linear layer as one operation.

use candle_core::Var;
use docent_tensor::backward_freeing;

use super::*;
use crate::testing::{check_gradient, random};
use crate::{linear, roi_align};

fn params(output: usize, spatial_scale: f32) -> RoiAlignParams {
    RoiAlignParams { output, spatial_scale, sampling_ratio: 2, aligned: false }
}

const FINE: [(usize, BoxXyxy); 3] =
    [(1, [3.0, 2.0, 21.0, 17.0]), (0, [-9.0, -7.0, 11.5, 6.0]), (1, [20.0, 11.0, 40.0, 33.0])];
const COARSE: [(usize, BoxXyxy); 2] = [(0, [0.0, 1.0, 30.0, 21.0]), (1, [8.0, 8.0, 8.5, 9.0])];

/// Maps of odd sizes; the middle one has no RoIs.
fn levels<'a>(maps: &'a [Tensor]) -> Vec<RoiLevel<'a>> {
    let rois = [FINE.to_vec(), Vec::new(), COARSE.to_vec()];
    let scales = [0.25, 0.125, 0.0625];
    let level = |((map, rois), scale)| RoiLevel { map, rois, params: params(2, scale) };
    maps.iter().zip(rois).zip(scales).map(level).collect()
}

fn maps() -> [Tensor; 3] {
    [(1, (2, 3, 7, 9)), (2, (2, 3, 4, 5)), (3, (2, 3, 3, 3))].map(|(seed, shape)| random(seed, shape).unwrap())
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn it_has_the_bits_of_its_parts() {
    for relu in [false, true] {
        let tracked = || maps().map(|m| Var::from_tensor(&m).unwrap());
        let weights = || [random(4, (5, 12)).unwrap(), random(5, 5).unwrap()].map(|t| Var::from_tensor(&t).unwrap());

        let (ms, [w, b]) = (tracked(), weights());
        let tensors = [0, 1, 2].map(|i| ms[i].as_tensor().clone());
        let parts: Vec<Tensor> = levels(&tensors)
            .iter()
            .filter(|l| !l.rois.is_empty())
            .map(|l| roi_align(l.map, &l.rois, &l.params).unwrap())
            .collect();
        let x = Tensor::cat(&parts, 0).unwrap().flatten_from(1).unwrap();
        let want = linear(&x, &w, Some(&b), relu).unwrap();
        let want_grads = want.sqr().unwrap().sum_all().unwrap().backward().unwrap();

        let (ms2, [w2, b2]) = (tracked(), weights());
        let tensors = [0, 1, 2].map(|i| ms2[i].as_tensor().clone());
        let got = roi_linear(&levels(&tensors), &w2, &b2, relu).unwrap();
        assert_eq!(flat(&got), flat(&want));
        let loss = got.sqr().unwrap().sum_all().unwrap();
        for grads in [loss.backward().unwrap(), backward_freeing(&loss).unwrap()] {
            let pairs = [(&ms2[0], &ms[0]), (&ms2[2], &ms[2]), (&w2, &w), (&b2, &b)];
            for (i, (got, want)) in pairs.into_iter().enumerate() {
                assert_eq!(flat(grads.get(got).unwrap()), flat(want_grads.get(want).unwrap()), "operand {i}");
            }
            assert!(grads.get(&ms2[1]).is_none() && want_grads.get(&ms[1]).is_none());
        }
    }
}

#[test]
fn gradients_with_two_consumers() {
    let [fine, _, coarse] = maps();
    let inputs = [fine, coarse, random(4, (5, 12)).unwrap(), random(5, 5).unwrap()];
    let f = |t: &[Tensor]| {
        let all = [t[0].clone(), random(2, (2, 3, 4, 5)).unwrap(), t[1].clone()];
        roi_linear(&levels(&all), &t[2], &t[3], false)
    };
    check_gradient(f, &inputs, 1e-2, 1e-3).unwrap();
}

#[test]
fn frozen_operands_and_no_rois() {
    let all = maps();
    let (w, b) = (Var::from_tensor(&random(4, (5, 12)).unwrap()).unwrap(), random(5, 5).unwrap());
    let y = roi_linear(&levels(&all), &w, &b, true).unwrap();
    let grads = backward_freeing(&y.sum_all().unwrap()).unwrap();
    assert!(grads.get(&w).is_some() && grads.get(&b).is_none());
    assert!(!roi_linear(&levels(&all), &random(4, (5, 12)).unwrap(), &b, true).unwrap().track_op());

    let map = Var::from_tensor(&all[0]).unwrap();
    let none = [RoiLevel { map: &map, rois: Vec::new(), params: params(2, 0.25) }];
    let y = roi_linear(&none, &w, &b, true).unwrap();
    assert_eq!(y.dims(), [0, 5]);
    let grads = y.sum_all().unwrap().backward().unwrap();
    assert!(flat(grads.get(&map).unwrap()).iter().chain(&flat(grads.get(&w).unwrap())).all(|v| *v == 0.0));
}

#[test]
fn what_does_not_fit_is_named() {
    let all = maps();
    let (w, b) = (random(4, (5, 12)).unwrap(), random(5, 5).unwrap());
    let fails =
        |levels: &[RoiLevel<'_>], w: &Tensor, b: &Tensor| roi_linear(levels, w, b, true).unwrap_err().to_string();
    assert!(fails(&[], &w, &b).contains("no level"));
    let mut other = levels(&all);
    other[2].params.output = 3;
    assert!(fails(&other, &w, &b).contains("12 and of 27"));
    assert!(fails(&levels(&all), &random(4, (5, 11)).unwrap(), &b).contains("w [5, 11] takes 11"));
    assert!(fails(&levels(&all), &w, &random(5, 4).unwrap()).contains("b has shape [4]"));
    other[2] = RoiLevel { rois: vec![(2, [0.0; 4])], ..levels(&all)[2].clone() };
    assert!(fails(&other, &w, &b).contains("image 2"));
}

#[test]
fn backward_passes_over_one_graph_on_several_threads_do_not_mix() {
    let vars = maps().map(|m| Var::from_tensor(&m).unwrap());
    let tensors = [0, 1, 2].map(|i| vars[i].as_tensor().clone());
    let y = roi_linear(&levels(&tensors), &random(4, (5, 12)).unwrap(), &random(5, 5).unwrap(), true).unwrap();
    // Losses of one graph whose gradients differ by powers of two, which round alike.
    let losses: Vec<Tensor> = (0..4).map(|i| (y.sum_all().unwrap() * 2f64.powi(i)).unwrap()).collect();
    let gradients = |loss: &Tensor| -> Vec<Vec<f32>> {
        let grads = loss.backward().unwrap();
        [&vars[0], &vars[2]].map(|v| flat(grads.get(v).unwrap())).to_vec()
    };
    let want = gradients(&losses[0]);
    std::thread::scope(|scope| {
        for (i, loss) in losses.iter().enumerate() {
            let (want, gradients) = (&want, &gradients);
            scope.spawn(move || {
                for _ in 0..if cfg!(miri) { 2 } else { 50 } {
                    for (got, want) in gradients(loss).iter().zip(want) {
                        assert!(got.iter().zip(want).all(|(g, w)| *g == w * 2f32.powi(i as i32)));
                    }
                }
            });
        }
    });
}

#[test]
fn gradients_are_handed_over_once() {
    let handover = Arc::<Handover>::default();
    let gradient = |v: f32| Some(f32_tensor(vec![v], 1).unwrap());
    let (first, second) = (handover.leave(vec![gradient(1.0), None]), handover.leave(vec![None, gradient(2.0)]));
    assert_ne!(first, second);
    assert_eq!(flat(&handover.take(first, 0).unwrap()), [1.0]);
    assert!(handover.take(first, 0).is_none() && handover.take(second, 0).is_none());
    assert_eq!(flat(&handover.take(second, 1).unwrap()), [2.0]);
    assert!(handover.0.lock().unwrap().gradients.is_empty());

    let [map, ..] = maps().map(|m| Var::from_tensor(&m).unwrap());
    let alone = link([map.as_tensor()].into_iter(), &handover).unwrap();
    let error = alone.sum_all().unwrap().backward().unwrap_err().to_string();
    assert!(error.contains("level 0 is missing"), "{error}");
}
