//! An ablation from end to end: four cells, two seeds, stopped in the middle.

use std::path::{Path, PathBuf};

use docent_study::Registry;
use docent_study::ablate::{AblateOptions, Ablation, Grid, Line, Records, State, Tier};
use docent_study::manifest::Provenance;
use docent_train::CancelToken;
use docent_train::events::{Event, EventSink};

use crate::bench::{Bench, RECIPE, Recorder, weights};

const GRID: &str = r#"
name = "tiny-ablation"
about = "Does it help?"
recipe = "PATH"
beside = ["full"]

[[teacher]]
name = "longer"
set = ["teacher.epochs=2"]

[[cell]]
name = "alone"
tier = "A"
about = "the student alone"
alone = true

[[cell]]
name = "full"
tier = "A"
about = "all of it"

[[cell]]
name = "pkd"
tier = "C"
about = "another method"
set = ["distill={method='pkd', adaptation_layer='conv1x1'}"]

[[cell]]
name = "other-teacher"
tier = "B"
about = "a longer teacher"
teacher = "longer"
"#;

struct Place {
    bench: Bench,
    grid: Grid,
}

impl Place {
    fn new() -> Self {
        let bench = Bench::new();
        let path = bench.path("tiny.toml");
        std::fs::write(&path, RECIPE).unwrap();
        let grid = Grid::parse(&GRID.replace("PATH", &path.display().to_string())).unwrap();
        Self { bench, grid }
    }

    fn options(&self, name: &str) -> AblateOptions {
        AblateOptions {
            dir: self.bench.path(name),
            results: self.bench.path(&format!("{name}-results/tiny.jsonl")),
            seeds: vec![3, 4],
            set: Vec::new(),
            data: Some(self.bench.path("data")),
            weights: None,
            teacher: None,
            cells: Vec::new(),
            tiers: Vec::new(),
            provenance: Provenance {
                version: "0".into(),
                revision: Some("abc".into()),
                command: vec!["docent".into(), "ablate".into()],
            },
            cancel: CancelToken::default(),
            registry: Registry::builtin(),
        }
    }
}

fn run(place: &Place, options: &AblateOptions, stop: fn(&Event) -> bool) -> (Option<String>, Vec<Event>) {
    let mut sink = Recorder { events: Vec::new(), stop };
    let result = Ablation::open(&place.grid, options).unwrap().run(&mut [&mut sink]);
    (result.map(|report| report.text).map_err(|e| assert!(e.to_string().contains("stopped"), "{e}")).ok(), sink.events)
}

fn skipped(events: &[Event]) -> usize {
    events.iter().filter(|e| matches!(e, Event::RunSkipped { .. })).count()
}

fn table_line<'a>(text: &'a str, cell: &str) -> &'a str {
    text.lines().find(|l| l.split('|').nth(1).is_some_and(|c| c.contains(cell))).unwrap()
}

