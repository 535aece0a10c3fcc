//! The folder of a study: what is in it, who may use it, what is kept.

use docent_detect::Registry;
use docent_model::Predictor;
use docent_study::data::Data;
use docent_study::run::RunFolder;
use docent_train::events::{Event, StepRecord};
use serde_json::Value;

use crate::bench::{Bench, STEPS, log, steps};

fn json(path: &std::path::Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_study_leaves_everything_it_promises_and_is_kept() {
    let bench = Bench::new();
    let recipe = bench.recipe(&[]);
    let (result, events) = bench.study(&recipe, "study", false);
    let summary = result.unwrap();
    let dir = bench.path("study");
    let written = json(&dir.join("summary.json"));
    assert_eq!(serde_json::to_value(&summary).unwrap(), written);
    assert_eq!((&written["recipe"], &written["seed"]), (&Value::from("tiny"), &Value::from(3)));
    assert_eq!(written["dataset"]["name"], "data");
    assert_eq!(written["dataset"]["digest"].as_str().unwrap().len(), 64);
    assert_eq!(written["dataset"]["images"], serde_json::json!([8, 4]));
    let gain = written["distilled"]["ap"].as_f64().unwrap() - written["alone"]["ap"].as_f64().unwrap();
    assert_eq!(written["gain"].as_f64(), Some(gain));
    for run in ["teacher", "alone", "distilled"] {
        let figures = &written[run];
        for key in ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"] {
            let value = figures[key].as_f64().unwrap();
            assert!(value == -1.0 || (0.0..=1.0).contains(&value), "{run}.{key} = {value}");
        }
        let names: Vec<_> = figures["per_class"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
        assert_eq!(names, ["disc", "ring", "square", "triangle", "star", "cross"]);
        for key in ["params", "gflops", "ms_per_image", "seconds"] {
            assert!(figures[key].as_f64().unwrap() > 0.0, "{run}.{key}");
        }
        let steps = if run == "teacher" { 3 } else { STEPS };
        assert_eq!(figures["steps"], steps);
        let folder = RunFolder::new(&dir, run);
        assert_eq!(dir.join(figures["checkpoint"].as_str().unwrap()), folder.last());
        for file in [folder.last(), folder.best(), folder.state(), folder.result(), folder.path().join("recipe.toml")] {
            assert!(file.is_file(), "{}", file.display());
        }
        let manifest = json(&folder.manifest());
        assert_eq!(manifest["data"], written["dataset"]);
        assert_eq!(manifest["run"], run);
        let predictor = Predictor::load(&folder.last(), &Registry::builtin()).unwrap();
        assert_eq!(predictor.meta.step, steps);
        assert_eq!(Value::from(predictor.store.parameter_count()), figures["params"]);
        let names: Vec<String> = predictor.store.shapes().into_keys().collect();
        assert!(names.iter().any(|n| n == "backbone.body.bn1.num_batches_tracked"));
        assert!(!names.iter().any(|n| n.contains("adapt")), "the adapters stay out of the student's checkpoint");
        let logged: Vec<_> = log(folder.path()).into_iter().filter(|e| matches!(e, Event::Step(_))).collect();
        let said: Vec<_> = run_events(&events, run).into_iter().filter(|e| matches!(e, Event::Step(_))).collect();
        assert_eq!(logged.len(), steps);
        assert_eq!(logged, said, "the log holds what the loop said, to the last digit");
    }
    assert!(written["teacher"]["params"].as_u64() > written["alone"]["params"].as_u64());
    assert_eq!(written["alone"]["params"], written["distilled"]["params"]);
    let teacher = Predictor::load(&RunFolder::new(&dir, "teacher").last(), &Registry::builtin()).unwrap();
    let manifest = json(&RunFolder::new(&dir, "distilled").manifest());
    assert_eq!(manifest["teacher"]["sha256"], Value::from(teacher.sha256));

    // The teacher is measured before the first student's first step.
    let measured =
        events.iter().position(|e| matches!(e, Event::Note { text } if text.contains("before the first step")));
    let started = events.iter().position(|e| matches!(e, Event::RunStarted { run, .. } if run == "alone"));
    assert!(measured.unwrap() < started.unwrap());

    // Again with --resume: nothing is trained. Without it, or under another recipe: nothing is touched.
    let (again, events) = bench.study(&recipe, "study", true);
    assert_eq!(again.unwrap(), summary);
    let skipped: Vec<_> = events
        .iter()
        .filter_map(|e| if let Event::RunSkipped { run } = e { Some(run.as_str()) } else { None })
        .collect();
    assert_eq!(skipped, ["teacher", "alone", "distilled"]);
    assert!(!events.iter().any(|e| matches!(e, Event::Step(_))));
    let message = bench.study(&recipe, "study", false).0.unwrap_err().to_string();
    assert!(message.contains("--resume") && message.contains("study"), "{message}");
    let message = bench.study(&bench.recipe(&["train.lr=0.5"]), "study", true).0.unwrap_err().to_string();
    assert!(message.contains("train.lr: the file has 0.02, here it is 0.5"), "{message}");
    assert_eq!(message.lines().count(), 2, "only what differs is named: {message}");

    // The recipe is the same, but the file it names is not.
    let annotations = bench.path("data/annotations/instances_train.json");
    let text = std::fs::read_to_string(&annotations).unwrap();
    std::fs::write(&annotations, text + " ").unwrap();
    let message = bench.study(&recipe, "study", true).0.unwrap_err().to_string();
    assert!(message.contains("other data") && message.contains("manifest.json"), "{message}");
}

/// The events between a run's start and its end.
fn run_events(events: &[Event], name: &str) -> Vec<Event> {
    let start = events.iter().position(|e| matches!(e, Event::RunStarted { run, .. } if run == name)).unwrap();
    let end = events.iter().position(|e| matches!(e, Event::RunFinished { run, .. } if run == name)).unwrap();
    events[start..=end].to_vec()
}

#[test]
fn every_step_says_what_the_teacher_adds() {
    let bench = Bench::new();
    let recipe = bench.recipe(&[]);
    bench.study(&recipe, "study", false).0.unwrap();
    let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-5 * b.abs().max(1e-3), "{a} instead of {b}");
    for (i, s) in steps(&bench.path("study/distilled")).iter().enumerate() {
        assert_eq!((s.step, s.steps, s.epoch), (i + 1, STEPS, i / 3 + 1));
        let distill = s.distill.as_ref().unwrap();
        assert_eq!(distill.decay, if s.epoch == 1 { 1.0 } else { 0.5 });
        let weights = [("feat", 0.32), ("cls", 0.25), ("reg", 0.25)];
        assert_eq!(distill.terms.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), weights.map(|w| w.0));
        for (term, (_, weight)) in distill.terms.iter().zip(weights) {
            assert!(term.raw >= 0.0);
            close(term.weighted, distill.decay * weight * term.raw);
        }
        assert!(distill.terms[0].raw > 0.0 && s.adapter_grad_norm.unwrap() > 0.0);
        let names = ["rpn_objectness", "rpn_box", "head_class", "head_box"];
        assert_eq!(s.losses.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), names);
        let own = s.detection();
        let added: f64 = distill.terms.iter().map(|t| t.weighted).sum();
        close(s.total, own + added);
        close(distill.ratio, added / own);
        let stat = |name: &str| distill.stats.iter().find(|(n, _)| n == name).map(|(_, v)| *v).unwrap();
        assert!((0.0..=1.0).contains(&stat("gated_share")));
        assert_eq!(stat("positives"), s.positives as f64);
        assert!(stat("mask_sum") > 0.0);
        assert!(s.lr > 0.0 && s.grad_norm > 0.0 && s.step_seconds >= s.data_seconds);
    }
    let alone = steps(&bench.path("study/alone"));
    assert!(alone.iter().all(|s| s.distill.is_none() && s.adapter_grad_norm.is_none()));
    // Same first weights, data and samples: the first step's own losses are the same numbers.
    let distilled = steps(&bench.path("study/distilled"));
    let own = |s: &StepRecord| s.losses.clone();
    assert_eq!(own(&alone[0]), own(&distilled[0]));
    assert_ne!(own(&alone[STEPS - 1]), own(&distilled[STEPS - 1]));
}

