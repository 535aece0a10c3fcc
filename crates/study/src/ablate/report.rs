//! Table and plots of an ablation, from its records and their detections.

use std::fmt::Write as _;
use std::path::PathBuf;

use docent_model::files;

use crate::ablate::bootstrap::{BOOTSTRAP_SAMPLES, Interval, mean_and_deviation, paired, students_t};
use crate::ablate::grid::{ALONE, Cell, Grid, MAIN, Tier};
use crate::ablate::kept_runs::KeptRuns;
use crate::ablate::options::AblateOptions;
use crate::ablate::record::{Record, Records, TeacherRecord};
use crate::ablate::row::{Gain, Row};
use crate::ablate::{plot, term_shares};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::manifest::FileHash;
use crate::summary::percent;

/// What a report wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The table as Markdown.
    pub text: String,
    /// The files: Markdown, then plots.
    pub files: Vec<PathBuf>,
}

/// Writes `NAME.md`, `NAME-gain.svg` and `NAME-ap.svg` beside the records and returns the table.
///
/// # Errors
/// Detections that cannot be scored, or a file that cannot be written.
pub fn report(grid: &Grid, options: &AblateOptions, data: &Data, records: &Records) -> Result<Report> {
    let beside = |suffix: &str| {
        let stem = options.results.file_stem().unwrap_or_default().to_string_lossy();
        options.results.with_file_name(format!("{stem}{suffix}"))
    };
    let table = beside(".md");
    if let Some(folder) = table.parent() {
        files::create_dir(folder)?;
    }
    let mut keep = KeptRuns::open(&beside("-bootstrap.jsonl"));
    for teacher in records.teachers() {
        keep.take(&options.dir, &data.val, &teacher.detections, None)?;
    }
    for record in records.cells() {
        keep.take(&options.dir, &data.val, &record.detections, Some(record))?;
    }
    keep.write()?;
    let seeds = seeds(options, records);
    let rows: Vec<_> = grid
        .cells
        .iter()
        .map(|cell| Ok(row(cell, &seeds, records, &keep, &grid.settings(cell, &options.set)?)))
        .collect::<Result<_>>()?;
    let text = markdown(grid, &seeds, data, records, &rows, &keep);
    files::write_atomic(&table, text.as_bytes())?;
    let mut written = vec![table];
    let teacher = records.teacher(MAIN).map(|t| t.summary.ap);
    for (suffix, drawing) in [("-gain.svg", plot::gains(&rows)), ("-ap.svg", plot::aps(&rows, teacher))] {
        let path = beside(suffix);
        if let Some(svg) = drawing.map_err(|what| Error::file(&path, what))? {
            files::write_atomic(&path, svg.as_bytes())?;
            written.push(path);
        }
    }
    Ok(Report { text, files: written })
}

/// The seeds that are asked for, then those that stand in the records besides.
fn seeds(options: &AblateOptions, records: &Records) -> Vec<u64> {
    let mut seeds = options.seeds.clone();
    for record in records.cells().filter(|r| r.tier != Tier::B) {
        if !seeds.contains(&record.seed) {
            seeds.push(record.seed);
        }
    }
    seeds.sort_unstable();
    seeds
}

