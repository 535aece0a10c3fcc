//! `report.html`: the figures of `summary.json` and nothing from outside, also in a browser where there is one.

use std::fs;
use std::path::Path;
use std::process::Command;

use docent_study::report;
use docent_study::summary::{RunSummary, StudySummary, percent};
use docent_train::events::Event;

use crate::bench::{Bench, Recorder};

/// The text of the cells of a run's row in the comparison.
fn cells(page: &str, run: &str) -> Vec<String> {
    let row = page.split_once(&format!("<tr data-run=\"{run}\">")).unwrap().1.split_once("</tr>").unwrap().0;
    let cell = |cell: &str| cell.split_once('>').unwrap().1.split_once("</td>").unwrap().0.to_owned();
    row.split("<td").skip(1).map(cell).collect()
}

fn figures(s: &RunSummary) -> Vec<String> {
    let ap = [s.ap, s.ap50, s.ap75, s.ap_small, s.ap_medium, s.ap_large].map(percent);
    let cost = [
        format!("{:.2}", s.params as f64 / 1e6),
        format!("{:.2}", s.gflops),
        format!("{:.1}", s.ms_per_image),
        s.steps.to_string(),
        format!("{:.1}", s.seconds / 60.0),
    ];
    ap.into_iter().chain(cost).collect()
}

/// Are the figures of `summary.json` in the page?
fn shows(page: &str, dir: &Path) {
    let summary = fs::read_to_string(dir.join("summary.json")).unwrap();
    let summary: StudySummary = serde_json::from_str(&summary).unwrap();
    let runs = [("teacher", summary.teacher), ("alone", Some(summary.alone)), ("distilled", summary.distilled)];
    for (name, run) in runs {
        assert_eq!(cells(page, name), figures(&run.unwrap()), "{name}");
    }
    let gain = format!("<b id=\"gain\">{:+.1} AP</b>", 100.0 * summary.gain.unwrap());
    assert!(page.contains(&gain), "no {gain}");
}

/// Every address of the page lies inside it.
fn closed(page: &str) {
    for attribute in ["src=\"", "href=\"", "action=\"", "srcset=\""] {
        for value in page.split(attribute).skip(1) {
            let start: String = value.chars().take(30).collect();
            assert!(start.starts_with("data:") || start.starts_with('#'), "{attribute}{start}");
        }
    }
    for outside in ["http://", "https://", "url(", "@import", "fetch(", "XMLHttpRequest"] {
        assert!(!page.contains(outside), "{outside} is in the page");
    }
    assert!(page.len() < 4 << 20, "{} bytes", page.len());
}