#[test]
fn an_ablation_is_resumed_recorded_and_compared() {
    let place = Place::new();
    let options = place.options("whole");
    let plan = |place: &Place| Ablation::open(&place.grid, &options).unwrap().plan().unwrap();
    let order: Vec<_> = plan(&place).iter().map(|p| (p.cell.clone(), p.seed, p.tier)).collect();
    let named = |cell: &str, seed, tier| (cell.to_owned(), seed, tier);
    assert_eq!(
        order,
        [
            named("alone", 3, Tier::A),
            named("full", 3, Tier::A),
            named("alone", 4, Tier::A),
            named("full", 4, Tier::A),
            named("pkd", 3, Tier::C),
            named("pkd", 4, Tier::C),
            named("other-teacher", 3, Tier::B),
        ]
    );
    assert!(plan(&place).iter().all(|p| p.state == State::NotRun && p.steps == 6 && p.seconds.is_none()));
    assert!(!options.dir.exists() && !options.results.exists(), "a plan writes nothing");

    // Stopped in the first distilled run, before which the teacher was made, and nothing else.
    let (text, events) = run(&place, &options, |e| matches!(e, Event::Step(s) if s.step == 4 && s.distill.is_some()));
    assert!(text.is_none());
    let started =
        events.iter().filter_map(|e| if let Event::RunStarted { run, .. } = e { Some(run.as_str()) } else { None });
    assert_eq!(started.collect::<Vec<_>>(), ["teacher", "full-seed3"]);
    // One run more: what was finished is recorded, and the table says what is not there.
    let alone = AblateOptions { cells: vec!["alone".into()], seeds: vec![3], ..options.clone() };
    run(&place, &alone, |_| false).0.unwrap();
    let records = Records::open(&options.results).unwrap();
    assert_eq!((records.cells().count(), records.teachers().count()), (1, 1));
    let alone = records.cell("alone", 3).unwrap();
    assert_eq!((alone.provenance.revision.as_deref(), alone.summary.steps), (Some("abc"), 6));
    assert!(records.teacher("main").unwrap().summary.ap >= 0.0);
    let table = std::fs::read_to_string(options.results.with_extension("md")).unwrap();
    assert!(table_line(&table, "full").contains("not run") && table.contains("Not complete: full"), "{table}");
    let planned = plan(&place);
    assert_eq!((planned[0].state, planned[1].state, planned[2].state), (State::Done, State::Stopped(3), State::NotRun));
    assert_eq!(planned[0].seconds, Some(0.0));
    assert!(planned[2].seconds.is_some() && planned[3].seconds.is_none(), "only runs without a teacher were timed");

    // A line that a killed program left half-written is dropped.
    let whole = std::fs::read_to_string(&options.results).unwrap();
    std::fs::write(&options.results, format!("{whole}{{\"kind\":\"ce")).unwrap();
    let (text, events) = run(&place, &options, |_| false);
    let text = text.unwrap();
    assert_eq!(skipped(&events), 2, "one cell and the main teacher");
    assert!(events.contains(&Event::RunStarted { run: "full-seed3".into(), steps: 6, done: 3 }));
    let records = Records::open(&options.results).unwrap();
    assert_eq!((records.cells().count(), records.teachers().count()), (7, 2));
    assert!(std::fs::read_to_string(&options.results).unwrap().starts_with(&whole), "records are only ever appended");

    // The table: both seeds, an interval, the one-seed cell marked, the shared teacher said.
    assert!(!text.contains("not run") && text.contains("seeds 3, 4") | text.contains("Seeds 3, 4"), "{text}");
    assert_eq!(text, std::fs::read_to_string(options.results.with_extension("md")).unwrap());
    let full = table_line(&text, "A full");
    assert!(full.contains(" ± ") && full.contains(" to ") && !full.contains("no detections"), "{full}");
    assert!(table_line(&text, "B other-teacher").contains("(one seed)"));
    assert!(text.contains("teacher is shared by all runs") && text.contains("Teacher `longer`: AP"), "{text}");
    let why = text.lines().find(|l| l.starts_with("| full |")).unwrap();
    let beside: Vec<&str> = text.lines().skip_while(|l| !l.starts_with("Differences to `full`")).collect();
    assert!(beside[4].starts_with("| pkd | ") && beside[4].contains(" to "), "{beside:?}");
    assert!(beside[5].is_empty(), "neither itself, nor what another teacher taught: {beside:?}");
    assert!(why.contains("cls ") && why.contains("feat ") && why.contains("reg "), "{why}");
    assert!(!text.lines().any(|l| l.starts_with("| alone |")), "nobody taught it");
    assert!(text.contains("docent ablate") && text.contains("Revisions: abc"));
    for plot in ["tiny-gain.svg", "tiny-ap.svg"] {
        let svg = std::fs::read_to_string(options.results.with_file_name(plot)).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("other-teacher"), "{plot}");
    }

    // Nothing is done twice, and nothing is written.
    let before = std::fs::read(&options.results).unwrap();
    let (again, events) = run(&place, &options, |_| false);
    assert_eq!((again.unwrap(), skipped(&events)), (text, 7));
    assert!(!events.iter().any(|e| matches!(e, Event::RunStarted { .. } | Event::Evaluating { .. })), "{events:?}");
    assert_eq!(std::fs::read(&options.results).unwrap(), before);

    // The same cells as a study makes them: one teacher, the same student and data order, to the bit.
    place.bench.study(&place.bench.recipe(&[]), "study", false).0.unwrap();
    let run_of = |path: &str| weights(&place.bench.path(path), "last");
    assert!(run_of("whole/teachers/main/teacher") == run_of("study/teacher"));
    assert!(run_of("whole/alone-seed3") == run_of("study/alone"));
    assert!(run_of("whole/full-seed3") == run_of("study/distilled"));
    assert!(run_of("whole/alone-seed4") != run_of("whole/alone-seed3"));
    missing_detections(&place, &options);
    other_settings(&place, &options);
}

