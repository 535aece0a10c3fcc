//! AdamW, the moving average, augmentation, early stops, TensorBoard's file and time budgets in whole studies.

use std::time::Duration;

use docent_coco::read_results;
use docent_model::{Predictor, load_checkpoint};
use docent_study::recipe::Recipe;
use docent_study::run::{RunFolder, RunState};
use docent_study::tensorboard::FILE_NAME;
use docent_study::{Registry, budget};
use docent_train::EarlyStop;
use docent_train::evaluate::evaluate;
use docent_train::events::Event;

use crate::bench::{Bench, RECIPE, Recorder, STEPS, bits, steps};

const EVERYTHING: [&str; 6] = [
    "train.optimizer=adamw",
    "train.lr=0.003",
    "train.ema={ decay = 0.9, warmup = 4.0 }",
    "data.augment={ scales = [32, 48, 64], crop = { probability = 0.7 }, jitter = { brightness = 0.3, hue = 0.1 } }",
    "log.tensorboard=true",
    "eval.batch=2",
];

#[test]
fn with_everything_on_a_stopped_study_ends_with_the_same_bits() {
    let bench = Bench::new();
    let recipe = bench.recipe(&EVERYTHING);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| bench.study(&recipe, "whole", false).0.unwrap());
    type StopAt = fn(&Event) -> bool;
    let stops: [StopAt; 6] = [
        |e| matches!(e, Event::Step(s) if s.step == 2),
        |e| matches!(e, Event::Step(s) if s.step == 3 && s.steps == STEPS),
        |e| matches!(e, Event::Evaluated(s) if s.step == 3 && s.epoch == 1),
        |e| matches!(e, Event::Step(s) if s.step == 5 && s.distill.is_none()),
        |e| matches!(e, Event::Evaluated(s) if s.step == STEPS),
        |e| matches!(e, Event::Step(s) if s.step == 4 && s.distill.is_some()),
    ];
    for (i, stop) in stops.into_iter().enumerate() {
        bench.study_into(&recipe, "parts", i > 0, &mut Recorder { events: Vec::new(), stop }).unwrap_err();
    }
    let loaders = bench.recipe(&[&EVERYTHING[..], &["data.loader_threads=3"]].concat());
    assert!(bench.study(&loaders, "parts", true).0.is_err(), "a recipe's field is another experiment");
    // What is logged is none.
    let silent = bench.recipe(&[&EVERYTHING[..], &["log.tensorboard=false"]].concat());
    assert!(bench.study(&silent, "parts", true).0.is_ok());
    bench.assert_same("whole", "parts", &["teacher", "alone", "distilled"]);

    // Times apart, the event file has the same frames too, up to the step at which it was turned off.
    let size = |study: &str, run: &str| {
        std::fs::metadata(bench.path(study).join(run).join("tensorboard").join(FILE_NAME)).unwrap().len()
    };
    for run in ["teacher", "alone"] {
        assert_eq!(size("whole", run), size("parts", run), "{run}");
    }
    assert!(size("whole", "distilled") > size("parts", "distilled"));
    let plain = bench.recipe(&[]);
    bench.study(&plain, "plain", false).0.unwrap();
    assert!(!bench.path("plain/alone/tensorboard").exists());
}

#[test]
fn the_moving_average_is_what_is_evaluated_and_reported() {
    let bench = Bench::new();
    let recipe = bench.alone(&["train.ema={ decay = 0.8, warmup = 1.0 }", "eval.every=0"]);
    let summary = bench.study(&recipe, "average", false).0.unwrap();
    bench.study(&bench.alone(&["eval.every=0"]), "plain", false).0.unwrap();
    let folder = RunFolder::new(&bench.path("average"), "alone");
    let state = RunState::load(&folder.state()).unwrap();
    let last = load_checkpoint(&folder.last()).unwrap();
    let trained = load_checkpoint(&RunFolder::new(&bench.path("plain"), "alone").last()).unwrap();
    let mut moved = 0;
    for name in last.tensors.keys() {
        assert_eq!(bits(&last.tensors, name), bits(&state.trainer.ema, name), "{name}: last is the average");
        assert_eq!(
            bits(&state.trainer.model, name),
            bits(&trained.tensors, name),
            "{name}: the average does not touch training"
        );
        moved += usize::from(bits(&state.trainer.model, name) != bits(&state.trainer.ema, name));
    }
    assert!(moved > last.tensors.len() / 2, "{moved} of {}", last.tensors.len());

    // The figures and detections are those of the file.
    let data = docent_study::data::Data::open(&recipe.data).unwrap();
    let predictor = Predictor::load(&folder.last(), &Registry::builtin().models).unwrap();
    let again = evaluate(&*predictor.model, &data.val, &recipe.data.eval_loading(), 4, |_, _| Ok(())).unwrap();
    assert_eq!(again.metrics.ap(), summary.alone.ap);
    let written = read_results(&folder.detections()).unwrap();
    assert_eq!(written.len(), again.detections.len());
    assert!(written.iter().zip(&again.detections).all(|(a, b)| (a.score - b.score).abs() < 1e-9));
}

