//! Checkpoints: round trips, strict metadata, whole files or none.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use docent_model::coco::{Category, Resize};
use docent_model::detect::{DetectorConfig, Registry};
use docent_model::{CheckpointMeta, Error, Predictor, load_checkpoint, read_safetensors, save_checkpoint};
use serde_json::{Value, json};

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

fn model() -> DetectorConfig {
    let model = json!({
        "classes": 3,
        "backbone": { "depth": 18, "stride_in_1x1": false, "norm_eps": 0.125 },
        "normalize": { "mean": [0.5, 0.5, 0.5], "std": [0.229, 0.224, 0.225] },
    });
    serde_json::from_value(model).unwrap()
}

fn meta() -> CheckpointMeta {
    let resize = Resize::default().shortest(240).longest(320);
    CheckpointMeta::new(&model(), &[category(1, "cat \"a\""), category(90, "Zähler")], &resize, "shapes", 1234).unwrap()
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
    meta.check_model(path, &model()).unwrap();
    assert_eq!(meta.detector(path).unwrap(), model());
    let mut other = meta.model.clone();
    other["backbone"]["stride_in_1x1"] = json!(true);
    other["normalize"]["std"][0] = json!(0.0039);
    let other: DetectorConfig = serde_json::from_value(other).unwrap();
    let message = meta.check_model(path, &other).unwrap_err().to_string();
    for part in ["model.backbone.stride_in_1x1", "false", "true", "model.normalize.std", "0.0039"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("depth"), "{message}");
    let theirs: DetectorConfig = serde_json::from_value(json!({ "architecture": "yours", "heads": 4 })).unwrap();
    let message = meta.check_model(path, &theirs).unwrap_err().to_string();
    for part in ["model.architecture", "faster_rcnn", "yours", "model.heads", "null"] {
        assert!(message.contains(part), "{message}");
    }
    meta.check_categories(path, &meta.categories).unwrap();
    for other in [
        vec![category(90, "Zähler"), category(1, "cat \"a\"")],
        vec![category(1, "cat \"a\"")],
        vec![category(2, "cat \"a\""), category(90, "Zähler")],
    ] {
        let message = meta.check_categories(path, &other).unwrap_err().to_string();
        assert!(message.contains("1 cat \"a\", 90 Zähler") && message.contains("data: "), "{message}");
    }
    assert_eq!(meta.resizing(path).unwrap(), Resize::default().shortest(240).longest(320));
    let bad = |change: &dyn Fn(&mut CheckpointMeta)| {
        let mut bad = meta.clone();
        change(&mut bad);
        let message = bad.detector(path).and(bad.resizing(path).map(drop)).unwrap_err().to_string();
        assert!(message.contains("t.safetensors"), "{message}");
        message
    };
    assert!(bad(&|m| m.model["clases"] = json!(3)).contains("clases"));
    assert!(bad(&|m| m.resize["shortest"] = json!("much")).contains("resize"));
    assert!(bad(&|m| m.resize["shortest"] = json!(0)).contains("resize.shortest"));
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
    // The epsilon shows in no tensor's shape, and another one gives other features without an error.
    let place = whole.windows(5).position(|w| w == b"0.125").unwrap();
    let mut bytes = whole.clone();
    bytes[place + 4] = b'6';
    refused(&bytes, "another epsilon in the metadata");
    std::fs::write(&path, &whole).unwrap();
    load_checkpoint(&path).unwrap();
}

/// Found by fuzzing: a damaged config asked for 4 TB before a single tensor was compared.
#[test]
fn a_config_that_asks_for_too_much_is_refused_without_memory() {
    let refused = |model: Value| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged.safetensors");
        let mut meta = meta();
        meta.model = model;
        save_checkpoint(&path, &BTreeMap::new(), &meta.to_map().unwrap()).unwrap();
        Predictor::load(&path, &Registry::builtin()).unwrap_err().to_string()
    };
    let message = refused(json!({ "classes": 3, "fpn_channels": 4_000_000_000_u64 }));
    assert!(message.contains("fpn_channels") && message.contains("too large"), "{message}");
    // Within the bounds, but 200 GB if it were made.
    let most = json!({ "classes": 3, "fpn_channels": 16384, "roi": { "representation_size": 65536 } });
    let message = refused(most);
    assert!(message.contains("missing") && message.contains("roi_heads.box_head.fc6.weight"), "{message}");
}
