//! The comparison, on hand-made expectations and hand-made outputs.

#[cfg(unix)]
mod whole;

use serde_json::{Value, json};

use super::expect::{Cases, Expectation};
use super::fault::Fault;
use super::judge::{judge_any, judge_pair};
use super::program::{BySplit, ClassCount, Counts, Reading};

/// An input's behaviours, as `expect.json` says them: three images of the author's split, with `keys` replaced.
fn expected(keys: Value) -> Vec<Expectation> {
    let mut input = json!({
        "outcome": "opens",
        "format": "coco",
        "classes": ["nut", "bolt"],
        "size": [100, 80],
        "tolerance": 0.1,
        "train": ["a.jpg", "b.jpg"],
        "val": ["c.jpg"],
        "boxes": {
            "a.jpg": [["nut", 10, 10, 20, 20], ["bolt", 40, 10, 20, 20]],
            "b.jpg": [],
            "c.jpg": [["nut", 5, 5, 30.5, 10]],
        },
    });
    for (key, value) in keys.as_object().unwrap() {
        input[key] = value.clone();
    }
    let file = json!({"inputs": {"kind/input": input}}).to_string();
    Cases::parse(&file).unwrap().inputs.remove("kind/input").unwrap().any_of
}

/// The two files that `expected` describes.
fn written() -> Value {
    let categories = json!([{"id": 1, "name": "nut"}, {"id": 2, "name": "bolt"}]);
    json!({
        "train": {
            "images": [
                {"id": 1, "file_name": "images/a.jpg", "width": 100, "height": 80},
                {"id": 2, "file_name": "images/b.jpg", "width": 100, "height": 80},
            ],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 2, "bbox": [40, 10, 20, 20], "iscrowd": 0},
                {"id": 2, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]},
            ],
            "categories": categories,
        },
        "val": {
            "images": [{"id": 7, "file_name": "images/c.jpg", "width": 100, "height": 80}],
            "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [5.0, 5.05, 30.45, 10.0]}],
            "categories": categories,
        },
    })
}

/// `written`, where each value replaces what its JSON pointer names.
fn changed<const N: usize>(changes: [(&str, Value); N]) -> Value {
    let mut files = written();
    for (pointer, value) in changes {
        *files.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    }
    files
}

/// `written`, with `item` added to the list that a JSON pointer names.
fn with(pointer: &str, item: Value) -> Value {
    let mut files = written();
    files.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(item);
    files
}

fn opened(files: Value, text: &str) -> Reading {
    let side = |split: &str| serde_json::from_value(files[split].clone()).unwrap();
    let splits = BySplit { train: side("train"), val: side("val") };
    Reading { code: 0, check: Some(0), text: text.to_owned(), splits: Some(splits), counts: None }
}

fn refused(text: &str) -> Reading {
    Reading { code: 1, check: Some(1), text: text.to_owned(), ..Reading::default() }
}

/// Judges an input that is read alike under all flags.
fn judged(keys: Value, reading: impl Fn() -> Reading) -> Result<(), Fault> {
    judge_any(&|_, _| Ok(reading()), &expected(keys))
}

#[track_caller]
fn assert_silent(result: Result<(), Fault>, what: &str) {
    let fault = result.expect_err(what);
    assert!(matches!(&fault, Fault::Silent(said) if said.contains(what)), "{what}: {fault:?}");
}

#[track_caller]
fn assert_wrong(result: Result<(), Fault>, what: &str) {
    let fault = result.expect_err(what);
    assert!(matches!(&fault, Fault::Wrong(said) if said.contains(what)), "{what}: {fault:?}");
}

#[test]
fn what_is_read_correctly_passes() {
    judged(json!({}), || opened(written(), "")).unwrap();
    // Paths of another system, and a name in Unicode's other form.
    let file = "/train/images/0/file_name";
    judged(json!({}), || opened(changed([(file, json!("C:\\data\\a.jpg"))]), "")).unwrap();
    let mut keys = json!({"train": ["\u{e9}.jpg", "b.jpg"]});
    keys["boxes"] = json!({"\u{e9}.jpg": [["nut", 10, 10, 20, 20], ["bolt", 40, 10, 20, 20]], "b.jpg": [],
        "c.jpg": [["nut", 5, 5, 30.5, 10]]});
    judged(keys, || opened(changed([(file, json!("e\u{301}.jpg"))]), "")).unwrap();
}