/// What a table needs of the runs' folders stands beside the records. Without that and without the detections of a run there is
/// still its AP, but no interval.
fn missing_detections(place: &Place, options: &AblateOptions) {
    let elsewhere = AblateOptions { dir: place.bench.path("nowhere"), seeds: vec![3], ..options.clone() };
    let again = |options: &AblateOptions| Ablation::open(&place.grid, options).unwrap().report().unwrap().text;
    assert_eq!(again(&elsewhere), again(options), "without the runs' folders, and with every seed that was run");
    std::fs::remove_file(options.dir.join("pkd-seed4/detections.json")).unwrap();
    std::fs::remove_file(options.results.with_file_name("tiny-bootstrap.jsonl")).unwrap();
    let text = again(options);
    assert!(table_line(&text, "pkd").contains("no detections here"), "{text}");
    assert!(!table_line(&text, "A full").contains("no detections here"));
}

fn other_settings(place: &Place, options: &AblateOptions) {
    let refused = |options: &AblateOptions| Ablation::open(&place.grid, options).err().unwrap().to_string();
    let changed = AblateOptions { set: vec!["train.lr=0.5".into()], ..options.clone() };
    let message = refused(&changed);
    assert!(message.contains("other settings") && message.contains("tiny.jsonl"), "{message}");
    let swapped = GRID.replace("about = \"all of it\"", "about = \"all of it\"\nteacher = \"longer\"");
    let path = place.bench.path("tiny.toml");
    let swapped = Grid::parse(&swapped.replace("PATH", &path.display().to_string())).unwrap();
    let message = Ablation::open(&swapped, options).err().unwrap().to_string();
    assert!(message.contains("cell full, seed 3 was run with another teacher"), "{message}");
    let unknown = AblateOptions { cells: vec!["ful".into()], ..options.clone() };
    assert!(refused(&unknown).contains("alone, full, pkd, other-teacher"));
    assert!(refused(&AblateOptions { seeds: Vec::new(), ..options.clone() }).contains("--seeds"));
    // Another file of records, but the old folder: its runs were made with other settings.
    let elsewhere =
        AblateOptions { results: place.bench.path("new/tiny.jsonl"), cells: vec!["alone".into()], ..changed };
    let error = Ablation::open(&place.grid, &elsewhere)
        .unwrap()
        .run(&mut [&mut Recorder { events: Vec::new(), stop: |_: &Event| false }]);
    assert!(error.unwrap_err().to_string().contains("train.lr"));
    let tier = AblateOptions { tiers: vec![Tier::B], ..options.clone() };
    let plan = Ablation::open(&place.grid, &tier).unwrap().plan().unwrap();
    assert_eq!(plan.iter().map(|p| p.cell.as_str()).collect::<Vec<_>>(), ["other-teacher"]);
}

