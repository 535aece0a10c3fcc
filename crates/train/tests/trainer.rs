//! The trainer: a state that goes out and in, parts of a step, and the reducer's place.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Device;
use candle_core::backprop::GradStore;
use docent_coco::shapes::{ShapesConfig, generate};
use docent_coco::{Loader, LoaderConfig, Resize};
use docent_detect::backbone::ResNetConfig;
use docent_detect::layers::NormKind;
use docent_detect::{Detector, FasterRcnn, FasterRcnnConfig};
use docent_model::ParamStore;
use docent_train::events::StepRecord;
use docent_train::{Batch, EmaConfig, GradientReducer, Params, Result, StudentModel, Trainer, TrainerConfig};

/// A small detector of the six drawn classes, whose statistics do not move, so that parts of a batch see what the batch sees.
fn model(store: &ParamStore) -> FasterRcnn {
    let backbone = ResNetConfig::default().depth(18).width_multiplier(0.125).norm(NormKind::FrozenBatchNorm);
    let mut config = FasterRcnnConfig::default().classes(7).fpn_channels(16).backbone(backbone);
    config.anchors.sizes = vec![8.0, 16.0, 32.0, 64.0, 128.0];
    config.roi.representation_size = 16;
    config.roi.batch_size_per_image = 16;
    FasterRcnn::new(&config, store.var_builder()).unwrap()
}

fn store() -> ParamStore {
    let probe = ParamStore::probe(&Device::Cpu);
    ParamStore::new(3, &Device::Cpu).with_layers(model(&probe).layers(), 0)
}

/// Batches of four drawn images.
fn batches(folder: &Path) -> Vec<Vec<docent_coco::TrainItem>> {
    let data = Arc::new(generate(folder, &ShapesConfig::default().train(12).val(1)).unwrap().train);
    let resize = Resize::default().shortest(64).longest(80);
    let loader = Loader::new(data, LoaderConfig::default().resize(resize).batch(4)).unwrap();
    loader.epoch(0).collect::<docent_coco::Result<_>>().unwrap()
}

fn parts(items: &[docent_coco::TrainItem], size: usize) -> Vec<Batch> {
    items.chunks(size).map(|part| Batch::new(part, &Device::Cpu).unwrap()).collect()
}

fn bits(store: &ParamStore) -> Vec<(String, Vec<u32>)> {
    let values = |t: candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let bits = |t| values(t).into_iter().map(f32::to_bits).collect();
    store.snapshot().unwrap().into_iter().map(|(name, tensor)| (name, bits(tensor))).collect()
}

#[test]
fn a_state_goes_out_and_in_and_the_training_goes_on_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let batches = batches(folder.path());
    let config = || TrainerConfig::new(2, 3, 0.01).ema(Some(EmaConfig::default()));
    let (straight, stopped, resumed) = (store(), store(), store());
    let models = [model(&straight), model(&stopped), model(&resumed)];
    let mut whole = Trainer::new(config(), StudentModel { model: &models[0], store: &straight }, None).unwrap();
    let records: Vec<StepRecord> = batches.iter().map(|b| whole.step(&parts(b, 4), false).unwrap()).collect();

    let mut first = Trainer::new(config(), StudentModel { model: &models[1], store: &stopped }, None).unwrap();
    first.step(&parts(&batches[0], 4), false).unwrap();
    let state = first.state().unwrap();
    // The state is a copy: further steps do not reach it.
    first.step(&parts(&batches[1], 4), false).unwrap();

    let mut second = Trainer::new(config(), StudentModel { model: &models[2], store: &resumed }, None).unwrap();
    second.load_state(&state).unwrap();
    assert_eq!(second.steps_done(), 1);
    for (batch, want) in batches.iter().zip(&records).skip(1) {
        assert_eq!(second.step(&parts(batch, 4), false).unwrap(), *want);
    }
    assert!(bits(&resumed) == bits(&straight));
    let (a, b) = (whole.state().unwrap(), second.state().unwrap());
    assert_eq!(a.ema.keys().collect::<Vec<_>>(), b.ema.keys().collect::<Vec<_>>());
    let seen = second.with_reported(|| Ok::<_, Box<dyn std::error::Error>>(bits(&resumed))).unwrap();
    assert!(seen != bits(&resumed), "the average is not the weights");
}

/// Notes how often it was asked, and makes every gradient three times as large.
struct Triple(Arc<AtomicUsize>);

impl GradientReducer for Triple {
    fn reduce(&mut self, gradients: &mut GradStore, params: &[&Params]) -> Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        for (_, var) in params.iter().copied().flatten() {
            if let Some(gradient) = gradients.remove(var) {
                gradients.insert(var, (gradient * 3.0)?);
            }
        }
        Ok(())
    }
}

#[test]
fn the_reducer_stands_between_backward_and_clipping() {
    let folder = tempfile::tempdir().unwrap();
    let batch = batches(folder.path()).remove(0);
    let norm = |max_grad_norm| {
        let (plain, tripled) = (store(), store());
        let models = [model(&plain), model(&tripled)];
        let config = || TrainerConfig::new(1, 1, 0.01).max_grad_norm(max_grad_norm);
        let mut alone = Trainer::new(config(), StudentModel { model: &models[0], store: &plain }, None).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let student = StudentModel { model: &models[1], store: &tripled };
        let mut reduced = Trainer::new(config(), student, None).unwrap().with_reducer(Triple(Arc::clone(&asked)));
        let norms = [&mut alone, &mut reduced].map(|t| t.step(&parts(&batch, 2), false).unwrap().grad_norm);
        assert_eq!(asked.load(Ordering::Relaxed), 1, "once a step, not once a part");
        (norms, bits(&plain) == bits(&tripled))
    };
    let ([alone, reduced], same) = norm(None);
    assert!((reduced / alone - 3.0).abs() < 1e-5, "{alone} {reduced}");
    assert!(!same);
    // Far below both norms the bound takes the factor out again, up to rounding.
    let ([alone, reduced], _) = norm(Some(1e-3));
    assert!((reduced / alone - 3.0).abs() < 1e-5, "the norm is measured before clipping");
}

#[test]
fn counts_of_parts_are_summed_and_losses_are_means_by_images() {
    let folder = tempfile::tempdir().unwrap();
    // Four images that are padded to one size: more padding would add anchors, and with them other samples.
    let mut batch = batches(folder.path()).concat();
    let padded = |item: &docent_coco::TrainItem| (item.planes.height.div_ceil(32), item.planes.width.div_ceil(32));
    let first = padded(&batch[0]);
    batch.retain(|item| padded(item) == first);
    batch.truncate(4);
    assert_eq!(batch.len(), 4);
    let step = |size: usize| {
        let store = store();
        let model = model(&store);
        let mut trainer =
            Trainer::new(TrainerConfig::new(1, 1, 0.0), StudentModel { model: &model, store: &store }, None).unwrap();
        trainer.step(&parts(&batch, size), false).unwrap()
    };
    let (whole, halves, uneven) = (step(4), step(2), step(3));
    assert!(whole.positives > 0);
    assert_eq!((whole.positives, whole.positives), (halves.positives, uneven.positives));
    for (name, loss) in &whole.losses {
        // The RPN's box loss divides by all sampled anchors, which are as many in every image.
        for parts in [&halves, &uneven] {
            let other = parts.loss(name).unwrap();
            assert!((other / loss - 1.0).abs() < 1e-4, "{name}: {loss} {other}");
        }
    }
    assert!((halves.grad_norm / whole.grad_norm - 1.0).abs() < 1e-3);
}
