//! Checkpoints and the state file: round trips, strict metadata, whole files or none.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use docent_train::detector::Detector;
use docent_train::state::STATE_FORMAT;
use docent_train::{
    Best, Category, Checkpoint, CheckpointMeta, Error, Patience, TrainState, load_checkpoint, read_safetensors,
    save_checkpoint,
};
use serde_json::json;

fn tensors() -> BTreeMap<String, Tensor> {
    let t = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    let wide = t(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
    BTreeMap::from([
        ("z.weight".to_owned(), t(&[0.1, -0.0, 1e-40, f32::MIN_POSITIVE], &[4])),
        ("a.transposed".to_owned(), wide.t().unwrap()),
        ("a.scalar".to_owned(), t(&[7.0], &[])),
        ("m.large".to_owned(), Tensor::full(0.3f32, (300, 200), &Device::Cpu).unwrap()),
    ])
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

fn category(id: u64, name: &str) -> Category {
    Category { id, name: name.to_owned() }
}

fn meta() -> CheckpointMeta {
    let model = json!({ "classes": 3, "backbone": { "depth": 18, "stride_place": "in3x3", "norm_eps": 1e-5 }, "std": [0.229, 0.224, 0.225] });
    let resize = json!({ "shortest": 240, "longest": 320, "rule": "torchvision" });
    CheckpointMeta::new(&model, &[category(1, "cat \"a\""), category(90, "Zähler")], &resize, "shapes", 1234).unwrap()
}

#[test]
fn a_checkpoint_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    let digest = save_checkpoint(&path, &tensors(), &meta().to_map().unwrap()).unwrap();
    let back = load_checkpoint(&path).unwrap();
    assert_eq!(back.meta, meta());
    assert_eq!(back.sha256, digest);
    assert_eq!(back.tensors.keys().collect::<Vec<_>>(), tensors().keys().collect::<Vec<_>>());
    for (name, tensor) in tensors() {
        assert_eq!(back.tensors[&name].dims(), tensor.dims());
        assert_eq!(bits(&back.tensors[&name]), bits(&tensor), "{name}");
    }
    let again = folder.path().join("again.safetensors");
    save_checkpoint(&again, &tensors(), &meta().to_map().unwrap()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap(), "equal content, equal bytes");
    // Any reader of the format must be able to read it.
    let bytes = std::fs::read(&path).unwrap();
    let view = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(view.tensor("a.transposed").unwrap().shape(), [3, 2]);
}

#[test]
fn nothing_but_the_new_file_remains_and_a_failed_write_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    let names = || std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    std::fs::write(folder.path().join("last.safetensors.tmp"), "left by a killed run").unwrap();
    let first = save_checkpoint(&path, &tensors(), &BTreeMap::new()).unwrap();
    assert_eq!(names(), ["last.safetensors"]);
    let mut bad = tensors();
    bad.insert("double".into(), Tensor::zeros(2, DType::F64, &Device::Cpu).unwrap());
    assert!(save_checkpoint(&path, &bad, &BTreeMap::new()).unwrap_err().to_string().contains("double"));
    assert_eq!(read_safetensors(&path).unwrap().sha256, first);
    // A rename that fails (a folder stands there) removes the temporary file.
    let taken = folder.path().join("taken");
    std::fs::create_dir_all(taken.join("inside")).unwrap();
    assert!(matches!(save_checkpoint(&taken, &tensors(), &BTreeMap::new()), Err(Error::Io { .. })));
    let mut left = names();
    left.sort();
    assert_eq!(left, ["last.safetensors", "taken"]);
    let nowhere = folder.path().join("absent/last.safetensors");
    assert!(save_checkpoint(&nowhere, &tensors(), &BTreeMap::new()).unwrap_err().to_string().contains("absent"));
}

/// A reader that looks all the time sees one of the whole files, never a part.
#[test]
fn a_reader_never_sees_half_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    let map = |step: usize| BTreeMap::from([("step".to_owned(), step.to_string())]);
    save_checkpoint(&path, &tensors(), &map(0)).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (1..30).for_each(|i| drop(save_checkpoint(&path, &tensors(), &map(i)).unwrap())));
        let mut reads = 0;
        while !writer.is_finished() || reads < 5 {
            assert_eq!(read_safetensors(&path).unwrap().tensors.len(), 4);
            reads += 1;
        }
    });
    assert_eq!(read_safetensors(&path).unwrap().metadata["step"], "29");
}

