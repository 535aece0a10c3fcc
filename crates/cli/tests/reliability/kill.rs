//! The fault test: SIGKILL at random moments, checkpoint writes among them, and the final bits compared each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use docent_study::run::{RunFolder, RunState};

use crate::bench::{Bench, RUNS, log};

/// `checkpoint.steps` of the recipe: the most that a kill may cost.
const CHECKPOINT_STEPS: usize = 2;

/// What a campaign of kills came to.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    /// Kills that found a temporary file: in the middle of a write.
    in_a_write: usize,
    /// Kills of a study that had been killed before.
    again: usize,
    /// The most steps that a kill cost, and of all together.
    most_lost: usize,
    lost: usize,
}

/// splitmix64: enough for choosing moments.
struct Dice(u64);

impl Dice {
    /// Within 0..1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The temporary files of a study.
fn temporary(study: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let folders = RUNS.iter().flat_map(|run| [study.join(run).join("checkpoints"), study.join(run)]);
    for folder in folders.chain([study.to_owned()]) {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        found
            .extend(entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "tmp")));
    }
    found
}

/// Waits for a moment and kills. False when the program was done before.
fn strike(child: &mut Child, study: &Path, after: Duration, in_a_write: bool, then: Duration) -> bool {
    let start = Instant::now();
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if start.elapsed() >= after && (!in_a_write || !temporary(study).is_empty()) {
            break;
        }
        // Short: a write lasts milliseconds.
        std::thread::sleep(Duration::from_micros(if in_a_write { 20 } else { 200 }));
    }
    std::thread::sleep(then);
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

/// Steps that were made and are gone after a kill.
fn lost(study: &Path) -> usize {
    let of = |run: &str| {
        let folder = RunFolder::new(study, run);
        if folder.result().exists() {
            return 0;
        }
        let made = log(folder.path()).iter().filter_map(|e| e["step"].as_u64()).max().unwrap_or(0) as usize;
        let kept = [folder.state(), folder.previous_state()].iter().find_map(|path| RunState::load(path).ok());
        made.saturating_sub(kept.map_or(0, |state| state.trainer.step))
    };
    RUNS.into_iter().map(of).max().unwrap()
}

fn campaign(kills: usize, seed: u64) -> Tally {
    let bench = Bench::new();
    let start = Instant::now();
    bench.works("whole", &[]);
    let whole = start.elapsed().as_secs_f64();
    let mut dice = Dice(seed);
    let mut tally = Tally::default();
    for case in 0.. {
        assert!(case < 4 * kills + 4, "only {} of {case} kills met a living program", tally.kills);
        let name = format!("case{case}");
        let study = bench.path(&name);
        // Every third study is killed again after it was taken up.
        for n in 0..if case % 3 == 2 { 2 } else { 1 } {
            let share = if n == 0 { 0.95 } else { 0.4 };
            let after = Duration::from_secs_f64(dice.roll() * share * whole);
            let in_a_write = case % 2 == 1;
            let then = Duration::from_micros(if in_a_write { (dice.roll() * 2000.0) as u64 } else { 0 });
            let mut train = bench.train(&name, if n == 0 { &[] } else { &["--resume"] });
            // Every other study with two threads, which is then ended by one.
            let threads = if case / 2 % 2 == 0 { "1" } else { "2" };
            let mut child = train.env("RAYON_NUM_THREADS", threads).spawn().unwrap();
            if strike(&mut child, &study, after, in_a_write, then) {
                tally.kills += 1;
                tally.again += n;
                tally.in_a_write += usize::from(!temporary(&study).is_empty());
                let lost = lost(&study);
                assert!(lost <= CHECKPOINT_STEPS, "seed {seed}, kill {}: {lost} steps are gone", tally.kills);
                tally.most_lost = tally.most_lost.max(lost);
                tally.lost += lost;
            }
        }
        bench.works(&name, &["--resume"]);
        bench.assert_same("whole", &name);
        assert!(temporary(&study).is_empty(), "{name}: a temporary file is left");
        fs::remove_dir_all(&study).unwrap();
        if tally.kills >= kills {
            break;
        }
    }
    tally
}

#[test]
fn a_killed_study_ends_with_the_same_bits() {
    let tally = campaign(4, 1);
    println!("{tally:?}");
}

/// The long form of the test above, for `cargo xtask soak`.
#[test]
#[ignore = "a minute or more: cargo xtask soak"]
fn thirty_killed_studies_end_with_the_same_bits() {
    let start = Instant::now();
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    println!("seed {seed}");
    let tally = campaign(30, seed);
    assert!(tally.in_a_write > 0 && tally.again > 0, "{tally:?}");
    for (name, value) in [
        ("kills", tally.kills),
        ("kills_in_a_write", tally.in_a_write),
        ("kills_after_a_resume", tally.again),
        ("steps_lost_at_most", tally.most_lost),
        ("steps_lost_in_all", tally.lost),
        // Each of them would have failed the test.
        ("studies_with_other_bits", 0),
    ] {
        println!("METRIC:{name}:{value}:count");
    }
    println!("METRIC:kills_seconds:{:.0}:s", start.elapsed().as_secs_f64());
}
