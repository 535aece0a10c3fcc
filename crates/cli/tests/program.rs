//! The built program as a person starts it: output, exit codes, files.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use docent_coco::Rgb8;
use docent_study::recipe::{Recipe, text_of};
use serde_json::{Value, json};

/// What a call of the program came to.
struct Said {
    ok: bool,
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `docent` in `dir`. Whatever happens, a panic is a fault of the program.
fn docent(dir: &Path, args: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_docent")).args(args).current_dir(dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code();
    let said = Said { ok: output.status.success(), code, out: text(output.stdout), err: text(output.stderr) };
    assert!(!said.err.contains("panicked") && output.status.code().is_some_and(|c| c != 101), "{args:?}: {}", said.err);
    said
}

fn fails(dir: &Path, args: &[&str]) -> String {
    let said = docent(dir, args);
    assert!(!said.ok, "{args:?} did not fail: {}", said.out);
    said.err
}

fn works(dir: &Path, args: &[&str]) -> String {
    let said = docent(dir, args);
    assert!(said.ok, "{args:?}: {}", said.err);
    said.out
}

fn write(path: &Path, value: &Value) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, value.to_string()).unwrap();
}

#[test]
fn recipes_are_listed_and_printed() {
    let dir = tempfile::tempdir().unwrap();
    let list = works(dir.path(), &["recipe", "list"]);
    for name in ["shapes", "bccd", "smoke"] {
        assert!(list.lines().any(|l| l.starts_with(name) && l.len() > name.len() + 20), "{list}");
        let shown = works(dir.path(), &["recipe", "show", name]);
        assert_eq!(shown, text_of(name).unwrap());
        let resolved = works(dir.path(), &["recipe", "show", name, "--resolved"]);
        assert!(resolved.len() > shown.len());
        assert_eq!(Recipe::parse(&resolved, &[]).unwrap(), Recipe::parse(&shown, &[]).unwrap());
    }
    let message = fails(dir.path(), &["recipe", "show", "shape"]);
    assert!(message.contains("did you mean 'shapes'") && message.contains("bccd"), "{message}");
    std::fs::write(dir.path().join("mine.toml"), "name = ").unwrap();
    assert!(fails(dir.path(), &["recipe", "show", "mine.toml", "--resolved"]).contains("TOML"));
}

#[test]
fn what_a_person_gets_wrong_is_said_plainly() {
    let dir = tempfile::tempdir().unwrap();
    // Its backbone is of nobody whom the program knows.
    let other = text_of("shapes").unwrap().replace("depth = 18", "architecture = \"vgg\"");
    std::fs::write(dir.path().join("other.toml"), other).unwrap();
    for (args, part) in [
        (vec!["train", "--recipe", "shapes", "--set", "train.epoch=1"], "did you mean 'epochs'"),
        (vec!["train", "--recipe", "shapes", "--set", "train.epochs"], "key.subkey=value"),
        (
            vec!["train", "--recipe", "shapes", "--set", "schedule.clip=5.0"],
            "`schedule.clip` is called `train.max_grad_norm` now",
        ),
        (vec!["train", "--set", "student.model.roi.hidden=64"], "`student.model.roi.representation_size` now"),
        (vec!["train", "--set", "student.model.architecture=yolo"], "detector `yolo`"),
        (vec!["recipe", "show", "other.toml"], "backbone `vgg`"),
        (vec!["train", "--recipe", "bccd"], "--data"),
        (vec!["train", "--recipe", "bccd", "--data", "nowhere"], "nowhere"),
        (vec!["train", "--resume"], "nothing to resume"),
        (vec!["eval"], "--checkpoint"),
        (vec!["eval", "--checkpoint", "a.safetensors", "--annotations", "b.json"], "b.json"),
        (vec!["predict", "--checkpoint", "a.safetensors", "x.png"], "a.safetensors"),
        (vec!["predict", "--checkpoint", "a.safetensors", "--threshold", "2", "x.png"], "0..=1"),
        (vec!["predict", "--checkpoint", "a.safetensors"], "INPUTS"),
        (vec!["--threads", "0", "recipe", "list"], "--threads"),
    ] {
        let message = fails(dir.path(), &args);
        assert!(message.contains(part), "{args:?}: {message}");
    }
    // A typing error leaves nothing behind.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "other.toml alone");
}