#[test]
fn boxes_that_differ_are_silent_faults() {
    let cases = [
        ("off by more than the tolerance", changed([("/val/annotations/0/bbox/2", json!(30.61))])),
        ("of the wrong class", changed([("/val/annotations/0/category_id", json!(2))])),
        ("in another image", changed([("/train/annotations/1/image_id", json!(2))])),
        ("missing", changed([("/val/annotations", json!([]))])),
        ("too many", {
            let again = json!({"id": 2, "image_id": 7, "category_id": 1, "bbox": [5, 5, 30.5, 10]});
            with("/val/annotations", again)
        }),
        ("not a number", changed([("/val/annotations/0/bbox/3", json!(1e300))])),
    ];
    for (what, files) in cases {
        let fault = judged(json!({}), || opened(files.clone(), "")).expect_err(what);
        assert!(matches!(&fault, Fault::Silent(said) if said.contains("boxes of")), "{what}: {fault:?}");
    }
    // Without a tolerance of its own an input has one pixel.
    let off = || opened(changed([("/val/annotations/0/bbox/0", json!(5.9))]), "");
    assert_silent(judged(json!({}), off), "boxes of 1 of 3 images, for one c.jpg");
    judged(json!({"tolerance": 1.0}), off).unwrap();
}

#[test]
fn boxes_are_matched_one_to_one() {
    // The first box fits both, the second only the one that a greedy choice takes.
    let gt = json!({"a.jpg": [["nut", 10, 10, 20, 20], ["nut", 11, 10, 20, 20]], "b.jpg": [], "c.jpg": [["nut", 5, 5, 30.5, 10]]});
    let read = |first: f64, second: f64| {
        let nuts = json!([
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [first, 10, 20, 20]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [second, 10, 20, 20]},
        ]);
        opened(changed([("/train/annotations", nuts)]), "")
    };
    let keys = json!({"boxes": gt, "tolerance": 0.6});
    judged(keys.clone(), || read(10.5, 9.9)).unwrap();
    judged(keys.clone(), || read(10.5, 11.5)).unwrap();
    // Two boxes may not share one of the ground truth.
    assert_silent(judged(keys, || read(9.9, 10.1)), "boxes of 1 of 3 images, for one a.jpg");
}

#[test]
fn images_on_the_wrong_side_are_silent_faults() {
    let image = |id: u32, name: &str| json!({"id": id, "file_name": name, "width": 100, "height": 80});
    let check = |files: Value, what: &str| assert_silent(judged(json!({}), || opened(files.clone(), "")), what);
    check(with("/train/images", image(3, "other/a.jpg")), "a.jpg is there twice");
    check(with("/val/images", image(3, "a.jpg")), "a.jpg is in both splits");
    check(with("/val/images", image(3, "d.jpg")), "d.jpg is in val, should be in neither split");
    check(with("/val/images", image(7, "d.jpg")), "image id 7 occurs twice");
    check(changed([("/train/images/0/width", json!(80))]), "a.jpg is 80x80, should be 100x80");
    let gone = changed([("/train/images", json!([image(1, "a.jpg")]))]);
    check(gone.clone(), "b.jpg is in neither split");
    judged(json!({"may_lack": ["b.jpg"]}), || opened(gone.clone(), "")).unwrap();
    // The author's split, the other way round.
    let keys = json!({"train": ["a.jpg"], "val": ["b.jpg", "c.jpg"]});
    assert_silent(judged(keys, || opened(written(), "")), "b.jpg is in train; the author's split says otherwise");
    // Where docent chooses, any sides will do, if neither is empty.
    let hash = json!({"split": "hash", "train": null, "val": null});
    judged(hash, || opened(written(), "")).unwrap();
    let empty = changed([("/val/images", json!([])), ("/val/annotations", json!([]))]);
    let hash = json!({"split": "hash", "may_lack": ["c.jpg"]});
    assert_silent(judged(hash, || opened(empty.clone(), "")), "no image in val");
}

