//! A batch in parts, and how detection and distillation pull.

use std::collections::BTreeMap;

use candle_core::{Device, Var};
use docent_coco::TrainItem;
use docent_distill::methods::DistillerConfig;
use docent_distill::{Channels, DistillerRegistry, Progress};
use docent_model::{ParamStore, load_checkpoint, save_checkpoint};
use docent_study::build::Built;
use docent_study::data::{Data, train_loader};
use docent_study::recipe::{Recipe, text_of};
use docent_train::events::DistillRecord;
use docent_train::update::{Update, update};
use docent_train::{Batch, TeacherContext};

use crate::bench::{Bench, backbone_of, bits, build, steps, teacher};

const PROGRESS: Progress<'static> = Progress { epoch: 1, epochs: 2, iteration: 1, iterations: 6, milestones: &[] };

/// Four images of one size: padded alike, whatever stands beside them.
fn items(recipe: &Recipe) -> Vec<TrainItem> {
    let data = Data::open(&recipe.data).unwrap();
    let all: Vec<TrainItem> = train_loader(&data, &recipe.data, 8, 1).unwrap().epoch(0).next().unwrap().unwrap();
    let mut by_size: BTreeMap<(usize, usize), Vec<TrainItem>> = BTreeMap::new();
    for item in all {
        let padded = |side: usize| side.div_ceil(32) * 32;
        by_size.entry((padded(item.planes.height), padded(item.planes.width))).or_default().push(item);
    }
    let mut most = by_size.into_values().max_by_key(Vec::len).unwrap();
    most.truncate(4);
    assert_eq!(most.len(), 4, "four images of eight have one size");
    most
}

/// The student with frozen norms, over weights that are not those of a start.
fn frozen(bench: &Bench) -> Built {
    let recipe = bench.alone(&[]);
    let backbone = backbone_of(&build(&recipe.student, 99).store.snapshot().unwrap());
    let path = bench.path("frozen.safetensors");
    save_checkpoint(&path, &backbone, &BTreeMap::new()).unwrap();
    let mut student = bench.alone(&["student.model.backbone.norm=frozen_batch_norm"]).student;
    student.init.backbone = Some(path);
    build(&student, 1)
}

fn in_parts(
    built: &Built,
    items: &[TrainItem],
    size: usize,
    teacher: Option<&TeacherContext<'_>>,
    diagnose: bool,
) -> Update {
    let parts: Vec<Batch> = items.chunks(size).map(|part| Batch::new(part, &Device::Cpu).unwrap()).collect();
    let params = built.store.trainable();
    update(&*built.model, teacher, &parts, PROGRESS, 5, &[&params], diagnose).unwrap()
}

fn stat(distill: &DistillRecord, name: &str) -> f64 {
    distill.stats.iter().find(|(n, _)| n == name).map(|(_, value)| *value).unwrap()
}

fn gradient(update: &Update, params: &[(String, Var)]) -> Vec<f64> {
    let store = update.gradients.as_ref().unwrap();
    let of = |var: &Var| store.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    params.iter().flat_map(|(_, var)| of(var)).map(f64::from).collect()
}

#[test]
fn two_parts_of_two_are_a_batch_of_four() {
    let bench = Bench::new();
    let built = frozen(&bench);
    let items = items(&bench.alone(&["data.flip=0.0"]));
    let params = built.store.trainable();
    let whole = in_parts(&built, &items, 4, None, false);
    let want = gradient(&whole, &params);
    let largest = want.iter().fold(0.0f64, |m, g| m.max(g.abs()));
    for size in [2, 1, 3] {
        let parts = in_parts(&built, &items, size, None, false);
        assert!((parts.total - whole.total).abs() < 1e-5 * whole.total, "{size}: {} {}", parts.total, whole.total);
        assert_eq!(parts.positives, whole.positives);
        assert_eq!(parts.losses.len(), whole.losses.len());
        for ((name, a), (whole_name, b)) in parts.losses.iter().zip(&whole.losses) {
            assert_eq!(name, whole_name);
            assert!((a - b).abs() < 1e-5 * b.abs().max(1e-3), "{size}: {:?} {:?}", parts.losses, whole.losses);
        }
        let got = gradient(&parts, &params);
        let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-5 * largest, "{size}: {worst} of {largest}");
    }
}