/// Ids from file names are not the annotations' own: AP falls to nothing without an error, unless the names are compared.
#[test]
fn detections_with_names_are_scored_under_their_own_ids_alone() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["part_1.jpg", "part_2.jpg", "part_3.jpg"];
    let ids = [9, 1, 2];
    let bbox = |i: usize| [10.0 * i as f64 + 5.0, 5.0, 30.0, 20.0];
    let image =
        |i: usize| json!({ "id": ids[i], "file_name": format!("images/{}", names[i]), "width": 100, "height": 50 });
    let object = |i: usize| json!({ "id": i + 1, "image_id": ids[i], "category_id": 1, "bbox": bbox(i), "area": 600, "iscrowd": 0 });
    let truth = json!({
        "images": [image(0), image(1), image(2)],
        "annotations": [object(0), object(1), object(2)],
        "categories": [{ "id": 1, "name": "part" }],
    });
    write(&dir.path().join("truth.json"), &truth);
    let score = |file: &str, found: &[Value]| {
        write(&dir.path().join(file), &Value::Array(found.to_vec()));
        docent(dir.path(), &["eval", "--results", file, "--annotations", "truth.json"])
    };
    let found = |id: i64, i: usize| json!({ "image_id": id, "category_id": 1, "bbox": bbox(i), "score": 0.9 });
    let named = |id: i64, i: usize| {
        let mut found = found(id, i);
        found["file_name"] = names[i].into();
        found
    };
    let right = score("right.json", &[named(9, 0), named(1, 1), named(2, 2)]);
    assert!(
        right.ok && right.out.starts_with("AP      1.000000") && right.err.is_empty(),
        "{}{}",
        right.out,
        right.err
    );
    let wrong = score("named.json", &[named(1, 0), named(2, 1), named(9, 2)]);
    assert_eq!(wrong.code, Some(1), "{}", wrong.out);
    for part in [
        "part_1.jpg is 1 in the detections, 9 in the annotations",
        "(and 2 more files)",
        "predict --annotations truth.json",
    ] {
        assert!(wrong.err.contains(part), "{}", wrong.err);
    }
    // Without names an id is an id.
    let silent = score("silent.json", &[found(1, 0), found(2, 1), found(9, 2)]);
    assert!(silent.ok && !silent.out.starts_with("AP      1") && silent.err.is_empty(), "{}{}", silent.out, silent.err);
    // One of three ids has an annotation: whose ids are these?
    let mut sparse = truth;
    sparse["annotations"] = json!([object(0)]);
    write(&dir.path().join("truth.json"), &sparse);
    let warned = score("silent.json", &[found(1, 0), found(2, 1), found(9, 2)]);
    assert!(
        warned.ok && warned.err.contains("of the 3 image ids in silent.json, 1 have an annotation"),
        "{}",
        warned.err
    );
    let with_names = score("right.json", &[named(9, 0), named(1, 1), named(2, 2)]);
    assert!(with_names.ok && with_names.err.is_empty(), "{}", with_names.err);
}

