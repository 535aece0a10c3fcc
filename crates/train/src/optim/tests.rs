//! SGD against PyTorch, its state, its groups.

use candle_core::DType;

use super::*;

fn var(values: &[f32]) -> Var {
    Var::from_slice(values, values.len(), &Device::Cpu).unwrap()
}

/// Gradients of `vars`; `None` leaves a variable out of the graph.
fn grads(vars: &[&Var], grads: &[Option<Vec<f32>>]) -> GradStore {
    let mut loss = Tensor::zeros((), DType::F32, &Device::Cpu).unwrap();
    for (var, g) in vars.iter().zip(grads) {
        let Some(g) = g else { continue };
        let g = Tensor::from_slice(g, var.shape(), &Device::Cpu).unwrap();
        loss = (loss + (var.as_tensor() * g).unwrap().sum_all().unwrap()).unwrap();
    }
    loss.backward().unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn near(got: &[f32], want: &[f32]) {
    for (g, w) in got.iter().zip(want) {
        // Two roundings of a value near 2: PyTorch multiplies and adds in one.
        assert!((g - w).abs() <= 3e-7 * w.abs().max(1.0), "{got:?} instead of {want:?}");
    }
    assert_eq!(got.len(), want.len());
}

/// Three steps of torch.optim.SGD 2.x: two groups (rates 0.1 and 0.05, the second without decay), the rate divided by 10 before
/// the second step, in which `q` has no gradient, and the gradients clipped to 1 before the third.
fn three_steps(momentum: f64, weight_decay: f64) -> (Vec<f32>, Vec<f32>, Sgd) {
    let (p, q) = (var(&[1.0, -2.0, 0.5]), var(&[0.25, -1.5]));
    let group = ParamGroup { pattern: "q*".into(), lr_mult: 0.5, weight_decay: Some(0.0) };
    let config = SgdConfig { momentum, weight_decay, groups: vec![group] };
    let params = vec![("p".to_owned(), p.clone()), ("q.weight".to_owned(), q.clone())];
    let mut sgd = Sgd::new(&config, params.clone()).unwrap();
    let steps = [
        (0.1, None, vec![Some(vec![0.5, -1.0, 2.0]), Some(vec![1.0, 3.0])], 2),
        (0.01, None, vec![Some(vec![1.5, 0.25, -0.75]), None], 1),
        (0.01, Some(1.0), vec![Some(vec![-0.3, 0.6, 0.9]), Some(vec![-2.0, 0.125])], 2),
    ];
    for (lr, bound, g, count) in steps {
        let g = grads(&[&p, &q], &g);
        let clip = crate::clip_grad_norm(&params, &g, bound).unwrap();
        assert!(bound.is_none() || (clip.norm - 2.296_872_9).abs() < 1e-6);
        assert_eq!(sgd.step(&g, lr, clip.factor).unwrap(), count);
    }
    (values(&p), values(&q), sgd)
}

#[test]
fn three_steps_equal_pytorchs() {
    let (p, q, sgd) = three_steps(0.9, 0.1);
    near(&p, &[0.899_841_4, -1.861_400_5, 0.269_432_34]);
    near(&q, &[0.199_853_75, -1.663_772_1]);
    let state = sgd.state().unwrap();
    near(&values(&state["p"]), &[1.881_853_7, -0.841_957_3, 1.432_262_4]);
    near(&values(&state["q.weight"]), &[0.029_251_218, 2.754_421_7]);
    let (p, q, sgd) = three_steps(0.9, 0.0);
    near(&p, &[0.914_256_1, -1.890_262_2, 0.276_131_63]);
    near(&q, &[0.199_853_75, -1.663_772_1]);
    near(&values(&sgd.state().unwrap()["p"]), &[1.624_387_7, -0.323_775_35, 1.336_836_8]);
    let (p, q, sgd) = three_steps(0.0, 0.1);
    near(&p, &[0.924_442_05, -1.881_351_6, 0.297_984_42]);
    near(&q, &[0.204_353_75, -1.650_272_1]);
    assert!(sgd.state().unwrap().is_empty(), "momentum 0 keeps no state");
}

#[test]
fn a_parameter_without_a_gradient_is_skipped() {
    let (p, q) = (var(&[1.0]), var(&[2.0]));
    let mut sgd = Sgd::new(&SgdConfig::default(), vec![("p".into(), p.clone()), ("q".into(), q.clone())]).unwrap();
    sgd.step(&grads(&[&p, &q], &[Some(vec![1.0]), None]), 0.1, 1.0).unwrap();
    assert_eq!(values(&q), [2.0], "no weight decay either");
    assert_eq!(sgd.state().unwrap().keys().collect::<Vec<_>>(), ["p"]);
}

/// A run that is cut and continued from the saved state ends on the same bits.
#[test]
fn state_goes_out_and_in_bit_for_bit() {
    let gradient = |i: usize| (0..5).map(|k| ((i * 5 + k) as f32 * 0.7).sin()).collect::<Vec<f32>>();
    let start = [0.3f32, -0.1, 0.7, 1.1, -2.3];
    let run = |cut: Option<usize>| {
        let mut p = var(&start);
        let mut sgd = Sgd::new(&SgdConfig::default(), vec![("p".into(), p.clone())]).unwrap();
        for i in 0..9 {
            if cut == Some(i) {
                let state = sgd.state().unwrap();
                p = var(&values(&p));
                sgd = Sgd::new(&SgdConfig::default(), vec![("p".into(), p.clone())]).unwrap();
                sgd.load_state(&state).unwrap();
            }
            sgd.step(&grads(&[&p], &[Some(gradient(i))]), 0.05, 1.0).unwrap();
        }
        values(&p).into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let whole = run(None);
    for cut in [0, 1, 5, 8] {
        assert_eq!(run(Some(cut)), whole);
    }
}

#[test]
fn saved_state_does_not_follow_later_steps() {
    let p = var(&[1.0, 2.0]);
    let mut sgd = Sgd::new(&SgdConfig::default(), vec![("p".into(), p.clone())]).unwrap();
    let g = grads(&[&p], &[Some(vec![1.0, -1.0])]);
    sgd.step(&g, 0.1, 1.0).unwrap();
    let state = sgd.state().unwrap();
    let before = values(&state["p"]);
    sgd.step(&g, 0.1, 1.0).unwrap();
    assert_eq!(values(&state["p"]), before);
}

#[test]
fn state_of_another_model_is_refused() {
    let p = var(&[1.0, 2.0]);
    let mut sgd = Sgd::new(&SgdConfig::default(), vec![("p".into(), p)]).unwrap();
    let one =
        |name: &str, n: usize| BTreeMap::from([(name.to_owned(), Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap())]);
    assert!(sgd.load_state(&one("q", 2)).unwrap_err().to_string().contains("`q`"));
    assert!(sgd.load_state(&one("p", 3)).unwrap_err().to_string().contains("[3]"));
    assert!(sgd.state().unwrap().is_empty(), "nothing was taken over");
    sgd.load_state(&one("p", 2)).unwrap();
    let mut plain = Sgd::new(&SgdConfig { momentum: 0.0, ..SgdConfig::default() }, vec![]).unwrap();
    assert!(plain.load_state(&one("p", 2)).is_err());
}

#[test]
fn large_parameters_give_the_same_bits_for_any_number_of_threads() {
    let n = 2 * CHUNK + 33;
    let start: Vec<f32> = (0..n).map(|i| (i as f32 * 0.01).cos()).collect();
    let g: Vec<f32> = (0..n).map(|i| (i as f32 * 0.013).sin()).collect();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let p = var(&start);
            let mut sgd = Sgd::new(&SgdConfig::default(), vec![("p".into(), p.clone())]).unwrap();
            let g = grads(&[&p], &[Some(g.clone())]);
            sgd.step(&g, 0.1, 0.5).unwrap();
            sgd.step(&g, 0.1, 0.5).unwrap();
            values(&p)
        })
    };
    let one = run(1);
    assert_eq!(one, run(4));
    // Element by element as written in the documentation.
    for i in [0, CHUNK - 1, CHUNK, n - 1] {
        let (mut p, g) = (start[i], 0.5 * g[i]);
        let first = g + 1e-4 * p;
        p -= 0.1 * first;
        p -= 0.1 * (0.9 * first + (g + 1e-4 * p));
        assert_eq!(one[i], p);
    }
}

