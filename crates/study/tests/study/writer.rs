//! Every place at which the writing of a checkpoint can be cut, and every way in which its file can be spoilt.

use std::fs;
use std::path::{Path, PathBuf};

use docent_model::save_checkpoint;
use docent_study::Error;
use docent_study::recipe::Recipe;
use docent_study::run::{RunFolder, RunState};
use docent_train::events::Event;

use crate::bench::{Bench, Recorder, STEPS};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|e| (e.path(), e.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// Makes folder `name` as a program leaves it that dies right after the checkpoint of `step`.
fn cut_at(bench: &Bench, recipe: &Recipe, name: &str, step: usize) -> RunFolder {
    let stop = |e: &Event| matches!(e, Event::Checkpoint { step: s, .. } if *s == step);
    bench.study_into(recipe, name, false, &mut Recorder { events: Vec::new(), stop }).unwrap_err();
    RunFolder::new(&bench.path(name), "alone")
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("safetensors.tmp")
}

#[test]
fn wherever_a_checkpoint_s_writing_is_cut_the_run_ends_with_the_same_bits() {
    let bench = Bench::new();
    let recipe = bench.alone(&[]);
    bench.study(&recipe, "whole", false).0.unwrap();
    cut_at(&bench, &recipe, "older", 4);
    let newer = cut_at(&bench, &recipe, "newer", STEPS);
    let [state, weights] = [newer.state(), newer.last()].map(|path| fs::read(path).unwrap());

    // What the folder of step 4 looks like at each moment of the write of step 6, and the step that must be taken up.
    type Moment<'a> = (&'static str, usize, &'a dyn Fn(&RunFolder));
    let part = |f: &RunFolder, bytes: usize| fs::write(temporary(&f.state()), &state[..bytes]).unwrap();
    let link = |f: &RunFolder| {
        fs::remove_file(f.previous_state()).unwrap();
        fs::hard_link(f.state(), f.previous_state()).unwrap();
    };
    let moments: [Moment<'_>; 9] = [
        ("an empty temporary file", 4, &|f| part(f, 0)),
        ("a part of the header", 4, &|f| part(f, 100)),
        ("half a temporary file", 4, &|f| part(f, state.len() / 2)),
        ("a whole one", 4, &|f| part(f, state.len())),
        ("the state before removed", 4, &|f| {
            part(f, state.len());
            fs::remove_file(f.previous_state()).unwrap();
        }),
        ("the state linked", 4, &|f| {
            part(f, state.len());
            link(f);
        }),
        ("the state moved, where there are no links", 4, &|f| {
            part(f, state.len());
            fs::rename(f.state(), f.previous_state()).unwrap();
        }),
        ("the new state there, its weights half written", STEPS, &|f| {
            link(f);
            fs::remove_file(f.state()).unwrap();
            fs::write(f.state(), &state).unwrap();
            fs::write(temporary(&f.last()), &weights[..weights.len() / 2]).unwrap();
        }),
        ("weights and state there, the log not", STEPS, &|f| {
            link(f);
            fs::remove_file(f.state()).unwrap();
            fs::write(f.state(), &state).unwrap();
            fs::write(f.last(), &weights).unwrap();
        }),
    ];
    for (i, (what, step, make)) in moments.into_iter().enumerate() {
        let name = format!("moment{i}");
        copy(&bench.path("older"), &bench.path(&name));
        let folder = RunFolder::new(&bench.path(&name), "alone");
        if step == STEPS {
            // The log of the later steps had been written.
            fs::copy(newer.metrics(), folder.metrics()).unwrap();
        }
        make(&folder);
        let (result, events) = bench.study(&recipe, &name, true);
        result.unwrap();
        let started = Event::RunStarted { run: "alone".into(), steps: STEPS, done: step };
        assert!(events.contains(&started), "{what}: {events:?}");
        bench.assert_same("whole", &name, &["alone"]);
        let left: Vec<_> = fs::read_dir(folder.path().join("checkpoints"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".tmp"))
            .collect();
        assert!(left.is_empty(), "{what}: {left:?}");
    }
}

#[test]
fn a_damaged_state_is_put_aside_and_the_one_before_it_taken() {
    let bench = Bench::new();
    let recipe = bench.alone(&[]);
    bench.study(&recipe, "whole", false).0.unwrap();
    cut_at(&bench, &recipe, "older", 4);
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("empty", |b| b.clear()),
        ("cut", |b| b.truncate(b.len() / 2)),
        ("one bit", |b| *b.last_mut().unwrap() ^= 1),
        ("zeros, as after a loss of power", |b| b.fill(0)),
    ];
    for (what, damage) in damages {
        copy(&bench.path("older"), &bench.path(what));
        let folder = RunFolder::new(&bench.path(what), "alone");
        let mut bytes = fs::read(folder.state()).unwrap();
        damage(&mut bytes);
        fs::write(folder.state(), &bytes).unwrap();
        let (result, events) = bench.study(&recipe, what, true);
        result.unwrap();
        let warned = |e: &Event| matches!(e, Event::Warning { text } if text.contains("last.state.safetensors") && text.contains("after step 3"));
        assert_eq!(events.iter().filter(|e| warned(e)).count(), 1, "{what}: {events:?}");
        let aside = folder.path().join("checkpoints/damaged.state.safetensors");
        assert!(fs::read(aside).unwrap() == bytes, "{what}: nothing that was written is thrown away");
        bench.assert_same("whole", what, &["alone"]);
    }

    // The only one: the run begins again.
    copy(&bench.path("older"), &bench.path("only"));
    let folder = RunFolder::new(&bench.path("only"), "alone");
    fs::remove_file(folder.previous_state()).unwrap();
    let bytes = fs::read(folder.state()).unwrap();
    fs::write(folder.state(), &bytes[..bytes.len() / 2]).unwrap();
    let (result, events) = bench.study(&recipe, "only", true);
    result.unwrap();
    assert!(events.contains(&Event::RunStarted { run: "alone".into(), steps: STEPS, done: 0 }), "{events:?}");
    assert!(events.iter().any(|e| matches!(e, Event::Warning { text } if text.contains("begins again"))));
    assert!(folder.path().join("checkpoints/damaged.state.safetensors").exists());
    bench.assert_same("whole", "only", &["alone"]);

    // Both damaged: the newest one's fault is told, and the files stay.
    let folder = RunFolder::new(&bench.path("older"), "alone");
    for path in [folder.state(), folder.previous_state()] {
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let message = bench.study(&recipe, "older", true).0.unwrap_err().to_string();
    assert!(message.contains("last.state.safetensors") && message.contains("cut"), "{message}");
    assert!(folder.state().exists() && folder.previous_state().exists());
}

#[test]
fn a_state_of_another_build_or_another_run_is_refused() {
    let bench = Bench::new();
    let recipe = bench.alone(&[]);
    let folder = cut_at(&bench, &recipe, "study", 4);
    let refused = || bench.study(&recipe, "study", true).0.unwrap_err().to_string();
    let good = fs::read(folder.state()).unwrap();
    fs::remove_file(folder.previous_state()).unwrap();

    let older = [("format".to_owned(), "docent-state-1".to_owned())].into();
    save_checkpoint(&folder.state(), &Default::default(), &older).unwrap();
    let message = refused();
    assert!(message.contains("another build") && message.contains("docent-state-1"), "{message}");

    fs::write(folder.state(), &good).unwrap();
    let mut state = RunState::load(&folder.state()).unwrap();
    (state.trainer.step, state.epoch) = (STEPS + 1, 2);
    state.save(&folder.state(), None).unwrap();
    assert!(refused().contains("step 7 after 2 epochs"));
    (state.trainer.step, state.epoch) = (4, 1);
    state.recipe_digest = "other".into();
    state.save(&folder.state(), None).unwrap();
    assert!(refused().contains("another recipe"));

    fs::write(folder.state(), &good).unwrap();
    let held = bench.path("data/annotations/instances_train.json");
    let text = fs::read_to_string(&held).unwrap();
    fs::write(&held, text + " ").unwrap();
    assert!(refused().contains("other data"));
}

#[test]
fn a_moved_data_folder_is_the_same_experiment() {
    let bench = Bench::new();
    let mut recipe = bench.alone(&[]);
    bench.study(&recipe, "whole", false).0.unwrap();
    cut_at(&bench, &recipe, "study", 4);
    fs::rename(bench.path("data"), bench.path("moved")).unwrap();
    let missing = bench.study(&recipe, "study", true).0.unwrap_err();
    assert!(!matches!(missing, Error::Recipe(_)), "{missing}");
    recipe.data.dir = Some(bench.path("moved"));
    bench.study(&recipe, "study", true).0.unwrap();
    bench.assert_same("whole", "study", &["alone"]);
    let kept = fs::read_to_string(bench.path("study/recipe.toml")).unwrap();
    assert!(kept.contains("moved"), "the folder's recipe says where the data is now");
    // A finished study, too.
    fs::rename(bench.path("moved"), bench.path("again")).unwrap();
    recipe.data.dir = Some(bench.path("again"));
    bench.study(&recipe, "study", true).0.unwrap();
}