#[test]
fn classes_crowds_and_ids_that_differ_are_silent_faults() {
    let check = |files: Value, what: &str| assert_silent(judged(json!({}), || opened(files.clone(), "")), what);
    check(changed([("/train/annotations/0/iscrowd", json!(1))]), "a.jpg: a crowd, should be an object");
    check(changed([("/train/annotations/0/id", json!(2))]), "annotation id 2 occurs twice");
    check(changed([("/val/categories/1/name", json!("screw"))]), "the splits list different classes");
    let third = json!({"id": 3, "name": "parts"});
    let mut files = with("/train/categories", third.clone());
    files["val"]["categories"].as_array_mut().unwrap().push(third);
    check(files, "classes [\"nut\", \"bolt\", \"parts\"], should be");
    // The order of the ids is the order of the classes.
    let keys = |order: Value| json!({"classes": ["bolt", "nut"], "classes_order": order});
    assert_silent(judged(keys(Value::Null), || opened(written(), "")), "classes [\"nut\", \"bolt\"], should be");
    judged(keys(json!("any")), || opened(written(), "")).unwrap();
}

#[test]
fn references_to_nothing_are_no_coco_file_whatever_else_is_allowed() {
    for pointer in ["/val/annotations/0/image_id", "/val/annotations/0/category_id"] {
        let keys = json!({"any_of": [{}, {"outcome": "opens", "may_lack": ["c.jpg"]}]});
        let fault = judged(keys, || opened(changed([(pointer, json!(99))]), "")).unwrap_err();
        assert!(matches!(&fault, Fault::NoCoco(said) if said.contains("unknown")), "{fault:?}");
        assert!(fault.is_silent());
    }
}

#[test]
fn an_input_that_should_open_is_not_refused() {
    assert_wrong(judged(json!({}), || refused("progress\ndocent: no image\nhint")), "refused: docent: no image");
    let check_alone = || Reading { check: Some(1), ..opened(written(), "docent: bad") };
    assert_wrong(judged(json!({}), check_alone), "`dataset check` refuses what is read");
    // A wrong box is told before the refusal of `check`.
    let off = || Reading { check: Some(1), ..opened(changed([("/val/annotations/0/bbox/0", json!(9))]), "") };
    assert_silent(judged(json!({}), off), "boxes of");
}

#[test]
fn notes_stand_on_one_line() {
    let keys = json!({"notes_contain": [["\\b3\\b", "without xml"]]});
    judged(keys.clone(), || opened(written(), "read 20\n3 images WITHOUT XML\n")).unwrap();
    for text in ["", "13 images without xml", "3 images\nwithout xml", "3 images\rwithout xml"] {
        assert_wrong(judged(keys.clone(), || opened(written(), text)), "no line says it: \\b3\\b + without xml");
    }
}

#[test]
fn an_input_that_should_be_refused_does_not_open() {
    let keys = json!({"outcome": "refuses", "message": ["labelme", "not read|convert"]});
    judged(keys.clone(), || refused("docent: Labelme files are not read")).unwrap();
    assert_wrong(judged(keys.clone(), || refused("docent: no labelme")), "the message does not say not read|convert");
    assert_silent(judged(keys.clone(), || opened(written(), "labelme is not read")), "exit code 0, should refuse");
    let half = |code, check| Reading { code, check: Some(check), ..refused("labelme: convert it") };
    assert_silent(judged(keys.clone(), || half(0, 1)), "exit code 0, should refuse");
    assert_silent(judged(keys, || half(1, 0)), "exit code 0, should refuse");
}

#[test]
fn a_refusal_by_check_leaves_the_written_boxes_to_be_compared() {
    let keys = json!({"outcome": "refuses", "refused_by": "check", "message": ["crowd"]});
    // Crowds are objects then.
    let crowds = || changed([("/train/annotations/0/iscrowd", json!(1))]);
    judged(keys.clone(), || Reading { check: Some(1), ..opened(crowds(), "all crowd") }).unwrap();
    judged(keys.clone(), || refused("all crowd")).unwrap();
    assert_silent(judged(keys.clone(), || opened(crowds(), "all crowd")), "`dataset check` ends with exit code 0");
    let off = || changed([("/val/annotations/0/bbox/0", json!(9))]);
    assert_silent(judged(keys, || Reading { check: Some(1), ..opened(off(), "all crowd") }), "boxes of");
}

/// Judges an input that each list of flags reads in its own way; any other list is refused.
fn judged_by_flags(keys: Value, readings: &[(&[&str], &dyn Fn() -> Reading)]) -> Result<(), Fault> {
    let read = |_: &str, flags: &[String]| {
        let known = readings.iter().find(|(known, _)| flags == *known);
        Ok(known.map_or_else(|| refused("docent: unknown flags"), |(_, reading)| reading()))
    };
    judge_any(&read, &expected(keys))
}

