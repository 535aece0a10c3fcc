//! Stopping on request, and who may work in a folder.

use docent_study::lock::{FolderLock, LOCK_FILE};
use docent_study::run::{RunFolder, RunState};
use docent_study::{Error, Holder};
use docent_train::CancelToken;
use docent_train::events::Event;

use crate::bench::{Bench, Recorder, STEPS, log};

#[test]
fn a_study_that_is_asked_to_stop_loses_nothing_and_ends_with_the_same_bits() {
    let bench = Bench::new();
    // So few states that those found below were written because of the request; two batches in an evaluation, with a place between.
    let recipe = bench.recipe(&["checkpoint.steps=100", "eval.batch=2"]);
    bench.study(&recipe, "whole", false).0.unwrap();
    let runs = ["teacher", "alone", "distilled"];

    // A place in the study (a run, then an event in it), and the step and epoch of the state that must stand there then.
    type Place = (&'static str, fn(&Event) -> bool, usize, usize);
    let places: [Place; 8] = [
        ("teacher", |e| matches!(e, Event::Step(s) if s.step == 2), 2, 0),
        ("teacher", |e| matches!(e, Event::Evaluating { .. }), 3, 0),
        ("alone", |e| matches!(e, Event::RunStarted { .. }), 1, 0),
        ("alone", |e| matches!(e, Event::Evaluating { .. }), 3, 0),
        ("alone", |e| matches!(e, Event::Evaluated(s) if s.step == 3), 3, 1),
        ("distilled", |e| matches!(e, Event::Step(s) if s.step == 3), 3, 0),
        ("distilled", |e| matches!(e, Event::Checkpoint { step: 3, .. }), 3, 1),
        ("distilled", |e| matches!(e, Event::Step(s) if s.step == STEPS), STEPS, 1),
    ];
    for (i, (run, place, step, epoch)) in places.into_iter().enumerate() {
        let cancel = CancelToken::default();
        let mut now = String::new();
        let ask = |event: &Event| {
            if let Event::RunStarted { run, .. } = event {
                now.clone_from(run);
            }
            if now == run && place(event) {
                cancel.request();
            }
            false
        };
        let mut sink = Recorder { events: Vec::new(), stop: ask };
        let error = bench.study_until(&recipe, "parts", i > 0, &cancel, &mut sink).unwrap_err();
        let Error::Stopped { run: at, step: done } = &error else { panic!("{i}: {error}") };
        assert_eq!((at.as_str(), *done), (run, step), "{i}");
        let state = RunState::load(&RunFolder::new(&bench.path("parts"), run).state()).unwrap();
        assert_eq!((state.trainer.step, state.epoch), (step, epoch), "{i}");
        assert!(error.to_string().contains("--resume"), "{error}");
    }
    bench.study(&recipe, "parts", true).0.unwrap();
    bench.assert_same("whole", "parts", &runs);
}

#[test]
fn a_request_is_heard_before_a_run_and_while_the_teacher_is_measured() {
    let bench = Bench::new();
    let recipe = bench.recipe(&[]);
    let cancel = CancelToken::default();
    cancel.request();
    let mut sink = Recorder { events: Vec::new(), stop: |_: &Event| false };
    let error = bench.study_until(&recipe, "study", false, &cancel, &mut sink).unwrap_err();
    assert!(matches!(&error, Error::Stopped { run, step: 0 } if run == "teacher"), "{error}");

    let cancel = CancelToken::default();
    let mut trained = false;
    let ask = |event: &Event| {
        trained |= matches!(event, Event::RunFinished { .. });
        if trained && matches!(event, Event::Evaluating { .. }) {
            cancel.request();
        }
        false
    };
    // Two batches, so that there is a place between them.
    let recipe = bench.recipe(&["eval.batch=2"]);
    let error = bench
        .study_until(&recipe, "measured", false, &cancel, &mut Recorder { events: Vec::new(), stop: ask })
        .unwrap_err();
    assert!(matches!(&error, Error::Stopped { run, step: 3 } if run == "teacher"), "{error}");
    assert!(RunFolder::new(&bench.path("measured"), "teacher").result().is_file());
    assert!(!bench.path("measured/alone").exists());
}

#[test]
fn a_folder_is_for_one_and_a_dead_holder_is_none() {
    let bench = Bench::new();
    let recipe = bench.alone(&[]);
    std::fs::create_dir(bench.path("study")).unwrap();
    let held = FolderLock::acquire(&bench.path("study")).unwrap();
    let refused = |resume: bool| {
        let (result, events) = bench.study(&recipe, "study", resume);
        let error = result.unwrap_err();
        assert!(matches!(&error, Error::Locked { holder: Some(h), .. } if h.pid == std::process::id()), "{error}");
        assert!(events.is_empty());
    };
    refused(false);
    assert!(!bench.path("study/recipe.toml").exists());
    drop(held);
    // While it runs, too.
    let asked = |event: &Event| {
        if matches!(event, Event::Step(s) if s.step == 1) {
            refused(true);
        }
        matches!(event, Event::Checkpoint { .. })
    };
    bench.study_into(&recipe, "study", false, &mut Recorder { events: Vec::new(), stop: asked }).unwrap_err();

    let dead = Holder { pid: 4_194_304, host: "elsewhere".into(), started: "2026-01-31 10:00:00 UTC".into() };
    std::fs::write(bench.path("study").join(LOCK_FILE), serde_json::to_string(&dead).unwrap()).unwrap();
    let (result, events) = bench.study(&recipe, "study", true);
    result.unwrap();
    let said = |e: &Event| matches!(e, Event::Warning { text } if text.contains("4194304 on elsewhere") && text.contains("taken over"));
    assert_eq!(events.iter().filter(|e| said(e)).count(), 1, "{events:?}");
    let (_, events) = bench.study(&recipe, "study", true);
    assert!(!events.iter().any(|e| matches!(e, Event::Warning { .. })), "an orderly end leaves nothing to take over");
    assert!(!log(&bench.path("study/alone")).is_empty());
}