#[test]
fn detections_in_a_file_are_scored() {
    let dir = tempfile::tempdir().unwrap();
    let truth = json!({
        "images": [{ "id": 1, "file_name": "a.png", "width": 100, "height": 100 }],
        "categories": [{ "id": 7, "name": "cat" }, { "id": 3, "name": "dog" }],
        "annotations": [
            { "id": 1, "image_id": 1, "category_id": 7, "bbox": [10.0, 10.0, 40.0, 40.0], "area": 1600.0, "iscrowd": 0 },
            { "id": 2, "image_id": 1, "category_id": 3, "bbox": [60.0, 60.0, 20.0, 20.0], "area": 400.0, "iscrowd": 0 },
        ],
    });
    write(&dir.path().join("truth.json"), &truth);
    // The cat is found exactly; the dog's box overlaps it by 16/20 of its width: IoU 0.8 counts up to the threshold 0.8.
    let results = json!([
        { "image_id": 1, "category_id": 7, "bbox": [10.0, 10.0, 40.0, 40.0], "score": 0.9 },
        { "image_id": 1, "category_id": 3, "bbox": [60.0, 60.0, 16.1, 20.0], "score": 0.8 },
    ]);
    write(&dir.path().join("found.json"), &results);
    let args = ["eval", "--results", "found.json", "--annotations", "truth.json"];
    let value: Value = serde_json::from_str(&works(dir.path(), &[&args[..], &["--json"]].concat())).unwrap();
    let near = |value: &Value, want: f64| assert!((value.as_f64().unwrap() - want).abs() < 1e-12, "{value} for {want}");
    // In the order of ids.
    let [dog, cat] = [0, 1].map(|i| &value["per_class"][i]);
    assert_eq!((&cat["name"], &cat["objects"], &cat["detections"]), (&json!("cat"), &json!(1), &json!(1)));
    near(&cat["ap"], 1.0);
    near(&dog["ap"], 0.7);
    near(&dog["ar"], 0.7);
    near(&value["errors"]["ap50"], 1.0);
    assert!(value["errors"]["kinds"].as_array().unwrap().iter().all(|k| k["count"] == 0), "{value}");
    near(&value["stats"]["AP"], 0.85);
    near(&value["stats"]["AP50"], 1.0);
    near(&value["stats"]["APl"], -1.0);
    let table = works(dir.path(), &args);
    assert!(table.contains("AP      0.850000") && table.contains("ARl    -1.000000"), "{table}");
    let row = table.lines().find(|l| l.starts_with("dog")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["dog", "0.700000", "1.000000", "0.700000", "1", "1"]);
    assert!(table.contains("what AP50 is lost to") && table.lines().any(|l| l.starts_with("duplicate")), "{table}");

    write(
        &dir.path().join("other.json"),
        &json!([{ "image_id": 2, "category_id": 7, "bbox": [0, 0, 1, 1], "score": 1 }]),
    );
    let message = fails(dir.path(), &["eval", "--results", "other.json", "--annotations", "truth.json"]);
    assert!(message.contains("does not list this image"), "{message}");
    std::fs::write(dir.path().join("torn.json"), "[{\"image_id\":").unwrap();
    assert!(
        fails(dir.path(), &["eval", "--results", "torn.json", "--annotations", "truth.json"]).contains("torn.json")
    );
}

