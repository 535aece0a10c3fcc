//! One run: frozen stages, and numbers that are none.

use std::collections::BTreeMap;

use docent_model::{load_checkpoint, save_checkpoint};
use docent_study::Error;
use docent_study::run::RunState;

use crate::bench::{Bench, backbone_of, bits, build, diverged};

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_names_its_images() {
    let bench = Bench::new();
    let recipe = bench.alone(&["train.lr=1e30", "train.max_grad_norm=0.0", "checkpoint.steps=1"]);
    let error = bench.study(&recipe, "study", false).0.unwrap_err();
    assert!(matches!(&error, Error::Diverged { run, .. } if run == "alone"), "{error}");
    let (step, images) = diverged(&error);
    assert!(step >= 2 && !images.is_empty() && images.iter().all(|id| (1..=8).contains(id)), "{error}");
    let message = error.to_string();
    assert!(message.contains(&format!("step {step}")) && message.contains(&format!("{images:?}")), "{message}");
    let state = RunState::load(&bench.path("study/alone/checkpoints/last.state.safetensors")).unwrap();
    assert_eq!(state.trainer.step, step - 1, "the step before was kept");
    assert!(!bench.path("study/summary.json").exists());
}

#[test]
fn frozen_stages_keep_their_bits_and_the_file_decides_the_normalisation() {
    let bench = Bench::new();
    let mut recipe = bench.alone(&["student.init.freeze_at=2"]);
    let source = build(&bench.alone(&[]).student, 99).store.snapshot().unwrap();
    let backbone = backbone_of(&source);
    let path = bench.path("backbone.safetensors");
    let metadata = [("mean", "[0.5, 0.5, 0.5]"), ("std", "[0.25, 0.25, 0.25]")];
    save_checkpoint(&path, &backbone, &metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into()).unwrap();
    recipe.student.init.backbone = Some(path);
    let (result, events) = bench.study(&recipe, "study", false);
    result.unwrap();
    assert!(format!("{events:?}").contains("backbone.safetensors"), "the file of first weights is in the log");

    let trained = load_checkpoint(&bench.path("study/alone/checkpoints/last.safetensors")).unwrap();
    let stem = ["backbone.body.conv1.", "backbone.body.bn1.", "backbone.body.layer1."];
    let mut frozen = Vec::new();
    for name in source.keys() {
        let same = bits(&source, name) == bits(&trained.tensors, name);
        if stem.iter().any(|p| name.starts_with(p)) {
            assert!(same, "{name} is frozen, its running statistics too");
            frozen.push(name.clone());
        } else if name.ends_with("conv1.weight") || name.ends_with("running_mean") {
            assert!(!same, "{name} has been trained");
        }
    }
    let manifest = std::fs::read_to_string(bench.path("study/alone/manifest.json")).unwrap();
    assert!(frozen.iter().filter(|n| !n.contains("running") && !n.contains("tracked")).all(|n| manifest.contains(n)));
    assert_eq!(trained.meta.model["normalize"]["std"], serde_json::json!([0.25, 0.25, 0.25]));

    // A file that lacks a tensor of the backbone starts nothing.
    let mut cut = backbone.clone();
    cut.remove("layer4.1.bn2.running_var");
    let path = bench.path("cut.safetensors");
    save_checkpoint(&path, &cut, &BTreeMap::new()).unwrap();
    recipe.student.init.backbone = Some(path);
    let message = bench.study(&recipe, "lacking", false).0.unwrap_err().to_string();
    assert!(message.contains("cut.safetensors") && message.contains("layer4.1.bn2.running_var"), "{message}");
    assert!(!bench.path("lacking").exists());
}
