//! Weight files: element types, damage, metadata, and the real ones where they lie beside the repository.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use docent_model::import::{BackboneInfo, backbone_tensors};
use docent_model::{Error, read_safetensors};

/// A safetensors file from a header and data, written by hand.
fn write(folder: &Path, header: &str, data: &[u8]) -> PathBuf {
    let path = folder.join("w.safetensors");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn error(path: &Path) -> String {
    let message = read_safetensors(path).unwrap_err().to_string();
    assert!(message.contains("w.safetensors"), "{message}");
    message
}

#[test]
fn every_element_type_becomes_f32() {
    let folder = tempfile::tempdir().unwrap();
    let header = r#"{"__metadata__":{"source":"by hand"},
        "a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},
        "b":{"dtype":"BF16","shape":[1,2],"data_offsets":[4,8]},
        "c":{"dtype":"F64","shape":[1],"data_offsets":[8,16]},
        "d":{"dtype":"I64","shape":[],"data_offsets":[16,24]},
        "e":{"dtype":"F32","shape":[1],"data_offsets":[24,28]}}"#;
    let mut data = vec![0x00, 0x3c, 0x00, 0xc1]; // 1, -2.5 in f16
    data.extend([0x80, 0x3f, 0x20, 0xc0]); // 1, -2.5 in bf16
    data.extend(0.25f64.to_le_bytes());
    data.extend(42i64.to_le_bytes());
    data.extend(1.5f32.to_le_bytes());
    let file = read_safetensors(&write(folder.path(), header, &data)).unwrap();
    let values = |n: &str| file.tensors[n].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!((values("a"), values("b")), (vec![1.0, -2.5], vec![1.0, -2.5]));
    assert_eq!((values("c"), values("d"), values("e")), (vec![0.25], vec![42.0], vec![1.5]));
    assert!(file.tensors["d"].dims().is_empty());
    assert_eq!(file.metadata["source"], "by hand");
    assert_eq!(file.sha256.len(), 64);
}