fn row<'a>(cell: &'a Cell, seeds: &[u64], records: &'a Records, keep: &KeptRuns, settings: &str) -> Row<'a> {
    let diverged = |seed: u64| records.diverged(&cell.name, seed).is_some_and(|record| record.settings == settings);
    let of = |seed: u64| records.cell(&cell.name, seed);
    // Of tier B one seed is meant: the one that was run, or will be.
    let one = seeds.iter().copied().find(|&seed| of(seed).is_some()).or(seeds.first().copied());
    let seeds: Vec<u64> = if cell.tier == Tier::B { one.into_iter().collect() } else { seeds.to_vec() };
    let mine: Vec<&Record> = seeds.iter().filter_map(|&seed| of(seed)).collect();
    let mut row = Row {
        cell,
        seeds: seeds.iter().map(|&seed| (seed, of(seed).map(|r| r.summary.ap))).collect(),
        gain: None,
        interval: None,
        teacher: None,
        records: mine.clone(),
        diverged: seeds.iter().copied().filter(|&seed| diverged(seed)).collect(),
    };
    if cell.against != cell.name {
        (row.gain, row.interval) = difference(&mine, &cell.against, records, keep);
    }
    let teacher_of = |r: &Record| records.teachers().rfind(|t| Some(&t.file.sha256) == r.teacher.as_ref());
    let pairs: Vec<(&Record, &TeacherRecord)> = mine.iter().filter_map(|r| Some((*r, teacher_of(r)?))).collect();
    let aps: Vec<(f64, f64)> = pairs.iter().map(|(a, b)| (a.summary.ap, b.summary.ap)).collect();
    let files: Vec<_> = pairs.iter().map(|(a, b)| (&a.detections, &b.detections)).collect();
    row.teacher = interval(&aps, &files, keep);
    row
}

/// By how much runs differ from those of the cell `other`, over the seeds that both have.
fn difference(mine: &[&Record], other: &str, records: &Records, keep: &KeptRuns) -> (Option<Gain>, Option<Interval>) {
    let pairs: Vec<(&Record, &Record)> = mine.iter().filter_map(|r| Some((*r, records.cell(other, r.seed)?))).collect();
    let aps: Vec<(f64, f64)> = pairs.iter().map(|(a, b)| (a.summary.ap, b.summary.ap)).collect();
    let gains: Vec<f64> = aps.iter().map(|(a, b)| a - b).collect();
    let gain = mean_and_deviation(&gains).map(|(mean, _)| Gain { mean, pairs: gains.len(), t: students_t(&gains) });
    let files: Vec<_> = pairs.iter().map(|(a, b)| (&a.detections, &b.detections)).collect();
    (gain, interval(&aps, &files, keep))
}

/// The paired bootstrap, if all bootstrap samples are there.
fn interval(aps: &[(f64, f64)], files: &[(&FileHash, &FileHash)], keep: &KeptRuns) -> Option<Interval> {
    let of = |file: &FileHash| keep.get(file).map(|kept| kept.bootstrap_samples.as_slice());
    let samples: Vec<(&[f64], &[f64])> = files.iter().map(|(a, b)| Some((of(a)?, of(b)?))).collect::<Option<_>>()?;
    paired(aps, &samples)
}

