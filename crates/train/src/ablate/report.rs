//! Table and plots of an ablation, from its records and their detections.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use docent_coco::{Resampled, read_results};

use crate::ablate::bootstrap::{DRAWS, Interval, ap_draws, image_draws, mean_and_deviation, paired};
use crate::ablate::grid::{ALONE, Cell, Grid, MAIN, Tier};
use crate::ablate::record::{Record, Records, TeacherRecord};
use crate::ablate::{AblateOptions, plot, why};
use crate::data::Data;
use crate::manifest::FileHash;
use crate::summary::percent;
use crate::weights::sha256_hex;
use crate::{Error, Result, files};

/// What a report wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The table as Markdown.
    pub text: String,
    /// The files: Markdown, then plots.
    pub files: Vec<PathBuf>,
}

/// APs of runs on every draw of images, by their detections' hash: they are dear, and the same in every report.
#[derive(Debug, Default)]
pub struct Cache {
    images: Vec<Vec<u32>>,
    runs: HashMap<String, Option<Vec<f64>>>,
}

/// One row of the table: a cell with what is known of it.
pub(super) struct Row<'a> {
    pub cell: &'a Cell,
    /// Each seed's AP, in the order of the options; None where it has not run.
    pub seeds: Vec<(u64, Option<f64>)>,
    /// Difference to its reference, over the seeds that both have.
    pub gain: Option<(f64, usize)>,
    /// The same with its interval, where the detections are there.
    pub interval: Option<Interval>,
    /// Difference to its own teacher, with its interval.
    pub teacher: Option<Interval>,
    records: Vec<&'a Record>,
}

impl Row<'_> {
    /// The APs that are there.
    pub fn aps(&self) -> Vec<f64> {
        self.seeds.iter().filter_map(|(_, ap)| *ap).collect()
    }
}

/// Writes `NAME.md`, `NAME-gain.svg` and `NAME-ap.svg` beside the records and returns the table.
///
/// # Errors
/// Detections that cannot be scored, or a file that cannot be written.
pub fn report(
    grid: &Grid,
    options: &AblateOptions,
    data: &Data,
    records: &Records,
    cache: &mut Cache,
) -> Result<Report> {
    if cache.images.is_empty() {
        cache.images = image_draws(data.val.len(), DRAWS);
    }
    let mut rows = Vec::new();
    for cell in &grid.cells {
        rows.push(row(cell, options, data, records, cache)?);
    }
    let text = markdown(grid, options, data, records, &rows);
    let beside = |suffix: &str| {
        let stem = options.results.file_stem().unwrap_or_default().to_string_lossy();
        options.results.with_file_name(format!("{stem}{suffix}"))
    };
    let table = beside(".md");
    if let Some(folder) = table.parent() {
        files::create_dir(folder)?;
    }
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

/// The seeds that a cell is meant to have.
fn seeds_of<'a>(cell: &Cell, options: &'a AblateOptions) -> &'a [u64] {
    let count = if cell.tier == Tier::B { 1 } else { options.seeds.len() };
    options.seeds.get(..count).unwrap_or(&[])
}

fn row<'a>(
    cell: &'a Cell,
    options: &AblateOptions,
    data: &Data,
    records: &'a Records,
    cache: &mut Cache,
) -> Result<Row<'a>> {
    let of = |seed: u64| records.cell(&cell.name, seed);
    let seeds: Vec<u64> = seeds_of(cell, options).to_vec();
    let mine: Vec<&Record> = seeds.iter().filter_map(|&seed| of(seed)).collect();
    let mut row = Row {
        cell,
        seeds: seeds.iter().map(|&seed| (seed, of(seed).map(|r| r.summary.ap))).collect(),
        gain: None,
        interval: None,
        teacher: None,
        records: mine.clone(),
    };
    if cell.against != cell.name {
        let pairs: Vec<(&Record, &Record)> =
            mine.iter().filter_map(|r| Some((*r, records.cell(&cell.against, r.seed)?))).collect();
        let aps: Vec<(f64, f64)> = pairs.iter().map(|(a, b)| (a.summary.ap, b.summary.ap)).collect();
        row.gain = mean_and_deviation(&aps.iter().map(|(a, b)| a - b).collect::<Vec<_>>()).map(|m| (m.0, aps.len()));
        let files: Vec<_> = pairs.iter().map(|(a, b)| (&a.detections, &b.detections)).collect();
        row.interval = interval(&aps, &files, options, data, cache)?;
    }
    let teacher_of = |r: &Record| records.teachers().rfind(|t| Some(&t.file.sha256) == r.teacher.as_ref());
    let pairs: Vec<(&Record, &TeacherRecord)> = mine.iter().filter_map(|r| Some((*r, teacher_of(r)?))).collect();
    let aps: Vec<(f64, f64)> = pairs.iter().map(|(a, b)| (a.summary.ap, b.summary.ap)).collect();
    let files: Vec<_> = pairs.iter().map(|(a, b)| (&a.detections, &b.detections)).collect();
    row.teacher = interval(&aps, &files, options, data, cache)?;
    Ok(row)
}