#[test]
fn an_infinite_variance_is_kept_as_a_constant_channel() {
    let folder = tempfile::tempdir().unwrap();
    let header = |name: &str| format!(r#"{{"{name}":{{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}}}"#);
    let infinity = [0x00, 0x3c, 0x00, 0x7c];
    let file = read_safetensors(&write(folder.path(), &header("bn1.running_var"), &infinity)).unwrap();
    assert_eq!(file.saturated, ["bn1.running_var"]);
    assert_eq!(file.tensors["bn1.running_var"].to_vec1::<f32>().unwrap(), [1.0, f32::MAX]);
    // Anywhere else, and for NaN and minus infinity, there is no such reading.
    assert!(error(&write(folder.path(), &header("bn1.weight"), &infinity)).contains("`bn1.weight`"));
    for bad in [[0x00, 0x3c, 0x00, 0xfc], [0x00, 0x3c, 0x01, 0x7e]] {
        error(&write(folder.path(), &header("bn1.running_var"), &bad));
    }
}

#[test]
fn damage_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    assert!(matches!(read_safetensors(&path), Err(Error::Io { .. })));
    for (bytes, part) in [
        (&b""[..], "empty"),
        (b"abc", "less than a header"),
        (b"PK\x03\x04 and so on, a zip archive", ".pth"),
        (b"these are words, not tensors at all", "no safetensors file"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff{}", "no safetensors file"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let message = error(&path);
        assert!(message.contains(part), "{message}");
    }
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let whole = write(folder.path(), header, &[0; 8]);
    assert!(read_safetensors(&whole).is_ok());
    let bytes = std::fs::read(&whole).unwrap();
    for length in 1..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        error(&path);
    }
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(error(&path).contains("cut"));
    write(folder.path(), header, &[[0; 4], f32::NAN.to_le_bytes()].concat());
    assert!(error(&path).contains("`a` holds NaN"));
    write(folder.path(), r#"{"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}"#, &[0; 2]);
    assert!(error(&path).contains("BOOL"));
    write(folder.path(), r#"{"a":{"dtype":"F32","shape":[9999999999999],"data_offsets":[0,8]}}"#, &[0; 8]);
    error(&path);
}

#[cfg(not(feature = "pth"))]
#[test]
fn pytorchs_own_file_names_the_feature() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/state.zip.pth");
    let message = docent_model::read_weights(&path).unwrap_err().to_string();
    assert!(message.contains("state.zip.pth") && message.contains("`pth`"), "{message}");
}

#[test]
fn backbone_metadata_is_read_and_checked() {
    let path = Path::new("r50.safetensors");
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let read = |pairs: &[(&str, &str)]| BackboneInfo::from_metadata(path, &map(pairs));
    assert_eq!(read(&[]).unwrap(), BackboneInfo::default());
    let info = read(&[("mean", "[0.5,0.25,1]"), ("std", "[1, 2, 3]"), ("bn_eps", "0.001"), ("stride_in_1x1", "false")])
        .unwrap();
    assert_eq!((info.mean, info.std), (Some([0.5, 0.25, 1.0]), Some([1.0, 2.0, 3.0])));
    assert_eq!((info.eps, info.stride_in_1x1), (Some(1e-3), Some(false)));
    for (key, value) in [
        ("mean", "[1,2]"),
        ("mean", "none"),
        ("mean", "[0.5,0.5,0.5]"),
        ("std", "[0.2,0.2,0.2]"),
        ("std", "[0.2,0,0.2]"),
        ("std", "[1e99,1,1]"),
        ("bn_eps", "-1"),
        ("bn_eps", "NaN"),
        ("stride_in_1x1", "yes"),
        ("channels", "BGR"),
        ("scale", "0..255"),
    ] {
        let message = read(&[(key, value)]).unwrap_err().to_string();
        assert!(message.contains(key) && message.contains(value) && message.contains("r50"), "{message}");
    }
}

/// `../shared/weights` beside the repository; a test that lacks it says so.
#[allow(clippy::print_stdout)]
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/weights").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

#[test]
fn the_msra_resnet50_is_read() {
    let Some(path) = shared("resnet50-imagenet.safetensors") else { return };
    let file = read_safetensors(&path).unwrap();
    assert_eq!(file.tensors.len(), 265);
    // The file was repaired: no variance lies beyond f16.
    assert_eq!(file.saturated, Vec::<String>::new());
    assert_eq!(file.top_level_names(), ["bn1", "conv1", "layer1", "layer2", "layer3", "layer4"]);
    let info = file.backbone_info(&path).unwrap();
    assert_eq!(info.stride_in_1x1, Some(true));
    assert_eq!((info.eps, info.std), (Some(1e-3), Some([1.0 / 255.0; 3])));
    assert!((info.mean.unwrap()[0] - 0.485_019_6).abs() < 1e-6);
    let tensors = backbone_tensors(file.tensors);
    assert_eq!(tensors["backbone.body.conv1.weight"].dims(), [64, 3, 7, 7]);
    assert_eq!(tensors["backbone.body.layer4.2.conv3.weight"].dims(), [2048, 512, 1, 1]);
    assert_eq!(tensors.len(), 265);
}

#[test]
fn the_mobilenet_is_read() {
    let Some(path) = shared("mobilenet_v2-imagenet.safetensors") else { return };
    let file = read_safetensors(&path).unwrap();
    assert_eq!(file.top_level_names(), ["features"]);
    let info = file.backbone_info(&path).unwrap();
    assert_eq!((info.mean, info.std), (Some([0.485, 0.456, 0.406]), Some([0.229, 0.224, 0.225])));
    assert_eq!((info.eps, info.stride_in_1x1), (Some(1e-5), None));
    let tensors = backbone_tensors(file.tensors);
    assert_eq!(tensors["backbone.body.0.0.weight"].dims(), [32, 3, 3, 3]);
}