#[test]
fn metadata_is_strict() {
    let path = Path::new("student.safetensors");
    let good = meta().to_map().unwrap();
    assert_eq!(CheckpointMeta::from_map(path, &good).unwrap(), meta());
    for key in ["format", "model", "categories", "resize", "recipe", "step"] {
        let mut map = good.clone();
        map.remove(key);
        let message = CheckpointMeta::from_map(path, &map).unwrap_err().to_string();
        assert!(message.contains(key) && message.contains("student.safetensors"), "{message}");
    }
    for (key, value, part) in [
        ("format", "docent-9", "docent-9"),
        ("model", "{", "model"),
        ("categories", "{}", "list of"),
        ("categories", r#"[{"id":-1,"name":"a"}]"#, "list of"),
        ("categories", r#"[{"id":1,"name":"a"},{"id":2,"name":"a"}]"#, "twice"),
        ("step", "many", "step"),
    ] {
        let mut map = good.clone();
        map.insert(key.into(), value.into());
        let message = CheckpointMeta::from_map(path, &map).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    let bare = folder.path().join("bare.safetensors");
    save_checkpoint(&bare, &tensors(), &BTreeMap::new()).unwrap();
    assert!(load_checkpoint(&bare).unwrap_err().to_string().contains("not a checkpoint"));
}

#[test]
fn another_model_or_other_categories_are_shown_side_by_side() {
    let (path, meta) = (Path::new("t.safetensors"), meta());
    let mut model = meta.model.clone();
    meta.check_model(path, &model).unwrap();
    model["backbone"]["stride_place"] = json!("in1x1");
    model["std"][0] = json!(0.0039);
    model["new"] = json!(true);
    let message = meta.check_model(path, &model).unwrap_err().to_string();
    for part in ["model.backbone.stride_place", "in3x3", "in1x1", "model.std", "0.0039", "model.new", "null"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("depth"), "{message}");
    meta.check_categories(path, &meta.categories).unwrap();
    for other in [
        vec![category(90, "Zähler"), category(1, "cat \"a\"")],
        vec![category(1, "cat \"a\"")],
        vec![category(2, "cat \"a\""), category(90, "Zähler")],
    ] {
        let message = meta.check_categories(path, &other).unwrap_err().to_string();
        assert!(message.contains("1 cat \"a\", 90 Zähler") && message.contains("data: "), "{message}");
    }
    let numbers: Result<Vec<u32>, _> = meta.model_as(path);
    assert!(numbers.unwrap_err().to_string().contains("t.safetensors"));
    assert_eq!(meta.resize_as::<serde_json::Value>(path).unwrap()["shortest"], 240);
}

#[test]
fn the_state_comes_back_and_damage_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let one = |name: &str, v: f32| BTreeMap::from([(name.to_owned(), Tensor::full(v, (2, 2), &Device::Cpu).unwrap())]);
    let state = TrainState {
        step: 77,
        epoch: 3,
        seconds: 0.1 + 0.7,
        seed: u64::MAX,
        recipe_digest: "abc".into(),
        best: Some(Best { step: 50, ap: 0.1 + 0.2 }),
        model: one("w/with/slashes", 1.0),
        momentum: one("w/with/slashes", 2.0),
        adapters: one("adapt.0.weight", 3.0),
        adapter_momentum: BTreeMap::new(),
        ema: one("w/with/slashes", 4.0),
        patience: Patience { reference: Some(0.1 + 0.2), waited: 3 },
    };
    state.save(&path, None).unwrap();
    let back = TrainState::load(&path).unwrap();
    assert_eq!((back.step, back.epoch, back.seed, back.recipe_digest.as_str()), (77, 3, u64::MAX, "abc"));
    assert_eq!(back.seconds.to_bits(), state.seconds.to_bits());
    assert_eq!(back.best.unwrap().ap.to_bits(), (0.1f64 + 0.2).to_bits());
    assert_eq!(bits(&back.model["w/with/slashes"]), bits(&state.model["w/with/slashes"]));
    assert_eq!(bits(&back.momentum["w/with/slashes"]), bits(&state.momentum["w/with/slashes"]));
    assert_eq!(bits(&back.adapters["adapt.0.weight"]), bits(&state.adapters["adapt.0.weight"]));
    assert!(back.adapter_momentum.is_empty());
    assert_eq!(bits(&back.ema["w/with/slashes"]), bits(&state.ema["w/with/slashes"]));
    assert_eq!(back.patience, state.patience);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert!(TrainState::load(&path).unwrap_err().to_string().contains("cut"));
    TrainState::default().save(&path, None).unwrap();
    assert_eq!(TrainState::load(&path).unwrap().best, None);
    assert_eq!(TrainState::load(&path).unwrap().patience, Patience::default());
    save_checkpoint(&path, &tensors(), &meta().to_map().unwrap()).unwrap();
    assert!(TrainState::load(&path).unwrap_err().to_string().contains("no training state"));
    let older = BTreeMap::from([("format".to_owned(), "docent-state-1".to_owned())]);
    save_checkpoint(&path, &tensors(), &older).unwrap();
    let message = TrainState::load(&path).unwrap_err().to_string();
    assert!(message.contains("docent-state-1") && message.contains(STATE_FORMAT), "{message}");
    assert!(message.contains("another build") && message.contains("--out"), "{message}");
    let mut map = BTreeMap::from([
        ("format", STATE_FORMAT),
        ("step", "x"),
        ("epoch", "0"),
        ("seconds", "0"),
        ("seed", "0"),
        ("recipe_digest", ""),
    ])
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect::<BTreeMap<_, _>>();
    save_checkpoint(&path, &one("model/w", 0.0), &map).unwrap();
    assert!(TrainState::load(&path).unwrap_err().to_string().contains("`step` = `x`"));
    map.insert("step".into(), "1".into());
    save_checkpoint(&path, &one("nowhere", 0.0), &map).unwrap();
    assert!(TrainState::load(&path).unwrap_err().to_string().contains("`nowhere`"));
}

#[test]
fn the_state_before_is_kept_and_one_without_numbers_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let [path, previous] = ["last", "previous"].map(|n| folder.path().join(format!("{n}.state.safetensors")));
    let state = |step: usize, v: f32| TrainState {
        step,
        model: BTreeMap::from([("w".to_owned(), Tensor::full(v, 3, &Device::Cpu).unwrap())]),
        ..TrainState::default()
    };
    let steps = || [&path, &previous].map(|p| TrainState::load(p).ok().map(|s| s.step));
    state(1, 0.0).save(&path, Some(&previous)).unwrap();
    assert_eq!(steps(), [Some(1), None]);
    for step in 2..4 {
        state(step, 0.0).save(&path, Some(&previous)).unwrap();
        assert_eq!(steps(), [Some(step), Some(step - 1)]);
    }
    for bad in [f32::NAN, f32::INFINITY] {
        let message = state(4, bad).save(&path, Some(&previous)).unwrap_err().to_string();
        assert!(message.contains("model/w") && message.contains("is kept"), "{message}");
        assert_eq!(steps(), [Some(3), Some(2)]);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn a_changed_bit_or_word_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    save_checkpoint(&path, &tensors(), &meta().to_map().unwrap()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let message = load_checkpoint(&path).unwrap_err().to_string();
        assert!(message.contains("last.safetensors") && message.contains("content_sha256"), "{what}: {message}");
    };
    for at in [whole.len() - 1, whole.len() / 2] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        refused(&bytes, "one bit of a tensor");
    }
    // The stride's place shows in no tensor's shape, and another one gives other features without an error.
    let place = whole.windows(6).position(|w| w == b"in3x3\\").unwrap();
    let mut bytes = whole.clone();
    bytes[place + 2] = b'1';
    refused(&bytes, "another stride place in the metadata");
    std::fs::write(&path, &whole).unwrap();
    load_checkpoint(&path).unwrap();
}

/// Found by fuzzing: a damaged config asked for 4 TB before a single tensor was compared.
#[test]
fn a_config_that_asks_for_too_much_is_refused_without_memory() {
    let refused = |model: serde_json::Value| {
        let categories = vec![Category { id: 1, name: "a".into() }, Category { id: 2, name: "b".into() }];
        let meta = CheckpointMeta::new(&model, &categories, &json!({}), "tiny", 1).unwrap();
        let checkpoint = Checkpoint { tensors: BTreeMap::new(), meta, sha256: String::new() };
        Detector::from_checkpoint(Path::new("damaged.safetensors"), checkpoint).map(|_| ()).unwrap_err().to_string()
    };
    let message = refused(json!({ "classes": 3, "fpn_channels": 4_000_000_000_u64 }));
    assert!(message.contains("fpn_channels") && message.contains("too large"), "{message}");
    // Within the bounds, but 200 GB if it were made.
    let most = json!({ "classes": 3, "fpn_channels": 16384, "roi": { "hidden": 65536 } });
    let message = refused(most);
    assert!(message.contains("missing") && message.contains("roi_heads.box_head.fc6.weight"), "{message}");
}