/// The figures of pycocotools on a real pair of files, where the shared data lies beside the repository.
#[test]
fn figures_are_those_of_pycocotools() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/datasets/cocoeval");
    if !shared.is_dir() {
        println!("skipped: {} is not there", shared.display());
        return;
    }
    let expected = std::fs::read_to_string(shared.join("expected_bbox_pycocotools.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let results = "instances_val2014_fakebbox100_results.json";
    let args = ["eval", "--results", results, "--annotations", "instances_val2014_100.json", "--json"];
    let found: Value = serde_json::from_str(&works(&shared, &args)).unwrap();
    let names = expected["stats_order"].as_array().unwrap();
    assert_eq!(names.len(), 12);
    for (name, want) in names.iter().zip(expected["stats"].as_array().unwrap()) {
        let (found, want) = (found["stats"][name.as_str().unwrap()].as_f64().unwrap(), want.as_f64().unwrap());
        assert!((found - want).abs() < 1e-12, "{name}: {found} instead of {want}");
    }
}

/// Writes a data folder of striped images, each with one box, and a recipe for two steps a run.
fn tiny(dir: &Path) {
    for (split, ids) in [("train", 1..=4u64), ("val", 5..=6)] {
        let mut value = json!({ "images": [], "annotations": [], "categories": [{ "id": 2, "name": "stripe" }] });
        for id in ids {
            let mut image = Rgb8::filled(64, 48, [40, 90, 60]);
            let left = 4 * id as usize;
            for y in 10..34 {
                image.data[(y * 64 + left) * 3..(y * 64 + left + 20) * 3].fill(220);
            }
            std::fs::create_dir_all(dir.join("data").join(split)).unwrap();
            image.save_png(&dir.join(format!("data/{split}/{id}.png"))).unwrap();
            let push = |list: &mut Value, item| list.as_array_mut().unwrap().push(item);
            push(
                &mut value["images"],
                json!({ "id": id, "file_name": format!("{id}.png"), "width": 64, "height": 48 }),
            );
            let bbox = json!([left, 10, 20, 24]);
            push(
                &mut value["annotations"],
                json!({ "id": id, "image_id": id, "category_id": 2, "bbox": bbox, "area": 480, "iscrowd": 0 }),
            );
        }
        write(&dir.join(format!("data/annotations/instances_{split}.json")), &value);
    }
    let model = "backbone = { depth = 18, width_multiplier = 0.125, norm = \"batch_norm\" }\nfpn_channels = 16\n\
                 anchors = { sizes = [8.0, 16.0, 32.0, 64.0, 128.0], ratios = [1.0] }\n\
                 rpn = { pre_nms_top_n_train = 50, pre_nms_top_n_test = 30, post_nms_top_n_train = 30, post_nms_top_n_test = 20 }\n\
                 roi = { batch_size_per_image = 16, representation_size = 16, canonical_box_size = 32.0, detections_per_image = 5 }\n";
    let recipe = format!(
        "name = \"tiny\"\n[data]\nresize = {{ shortest = 48, longest = 64, rule = \"antialias\" }}\n\
         [train]\nepochs = 1\nbatch = 2\nlr = 0.02\nreference_batch = 2\n\
         [student.model]\n{model}[teacher.model]\n{model}[distill]\n[eval]\ntimed_images = 1\n"
    );
    std::fs::write(dir.join("tiny.toml"), recipe).unwrap();
}

#[test]
fn a_study_is_trained_kept_scored_and_used() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    tiny(dir);
    let train = ["--threads", "2", "train", "--recipe", "tiny.toml", "--data", "data", "--seed", "1"];
    let out = works(dir, &train);
    assert!(out.contains("recipe tiny · seed 1 · folder runs/tiny-seed1"), "{out}");
    for part in ["teacher: 2 steps", "distilled: done in", "student alone", "gain ", "GFLOPs", "study: runs/tiny-seed1"]
    {
        assert!(out.contains(part), "no `{part}` in {out}");
    }
    let study = dir.join("runs/tiny-seed1");
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(study.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["distilled"]["steps"], 2);

    // The next one takes the next name; --resume goes on in the last; a named folder is not used twice.
    let resumed = works(dir, &[&train[..], &["--resume"]].concat());
    assert_eq!(resumed.matches("finished before, kept").count(), 3, "{resumed}");
    let message = fails(dir, &[&train[..], &["--out", "runs/tiny-seed1"]].concat());
    assert!(message.contains("--resume"), "{message}");
    let changed = fails(dir, &[&train[..], &["--resume", "--set", "train.lr=0.5"]].concat());
    assert!(changed.contains("train.lr"), "{changed}");

    let checkpoint = "runs/tiny-seed1/distilled/checkpoints/last.safetensors";
    let scored = works(dir, &["eval", "--checkpoint", checkpoint, "--data", "data", "--json", "--save", "found.json"]);
    let scored: Value = serde_json::from_str(&scored).unwrap();
    assert_eq!(scored["stats"]["AP"], summary["distilled"]["ap"], "the checkpoint is what the study reports");
    let again = ["eval", "--results", "found.json", "--annotations", "data/annotations/instances_val.json", "--json"];
    assert_eq!(serde_json::from_str::<Value>(&works(dir, &again)).unwrap(), scored);

    let detect = |rest: &[&str]| docent(dir, &[&["predict", "--checkpoint", checkpoint][..], rest].concat());
    let said = detect(&["--out", "pictures", "--threshold", "0", "data/val"]);
    assert!(said.ok, "{}", said.err);
    let found: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("pictures/detections.json")).unwrap()).unwrap();
    let found = found.as_array().unwrap();
    assert!(!found.is_empty(), "an untrained head is unsure of everything, so everything is reported");
    for d in found {
        assert!(d["image_id"] == 5 || d["image_id"] == 6, "{d}");
        assert_eq!(d["category_id"], 2);
        let bbox: Vec<f64> = d["bbox"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert!(bbox[0] >= 0.0 && bbox[1] >= 0.0 && bbox[0] + bbox[2] <= 64.001 && bbox[1] + bbox[3] <= 48.001, "{d}");
    }
    for name in ["5.png", "6.png"] {
        let [before, after] = ["data/val", "pictures"]
            .map(|f| docent_coco::decode_file(&dir.join(f).join(name), Default::default()).unwrap());
        // Enlarged, so that the labels can be read.
        assert_eq!((8 * before.width, 8 * before.height), (after.width, after.height));
        let plain = |x, y| before.pixel(x / 8, y / 8) == after.pixel(x, y);
        let drawn = (0..384).flat_map(|y| (0..512).map(move |x| (x, y))).filter(|&(x, y)| !plain(x, y)).count();
        assert!(drawn > 1000, "boxes are drawn in {name}: {drawn}");
    }
    let table = std::fs::read_to_string(dir.join("pictures/detections.csv")).unwrap();
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("file,image_id,category_id,class,score,x,y,width,height"));
    assert_eq!(lines.clone().count(), found.len(), "the threshold is 0");
    assert!(lines.all(|l| l.starts_with("data/val/") && l.contains(",2,stripe,")), "{table}");
    let said = detect(&["--out", "sure", "--threshold", "1", "data/v*/*.png"]);
    assert!(said.ok && said.out.contains("data/val/6.png: id 6, 0 of"), "{}{}", said.out, said.err);
    assert_eq!(std::fs::read_to_string(dir.join("sure/detections.csv")).unwrap().lines().count(), 1);

    // Under ids of their own: the annotations give them by file name, and the figures are the checkpoint's.
    let mut other: Value =
        serde_json::from_slice(&std::fs::read(dir.join("data/annotations/instances_val.json")).unwrap()).unwrap();
    for (list, key) in [("images", "id"), ("annotations", "image_id")] {
        for entry in other[list].as_array_mut().unwrap() {
            entry[key] = (11 - entry[key].as_u64().unwrap()).into();
        }
    }
    write(&dir.join("other.json"), &other);
    let said = detect(&["--out", "ids", "--annotations", "other.json", "data/val", "data/train/1.png"]);
    assert!(said.ok && said.out.contains("ids of other.json, for 2 of its 2 images"), "{}{}", said.out, said.err);
    assert!(said.out.contains("1 pictures (data/train/1.png)"), "{}", said.out);
    let named: Value = serde_json::from_slice(&std::fs::read(dir.join("ids/detections.json")).unwrap()).unwrap();
    assert_eq!(named.as_array().unwrap().len(), found.len());
    assert!(named.as_array().unwrap().iter().all(|d| match d["file_name"].as_str().unwrap() {
        "5.png" => d["image_id"] == 6,
        name => name == "6.png" && d["image_id"] == 5,
    }));
    let eval = |rest: &[&str]| docent(dir, &[&["eval", "--annotations", "other.json", "--json"][..], rest].concat());
    let (by_file, by_model) =
        (eval(&["--results", "ids/detections.json"]), eval(&["--checkpoint", checkpoint, "--images", "data/val"]));
    assert!(by_file.ok && by_model.ok && by_file.out == by_model.out, "{}{}", by_file.err, by_model.err);
    let mixed = eval(&["--results", "pictures/detections.json"]);
    assert!(!mixed.ok && mixed.err.contains("5.png is 5 in the detections, 6 in the annotations"), "{}", mixed.err);

    // A broken image is named, the others are still done.
    std::fs::write(dir.join("data/val/4.png"), "no picture").unwrap();
    let said = detect(&["--out", "partly", "data/val", "data/none.png"]);
    assert!(said.code == Some(3) && said.err.contains("2 of 4 pictures"), "{:?} {}", said.code, said.err);
    assert!(said.err.contains("4.png"), "{}", said.err);
    assert!(said.err.contains("none.png") && dir.join("partly/6.png").is_file());
    let partly = std::fs::read_to_string(dir.join("partly/detections.json")).unwrap();
    assert!(serde_json::from_str::<Value>(&partly).unwrap().is_array());
    // An image is never written into the folder of a source: that one, or another one beside it, could be lost.
    let source = std::fs::read(dir.join("data/val/5.png")).unwrap();
    let said = detect(&["--out", "data/val", "data/val/5.png"]);
    assert!(!said.ok && said.err.contains("overwritten"), "{}", said.err);
    assert_eq!(std::fs::read(dir.join("data/val/5.png")).unwrap(), source);
}

