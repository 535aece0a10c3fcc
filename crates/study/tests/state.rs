//! The state file of a run: round trips, strict metadata, the state before it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use docent_model::save_checkpoint;
use docent_study::run::{Best, RunState, STATE_FORMAT};
use docent_train::{Patience, TrainerState};

fn bits(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn the_state_comes_back_and_damage_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let one = |name: &str, v: f32| BTreeMap::from([(name.to_owned(), Tensor::full(v, (2, 2), &Device::Cpu).unwrap())]);
    let trainer = TrainerState {
        step: 77,
        model: one("w/with/slashes", 1.0),
        optimizer: one("w/with/slashes", 2.0),
        adapters: one("adapt.0.weight", 3.0),
        ema: one("w/with/slashes", 4.0),
        ..TrainerState::default()
    };
    let state = RunState {
        trainer,
        epoch: 3,
        seconds: 0.1 + 0.7,
        seed: u64::MAX,
        recipe_digest: "abc".into(),
        best: Some(Best { step: 50, ap: 0.1 + 0.2 }),
        patience: Patience { reference: Some(0.1 + 0.2), waited: 3 },
    };
    state.save(&path, None).unwrap();
    let back = RunState::load(&path).unwrap();
    assert_eq!((back.trainer.step, back.epoch, back.seed, back.recipe_digest.as_str()), (77, 3, u64::MAX, "abc"));
    assert_eq!(back.seconds.to_bits(), state.seconds.to_bits());
    assert_eq!(back.best.unwrap().ap.to_bits(), (0.1f64 + 0.2).to_bits());
    let (found, written) = (&back.trainer, &state.trainer);
    for (found, written, name) in [
        (&found.model, &written.model, "w/with/slashes"),
        (&found.optimizer, &written.optimizer, "w/with/slashes"),
        (&found.adapters, &written.adapters, "adapt.0.weight"),
        (&found.ema, &written.ema, "w/with/slashes"),
    ] {
        assert_eq!(bits(&found[name]), bits(&written[name]));
    }
    assert!(found.adapter_optimizer.is_empty());
    assert_eq!(back.patience, state.patience);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert!(RunState::load(&path).unwrap_err().to_string().contains("cut"));
    RunState::default().save(&path, None).unwrap();
    assert_eq!(RunState::load(&path).unwrap().best, None);
    assert_eq!(RunState::load(&path).unwrap().patience, Patience::default());
    save_checkpoint(&path, &one("w", 0.0), &BTreeMap::new()).unwrap();
    assert!(RunState::load(&path).unwrap_err().to_string().contains("no training state"));
    let older = BTreeMap::from([("format".to_owned(), "docent-state-1".to_owned())]);
    save_checkpoint(&path, &one("w", 0.0), &older).unwrap();
    let message = RunState::load(&path).unwrap_err().to_string();
    assert!(message.contains("docent-state-1") && message.contains(STATE_FORMAT), "{message}");
    assert!(message.contains("another build") && message.contains("--out"), "{message}");
    let mut map = BTreeMap::from([
        ("format", STATE_FORMAT),
        ("step", "x"),
        ("epoch", "0"),
        ("seconds", "0"),
        ("seed", "0"),
        ("recipe_digest", ""),
    ])
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect::<BTreeMap<_, _>>();
    save_checkpoint(&path, &one("model/w", 0.0), &map).unwrap();
    assert!(RunState::load(&path).unwrap_err().to_string().contains("`step` = `x`"));
    map.insert("step".into(), "1".into());
    save_checkpoint(&path, &one("nowhere", 0.0), &map).unwrap();
    assert!(RunState::load(&path).unwrap_err().to_string().contains("`nowhere`"));
}

#[test]
fn the_state_before_is_kept_and_one_without_numbers_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let [path, previous] = ["last", "previous"].map(|n| folder.path().join(format!("{n}.state.safetensors")));
    let state = |step: usize, v: f32| RunState {
        trainer: TrainerState {
            step,
            model: BTreeMap::from([("w".to_owned(), Tensor::full(v, 3, &Device::Cpu).unwrap())]),
            ..TrainerState::default()
        },
        ..RunState::default()
    };
    let steps = || [&path, &previous].map(|p| RunState::load(p).ok().map(|s| s.trainer.step));
    state(1, 0.0).save(&path, Some(&previous)).unwrap();
    assert_eq!(steps(), [Some(1), None]);
    for step in 2..4 {
        state(step, 0.0).save(&path, Some(&previous)).unwrap();
        assert_eq!(steps(), [Some(step), Some(step - 1)]);
    }
    for bad in [f32::NAN, f32::INFINITY] {
        let message = state(4, bad).save(&path, Some(&previous)).unwrap_err().to_string();
        assert!(message.contains("model/w") && message.contains("is kept"), "{message}");
        assert_eq!(steps(), [Some(3), Some(2)]);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
}