/// The paired bootstrap, if all detections are there.
fn interval(
    aps: &[(f64, f64)],
    files: &[(&FileHash, &FileHash)],
    options: &AblateOptions,
    data: &Data,
    cache: &mut Cache,
) -> Result<Option<Interval>> {
    for file in files.iter().flat_map(|(a, b)| [a, b]) {
        draw(file, options, data, cache)?;
    }
    let of = |file: &FileHash| cache.runs.get(&file.sha256).and_then(Option::as_deref);
    let draws: Option<Vec<(&[f64], &[f64])>> = files.iter().map(|(a, b)| Some((of(a)?, of(b)?))).collect();
    Ok(draws.and_then(|draws| paired(aps, &draws)))
}

/// Scores a run on every draw, once. Detections that are gone, or are others by now, give nothing.
fn draw(file: &FileHash, options: &AblateOptions, data: &Data, cache: &mut Cache) -> Result<()> {
    if cache.runs.contains_key(&file.sha256) {
        return Ok(());
    }
    let path = options.dir.join(&file.path);
    let same = std::fs::read(&path).is_ok_and(|bytes| sha256_hex(bytes) == file.sha256);
    let drawn =
        if same { Some(ap_draws(&Resampled::new(&data.val, &read_results(&path)?)?, &cache.images)) } else { None };
    cache.runs.insert(file.sha256.clone(), drawn);
    Ok(())
}

fn markdown(grid: &Grid, options: &AblateOptions, data: &Data, records: &Records, rows: &[Row<'_>]) -> String {
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
    text += "| cell | what | AP | each seed | AP50 | AP75 | difference | 95% interval | to its teacher |\n";
    text += "|---|---|---|---|---|---|---|---|---|\n";
    for tier in [Tier::A, Tier::C, Tier::B] {
        for row in rows.iter().filter(|r| r.cell.tier == tier) {
            table_row(&mut text, row);
        }
    }
    text.push('\n');
    notes(&mut text, options, rows);
    let taught = |row: &'_ Row<'_>| Some((row.cell.name.clone(), why::epochs(&options.dir, &row.records)?));
    let logged: Vec<_> = rows.iter().filter(|row| !row.cell.alone).filter_map(taught).collect();
    if !logged.is_empty() {
        text += "What the logs say: means over the first, the middle and the last epoch, all seeds together; the last two columns \
                 where a recipe asks for them (`diagnose.every`).\n\n";
        text += &why::table(&logged);
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
        let _ = writeln!(text, "| not run | | | | | | |");
        return;
    };
    let each: Vec<String> = row.seeds.iter().map(|(_, ap)| ap.map_or("not run".to_owned(), percent)).collect();
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
    let gain = match row.gain {
        None => String::new(),
        Some((gain, pairs)) => {
            let to = if cell.against == ALONE { String::new() } else { format!(" to {}", cell.against) };
            let part = if pairs < aps.len() { format!(" ({pairs} of {} seeds)", aps.len()) } else { String::new() };
            format!("{:+.1}{to}{part}", 100.0 * gain)
        }
    };
    let between = |i: &Interval| format!("{:+.1} to {:+.1}", 100.0 * i.low, 100.0 * i.high);
    let interval = match (&row.gain, &row.interval) {
        (_, Some(interval)) => between(interval),
        (Some(_), None) => "no detections here".to_owned(),
        (None, None) => String::new(),
    };
    let teacher = row.teacher.as_ref().map_or(String::new(), |i| format!("{:+.1} ({})", 100.0 * i.mean, between(i)));
    let _ = writeln!(text, "| {gain} | {interval} | {teacher} |");
}

fn notes(text: &mut String, options: &AblateOptions, rows: &[Row<'_>]) {
    let seeds: Vec<String> = options.seeds.iter().map(u64::to_string).collect();
    let _ = writeln!(
        text,
        "Seeds {}. ± is the standard deviation over the seeds (n - 1). The difference is to the student alone at the same seeds \
         (`alone`, where no other is named): first weights, order of images and schedule are the same, so it is paired. Its \
         interval is the middle 95% of {DRAWS} bootstrap draws; each draws the held-out images with repeats and, together with \
         them, the seeds with repeats, the same for both sides. Where a cell has one seed, images alone are drawn. **One \
         teacher is shared by all runs that name it**: it is not drawn, and another teacher may give another difference.\n",
        seeds.join(", ")
    );
    let missing: Vec<&str> =
        rows.iter().filter(|r| r.seeds.iter().any(|(_, ap)| ap.is_none())).map(|r| r.cell.name.as_str()).collect();
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
        // The program's own path says nothing to anybody else.
        let command = made.command.get(1..).unwrap_or(&[]).join(" ");
        if !command.is_empty() && !commands.contains(&command) {
            commands.push(command);
        }
    }
    if !revisions.is_empty() {
        let _ = writeln!(text, "Revisions: {}.", revisions.join(", "));
    }
    if !commands.is_empty() {
        let _ = writeln!(text, "\n```sh");
        commands.iter().for_each(|command| {
            let _ = writeln!(text, "docent {command}");
        });
        text.push_str("```\n");
    }
}
