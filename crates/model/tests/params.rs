//! The parameter store: kinds, first values, loading, snapshots.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::Init;
use candle_nn::init::{FanInOut, NonLinearity, NormalOrUniform};
use docent_model::detect::RoiConfig;
use docent_model::detect::backbone::ResNetConfig;
use docent_model::detect::layers::NormKind;
use docent_model::detect::{Detector, FasterRcnn, FasterRcnnConfig};
use docent_model::{Error, Kind, ParamStore};

const KAIMING: Init =
    Init::Kaiming { dist: NormalOrUniform::Normal, fan: FanInOut::FanOut, non_linearity: NonLinearity::ReLU };

/// A convolution with BatchNorm and a linear layer.
struct Model {
    conv: Tensor,
    gamma: Tensor,
    mean: Tensor,
    linear: Tensor,
}

impl Model {
    fn new(store: &ParamStore) -> candle_core::Result<Self> {
        let vb = store.var_builder();
        let bn = vb.pp("stem").pp("bn");
        Ok(Self {
            conv: vb.pp("stem.conv").get_with_hints((4, 3, 3, 3), "weight", KAIMING)?,
            gamma: bn.get_with_hints(4, "weight", Init::Const(1.0))?,
            mean: bn.get_with_hints(4, "running_mean", Init::Const(0.0))?,
            linear: vb.pp("head").get_with_hints((2, 4), "weight", KAIMING)?,
        })
    }
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn ones(shape: &[usize]) -> Tensor {
    Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn seed_and_name_give_the_bits_whatever_the_order() {
    let forward = ParamStore::new(3, &Device::Cpu);
    Model::new(&forward).unwrap();
    let backward = ParamStore::new(3, &Device::Cpu);
    let vb = backward.var_builder();
    vb.get_with_hints((2, 4), "head.weight", KAIMING).unwrap();
    vb.get_with_hints(4, "stem.bn.running_mean", Init::Const(0.0)).unwrap();
    vb.get_with_hints(4, "stem.bn.weight", Init::Const(1.0)).unwrap();
    vb.get_with_hints((4, 3, 3, 3), "stem.conv.weight", KAIMING).unwrap();
    assert_eq!(forward.digest().unwrap(), backward.digest().unwrap());
    let other = ParamStore::new(4, &Device::Cpu);
    Model::new(&other).unwrap();
    assert_ne!(forward.digest().unwrap(), other.digest().unwrap());
    // Frozen or not, the first values are the same.
    let frozen = ParamStore::frozen_all(3, &Device::Cpu);
    Model::new(&frozen).unwrap();
    assert_eq!(forward.digest().unwrap(), frozen.digest().unwrap());
}

#[test]
fn kinds_are_decided_at_the_first_request() {
    let store = ParamStore::new(0, &Device::Cpu).with_frozen(|n| n.starts_with("stem."));
    let model = Model::new(&store).unwrap();
    assert!(!model.conv.is_variable() && !model.gamma.is_variable() && !model.mean.is_variable());
    assert!(model.linear.is_variable());
    let kinds: Vec<_> = store.entries().into_iter().map(|(n, k, _)| (n, k)).collect();
    let want = [
        ("head.weight", Kind::Trainable),
        ("stem.bn.running_mean", Kind::Frozen),
        ("stem.bn.weight", Kind::Frozen),
        ("stem.conv.weight", Kind::Frozen),
    ];
    assert_eq!(kinds, want.map(|(n, k)| (n.to_owned(), k)), "in name order");
    assert_eq!(store.trainable().into_iter().map(|(n, _)| n).collect::<Vec<_>>(), ["head.weight"]);
    assert_eq!(store.frozen_but_drawn(), ["stem.bn.running_mean", "stem.bn.weight", "stem.conv.weight"]);
}

/// A narrow detector's store, made by its list of layers.
fn by_layers(norm: NormKind, freeze_at: usize, store: ParamStore) -> ParamStore {
    let backbone = ResNetConfig::default().depth(18).width_multiplier(0.125).norm(norm);
    let roi = RoiConfig::default().representation_size(12);
    let config = FasterRcnnConfig::default().classes(3).fpn_channels(8).backbone(backbone).roi(roi);
    let probe = FasterRcnn::new(&config, ParamStore::probe(&Device::Cpu).var_builder()).unwrap();
    let store = store.with_layers(probe.layers(), freeze_at);
    FasterRcnn::new(&config, store.var_builder()).unwrap();
    store
}

#[test]
fn the_list_of_layers_tells_buffers_counts_and_frozen_parts() {
    use Kind::{Buffer, Count, Frozen, Trainable};
    let new = || ParamStore::new(0, &Device::Cpu);
    let (stem, stage1) = ("backbone.body.bn1", "backbone.body.layer1.0.bn1");
    // Kinds of a norm's scale, mean and count, and of the convolution after it.
    for (norm, freeze_at, in_stem, in_stage1) in [
        (NormKind::BatchNorm, 0, [Trainable, Buffer, Count], [Trainable, Buffer, Count]),
        (NormKind::BatchNorm, 1, [Frozen, Buffer, Count], [Trainable, Buffer, Count]),
        (NormKind::BatchNorm, 2, [Frozen, Buffer, Count], [Frozen, Buffer, Count]),
    ] {
        let store = by_layers(norm, freeze_at, new());
        let kinds: BTreeMap<_, _> = store.entries().into_iter().map(|(n, k, _)| (n, k)).collect();
        for (layer, want) in [(stem, in_stem), (stage1, in_stage1)] {
            let found = ["weight", "running_mean", "num_batches_tracked"].map(|end| kinds[&format!("{layer}.{end}")]);
            assert_eq!(found, want, "{layer}, freeze_at {freeze_at}");
        }
        assert_eq!(kinds["backbone.body.layer1.0.conv1.weight"] == Frozen, freeze_at == 2);
        assert_eq!(kinds["rpn.head.cls_logits.weight"], Trainable);
    }
    let store = by_layers(NormKind::FrozenBatchNorm, 0, new());
    let kinds: BTreeMap<_, _> = store.entries().into_iter().map(|(n, k, _)| (n, k)).collect();
    assert_eq!((kinds["backbone.body.bn1.weight"], kinds["backbone.body.bn1.running_var"]), (Frozen, Buffer));
    assert_eq!(kinds["backbone.body.conv1.weight"], Trainable);
    // Statistics are no parameters, whatever the norm's scale and shift are.
    let elements = |store: &ParamStore, of: &[Kind]| -> usize {
        store.entries().iter().filter(|(_, kind, _)| of.contains(kind)).map(|(_, _, t)| t.elem_count()).sum()
    };
    assert_eq!(store.parameter_count(), elements(&store, &[Trainable, Frozen]));
    assert_eq!(store.parameter_count(), by_layers(NormKind::BatchNorm, 2, new()).parameter_count());
    // The list comes on top of what the store was told before.
    let teacher = by_layers(NormKind::BatchNorm, 0, ParamStore::frozen_all(0, &Device::Cpu));
    assert!(teacher.trainable().is_empty());
    let both = by_layers(NormKind::FrozenBatchNorm, 1, new().with_frozen(|name| name.starts_with("rpn.")));
    assert!(both.trainable().iter().all(|(name, _)| !name.starts_with("rpn.")));
}

#[test]
fn no_graph_is_built_through_frozen_entries() {
    let input = ones(&[1, 4]);
    let teacher = ParamStore::frozen_all(0, &Device::Cpu);
    let model = Model::new(&teacher).unwrap();
    assert!(teacher.trainable().is_empty());
    let out = input.matmul(&model.linear.t().unwrap()).unwrap();
    assert!(!out.track_op(), "a teacher's output is not tracked");
    let student = ParamStore::new(0, &Device::Cpu).with_frozen(|n| n.starts_with("stem."));
    let model = Model::new(&student).unwrap();
    let hidden = (&input * model.gamma.reshape((1, 4)).unwrap()).unwrap();
    let grads = hidden.matmul(&model.linear.t().unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&model.linear).is_some());
    assert!(grads.get(&model.gamma).is_none());
}

#[test]
fn loaded_values_win_and_the_rest_is_listed() {
    let store = ParamStore::new(0, &Device::Cpu).with_frozen(|n| n.starts_with("stem."));
    assert!(store.missing().is_empty() && store.unexpected().is_empty());
    store.load(BTreeMap::from([
        ("stem.conv.weight".to_owned(), ones(&[4, 3, 3, 3])),
        ("stem.bn.weight".to_owned(), ones(&[4]).to_dtype(DType::F64).unwrap()),
        ("fc.weight".to_owned(), ones(&[10, 4])),
    ]));
    let model = Model::new(&store).unwrap();
    assert_eq!(values(&model.conv), [1.0; 108]);
    assert_eq!(model.gamma.dtype(), DType::F32);
    assert_eq!(store.missing(), ["head.weight", "stem.bn.running_mean"]);
    assert_eq!(store.unexpected(), ["fc.weight"]);
    assert_eq!(store.frozen_but_drawn(), ["stem.bn.running_mean"]);
}

#[test]
fn one_map_loaded_twice_stays_apart() {
    let map = BTreeMap::from([("m.running_mean".to_owned(), ones(&[4]))]);
    let (a, b) = (ParamStore::new(0, &Device::Cpu), ParamStore::new(0, &Device::Cpu));
    for store in [&a, &b] {
        store.load(map.clone());
        store.var_builder().get(4, "m.running_mean").unwrap();
    }
    a.restore(&BTreeMap::from([("m.running_mean".to_owned(), (ones(&[4]) * 7.0).unwrap())])).unwrap();
    assert_eq!(values(&a.entries()[0].2), [7.0; 4]);
    assert_eq!(values(&b.entries()[0].2), [1.0; 4]);
    assert_eq!(values(&map["m.running_mean"]), [1.0; 4]);
}

#[test]
fn a_wrong_shape_names_the_tensor_and_both_shapes() {
    let store = ParamStore::new(0, &Device::Cpu);
    store.load(BTreeMap::from([("head.weight".to_owned(), ones(&[5, 4]))]));
    let message = Model::new(&store).err().unwrap().to_string();
    for part in ["head.weight", "[5, 4]", "[2, 4]"] {
        assert!(message.contains(part), "{message}");
    }
    let store = ParamStore::new(0, &Device::Cpu);
    store.var_builder().get(3, "w").unwrap();
    assert!(store.var_builder().get(4, "w").unwrap_err().to_string().contains("twice"));
    assert!(store.var_builder().get_unchecked("absent").is_err());
    assert!(store.var_builder().to_dtype(DType::F16).get(3, "h").is_err());
}

#[test]
fn a_probe_finds_all_that_a_file_lacks() {
    let probe = ParamStore::probe(&Device::Cpu);
    Model::new(&probe).unwrap();
    let file = BTreeMap::from([
        ("head.weight".to_owned(), ones(&[5, 4])),
        ("stem.conv.weight".to_owned(), ones(&[4, 3, 3, 3])),
        ("fc.bias".to_owned(), ones(&[10])),
    ]);
    let report = probe.check(&file);
    assert_eq!(report.missing, ["stem.bn.running_mean", "stem.bn.weight"]);
    assert_eq!(report.unexpected, ["fc.bias"]);
    assert_eq!(report.wrong_shape, [("head.weight".to_owned(), vec![2, 4], vec![5, 4])]);
    let tolerant = report.clone().tolerating(|n| n.ends_with("running_mean") || n.starts_with("fc."));
    assert_eq!((tolerant.missing.len(), tolerant.unexpected.len(), tolerant.wrong_shape.len()), (1, 0, 1));
    let message = report.into_result("teacher.safetensors").unwrap_err().to_string();
    for part in ["teacher.safetensors", "missing (2)", "stem.bn.weight", "unexpected (1): fc.bias", "[5, 4]"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_snapshot_shares_no_storage_and_restores_in_place() {
    let store = ParamStore::new(0, &Device::Cpu).with_frozen(|n| n == "stem.conv.weight");
    let model = Model::new(&store).unwrap();
    let snapshot = store.snapshot().unwrap();
    assert!(snapshot.values().all(|t| !t.is_variable() && !t.track_op()));
    let before = store.digest().unwrap();
    let doubled: BTreeMap<_, _> = snapshot.iter().map(|(n, t)| (n.clone(), (t * 2.0).unwrap().detach())).collect();
    let id = model.linear.id();
    let first = values(&model.linear);
    store.restore(&doubled).unwrap();
    assert_ne!(store.digest().unwrap(), before);
    // The model's own handles see the new values: trainable, frozen and buffer alike.
    assert_eq!(values(&model.linear), first.iter().map(|v| v * 2.0).collect::<Vec<_>>());
    assert_eq!(values(&model.gamma), [2.0; 4]);
    assert_eq!(model.linear.id(), id);
    assert_eq!(values(&snapshot["head.weight"]), first, "the snapshot did not move");
    store.restore(&snapshot).unwrap();
    assert_eq!(store.digest().unwrap(), before);
}

#[test]
fn restore_is_strict_and_touches_nothing_on_error() {
    let store = ParamStore::new(0, &Device::Cpu);
    Model::new(&store).unwrap();
    let before = store.digest().unwrap();
    let good: BTreeMap<_, _> = store.snapshot().unwrap().into_iter().map(|(n, t)| (n, (t + 1.0).unwrap())).collect();
    let mut missing = good.clone();
    missing.remove("stem.bn.running_mean");
    let mut surplus = good.clone();
    surplus.insert("extra".into(), ones(&[1]));
    let mut shape = good.clone();
    shape.insert("stem.bn.weight".into(), ones(&[2, 2]));
    for (bad, name) in [(missing, "stem.bn.running_mean"), (surplus, "extra"), (shape, "stem.bn.weight")] {
        let error = store.restore(&bad).unwrap_err();
        assert!(matches!(error, Error::Strict { .. }));
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(store.digest().unwrap(), before);
    }
    store.restore(&good).unwrap();
    assert_ne!(store.digest().unwrap(), before);
}
