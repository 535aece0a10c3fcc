//! `docent init` as a person calls it: from a folder to a recipe that trains.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use docent_coco::shapes::{ShapesConfig, generate};
use docent_train::recipe::Recipe;

/// Exit code, standard output, standard error.
fn docent(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_docent")).args(args).current_dir(dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_folder_becomes_a_recipe_that_trains() {
    let dir = tempfile::tempdir().unwrap();
    generate(&dir.path().join("data"), &ShapesConfig::default().train(16).val(4).seed(1)).unwrap();
    // Standard output is the recipe and nothing else.
    let (code, out, err) = docent(dir.path(), &["init", "data", "--no-measure"]);
    assert_eq!((code, Recipe::parse(&out, &[]).is_ok()), (0, true), "{out}{err}");
    assert!(out.starts_with("# ") && out.contains("name = \"data\""), "{out}");

    let (code, out, err) = docent(dir.path(), &["init", "data", "--for", "10m", "--out", "mine.toml"]);
    assert_eq!(code, 0, "{err}");
    for part in [
        "classes\n",
        "input size\n",
        "anchors\n",
        "models\n",
        "schedule\n",
        "Measured here",
        "docent train --recipe mine.toml",
    ] {
        assert!(out.contains(part), "no {part:?} in {out}");
    }
    assert!(err.contains("measuring this machine"));
    let text = std::fs::read_to_string(dir.path().join("mine.toml")).unwrap();
    let recipe = Recipe::parse(&text, &[]).unwrap();
    let (code, _, err) = docent(dir.path(), &["init", "data", "--no-measure", "--out", "mine.toml"]);
    assert!(code == 1 && err.contains("mine.toml") && err.contains("another --out"), "{err}");
    assert_eq!(std::fs::read_to_string(dir.path().join("mine.toml")).unwrap(), text);

    // The command that it names trains.
    let few = [
        "--set",
        "schedule.epochs=1",
        "--set",
        "teacher.epochs=1",
        "--set",
        "teacher.floor=0.0",
        "--set",
        "eval.timed_images=1",
    ];
    let (code, out, err) =
        docent(dir.path(), &[&["train", "--recipe", "mine.toml", "--out", "study"], &few[..]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("gain ") && recipe.name == "data", "{out}");
    assert!(dir.path().join("study/distilled/checkpoints/last.safetensors").is_file());
}

#[test]
fn what_has_no_recipe_is_said_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |args: &[&str], wanted: i32, part: &str| {
        let (code, _, err) = docent(dir.path(), args);
        assert!(code == wanted && err.contains(part) && !err.contains("panicked"), "{args:?}: {code} {err}");
    };
    fails(&["init", "nowhere"], 1, "no such folder");
    fails(&["init", "."], 1, "PASCAL VOC XML");
    fails(&["init", ".", "--for", "soon"], 2, "--for");
    fails(&["init"], 2, "<DIR>");
    assert!(docent(dir.path(), &["init", "--help"]).1.contains("Examples:"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