#[test]
fn an_input_with_flags_opens_without_them_within_a_pixel() {
    let keys = json!({"flags": ["--boxes", "edges"]});
    let exact: &dyn Fn() -> Reading = &|| opened(written(), "");
    let near: &dyn Fn() -> Reading = &|| opened(changed([("/val/annotations/0/bbox/0", json!(4.0))]), "");
    let far: &dyn Fn() -> Reading = &|| opened(changed([("/val/annotations/0/bbox/0", json!(3.9))]), "");
    let with_flags: &[&str] = &["--boxes", "edges"];
    judged_by_flags(keys.clone(), &[(with_flags, exact), (&[], near)]).unwrap();
    assert_silent(judged_by_flags(keys.clone(), &[(with_flags, near), (&[], near)]), "boxes of");
    assert_silent(judged_by_flags(keys.clone(), &[(with_flags, exact), (&[], far)]), "boxes of");
    assert_wrong(judged_by_flags(keys.clone(), &[(with_flags, exact)]), "refused: docent: unknown flags");
    assert_wrong(judged_by_flags(keys, &[(&[], exact)]), "refused with --boxes edges");
}

#[test]
fn each_opening_opens_and_is_read_correctly() {
    let boxes = json!({"a.jpg": [["nut", 10, 10, 20, 20], ["bolt", 40, 10, 20, 20]], "b.jpg": [], "c.jpg": [["nut", 1, 5, 30.5, 10]]});
    let keys = json!({
        "outcome": "opens_with",
        "message": ["--exif"],
        "openings": [{"flags": ["--exif", "apply"]}, {"flags": ["--exif", "ignore"], "boxes": boxes}],
    });
    let stop: &dyn Fn() -> Reading = &|| refused("docent: choose --exif apply|ignore");
    let apply: &dyn Fn() -> Reading = &|| opened(written(), "");
    let ignore: &dyn Fn() -> Reading = &|| opened(changed([("/val/annotations/0/bbox/0", json!(1))]), "");
    judged_by_flags(keys.clone(), &[(&[], stop), (&["--exif", "apply"], apply), (&["--exif", "ignore"], ignore)])
        .unwrap();
    let same = [(&[] as &[&str], stop), (&["--exif", "apply"], apply), (&["--exif", "ignore"], apply)];
    assert_silent(judged_by_flags(keys.clone(), &same), "boxes of");
    assert_wrong(
        judged_by_flags(keys.clone(), &[(&[], stop), (&["--exif", "apply"], apply)]),
        "refused with --exif ignore",
    );
    assert_silent(judged_by_flags(keys, &[(&[], apply)]), "exit code 0, should refuse");
}

#[test]
fn one_of_the_flags_that_a_refusal_names_opens_the_input() {
    let find = "(--[a-z-]*(?:box|coord)[a-z-]*)[ =]([A-Za-z][A-Za-z0-9_.-]*)";
    let keys = json!({
        "outcome": "opens_with",
        "flags": ["--quick"],
        "message": ["corner"],
        "openings": [{"flag_named": {"find": find, "flags": ["{1}", "{2}"]}}],
    });
    let judged = |text: &'static str, readings: &[(&[&str], &dyn Fn() -> Reading)]| {
        let stop: &dyn Fn() -> Reading = &move || refused(text);
        judged_by_flags(keys.clone(), &[&[(&["--quick"] as &[&str], stop)], readings].concat())
    };
    let right: &dyn Fn() -> Reading = &|| opened(written(), "");
    let wrong: &dyn Fn() -> Reading = &|| opened(changed([("/val/annotations/0/bbox/0", json!(1))]), "");
    // The punctuation that ends the sentence is no part of the flag.
    let text = "docent: these look like corners; use --boxes pixels, --boxes=corners.";
    let (pixels, corners): (&[&str], &[&str]) = (&["--quick", "--boxes", "pixels"], &["--quick", "--boxes", "corners"]);
    judged(text, &[(corners, right)]).unwrap();
    judged(text, &[(pixels, wrong), (corners, right)]).unwrap();
    // The first fault is told.
    let none = judged(text, &[(pixels, wrong)]);
    assert_wrong(none, "with --boxes pixels, which the message names: boxes of 1 of 3");
    assert_wrong(judged("docent: corners; use --boxes xyxy", &[(corners, right)]), "with --boxes xyxy");
    assert_wrong(judged("docent: these look like corners", &[(corners, right)]), "the message names no flag");
}