#[test]
fn a_report_holds_the_figures_of_the_study_and_nothing_from_outside() {
    let bench = Bench::new();
    let mut recipe = bench.recipe(&[]);
    recipe.about = "Is <i>this</i> \"safe\" & sound?</script>".to_owned();
    bench.study(&recipe, "study", false).0.unwrap();
    let dir = bench.path("study");
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    shows(&page, &dir);
    closed(&page);
    assert!(page.contains("Is &lt;i&gt;this&lt;/i&gt; &quot;safe&quot; &amp; sound?&lt;/script&gt;"), "escaped");
    assert_eq!(page.matches("</script>").count(), 1);
    for part in [
        "Distillation terms, raw",
        "Distillation terms, weighted",
        "Decay r(t)",
        "Gated share",
        "Learning rate",
        "<b>AP</b> <span>points, held-out images",
        "IoU 0.75",
        "What AP50 is lost to",
        "duplicate",
        // Each class, and every side of the switch.
        ">star</th>",
        ">truth</span>",
        ">teacher</span>",
        ">student alone</span>",
        ">distilled student</span>",
    ] {
        assert!(page.contains(part), "no `{part}`");
    }
    // Four images are held out, and each side of each has its boxes.
    let images = page.matches("data:image/jpeg;base64,").count();
    assert!((1..=4).contains(&images), "{images}");
    for layer in 0..4 {
        assert_eq!(page.matches(&format!("<g class=\"layer l{layer}\">")).count(), images);
    }
    assert!(page.contains("<rect x="));

    // Each run has its own; made again, nothing changes.
    for run in ["teacher", "alone", "distilled"] {
        let page = fs::read_to_string(dir.join(run).join("report.html")).unwrap();
        closed(&page);
        assert_eq!(cells(&page, run).len(), 11);
        assert!(!page.contains("id=\"gain\"") && page.contains("Lowest AP"));
    }
    let again = report::write(&dir, None).unwrap();
    assert_eq!((again.path.as_path(), again.notes.len()), (dir.join("report.html").as_path(), 0));
    assert!(fs::read_to_string(&again.path).unwrap() == page, "the same bytes");

    // Other data: the page says so, and shows no image of it.
    let annotations = bench.path("data/annotations/instances_val.json");
    let text = fs::read_to_string(&annotations).unwrap();
    fs::write(&annotations, text.clone() + " ").unwrap();
    let notes = report::write(&dir, None).unwrap().notes;
    assert!(notes.len() == 1 && notes[0].contains("has changed"), "{notes:?}");
    fs::write(&annotations, text).unwrap();
    // No data: the figures are still there.
    fs::rename(bench.path("data"), bench.path("moved")).unwrap();
    let notes = report::write(&dir, None).unwrap().notes;
    assert!(notes.len() == 1 && notes[0].contains("data folder is not there"), "{notes:?}");
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    shows(&page, &dir);
    assert!(page.contains("data folder is not there") && !page.contains("image/jpeg"));
    fs::rename(bench.path("moved"), bench.path("data")).unwrap();

    // A page that cannot be written is a warning that names it, and the study is what it was.
    fs::remove_file(dir.join("report.html")).unwrap();
    fs::create_dir(dir.join("report.html")).unwrap();
    let (result, events) = bench.study(&recipe, "study", true);
    result.unwrap();
    let warned =
        |e: &Event| matches!(e, Event::Warning { text } if text.contains("no report") && text.contains("report.html"));
    assert!(events.iter().any(warned), "{events:?}");
}

#[test]
fn a_study_that_is_not_finished_has_a_report_too() {
    let bench = Bench::new();
    let stop = |e: &Event| matches!(e, Event::Checkpoint { step: 4, .. });
    let recipe = bench.alone(&[]);
    bench.study_into(&recipe, "half", false, &mut Recorder { events: Vec::new(), stop }).unwrap_err();
    let written = report::write(&bench.path("half"), None).unwrap();
    assert!(written.notes.is_empty(), "{:?}", written.notes);
    let page = fs::read_to_string(written.path).unwrap();
    assert!(page.contains("student alone: not finished, step 4 of 6"), "where it stands");
    assert!(page.contains("No run is finished yet") && page.contains("Learning rate"));
    let message = report::write(&bench.path("data"), None).unwrap_err().to_string();
    assert!(message.contains("no recipe.toml"), "{message}");
}

#[test]
fn a_teacher_that_was_given_has_its_side_in_the_images() {
    let bench = Bench::new();
    bench.study(&bench.recipe(&[]), "first", false).0.unwrap();
    let mut recipe = bench.recipe(&[]);
    if let Some(teacher) = &mut recipe.teacher {
        teacher.checkpoint = Some(bench.path("first/teacher/checkpoints/last.safetensors"));
    }
    bench.study(&recipe, "second", false).0.unwrap();
    let page = fs::read_to_string(bench.path("second/report.html")).unwrap();
    shows(&page, &bench.path("second"));
    assert!(page.contains(">teacher</span>") && page.contains("class=\"layer l3\""));
}

#[test]
fn a_browser_shows_the_figures() {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success()))
    else {
        println!("skipped: no chromium");
        return;
    };
    let bench = Bench::new();
    bench.study(&bench.recipe(&[]), "study", false).0.unwrap();
    let dir = bench.path("study");
    let profile = format!("--user-data-dir={}", bench.path("profile").display());
    let page = format!("file://{}", dir.join("report.html").display());
    let flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"];
    let said =
        Command::new(browser).args(flags).args([profile.as_str(), "--dump-dom", page.as_str()]).output().unwrap();
    let dom = String::from_utf8(said.stdout).unwrap();
    shows(&dom, &dir);
    // The page's script ran.
    assert!(dom.contains("<body class=\"js\">"), "{}", String::from_utf8_lossy(&said.stderr));
}