#[test]
fn a_folder_that_is_no_study_is_left_alone() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("mine")).unwrap();
    std::fs::write(bench.path("mine/notes.txt"), "keep").unwrap();
    for resume in [false, true] {
        let message = bench.study(&bench.recipe(&[]), "mine", resume).0.unwrap_err().to_string();
        assert!(message.contains("mine") && message.contains("--out"), "{message}");
    }
    assert_eq!(std::fs::read_dir(bench.path("mine")).unwrap().count(), 1);
    // What fails before anything is trained leaves the folder free for the next try.
    let mut recipe = bench.recipe(&[]);
    recipe.data.dir = Some(bench.path("nowhere"));
    assert!(bench.study(&recipe, "free", false).0.unwrap_err().to_string().contains("nowhere"));
    let frozen = bench.recipe(&["student.model.backbone.norm=frozen_batch_norm"]);
    assert!(bench.study(&frozen, "free", false).0.unwrap_err().to_string().contains("init.backbone"));
    assert!(!bench.path("free").exists());
}

#[test]
fn a_limit_beyond_the_data_changes_nothing() {
    let bench = Bench::new();
    let open = |limit: &str| Data::open(&bench.recipe(&[limit]).data).unwrap().summary();
    let whole = Data::open(&bench.recipe(&[]).data).unwrap().summary();
    assert_eq!(open("data.limit=8"), whole);
    assert_eq!(open("data.limit=1000"), whole);
    let part = open("data.limit=2");
    assert_eq!(part.images, [2, 4]);
    assert_ne!(part.digest, whole.digest);
}