#[test]
fn one_allowed_behaviour_is_enough() {
    let keys = json!({
        "any_of": [{"notes_contain": [["confidence"]]}, {"outcome": "refuses", "message": ["confidence"]}],
    });
    judged(keys.clone(), || opened(written(), "confidences are left out")).unwrap();
    judged(keys.clone(), || refused("docent: confidences are not read")).unwrap();
    let fault = judged(keys.clone(), || refused("docent: 6 columns"));
    assert_wrong(fault, "refused: docent: 6 columns | or: the message does not say confidence");
    // The boxes are correct, so the fault is the missing note and not a silent one.
    assert_wrong(judged(keys.clone(), || opened(written(), "")), "no line says it");
    assert_silent(
        judged(keys, || opened(changed([("/val/annotations/0/bbox/0", json!(9))]), "confidence")),
        "boxes of",
    );
}

#[test]
fn a_common_image_that_changes_sides_is_found() {
    let before = opened(written(), "");
    judge_pair(("before", &before), ("after", &opened(written(), ""))).unwrap();
    let named = |a: &str, c: &str| {
        let renamed = [("/train/images/0/file_name", json!(a)), ("/val/images/0/file_name", json!(c))];
        opened(changed(renamed), "")
    };
    let pair = |after: &Reading| judge_pair(("before", &before), ("after", after));
    pair(&named("new.jpg", "c.jpg")).unwrap();
    assert_silent(pair(&named("c.jpg", "a.jpg")), "2 of 3 common images change sides, a.jpg for one");
    let mut others = named("x.jpg", "y.jpg");
    others.splits.as_mut().unwrap().train.images.pop();
    assert_silent(pair(&others), "no image in common");
    assert_wrong(pair(&refused("docent: nothing")), "after: docent: nothing");
}

#[test]
fn counts_alone_show_missing_images_boxes_and_classes() {
    let class = |name: &str, boxes| ClassCount { name: name.to_owned(), boxes };
    let counts = |images: [usize; 2], nuts: usize, second: &str| BySplit {
        train: Counts { images: images[0], classes: vec![class("nut", nuts), class(second, 1)] },
        val: Counts { images: images[1], classes: vec![class("nut", 1), class(second, 0)] },
    };
    let judged = |counts: &dyn Fn() -> BySplit<Counts>| {
        judged(json!({}), || Reading { check: Some(0), counts: Some(counts()), ..Reading::default() })
    };
    judged(&|| counts([2, 1], 1, "bolt")).unwrap();
    assert_silent(judged(&|| counts([1, 1], 1, "bolt")), "2 images, should be 3");
    assert_silent(judged(&|| counts([1, 2], 1, "bolt")), "1 images in train, should be 2");
    assert_silent(judged(&|| counts([2, 1], 2, "bolt")), "3 boxes of nut, should be 2");
    assert_silent(judged(&|| counts([2, 1], 1, "screw")), "0 boxes of bolt, should be 1");
}

#[test]
fn an_expectation_that_says_too_little_is_an_error() {
    let parse = |input: Value| Cases::parse(&json!({"inputs": {"kind/input": input}}).to_string());
    let error = |input: Value| format!("{:#}", parse(input).err().unwrap());
    let content = json!({"format": "coco", "classes": [], "boxes": {}, "split": "hash"});
    let with = |keys: Value| {
        let mut input = content.clone();
        input.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        input
    };
    assert!(parse(with(json!({"outcome": "opens"}))).is_ok());
    assert!(parse(json!({"outcome": "refuses", "format": "coco", "message": ["x"]})).is_ok());
    assert!(error(json!({"outcome": "opens", "format": "coco"})).contains("the key boxes is missing"));
    assert!(
        error(with(json!({"outcome": "opens", "split": null, "train": []})))
            .contains("neither split nor train and val")
    );
    assert!(error(with(json!({"outcome": "opens", "boxes": "parts"}))).contains("no boxes \"parts\""));
    assert!(error(with(json!({"outcome": "refuses"}))).contains("without the key message"));
    assert!(error(with(json!({"outcome": "opens_with", "message": []}))).contains("opens_with without openings"));
    assert!(error(with(json!({"outcome": "perhaps"}))).contains("unknown variant"));
    assert!(error(with(json!({"outcome": "refuses", "message": ["(?=x)"]}))).contains("look-around"));
}