#[test]
fn a_run_in_parts_is_a_run_and_a_bad_number_of_parts_is_refused() {
    let bench = Bench::new();
    // Three images a step, the epoch's last step of two.
    bench.study(&bench.recipe(&["train.accumulation_steps=3", "diagnose.every=2"]), "parts", false).0.unwrap();
    let logged = steps(&bench.path("parts/distilled"));
    assert_eq!(logged.len(), 6);
    for record in &logged {
        let distill = record.distill.as_ref().unwrap();
        assert!(distill.terms.iter().all(|t| t.raw.is_finite()) && distill.ratio > 0.0);
        assert_eq!(record.diagnosis.is_some(), record.step % 2 == 1);
        // Counts are sums over the parts, the method's as well as the step's.
        assert_eq!(stat(distill, "positives"), record.positives as f64);
    }
    let text = text_of("smoke").unwrap();
    let message = Recipe::parse(&text, &["train.accumulation_steps=3".into()]).unwrap_err().to_string();
    assert!(message.contains("train.accumulation_steps = 3") && message.contains("batch = 4"), "{message}");
}

#[test]
fn a_look_at_the_gradients_changes_no_bit_and_says_what_they_say() {
    let bench = Bench::new();
    let recipe = bench.recipe(&[]);
    let built = build(&recipe.student, 1);
    let params = built.store.trainable();
    let teacher = teacher(&recipe);
    let items = items(&recipe);
    let store = ParamStore::new(3, &Device::Cpu);
    let [own, theirs] = [&built.model, &teacher.model].map(|model| Channels::of(&**model));
    let config = DistillerConfig::default();
    let distiller = DistillerRegistry::builtin().distiller(&config, &own, &theirs, store.var_builder()).unwrap();
    let context = TeacherContext { model: &*teacher.model, distiller: distiller.as_ref(), store: &store, cache: None };
    // Statistics of BatchNorm move with each forward pass, but a step in training does not read them.
    let plain = in_parts(&built, &items, 4, Some(&context), false);
    let looked = in_parts(&built, &items, 4, Some(&context), true);
    assert_eq!(gradient(&plain, &params), gradient(&looked, &params));
    assert!(plain.diagnosis.is_none());
    let seen = looked.diagnosis.as_ref().unwrap();

    // The mask of four images is the sum of the masks of their parts.
    let mask_sum = |update: &Update| stat(update.distill.as_ref().unwrap(), "mask_sum");
    let parts = in_parts(&built, &items, 2, Some(&context), false);
    assert!((mask_sum(&parts) - mask_sum(&plain)).abs() < 1e-6 * mask_sum(&plain), "{:?}", parts.distill);

    // By hand: the detection losses alone, and the rest.
    let alone = gradient(&in_parts(&built, &items, 4, None, false), &params);
    let rest: Vec<f64> = gradient(&plain, &params).iter().zip(&alone).map(|(a, b)| a - b).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (one, other) = (dot(&alone, &alone).sqrt(), dot(&rest, &rest).sqrt());
    assert!((seen.cosine - dot(&alone, &rest) / (one * other)).abs() < 1e-4, "{seen:?}");
    assert!((seen.norm_ratio - other / one).abs() < 1e-3 * seen.norm_ratio, "{seen:?}");
    assert!(seen.cosine.abs() < 1.0 && seen.norm_ratio > 0.0);
    let record = looked.distill.as_ref().unwrap();
    let sum: f64 = seen.terms.iter().map(|(_, ratio)| ratio).sum();
    assert!(seen.terms.len() == 3 && (sum - record.ratio).abs() < 1e-9, "{seen:?}");

    // The whole loop: the same weights with and without.
    bench.study(&recipe, "without", false).0.unwrap();
    bench.study(&bench.recipe(&["diagnose.every=1"]), "with", false).0.unwrap();
    let load = |study: &str| {
        let path = bench.path(study).join("distilled/checkpoints/last.safetensors");
        load_checkpoint(&path).unwrap().tensors
    };
    let (without, with) = (load("without"), load("with"));
    assert!(without.keys().all(|name| bits(&without, name) == bits(&with, name)));
}