#[test]
fn an_ablation_is_listed_run_and_kept_and_a_dry_run_writes_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    tiny(dir);
    let grid = "name = \"mine\"\nabout = \"?\"\nrecipe = \"tiny.toml\"\n\
                [[cell]]\nname = \"alone\"\ntier = \"A\"\nabout = \"alone\"\nalone = true\n\
                [[cell]]\nname = \"full\"\ntier = \"B\"\nabout = \"distilled\"\n";
    std::fs::write(dir.join("mine.toml"), grid).unwrap();
    let before = std::fs::read_dir(dir).unwrap().count();
    let cost = works(dir, &["train", "--recipe", "tiny.toml", "--data", "data", "--dry-run"]);
    for part in ["4 training and 2 held-out images", "teacher", "alone", "distilled", "steps of 2 images"] {
        assert!(cost.contains(part), "no `{part}` in {cost}");
    }
    let ablate = ["--threads", "2", "ablate", "--recipe", "mine.toml", "--data", "data", "--seeds", "1,2"];
    let plan = works(dir, &[&ablate[..], &["--dry-run"]].concat());
    assert_eq!(plan.matches("not run").count(), 3, "{plan}");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), before);

    let said = works(dir, &[&ablate[..], &["--jobs", "2"]].concat());
    assert!(said.contains("cell full (distilled), seed 1") && said.contains("| B full (one seed) |"), "{said}");
    let records = std::fs::read_to_string(dir.join("docs/results/mine.jsonl")).unwrap();
    assert_eq!(records.lines().count(), 4, "three runs and their teacher");
    assert!(dir.join("docs/results/mine.md").is_file() && dir.join("runs/mine/full-seed1/detections.json").is_file());
    assert_eq!(works(dir, &ablate).matches("finished before, kept").count(), 3);
    let plan = works(dir, &[&ablate[..], &["--dry-run", "--tier", "b"]].concat());
    assert!(plan.contains("done") && !plan.contains("alone"), "{plan}");
    assert!(fails(dir, &["ablate", "--recipe", "bcd"]).contains("bccd-ablation"));
    assert!(fails(dir, &[&ablate[..], &["--cells", "ful"]].concat()).contains("alone, full"));
}

