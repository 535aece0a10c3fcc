//! A predictor from its checkpoint: everything it needs stands there, and nothing else is accepted.

use candle_core::{Device, Tensor};
use docent_coco::{Category, Rgb8};
use docent_detect::Registry;
use docent_model::{CheckpointMeta, Predictor, save_checkpoint};
use docent_study::build::build;

use crate::bench::Bench;

#[test]
fn a_checkpoint_is_loaded_strictly_and_is_enough() {
    let bench = Bench::new();
    let recipe = bench.alone(&[]);
    let categories = [Category { id: 4, name: "cat".into() }, Category { id: 9, name: "dog".into() }];
    let built = build(&recipe.student, 3, 0, &Registry::builtin()).unwrap();
    let tensors = built.store.snapshot().unwrap();
    let meta = CheckpointMeta::new(&built.model.config(), &categories, &recipe.data.resize, "tiny", 5).unwrap();
    let map = meta.to_map().unwrap();
    let path = bench.path("student.safetensors");
    let digest = save_checkpoint(&path, &tensors, &map).unwrap();

    let predictor = Predictor::load(&path, &Registry::builtin()).unwrap();
    assert_eq!((&predictor.sha256, predictor.resize, predictor.meta.step), (&digest, recipe.data.resize, 5));
    assert_eq!(predictor.store.digest().unwrap(), built.store.digest().unwrap());
    assert!(predictor.store.trainable().is_empty(), "no graph is built for it");
    assert_eq!([0, 1, 2, 3].map(|l| predictor.category(l).map(|c| c.id)), [None, Some(4), Some(9), None]);
    // Boxes come back in the image's own pixels, whatever size the network saw.
    for (width, height) in [(200, 100), (1, 1), (30, 40)] {
        let found = predictor.detect(&Rgb8::filled(width, height, [90, 120, 150])).unwrap();
        for d in &found {
            let [x1, y1, x2, y2] = d.bbox;
            assert!(x1 >= 0.0 && y1 >= 0.0 && x2 <= width as f32 + 1e-3 && y2 <= height as f32 + 1e-3, "{:?}", d.bbox);
        }
        assert!(found.windows(2).all(|w| w[0].score >= w[1].score));
    }

    let refused = |what: &str| {
        let Err(error) = Predictor::load(&path, &Registry::builtin()) else { panic!("{what} was accepted") };
        let message = error.to_string();
        assert!(message.contains("student.safetensors"), "{message}");
        message
    };
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    assert!(refused("a cut file").contains("cut"));
    let mut lacking = tensors.clone();
    lacking.remove("roi_heads.box_head.fc6.weight");
    save_checkpoint(&path, &lacking, &map).unwrap();
    assert!(refused("a file that lacks a tensor").contains("missing (1): roi_heads.box_head.fc6.weight"));
    let mut surplus = tensors.clone();
    surplus.insert("adapt.0.weight".into(), Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap());
    save_checkpoint(&path, &surplus, &map).unwrap();
    assert!(refused("a file with a tensor too many").contains("unexpected (1): adapt.0.weight"));
    let fewer = CheckpointMeta::new(&built.model.config(), &categories[..1], &recipe.data.resize, "tiny", 5).unwrap();
    save_checkpoint(&path, &tensors, &fewer.to_map().unwrap()).unwrap();
    assert!(refused("a class without a category").contains("3 classes"));
    save_checkpoint(&path, &tensors, &Default::default()).unwrap();
    assert!(refused("bare weights").contains("format"));
    std::fs::remove_file(&path).unwrap();
    refused("a file that is not there");
}
