//! `docent weights` as a person starts it, and what its files are good for.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use candle_core::Tensor;
use docent_coco::Rgb8;
use docent_detect::backbone::ResNetConfig;
use docent_detect::layers::NormKind;
use docent_detect::{FasterRcnnConfig, Registry, RoiConfig};
use docent_model::save_checkpoint;
use docent_study::build::build;
use docent_study::recipe::{InitRecipe, ModelRecipe};
use serde_json::{Value, json};

/// Output and error of a call that must (not) succeed. A panic is a fault of the program.
fn docent(dir: &Path, succeeds: bool, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_docent")).args(args).current_dir(dir).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(!err.contains("panicked") && output.status.success() == succeeds, "{args:?}: {out}{err}");
    if succeeds { out } else { err }
}

/// Bare weights of a detector as another program would write them: two classes, named nowhere.
fn bare(path: &Path) {
    save_checkpoint(path, &weights(NormKind::BatchNorm), &BTreeMap::new()).unwrap();
}

fn weights(norm: NormKind) -> BTreeMap<String, Tensor> {
    let backbone = ResNetConfig::default().depth(18).width_multiplier(0.125).norm(NormKind::BatchNorm);
    let roi = RoiConfig::default().representation_size(8);
    let model = FasterRcnnConfig::default().classes(0).fpn_channels(8).backbone(backbone).roi(roi);
    let built =
        build(&ModelRecipe { model: model.into(), init: InitRecipe::default() }, 3, 0, &Registry::builtin()).unwrap();
    let mut tensors = built.store.snapshot().unwrap();
    if norm == NormKind::FrozenBatchNorm {
        // Which has no count of batches. A variance so small that the epsilon shows.
        tensors.retain(|name, _| !name.ends_with("num_batches_tracked"));
        let variance = tensors.get_mut("backbone.body.bn1.running_var").unwrap();
        *variance = (variance.ones_like().unwrap() * 1e-5).unwrap();
    }
    tensors
}

fn annotations(categories: &Value) -> String {
    let image = json!({ "id": 5, "file_name": "5.png", "width": 64, "height": 48 });
    let object = json!({ "id": 1, "image_id": 5, "category_id": 2, "bbox": [8, 8, 30, 30], "area": 900, "iscrowd": 0 });
    json!({ "images": [image], "annotations": [object], "categories": categories }).to_string()
}

fn convert<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    [&["weights", "convert", "theirs.safetensors"][..], rest].concat()
}

