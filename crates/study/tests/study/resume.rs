//! Determinism: the same bits from the same recipe, with other threads, and after any interruption.

use docent_study::run::{RunFolder, RunState};
use docent_train::events::Event;

use crate::bench::{Bench, Recorder, STEPS, timeless, weights};

#[test]
fn the_same_recipe_gives_the_same_bits_again_and_with_any_number_of_threads() {
    let bench = Bench::new();
    // Compute threads, loader threads, batches ahead. The first two are one and the same.
    let ways = [("first", 2, 1, 4), ("again", 2, 1, 4), ("one", 1, 1, 4), ("loaders", 2, 4, 1), ("both", 1, 4, 2)];
    let summaries = ways.map(|(name, threads, loaders, prefetch)| {
        let loaders = [format!("data.loader_threads={loaders}"), format!("data.prefetch={prefetch}")];
        let recipe = bench.recipe(&loaders.each_ref().map(String::as_str));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| bench.study(&recipe, name, false).0.unwrap())
    });
    for ((name, ..), summary) in ways.iter().zip(&summaries).skip(1) {
        assert_eq!(summary.gain, summaries[0].gain, "{name}");
        bench.assert_same("first", name, &["teacher", "alone", "distilled"]);
    }
    let [alone, distilled] = ["alone", "distilled"].map(|run| weights(&bench.path("first").join(run), "last"));
    assert!(alone != distilled, "the teacher changes something");
    let other = bench.alone(&["seed=4"]);
    bench.study(&other, "other", false).0.unwrap();
    assert!(alone != weights(&bench.path("other/alone"), "last"), "and so does the seed");
}

#[test]
fn a_study_that_is_stopped_again_and_again_ends_with_the_same_bits() {
    let bench = Bench::new();
    let recipe = bench.recipe(&[]);
    bench.study(&recipe, "whole", false).0.unwrap();

    // The log has the event already when the sink fails, as when a program is killed behind it.
    type StopAt = (&'static str, fn(&Event) -> bool);
    let stops: [StopAt; 8] = [
        ("in the teacher", |e| matches!(e, Event::Step(s) if s.step == 3)),
        ("before the first state", |e| matches!(e, Event::Step(s) if s.step == 1 && s.steps == STEPS)),
        ("in an epoch", |e| matches!(e, Event::Step(s) if s.step == 3 && s.steps == STEPS)),
        ("after an epoch's evaluation", |e| matches!(e, Event::Evaluated(s) if s.step == 3 && s.epoch == 1)),
        ("at an epoch's end", |e| matches!(e, Event::Checkpoint { step: 3, .. })),
        ("in the last epoch", |e| matches!(e, Event::Step(s) if s.step == 5 && s.distill.is_none())),
        ("after the last step", |e| matches!(e, Event::Checkpoint { step: STEPS, .. })),
        ("after the last evaluation", |e| matches!(e, Event::Evaluated(s) if s.step == STEPS)),
    ];
    for (i, (place, stop)) in stops.into_iter().enumerate() {
        let message =
            bench.study_into(&recipe, "parts", i > 0, &mut Recorder { events: Vec::new(), stop }).unwrap_err();
        assert!(message.to_string().contains("stopped"), "{place}: {message}");
    }
    // The same places in the run with a teacher and adapters.
    for (place, stop) in stops.into_iter().skip(1).filter(|(place, _)| *place != "in the last epoch") {
        let result = bench.study_into(&recipe, "parts", true, &mut Recorder { events: Vec::new(), stop });
        assert!(result.unwrap_err().to_string().contains("stopped"), "{place}");
    }
    let summary = bench.study(&recipe, "parts", true).0.unwrap();
    assert!(summary.alone.seconds > 0.0);
    bench.assert_same("whole", "parts", &["teacher", "alone", "distilled"]);
}

#[test]
fn a_state_is_enough_to_go_on() {
    let bench = Bench::new();
    let recipe = bench.alone(&[]);
    let stop = |e: &Event| matches!(e, Event::Checkpoint { step: 4, .. });
    bench.study_into(&recipe, "study", false, &mut Recorder { events: Vec::new(), stop }).unwrap_err();
    let folder = RunFolder::new(&bench.path("study"), "alone");
    let state = RunState::load(&folder.state()).unwrap();
    assert_eq!((state.trainer.step, state.epoch), (4, 1));

    // Without the log the run goes on: it says so, and its seconds come from the state.
    std::fs::remove_file(folder.metrics()).unwrap();
    let (result, events) = bench.study(&recipe, "study", true);
    let summary = result.unwrap();
    assert!(events.contains(&Event::RunStarted { run: "alone".into(), steps: STEPS, done: 4 }));
    assert!(
        events.iter().any(|e| matches!(e, Event::Warning { text } if text.contains("metrics.jsonl lacks steps 1 to")))
    );
    assert!(summary.alone.seconds > state.seconds && state.seconds > 0.0);
    let (logged, _) = timeless(folder.path());
    assert_eq!(logged.iter().map(|s| s.step).collect::<Vec<_>>(), [5, 6]);
    assert_eq!((summary.teacher, summary.distilled, summary.gain), (None, None, None));
}