#[test]
fn a_given_teacher_is_not_trained_and_bad_records_are_named() {
    let place = Place::new();
    place.bench.study(&place.bench.recipe(&["teacher.epochs=1"]), "study", false).0.unwrap();
    let teacher = place.bench.path("study/teacher/checkpoints/last.safetensors");
    let cells = vec!["alone".to_owned(), "full".to_owned()];
    let given = |teacher: PathBuf| AblateOptions {
        teacher: Some(teacher),
        cells: cells.clone(),
        seeds: vec![3],
        ..place.options("given")
    };
    let options = given(teacher.clone());
    let (text, events) = run(&place, &options, |_| false);
    assert!(!events.iter().any(|e| matches!(e, Event::RunStarted { run, .. } if run == "teacher")));
    assert!(text.unwrap().contains("Teacher `main`: AP"));
    assert!(weights(&options.dir.join("full-seed3"), "last") == weights(&place.bench.path("study/distilled"), "last"));

    // Another teacher under the same name: what it teaches does not go into the same table.
    let other = place.bench.path("study/alone/checkpoints/last.safetensors");
    let more = AblateOptions { seeds: vec![3, 4], ..given(other) };
    let result = Ablation::open(&place.grid, &more)
        .unwrap()
        .run(&mut [&mut Recorder { events: Vec::new(), stop: |_: &Event| false }]);
    assert!(result.unwrap_err().to_string().contains("another teacher"));

    let damage = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
    damage(&options.results, "{\"kind\":\"cell\"}\n");
    let message = Records::open(&options.results).unwrap_err().to_string();
    assert!(message.contains("line 1") && message.contains("tiny.jsonl"), "{message}");
    damage(&options.results, "");
    let mut records = Records::open(&options.results).unwrap();
    assert_eq!(records.cells().count(), 0);
    let line = Line::Teacher(serde_json::from_value(serde_json::json!({
        "name": "t", "file": { "path": "p", "sha256": "0" }, "detections": { "path": "p", "sha256": "0" },
        "data": { "name": "d", "digest": "0", "images": [1, 1] },
        "provenance": { "version": "0", "revision": null, "command": [] },
        "summary": { "ap": 0.5, "ap50": 0.5, "ap75": 0.5, "ap_small": 0.5, "ap_medium": 0.5, "ap_large": 0.5, "per_class": [],
            "params": 1, "gflops": 1.0, "ms_per_image": 1.0, "seconds": 1.0, "steps": 1, "checkpoint": "c" },
    })).unwrap());
    records.push(line.clone()).unwrap();
    assert_eq!(Records::open(&options.results).unwrap().teacher("t").unwrap().summary.ap, 0.5);

    // Cut within a character: the next line takes its place.
    let whole = std::fs::read(&options.results).unwrap();
    std::fs::write(&options.results, [&whole[..], b"{\"kind\":\"\xc3"].concat()).unwrap();
    let mut records = Records::open_alone(&options.results).unwrap();
    let message = Records::open_alone(&options.results).unwrap_err().to_string();
    assert!(message.contains("tiny.jsonl") && message.contains("--results"), "{message}");
    records.push(line).unwrap();
    assert!(std::fs::read(&options.results).unwrap() == [&whole[..], &whole[..]].concat());
    records.release();
    assert_eq!(Records::open_alone(&options.results).unwrap().teachers().count(), 2);
}

/// Runs with so many jobs, each of whose sinks fails where `stop` says so.
fn run_jobs(place: &Place, options: &AblateOptions, jobs: usize, stop: fn(&Event) -> bool) -> Result<String, String> {
    let mut sinks: Vec<_> = (0..jobs).map(|_| Recorder { events: Vec::new(), stop }).collect();
    let mut sinks: Vec<&mut (dyn EventSink + Send)> = sinks.iter_mut().map(|sink| sink as _).collect();
    let result = Ablation::open(&place.grid, options).unwrap().run(&mut sinks);
    result.map(|report| report.text).map_err(|e| e.to_string())
}

