//! The whole command, with a program that writes what each input holds ready.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::cases::report::{Options, run_all};

const PROGRAM: &str = r#"
case "$2 $3" in
  "to-coco --help") exit 0 ;;
  to-coco*) [ -e data/refuse ] && { echo "docent: refused"; exit 1; }
            mkdir -p out/annotations && cp data/*.json out/annotations; exit 0 ;;
  check*)   [ -e data/crash ] && exit 101; [ -e data/refuse ] && exit 1; exit 0 ;;
esac
exit 2
"#;

/// A program for the shell. Another process writes it: a file that this one has open for writing cannot be started.
fn program(dir: &Path) {
    let path = dir.join("docent");
    let status = Command::new("sh")
        .args(["-c", "printf '#!/bin/sh\\n%s' \"$1\" >\"$0\" && chmod +x \"$0\""])
        .args([path.as_os_str(), PROGRAM.as_ref()])
        .status();
    assert!(status.unwrap().success());
}

fn input(dir: &Path, key: &str, files: &Value) {
    let images = dir.join(key).join("images");
    fs::create_dir_all(&images).unwrap();
    for name in ["a.jpg", "b.jpg", "c.jpg"] {
        fs::write(images.join(name), "").unwrap();
    }
    for split in ["train", "val"] {
        let path = dir.join(key).join(format!("instances_{split}.json"));
        fs::write(path, files[split].to_string()).unwrap();
    }
}

fn lines(dir: &Path, only: Option<&str>, only_failures: bool) -> (Vec<String>, bool) {
    let mut out = Vec::new();
    let options = Options { only, verbose: false, only_failures };
    let outcome = run_all(dir, &dir.join("docent"), &options, &mut out).unwrap();
    (String::from_utf8(out).unwrap().lines().map(str::to_owned).collect(), outcome.is_success())
}

#[test]
fn each_input_has_a_line_and_the_last_line_counts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    program(dir);
    let file = "/val/images/0/file_name";
    input(dir, "good/a", &written());
    input(dir, "good/b", &written());
    input(dir, "bad/box", &changed([("/val/annotations/0/bbox/0", json!(1))]));
    input(dir, "bad/broken", &changed([("/val/annotations/0/bbox", json!([1, 2]))]));
    input(dir, "bad/file", &changed([(file, json!("elsewhere/c.jpg"))]));
    input(dir, "bad/one", &written());
    fs::remove_file(dir.join("bad/one/instances_val.json")).unwrap();
    for mark in ["refuse", "crash"] {
        input(dir, &format!("bad/{mark}"), &written());
        fs::write(dir.join("bad").join(mark).join(mark), "").unwrap();
    }
    input(dir, "bad/unnamed", &written());
    // Not an input: a kind that is no folder of data, and a file.
    input(dir, "serve-multipart/x", &written());
    fs::write(dir.join("bad/results.json"), "").unwrap();

    let one = json!({
        "outcome": "opens", "format": "coco", "classes": ["nut", "bolt"], "train": ["a.jpg", "b.jpg"], "val": ["c.jpg"],
        "boxes": "three",
    });
    let names =
        ["good/a", "good/b", "bad/box", "bad/broken", "bad/file", "bad/one", "bad/refuse", "bad/crash", "bad/gone"];
    let inputs: serde_json::Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), one.clone())).collect();
    let boxes = json!({"a.jpg": [["nut", 10, 10, 20, 20], ["bolt", 40, 10, 20, 20]], "b.jpg": [], "c.jpg": [["nut", 5, 5, 30.5, 10]]});
    let pairs = json!([{"before": "good/a", "after": "good/b"}, {"before": "good/a", "after": "bad/refuse"}]);
    let file = json!({"truths": {"three": boxes}, "inputs": inputs, "pairs": pairs});
    fs::write(dir.join("expect.json"), file.to_string()).unwrap();

    let (all, success) = lines(dir, None, false);
    let begins = [
        "bad/box: SILENT WRONG: boxes of 1 of 3 images",
        "bad/broken: SILENT WRONG: what was written is no COCO file: instances_val.json: invalid length 2",
        "bad/crash: WRONG: exit code 101 with no flags",
        "bad/file: SILENT WRONG: instances_val.json names \"elsewhere/c.jpg\", and there is no such file",
        "bad/gone: WRONG: the folder is not there",
        "bad/one: SILENT WRONG: exit code 0, but instances_val.json was not written",
        "bad/refuse: WRONG: refused: docent: refused",
        "bad/unnamed: WRONG: expect.json does not name it",
        "good/a: ok",
        "good/b: ok",
        "good/a -> good/b: ok",
        "good/a -> bad/refuse: WRONG: bad/refuse: docent: refused",
        "not run here, see their README: weights-ddp-prefix, ",
        "4 SILENT WRONG: bad/box, bad/broken, bad/file, bad/one",
        "3 passed, 9 failed",
    ];
    assert_eq!(all.len(), begins.len(), "{all:#?}");
    for (line, begin) in all.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line:?} should begin with {begin:?}");
    }
    assert!(!success);

    assert_eq!(
        lines(dir, Some("good/b"), false),
        (vec!["good/b: ok".into(), "good/a -> good/b: ok".into(), "2 passed, 0 failed".into()], true)
    );
    let (some, success) = lines(dir, Some("good/"), true);
    assert_eq!((some.last().unwrap().as_str(), success), ("3 passed, 1 failed", false));
    assert!(some[0].starts_with("good/a -> bad/refuse: WRONG"), "{some:#?}");
    // Nothing was run: that is no success.
    assert_eq!(lines(dir, Some("goo"), false), (vec!["0 passed, 0 failed".into()], false));
}