#[test]
fn a_foreign_detector_is_inspected_converted_and_used() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    bare(&dir.join("theirs.safetensors"));
    std::fs::create_dir(dir.join("images")).unwrap();
    Rgb8::filled(64, 48, [90, 140, 60]).save_png(&dir.join("images/5.png")).unwrap();
    let both = json!([{ "id": 2, "name": "stripe" }, { "id": 7, "name": "dot" }]);
    std::fs::write(dir.join("both.json"), annotations(&both)).unwrap();
    std::fs::write(dir.join("one.json"), annotations(&json!([both[0]]))).unwrap();
    std::fs::write(dir.join("other.json"), annotations(&json!([both[0], { "id": 8, "name": "dash" }]))).unwrap();

    let seen = docent(dir, true, &["weights", "inspect", "theirs.safetensors"]);
    for part in ["format    safetensors", "Faster R-CNN, ResNet-18, width 0.125 with BatchNorm", "3 classes"] {
        assert!(seen.contains(part), "no `{part}` in {seen}");
    }
    let line = seen.lines().find(|l| l.starts_with("roi_heads.box_predictor.cls_score.weight ")).unwrap();
    assert!(line.ends_with("f32   [3, 8]"), "{line}");
    let brief = docent(dir, true, &["weights", "inspect", "--brief", "theirs.safetensors"]);
    assert!(seen.starts_with(&brief) && brief.lines().count() < 7, "{brief}");

    let small = [
        "--set",
        "anchors.sizes=[8,16,32,64,128]",
        "--set",
        "roi.detections_per_image=5",
        "--set",
        "roi.score_threshold=0",
    ];
    let said = docent(
        dir,
        true,
        &convert(&[&["mine.safetensors", "--f16", "--categories", "both.json"][..], &small].concat()),
    );
    assert!(said.contains("mine.safetensors: detector, "), "{said}");
    let seen = docent(dir, true, &["weights", "inspect", "mine.safetensors"]);
    assert!(
        seen.contains("docent checkpoint") && seen.contains("2 stripe, 7 dot") && seen.contains("  f16   "),
        "{seen}"
    );

    let said = docent(dir, true, &["predict", "--checkpoint", "mine.safetensors", "--out", "found", "images/5.png"]);
    assert!(said.contains("5 detections"), "{said}");
    // The data may ask for fewer categories than the detector knows, and for no other ones.
    let eval =
        |json| ["eval", "--checkpoint", "mine.safetensors", "--annotations", json, "--images", "images", "--json"];
    for json in ["both.json", "one.json"] {
        let figures: Value = serde_json::from_str(&docent(dir, true, &eval(json))).unwrap();
        assert!(figures["stats"]["AP"].is_number(), "{figures}");
    }
    assert!(docent(dir, false, &eval("other.json")).contains("8 dash"));

    for (args, part) in [
        (convert(&["mine.safetensors"]), "is there already"),
        (convert(&["mine.pth"]), "only safetensors are written"),
        (convert(&["other.safetensors", "--set", "anchor.sizes=[1]"]), "did you mean 'anchors'"),
        (convert(&["other.safetensors", "--categories", "one.json"]), "1 categories for 3 classes"),
        (vec!["weights", "inspect", "both.json"], "both.json"),
        (vec!["weights", "inspect", "nothing.pth"], "nothing.pth"),
        (vec!["predict", "--checkpoint", "theirs.safetensors", "images/5.png"], "weights convert"),
    ] {
        let message = docent(dir, false, &args);
        assert!(message.contains(part), "{args:?}: {message}");
    }
    assert!(!dir.join("other.safetensors").exists(), "a failure leaves no file");
}

/// One picture with an EXIF orientation: turned or not, what `predict` writes is what `eval` finds by itself.
#[test]
fn predict_counts_the_pixels_that_the_annotations_count() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    bare(&dir.join("theirs.safetensors"));
    std::fs::write(dir.join("both.json"), annotations(&json!([{ "id": 2, "name": "a" }, { "id": 7, "name": "b" }])))
        .unwrap();
    let small = ["--set", "anchors.sizes=[8,16,32,64,128]", "--set", "roi.score_threshold=0"];
    docent(dir, true, &convert(&[&["mine.safetensors", "--categories", "both.json"][..], &small].concat()));
    let pixels = (0..64 * 48 * 3).map(|i| (i * 7 % 251) as u8).collect();
    let jpeg = Rgb8 { width: 64, height: 48, data: pixels }.to_jpeg().unwrap();
    let mark = b"\xFF\xE1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    std::fs::create_dir(dir.join("images")).unwrap();
    std::fs::write(dir.join("images/7.jpg"), [&jpeg[..2], mark, &jpeg[2..]].concat()).unwrap();

    for (json, width, height, wide) in [("turned.json", 48, 64, false), ("stored.json", 64, 48, true)] {
        let image = json!({ "id": 9, "file_name": "7.jpg", "width": width, "height": height });
        let object =
            json!({ "id": 1, "image_id": 9, "category_id": 2, "bbox": [4, 4, 30, 30], "area": 900, "iscrowd": 0 });
        let whole = json!({ "images": [image], "annotations": [object], "categories": [{ "id": 2, "name": "a" }, { "id": 7, "name": "b" }] });
        std::fs::write(dir.join(json), whole.to_string()).unwrap();
        let predict =
            ["predict", "--checkpoint", "mine.safetensors", "--annotations", json, "--out", "found", "images"];
        let said = docent(dir, true, &predict);
        assert!(said.contains("id 9") && said.contains("1 images have an EXIF orientation"), "{said}");
        let drawn = docent_coco::image_header(&dir.join("found/7.png")).unwrap();
        assert_eq!(drawn.width > drawn.height, wide, "{json}");
        let eval = |more: &[&str]| docent(dir, true, &[&["eval", "--annotations", json, "--json"], more].concat());
        eval(&["--checkpoint", "mine.safetensors", "--images", "images", "--save", "evaluated.json"]);
        eval(&["--results", "found/detections.json"]);
        let boxes = |file: &str| {
            let found = docent_coco::read_results(&dir.join(file)).unwrap();
            found.into_iter().map(|d| (d.image_id, d.category_id, d.bbox)).collect::<Vec<_>>()
        };
        assert!(
            !boxes("evaluated.json").is_empty() && boxes("found/detections.json") == boxes("evaluated.json"),
            "{json}"
        );
    }
    let other = annotations(&json!([{ "id": 2, "name": "a" }])).replace("5.png", "7.jpg").replace("48", "49");
    std::fs::write(dir.join("other.json"), other).unwrap();
    let args = ["predict", "--checkpoint", "mine.safetensors", "--annotations", "other.json", "images"];
    let message = docent(dir, false, &args);
    assert!(message.contains("7.jpg is 64x48, annotated as 64x49"), "{message}");
}