fn markdown(grid: &Grid, seeds: &[u64], data: &Data, records: &Records, rows: &[Row<'_>], keep: &KeptRuns) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# {}\n\n{}\n", grid.name, grid.about.trim());
    let summary = data.summary();
    let _ = writeln!(
        text,
        "Base recipe `{}`; data {}, {} training and {} held-out images. AP is COCO's (IoU 0.50:0.95), times 100, of the last \
         checkpoint on the held-out split.\n",
        grid.recipe, summary.name, summary.images[0], summary.images[1]
    );
    teachers(&mut text, grid, records);
    text += "| cell | what | AP | each seed | AP50 | AP75 | difference | 95% interval | by t | to its teacher |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|\n";
    for tier in [Tier::A, Tier::C, Tier::B] {
        for row in rows.iter().filter(|r| r.cell.tier == tier) {
            table_row(&mut text, row);
        }
    }
    text.push('\n');
    notes(&mut text, seeds, rows);
    for other in grid.beside.iter().filter_map(|name| grid.cell(name)) {
        beside(&mut text, other, rows, records, keep);
    }
    let taught = |row: &'_ Row<'_>| {
        let logs = row.records.iter().filter_map(|r| keep.get(&r.detections)?.epochs.as_ref());
        let joined = logs.cloned().reduce(|mut a, b| {
            a.iter_mut().zip(&b).for_each(|(a, b)| a.join(b));
            a
        });
        Some((row.cell.name.clone(), joined?))
    };
    let logged: Vec<_> = rows.iter().filter(|row| !row.cell.alone).filter_map(taught).collect();
    if !logged.is_empty() {
        text += "What the logs say: means over the first, the middle and the last epoch, all seeds together; the last two columns \
                 where a recipe asks for them (`diagnose.every`).\n\n";
        text += &term_shares::table(&logged);
        text.push('\n');
    }
    provenance(&mut text, records);
    text
}

fn teachers(text: &mut String, grid: &Grid, records: &Records) {
    let mut names: Vec<&str> = grid.teachers.iter().map(|t| t.name.as_str()).filter(|name| *name != MAIN).collect();
    names.insert(0, MAIN);
    for name in names {
        let _ = match records.teacher(name) {
            Some(t) => writeln!(
                text,
                "Teacher `{name}`: AP {}, AP50 {}, AP75 {} ({} steps; SHA-256 {}).",
                percent(t.summary.ap),
                percent(t.summary.ap50),
                percent(t.summary.ap75),
                t.summary.steps,
                t.file.sha256.get(..12).unwrap_or(&t.file.sha256)
            ),
            None => writeln!(text, "Teacher `{name}`: not run."),
        };
    }
    text.push('\n');
}

fn table_row(text: &mut String, row: &Row<'_>) {
    let cell = row.cell;
    let mark = if cell.tier == Tier::B { " (one seed)" } else { "" };
    let aps = row.aps();
    let _ = write!(text, "| {:?} {}{mark} | {} ", cell.tier, cell.name, cell.about);
    let Some((mean, deviation)) = mean_and_deviation(&aps) else {
        let what = if row.diverged.is_empty() { "not run" } else { "diverged" };
        let _ = writeln!(text, "| {what} | | | | | | | |");
        return;
    };
    let each = row.seeds.iter().map(|(seed, ap)| match ap {
        Some(ap) => percent(*ap),
        None if row.diverged.contains(seed) => "diverged".to_owned(),
        None => "not run".to_owned(),
    });
    let each: Vec<String> = each.collect();
    let spread = deviation.map_or(String::new(), |d| format!(" ± {:.1}", 100.0 * d));
    let mean_of = |figure: fn(&Record) -> f64| {
        let values: Vec<f64> = row.records.iter().map(|r| figure(r)).collect();
        mean_and_deviation(&values).map_or_else(String::new, |(mean, _)| percent(mean))
    };
    let _ = write!(
        text,
        "| {}{spread} | {} | {} | {} ",
        percent(mean),
        each.join(", "),
        mean_of(|r| r.summary.ap50),
        mean_of(|r| r.summary.ap75)
    );
    let gain = match &row.gain {
        None => String::new(),
        Some(Gain { mean, pairs, .. }) => {
            let to = if cell.against == ALONE { String::new() } else { format!(" to {}", cell.against) };
            let part = if *pairs < aps.len() { format!(" ({pairs} of {} seeds)", aps.len()) } else { String::new() };
            format!("{:+.1}{to}{part}", 100.0 * mean)
        }
    };
    let interval = match (&row.gain, &row.interval) {
        (_, Some(interval)) => between(interval),
        (Some(_), None) => "no detections here".to_owned(),
        (None, None) => String::new(),
    };
    let teacher = row.teacher.as_ref().map_or(String::new(), |i| format!("{:+.1} ({})", 100.0 * i.mean, between(i)));
    let t = row.gain.as_ref().and_then(|gain| gain.t.as_ref()).map_or(String::new(), between);
    let _ = writeln!(text, "| {gain} | {interval} | {t} | {teacher} |");
}

/// A table of the differences to a cell with a teacher, of the cells that have the same one.
fn beside(text: &mut String, other: &Cell, rows: &[Row<'_>], records: &Records, keep: &KeptRuns) {
    let alike = |row: &&Row<'_>| !row.cell.alone && row.cell.teacher == other.teacher && row.cell.name != other.name;
    let mut lines = String::new();
    for row in rows.iter().filter(alike) {
        let (Some(gain), range) = difference(&row.records, &other.name, records, keep) else { continue };
        let or_nothing = |i: Option<&Interval>| i.map_or(String::new(), between);
        let (name, mean, seeds) = (&row.cell.name, 100.0 * gain.mean, gain.pairs);
        let (range, t) = (or_nothing(range.as_ref()), or_nothing(gain.t.as_ref()));
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "| {name} | {mean:+.1} | {seeds} | {range} | {t} |");
    }
    if !lines.is_empty() {
        let head = "| cell | difference | seeds | 95% interval | by t |\n|---|---|---|---|---|";
        let _ = writeln!(text, "Differences to `{}`, under the same teacher:\n\n{head}\n{lines}", other.name);
    }
}

fn between(i: &Interval) -> String {
    format!("{:+.1} to {:+.1}", 100.0 * i.low, 100.0 * i.high)
}

fn notes(text: &mut String, seeds: &[u64], rows: &[Row<'_>]) {
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let _ = writeln!(
        text,
        "Seeds {}. ± is the standard deviation over the seeds (n - 1). The difference is to the student alone at the same seeds \
         (`alone`, where no other is named): first weights, order of images and schedule are the same, so it is paired. Its \
         interval is the middle 95% of {BOOTSTRAP_SAMPLES} bootstrap samples; each draws the held-out images with repeats and, together with \
         them, the seeds with repeats, the same for both sides. Where a cell has one seed, images alone are drawn. Few seeds drawn \
         with repeats say too little of what another seed may do (of three, the lowest is drawn three times in 1 of 27 samples), so \
         the next column has the interval of Student's t over the seeds alone, which knows nothing of the images. No interval is \
         corrected for how many cells were tried. **One \
         teacher is shared by all runs that name it**: it is not drawn, and another teacher may give another difference.\n",
        seeds.join(", ")
    );
    let missing: Vec<&str> = rows
        .iter()
        .filter(|r| r.seeds.iter().any(|(s, ap)| ap.is_none() && !r.diverged.contains(s)))
        .map(|r| r.cell.name.as_str())
        .collect();
    if !missing.is_empty() {
        let _ = writeln!(text, "Not complete: {}.\n", missing.join(", "));
    }
}

fn provenance(text: &mut String, records: &Records) {
    let mut revisions: Vec<&str> = Vec::new();
    let mut commands: Vec<String> = Vec::new();
    for made in records.cells().map(|r| &r.provenance).chain(records.teachers().map(|t| &t.provenance)) {
        let revision = made.revision.as_deref().unwrap_or("unknown");
        if !revisions.contains(&revision) {
            revisions.push(revision);
        }
        let command = command(&made.command);
        if !command.is_empty() && !commands.contains(&command) {
            commands.push(command);
        }
    }
    if !revisions.is_empty() {
        let _ = writeln!(text, "Revisions: {}.", revisions.join(", "));
    }
    if !commands.is_empty() {
        let _ = writeln!(text, "\nMade by these commands, cell by cell and seed by seed:\n\n```sh");
        commands.iter().for_each(|command| {
            let _ = writeln!(text, "docent {command}");
        });
        text.push_str("```\n");
    }
}

/// A command line without what says only which runs it made, and where: the program's path, cells, seeds, folders, threads.
fn command(words: &[String]) -> String {
    const LEFT_OUT: [&str; 8] =
        ["--cells", "--seeds", "--tier", "--out", "--results", "--teacher", "--jobs", "--threads"];
    let mut kept = Vec::new();
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.split_once('=') {
            Some((flag, _)) if LEFT_OUT.contains(&flag) => {}
            None if LEFT_OUT.contains(&word.as_str()) => {
                words.next();
            }
            _ => kept.push(word.as_str()),
        }
    }
    kept.join(" ")
}
