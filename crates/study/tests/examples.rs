//! The examples with a backbone and a distillation method of somebody else's, for two epochs.
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code, reason = "main is not called")]
#[path = "../examples/own_backbone.rs"]
mod own_backbone;
#[allow(dead_code, reason = "main is not called")]
#[path = "../examples/own_distiller.rs"]
mod own_distiller;

use std::path::Path;

use docent_model::{Predictor, load_checkpoint};
use docent_study::Registry;
use docent_study::run::RunFolder;
use docent_train::events::{Event, StepRecord};

fn steps(run: &RunFolder) -> Vec<StepRecord> {
    let text = std::fs::read_to_string(run.metrics()).unwrap();
    let step = |line| if let Event::Step(step) = serde_json::from_str(line).unwrap() { Some(step) } else { None };
    text.lines().filter_map(step).collect()
}

fn run(dir: &Path, name: &str) -> RunFolder {
    RunFolder::new(&dir.join("study"), name)
}

#[test]
fn a_backbone_of_somebody_elses_is_trained_and_its_checkpoint_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let summary = own_backbone::train(dir.path(), &["train.epochs=2".to_owned()]).unwrap();
    assert_eq!(summary.alone.steps, 12);
    assert!(summary.alone.gflops > 0.0 && summary.alone.params > 10_000, "{summary:?}");
    let run = run(dir.path(), "alone");
    let steps = steps(&run);
    assert!(steps.iter().all(|s| s.total.is_finite() && s.grad_norm > 0.0), "{steps:?}");

    let predictor = Predictor::load(&run.last(), &own_backbone::registry().models).unwrap();
    let stages: Vec<_> =
        predictor.model.stages().iter().map(|map| (map.name.as_str(), map.stride, map.channels)).collect();
    assert_eq!(stages, [("c2", 4, 16), ("c3", 8, 32), ("c4", 16, 64), ("c5", 32, 128)]);
    assert_eq!(predictor.model.layers().freezable(), 5);
    // The statistics that each BatchNorm counted are the training's.
    let tensors = load_checkpoint(&run.last()).unwrap().tensors;
    let batches = tensors["backbone.body.layer4.norm.num_batches_tracked"].to_scalar::<f32>().unwrap();
    assert_eq!(batches, 12.0);
    let unknown = Predictor::load(&run.last(), &Registry::builtin().models).err().unwrap().to_string();
    assert!(unknown.contains("`plain_net`") && unknown.contains("mobilenet_v2, resnet"), "{unknown}");
}

#[test]
fn a_method_of_somebody_elses_teaches_and_its_term_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let changes = ["train.epochs=2", "teacher.epochs=2"].map(str::to_owned);
    let summary = own_distiller::train(dir.path(), &changes).unwrap();
    assert_eq!(summary.distilled.unwrap().steps, 12);
    for step in steps(&run(dir.path(), "distilled")) {
        let distill = step.distill.as_ref().unwrap();
        let [term] = distill.terms.as_slice() else { panic!("{distill:?}") };
        assert!(term.name == "attention" && term.raw > 0.0, "{term:?}");
        assert!((term.weighted - 50.0 * term.raw).abs() < 1e-9 * term.weighted, "{term:?}");
        assert!((step.total - step.detection() - term.weighted).abs() < 1e-4 * step.total, "{step:?}");
    }
    let [alone, distilled] = ["alone", "distilled"].map(|name| std::fs::read(run(dir.path(), name).last()).unwrap());
    assert!(alone != distilled, "the gradient of the term reached the student");
}