#[test]
fn a_gradient_that_is_a_view_is_read_in_order() {
    let p = Var::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    let config = SgdConfig { momentum: 0.0, weight_decay: 0.0, groups: vec![] };
    let mut sgd = Sgd::new(&config, vec![("p".into(), p.clone())]).unwrap();
    let mut store = grads(&[], &[]);
    let g = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0], (3, 2), &Device::Cpu).unwrap();
    store.insert(&p, g.t().unwrap());
    sgd.step(&store, 1.0, 1.0).unwrap();
    assert_eq!(values(&p), [-1.0, -3.0, -5.0, -2.0, -4.0, -6.0]);
    store.insert(&p, g);
    assert!(sgd.step(&store, 1.0, 1.0).unwrap_err().to_string().contains("[3, 2]"));
    assert!(sgd.step(&store, f64::NAN, 1.0).is_err());
}

#[test]
fn patterns_and_groups() {
    for (pattern, name, want) in [
        ("a.b", "a.b", true),
        ("a.b", "a.bc", false),
        ("backbone.*", "backbone.body.conv1.weight", true),
        ("backbone.*", "xbackbone.body", false),
        ("*.bias", "rpn.head.bias", true),
        ("*.bias", "rpn.bias.weight", false),
        ("backbone.*.bn*.weight", "backbone.layer1.bn2.weight", true),
        ("backbone.*.bn*.weight", "backbone.layer1.conv2.weight", false),
        ("*", "anything", true),
        ("ab*ba", "aba", false),
    ] {
        assert_eq!(matches(pattern, name), want, "{pattern} {name}");
    }
    let group = |pattern: &str, lr_mult| ParamGroup { pattern: pattern.into(), lr_mult, weight_decay: None };
    let config =
        SgdConfig { groups: vec![group("b.*", 2.0), group("*", 3.0), group("z*", 1.0)], ..SgdConfig::default() };
    let sgd = Sgd::new(&config, vec![("a".into(), var(&[0.0])), ("b.x".into(), var(&[0.0]))]).unwrap();
    assert_eq!(sgd.params.iter().map(|s| s.param.lr_mult).collect::<Vec<_>>(), [3.0, 2.0]);
    assert_eq!(sgd.unused_groups(), ["z*"]);
}

#[test]
fn bad_settings_and_doubled_names_are_refused() {
    let ok = SgdConfig::default();
    assert!(SgdConfig { momentum: 1.0, ..ok.clone() }.validate().is_err());
    assert!(SgdConfig { weight_decay: -1.0, ..ok.clone() }.validate().is_err());
    let group = ParamGroup { pattern: String::new(), lr_mult: 1.0, weight_decay: None };
    assert!(SgdConfig { groups: vec![group], ..ok.clone() }.validate().is_err());
    assert!(Sgd::new(&ok, vec![("a".into(), var(&[0.0])), ("a".into(), var(&[0.0]))]).is_err());
    let double = Var::zeros(2, DType::F64, &Device::Cpu).unwrap();
    assert!(Sgd::new(&ok, vec![("a".into(), double)]).unwrap_err().to_string().contains("F64"));
}