/// What must not depend on the number of jobs: everything but times.
fn figures(options: &AblateOptions) -> Vec<(String, u64, String, Option<String>)> {
    let records = Records::open(&options.results).unwrap();
    let mut all: Vec<_> = records
        .cells()
        .map(|r| (r.cell.clone(), r.seed, r.detections.sha256.clone(), r.teacher.clone()))
        .chain(records.teachers().map(|t| (t.name.clone(), 0, t.detections.sha256.clone(), None)))
        .collect();
    all.sort();
    all
}

#[test]
fn the_number_of_jobs_changes_no_bit_and_a_failure_leaves_what_others_finish() {
    let place = Place::new();
    let one = place.options("one");
    run_jobs(&place, &one, 1, |_| false).unwrap();
    assert_eq!(figures(&one).len(), 9, "seven runs and two teachers");

    // Two jobs. The first distilled run fails; a run without a teacher that is made meanwhile is finished and recorded.
    let two = place.options("two");
    let error = run_jobs(&place, &two, 2, |e| matches!(e, Event::Step(s) if s.distill.is_some())).unwrap_err();
    assert!(error.contains("stopped by the test"), "{error}");
    let records = Records::open(&two.results).unwrap();
    assert!(records.cell("alone", 3).is_some() && records.cells().all(|r| r.cell == "alone"));
    run_jobs(&place, &two, 2, |_| false).unwrap();
    assert_eq!(figures(&two), figures(&one));

    // More jobs than runs that are free at a time: they wait for the teacher.
    let many = place.options("many");
    run_jobs(&place, &many, 5, |_| false).unwrap();
    assert_eq!(figures(&many), figures(&one));
}

#[test]
fn a_cell_that_diverges_is_recorded_and_does_not_stand_in_the_way() {
    let place = Place::new();
    let path = place.bench.path("wild.toml");
    std::fs::write(&path, RECIPE).unwrap();
    let wild = "[[cell]]\nname = \"wild\"\ntier = \"A\"\nabout = \"too fast\"\nalone = true\n\
                set = [\"train.lr=1e18\", \"train.max_grad_norm=0.0\"]\n\n[[cell]]\nname = \"alone\"";
    let grid = GRID.replace("PATH", &path.display().to_string()).replacen("[[cell]]\nname = \"alone\"", wild, 1);
    let place = Place { grid: Grid::parse(&grid).unwrap(), ..place };
    let cells = ["wild", "alone"].map(str::to_owned).to_vec();
    let tier = AblateOptions { tiers: vec![Tier::A], seeds: vec![3], ..place.options("wild") };
    let text = run_jobs(&place, &tier, 1, |_| false).unwrap();
    assert!(
        table_line(&text, "A wild").contains("diverged") && !table_line(&text, "A full").contains("not run"),
        "{text}"
    );
    let records = Records::open(&tier.results).unwrap();
    assert!(records.diverged("wild", 3).unwrap().what.contains("step"));
    assert!(records.diverged("alone", 3).is_none() && records.cell("full", 3).is_some());
    // It is not tried again, unless it is named.
    let state = |options: &AblateOptions| Ablation::open(&place.grid, options).unwrap().plan().unwrap()[0].state;
    assert_eq!(state(&tier), State::Diverged);
    assert!(matches!(state(&AblateOptions { cells, ..tier.clone() }), State::NotRun | State::Stopped(_)));
    assert_eq!(run_jobs(&place, &tier, 1, |_| false).unwrap(), text);
    // Nor is it this run's word once the cell is set otherwise.
    let slower = grid.replace("train.lr=1e18", "train.lr=0.01");
    let place = Place { grid: Grid::parse(&slower).unwrap(), ..place };
    let plan = Ablation::open(&place.grid, &tier).unwrap().plan().unwrap();
    assert!(plan[0].cell == "wild" && plan[0].state != State::Diverged, "{:?}", plan[0]);
    let text = Ablation::open(&place.grid, &tier).unwrap().report().unwrap().text;
    assert!(table_line(&text, "A wild").contains("not run"), "{text}");
}