#[test]
fn a_time_budget_chooses_the_epochs_once() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    tiny(dir);
    let train = ["--threads", "2", "train", "--recipe", "tiny.toml", "--data", "data", "--tensorboard"];
    let with = |rest: &[&'static str]| [&train[..], rest].concat();
    assert!(fails(dir, &with(&["--for", "soon"])).contains("--for"));
    let message = fails(dir, &with(&["--for", "1ms"]));
    assert!(message.contains("one epoch of each run") && message.contains("data.limit"), "{message}");
    assert!(!dir.join("runs").exists());

    let start = std::time::Instant::now();
    let out = works(dir, &with(&["--for", "8s"]));
    assert!(start.elapsed().as_secs() < 60, "a budget of 8 s took {:?}", start.elapsed());
    assert!(out.contains("chosen: train.epochs = ") && out.contains("teacher.epochs = "), "{out}");
    let study = dir.join("runs/tiny-seed0");
    let kept = Recipe::parse(&std::fs::read_to_string(study.join("recipe.toml")).unwrap(), &[]).unwrap();
    let epochs = kept.train.epochs;
    assert!(out.contains(&format!("chosen: train.epochs = {epochs},")), "{out}");
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(study.join("summary.json")).unwrap()).unwrap();
    for run in ["alone", "distilled"] {
        assert_eq!(summary[run]["steps"], 2 * epochs, "both students make the same steps");
        assert!(study.join(run).join("tensorboard").is_dir());
    }
    // The choice is not made again.
    let again = works(dir, &with(&["--for", "8s", "--resume"]));
    assert!(again.contains(&format!("at the beginning: {epochs}")), "{again}");
    assert_eq!(again.matches("finished before, kept").count(), 3, "{again}");
}