#[test]
fn pytorchs_files_are_inspected() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/data");
    let legacy = docent(&data, true, &["weights", "inspect", "state.legacy.pth"]);
    assert!(legacy.contains("PyTorch, legacy pickle") && legacy.contains("not recognised"), "{legacy}");
    assert!(legacy.lines().any(|l| l.starts_with("type.bf16 ") && l.ends_with("bf16  [2, 3]")), "{legacy}");
    let zip = docent(&data, true, &["weights", "inspect", "state.zip.pth"]);
    assert!(zip.contains("PyTorch, zip archive"), "{zip}");
    let beside = docent(&data, true, &["weights", "inspect", "namespace.pth"]);
    assert!(beside.contains("note      passed over, and nothing in it was run: args"), "{beside}");
}

/// DistributedDataParallel, Lightning and torch.compile put words before the names. They are no older names, and want no other epsilon.
#[test]
fn prefixes_before_the_names_change_no_detection() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let tensors = weights(NormKind::FrozenBatchNorm);
    let pixels: Vec<u8> = (0..64 * 48 * 3).map(|i| (i * 7 % 251) as u8).collect();
    Rgb8 { width: 64, height: 48, data: pixels }.save_png(&dir.join("1.png")).unwrap();
    let small = ["--set", "anchors.sizes=[8,16,32,64,128]", "--set", "roi.score_threshold=0"];
    let found = |name: &str, tensors: &BTreeMap<String, Tensor>, more: &[&str]| {
        let [source, out] = ["pth.safetensors", "safetensors"].map(|end| format!("{name}.{end}"));
        save_checkpoint(&dir.join(&source), tensors, &BTreeMap::new()).unwrap();
        let convert = [&["weights", "convert", &source, &out][..], &small, more].concat();
        let said = docent(dir, true, &convert);
        docent(dir, true, &["predict", "--checkpoint", &out, "--out", name, "1.png"]);
        let model = docent(dir, true, &["weights", "inspect", &out]);
        let model: String = model.lines().filter(|l| !l.starts_with("file ") && !l.starts_with("sha256")).collect();
        (said, model, std::fs::read(dir.join(name).join("detections.json")).unwrap())
    };
    let (said, model, detections) = found("plain", &tensors, &[]);
    assert!(!said.contains("older") && model.contains("\"norm_eps\":0.00001"), "{said}{model}");
    assert!(detections.len() > 300, "no detections to compare");
    for (name, prefix) in
        [("ddp", "module."), ("lightning", "model."), ("compiled", "_orig_mod."), ("all", "_orig_mod.module.model.")]
    {
        let prefixed = tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect();
        let (said, same_model, same) = found(name, &prefixed, &[]);
        assert!(!said.contains("older") && said.contains(&format!("taken off {} names", tensors.len())), "{said}");
        assert_eq!(same_model, model, "{prefix}");
        assert!(same == detections, "{prefix}: other detections");
    }
    // The epsilon of the older names would show.
    let (_, _, other) = found("other", &tensors, &["--set", "backbone.norm_eps=0"]);
    assert!(other != detections, "the epsilon makes no difference here");
}
