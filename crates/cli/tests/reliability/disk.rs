//! Disks that are full and folders that may not be written.

use std::fs;
use std::process::Command;

use docent_study::run::RunFolder;

use crate::bench::{Bench, RUNS, Said, finish, log, send, wait_for};

/// `docent train` into `name` under a shell that has run `before`; `{}` in `script` is the command.
fn shell(bench: &Bench, wrapper: &[&str], script: &str, name: &str, more: &[&str]) -> Said {
    let quoted: Vec<String> = [env!("CARGO_BIN_EXE_docent")]
        .iter()
        .chain(&Bench::arguments(name))
        .chain(more)
        .map(|word| format!("'{word}'"))
        .collect();
    let words = [wrapper, &["sh", "-c"]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(script.replace("{}", &quoted.join(" ")));
    bench.prepare(&mut command);
    bench.say(&mut command)
}

#[test]
fn a_file_that_may_not_grow_keeps_the_last_state() {
    let bench = Bench::new();
    bench.works("whole", &[]);
    // A study with a state in it, stopped in its second run.
    let study = bench.path("study");
    let child = bench.train("study", &["--set", "checkpoint.steps=2"]).spawn().unwrap();
    wait_for("a step", || log(&study.join(RUNS[1])).iter().any(|e| e["event"] == "step"));
    send(&child, "TERM");
    let stopped = finish(child).code;
    assert!(stopped == Some(143) || stopped == Some(0), "{stopped:?}");
    let run = RUNS.iter().map(|run| RunFolder::new(&study, run)).find(|f| f.state().exists() && !f.result().exists());
    let Some(run) = run else { panic!("the study was over before the signal came") };
    let before = fs::read(run.state()).unwrap();

    // Blocks of 512 bytes; a shell that counts in 1024 leaves less room than the state takes, too.
    let blocks = before.len() / 512 / 3;
    let said = shell(&bench, &[], &format!("ulimit -f {blocks} && exec {{}}"), "study", &["--resume"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    // The state or the best checkpoint, whichever is written first.
    assert!(said.err.contains(".safetensors") && said.err.contains("go on with --resume"), "{}", said.err);
    assert!(fs::read(run.state()).unwrap() == before, "the last state stands as it was");
    let left: Vec<_> = fs::read_dir(run.path().join("checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().ends_with(".tmp")), "{left:?}");
    bench.works("study", &["--resume"]);
    bench.assert_same("whole", "study");
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_printed_does_not_end_the_work() {
    let bench = Bench::new();
    bench.works("whole", &[]);
    let said = shell(&bench, &[], "{} >/dev/full", "study", &[]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("standard output could not be written (No space left"), "{}", said.err);
    bench.assert_same("whole", "study");
    // Not even the error can be told.
    let said = shell(&bench, &[], "{} >/dev/full 2>/dev/full", "study", &[]);
    assert_eq!(said.code, Some(1));
}

#[cfg(target_os = "linux")]
#[test]
fn too_little_address_space_for_the_threads_is_an_error() {
    let bench = Bench::new();
    let said = shell(&bench, &[], "ulimit -v 250000 && {}", "study", &[]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("--threads") && said.err.contains("ulimit -v"), "{}", said.err);
    assert!(!bench.path("study").exists());
}

/// A way to mount a small disk for one command, where the system lets us.
fn mounter() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [&["unshare", "--user", "--map-root-user", "--mount"], &["unshare", "--mount"]];
    let works = |way: &&[&str]| {
        let mut command = Command::new(way[0]);
        let output = command.args(&way[1..]).args(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"]).output();
        output.is_ok_and(|o| o.status.success())
    };
    WAYS.into_iter().find(works)
}

#[test]
fn a_full_disk_is_named_and_the_study_goes_on_when_there_is_room() {
    let Some(mounter) = mounter() else {
        println!("skipped: no disk can be mounted here");
        return;
    };
    let bench = Bench::new();
    bench.works("whole", &[]);
    let size = |run: &str| fs::metadata(RunFolder::new(&bench.path("whole"), run).state()).unwrap().len();
    // Room for the teacher's first state, not for the second beside it and its weights.
    let room = size("teacher") * 2;
    let script = format!(
        "mkdir small && mount -t tmpfs -o size={room} tmpfs small && {{ {{}}; echo \"full $?\"; ls -R small; \
         mount -o remount,size=256m small; {{}} --resume; echo \"room $?\"; cp -r small/study study; }}"
    );
    let said = shell(&bench, mounter, &script, "small/study", &[]);
    assert!(said.out.contains("\nfull 1\n"), "{} {}", said.out, said.err);
    assert!(said.err.contains("No space left") && said.err.contains("go on with --resume"), "{}", said.err);
    assert!(!said.out.contains(".tmp"), "{}", said.out);
    assert!(said.out.contains("\nroom 0\n"), "{} {}", said.out, said.err);
    bench.assert_same("whole", "study");
}

#[test]
fn a_folder_that_may_not_be_written_is_named_with_the_way_out() {
    let bench = Bench::new();
    fs::write(bench.path("file"), "").unwrap();
    for name in ["file", "file/study"] {
        let said = bench.say(&mut bench.train(name, &[]));
        assert!(said.code == Some(1) && said.err.contains("file"), "{}", said.err);
    }
    let Some(mounter) = mounter() else {
        println!("skipped: no disk can be mounted here");
        return;
    };
    let script = "mkdir small && mount -t tmpfs -o size=1m,ro tmpfs small && {}";
    let said = shell(&bench, mounter, script, "small/study", &[]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("small/study") && said.err.contains("Read-only"), "{}", said.err);
    assert!(said.err.contains("choose another place"), "{}", said.err);
}