#[test]
fn an_early_stop_ends_a_run_and_a_resume_ends_it_at_the_same_place() {
    let bench = Bench::new();
    // Nothing rises by 0.9: the first evaluation is the reference, the third ends it.
    let mut recipe = bench.alone(&["train.epochs=6"]);
    recipe.train.early_stop = Some(EarlyStop { patience: 2, min_delta: 0.9 });
    let (summary, events) = bench.study(&recipe, "whole", false);
    let summary = summary.unwrap();
    assert_eq!(summary.alone.steps, 9);
    assert_eq!(steps(&bench.path("whole/alone")).len(), 9);
    assert!(
        events.iter().any(|e| matches!(e, Event::Note { text } if text.contains("stopped early after epoch 3 of 6")))
    );
    let last = load_checkpoint(&RunFolder::new(&bench.path("whole"), "alone").last()).unwrap();
    assert_eq!(last.meta.step, 9);
    type StopAt = fn(&Event) -> bool;
    let stops: [StopAt; 3] = [
        |e| matches!(e, Event::Evaluated(s) if s.step == 6),
        |e| matches!(e, Event::Step(s) if s.step == 8),
        |e| matches!(e, Event::Evaluated(s) if s.step == 9),
    ];
    for (i, stop) in stops.into_iter().enumerate() {
        bench.study_into(&recipe, "parts", i > 0, &mut Recorder { events: Vec::new(), stop }).unwrap_err();
    }
    assert_eq!(bench.study(&recipe, "parts", true).0.unwrap().alone.steps, 9);
    bench.assert_same("whole", "parts", &["alone"]);
    // A finished one is kept.
    let (_, events) = bench.study(&recipe, "parts", true);
    assert!(events.contains(&Event::RunSkipped { run: "alone".into() }));

    // Without a stop the first nine steps are the same: it decides nothing but the end.
    bench.study(&bench.alone(&["train.epochs=6"]), "free", false).0.unwrap();
    let totals = |study: &str| steps(&bench.path(study).join("alone")).iter().map(|s| s.total).collect::<Vec<_>>();
    assert_eq!(totals("free")[..9], totals("whole"));
    assert_eq!(totals("free").len(), 18);
}

#[test]
fn a_teacher_may_stop_early_and_students_that_are_compared_may_not() {
    let bench = Bench::new();
    let teacher = ["teacher.early_stop={ patience = 1, min_delta = 0.9 }", "teacher.epochs=4"];
    let summary = bench.study(&bench.recipe(&teacher), "study", false).0.unwrap();
    assert_eq!(summary.teacher.unwrap().steps, 6);
    assert_eq!((summary.alone.steps, summary.distilled.unwrap().steps), (STEPS, STEPS));

    let refused = |assignments: &[&str], words: &[&str]| {
        let assignments: Vec<String> = assignments.iter().map(|a| (*a).to_owned()).collect();
        let message = Recipe::parse(RECIPE, &assignments).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    refused(&["train.early_stop={ patience = 1 }"], &["train.early_stop", "[distill]", "teacher.early_stop"]);
    refused(&["teacher.early_stop={ patience = 1 }", "eval.every=0"], &["teacher.early_stop", "eval.every"]);
    refused(&["teacher.early_stop={ patience = 0 }"], &["teacher.early_stop", "patience"]);
    refused(&["train.ema={ decay = 1.5 }"], &["train.ema", "decay"]);
    refused(&["train.betas=[0.9, 1.0]", "train.optimizer=adamw"], &["train", "betas"]);
    refused(&["train.optimizer=adam"], &["adam", "did you mean 'adamw'"]);
    refused(&["data.augment.scales=[0]"], &["data.augment.scales"]);
}

#[test]
fn a_budget_chooses_what_fits() {
    let bench = Bench::new();
    let mut recipe = bench.recipe(&["train.epochs=2", "teacher.epochs=1"]);
    let before = recipe.clone();
    let seconds = 40.0;
    let fit = budget::fit(&recipe, &Registry::builtin(), Duration::from_secs_f64(seconds)).unwrap();
    assert_eq!(fit.runs.iter().map(|r| r.name).collect::<Vec<_>>(), ["teacher", "alone", "distilled"]);
    assert!(fit.epochs >= 1 && fit.seconds() <= seconds, "{fit:?}");
    assert!(fit.runs.iter().all(|r| r.step_seconds > 0.0 && r.evaluation_seconds > 0.0), "{fit:?}");
    // One more epoch of each run would not have fitted.
    let more: f64 = fit.runs.iter().map(|r| 3.0 * r.step_seconds + r.evaluation_seconds).sum();
    assert!(fit.seconds() + more > 0.8 * seconds, "{fit:?}");
    assert_eq!(fit.teacher_epochs, Some((fit.epochs as f64 / 2.0).round().max(1.0) as usize));
    fit.apply(&mut recipe);
    recipe.validate().unwrap();
    assert_eq!(Recipe { train: before.train.clone(), teacher: before.teacher.clone(), ..recipe.clone() }, before);
    assert_eq!(recipe.train.epochs, fit.epochs);
    assert!(std::fs::read_dir(bench.path("")).unwrap().count() == 1, "nothing is written");

    let message = budget::fit(&before, &Registry::builtin(), Duration::from_millis(10)).unwrap_err().to_string();
    assert!(message.contains("one epoch of each run") && message.contains("data.limit"), "{message}");
}
