//! Tables and plots of the page, each as a piece of HTML.

use std::fmt::Write as _;

use docent_coco::{Analysis, ErrorKind};
use docent_train::events::StepRecord;

use super::html::escape;
use super::plot::{Line, Plot};
use super::source::{Run, Source};
use crate::summary::percent;

/// Title, data, the gain in a sentence, and what the page lacks.
pub(super) fn header(source: &Source, notes: &[String]) -> String {
    let mut out = format!("<h1>{}</h1>", escape(source.name()));
    let about = source.recipe.about.trim();
    if !about.is_empty() {
        let _ = write!(out, "<p class=\"about\">{}</p>", escape(about));
    }
    let mut facts = vec![format!("seed {}", source.recipe.seed)];
    if let Some(data) = &source.dataset {
        let [train, val] = data.images;
        facts.insert(0, format!("data {}: {train} training and {val} held-out images", escape(&data.name)));
    }
    let _ = write!(out, "<p class=\"facts\">{}</p>", facts.join(" · "));
    if let Some(gain) = source.gain {
        let class = if gain < 0.0 { "loss" } else { "win" };
        let _ = write!(
            out,
            "<p class=\"gain {class}\"><b id=\"gain\">{:+.1} AP</b> the distilled student against the same student alone",
            100.0 * gain
        );
        let ap = |key| source.position(key).and_then(|i| source.runs[i].summary.as_ref()).map(|s| s.ap);
        if let (Some(teacher), Some(distilled)) = (ap("teacher"), ap("distilled")) {
            let _ = write!(out, "; {:+.1} AP against its teacher", 100.0 * (distilled - teacher));
        }
        out.push_str("</p>");
    }
    for run in source.runs.iter().filter(|run| run.summary.is_none()) {
        let steps =
            run.log.steps.last().map_or("no step yet".to_owned(), |s| format!("step {} of {}", s.step, s.steps));
        let _ = write!(out, "<p class=\"note\">{}: not finished, {steps}</p>", escape(&run.label));
    }
    for note in notes {
        let _ = write!(out, "<p class=\"note\">{}</p>", escape(note));
    }
    out
}

/// The runs' figures, one a row.
pub(super) fn comparison(source: &Source) -> String {
    let mut rows = String::new();
    for run in &source.runs {
        let Some(s) = &run.summary else { continue };
        let _ = write!(rows, "<tr data-run=\"{}\"><th scope=\"row\">{}</th>", escape(&run.key), name(run));
        let figures = [s.ap, s.ap50, s.ap75, s.ap_small, s.ap_medium, s.ap_large];
        for (i, figure) in figures.into_iter().enumerate() {
            let class = if i == 0 { " class=\"main\"" } else { "" };
            let _ = write!(rows, "<td{class} title=\"{figure}\">{}</td>", percent(figure));
        }
        let _ = write!(
            rows,
            "<td>{:.2}</td><td>{:.2}</td><td>{:.1}</td><td>{}</td><td>{:.1}</td></tr>",
            s.params as f64 / 1e6,
            s.gflops,
            s.ms_per_image,
            s.steps,
            s.seconds / 60.0
        );
    }
    if rows.is_empty() {
        return "<p>No run is finished yet.</p>".to_owned();
    }
    let heads = [
        "AP",
        "AP50",
        "AP75",
        "AP small",
        "AP medium",
        "AP large",
        "params M",
        "GFLOPs",
        "ms/image",
        "steps",
        "minutes",
    ];
    table("comparison", "", &heads, &rows)
}

/// AP over the epochs of all runs.
pub(super) fn progress(source: &Source) -> String {
    type Value = fn(&docent_train::events::EvalRecord) -> f64;
    let figures: [(&str, Value); 3] = [("AP", |e| e.ap), ("AP50", |e| e.ap50), ("AP75", |e| e.ap75)];
    let mut out = String::new();
    for (title, value) in figures {
        let lines = source.runs.iter().map(|run| {
            let values = run.log.by_epoch(value);
            let last = values.last().map(|(_, v)| percent(*v));
            Line { figure: last, ..line(run, values.into_iter().map(|(epoch, v)| (epoch, 100.0 * v)).collect()) }
        });
        let plot =
            Plot { title, x: "epoch", y: "points, held-out images", bounds: None, log: false, lines: shown(lines) };
        out.push_str(&plot.html());
    }
    plots(&out, "No evaluation stands in the logs.")
}

/// Precision over recall.
pub(super) fn precision(source: &Source, analyses: &[Option<Analysis>]) -> String {
    let mut out = String::new();
    for (i, title) in ["IoU 0.50", "IoU 0.75", "mean of IoU 0.50 to 0.95"].into_iter().enumerate() {
        let lines = source.runs.iter().zip(analyses).filter_map(|(run, analysis)| {
            let curve = &analysis.as_ref()?.curves[i];
            let points = curve.precision.iter().enumerate().filter(|(_, p)| **p >= 0.0);
            let line = line(run, points.map(|(r, p)| (r as f64 / 100.0, *p)).collect());
            // The area below the curve.
            let ap = line.points.iter().map(|p| p.1).sum::<f64>() / line.points.len().max(1) as f64;
            Some(Line { figure: Some(format!("AP {}", percent(ap))), ..line })
        });
        let bounds = Some((0.0, 1.0));
        let plot =
            Plot { title, x: "recall", y: "precision, mean of the classes", bounds, log: false, lines: shown(lines) };
        out.push_str(&plot.html());
    }
    plots(&out, "The detections or their data are not at hand.")
}

/// AP of each class and run, and what distilling changed.
pub(super) fn classes(source: &Source, analyses: &[Option<Analysis>]) -> String {
    let finished: Vec<(&Run, &crate::summary::RunSummary)> =
        source.runs.iter().filter_map(|run| Some((run, run.summary.as_ref()?))).collect();
    let Some((_, first)) = finished.first() else { return "<p>No run is finished yet.</p>".to_owned() };
    let objects = analyses.iter().flatten().next().map(|a| &a.metrics.per_class);
    let of = |key: &str| finished.iter().find(|(run, _)| run.key == key).map(|(_, s)| *s);
    let pair = of("alone").zip(of("distilled"));
    let mut rows = String::new();
    for (i, class) in first.per_class.iter().enumerate() {
        let _ = write!(rows, "<tr><th scope=\"row\">{}</th>", escape(&class.name));
        if let Some(objects) = objects {
            let _ = write!(rows, "<td>{}</td>", objects.get(i).map_or(0, |c| c.objects));
        }
        let ap = |s: &crate::summary::RunSummary| s.per_class.get(i).map_or(-1.0, |c| c.ap);
        for (run, summary) in &finished {
            let ap = ap(summary);
            let width = 100.0 * ap.max(0.0);
            let _ = write!(
                rows,
                "<td class=\"bar r{}\" style=\"--v:{width:.1}%\" title=\"{ap}\">{}</td>",
                run.colour,
                percent(ap)
            );
        }
        if let Some((alone, distilled)) = pair {
            rows.push_str(&match (ap(alone), ap(distilled)) {
                (a, d) if a >= 0.0 && d >= 0.0 => change(d - a),
                _ => "<td>-</td>".to_owned(),
            });
        }
        rows.push_str("</tr>");
    }
    let mut heads: Vec<&str> = objects.map(|_| "objects").into_iter().collect();
    heads.extend(finished.iter().map(|(run, _)| run.label.as_str()));
    heads.extend(pair.map(|_| "distilling"));
    table("classes", "class", &heads, &rows)
}

/// Kinds of error, and what each costs.
pub(super) fn errors(source: &Source, analyses: &[Option<Analysis>]) -> String {
    let known: Vec<(&Run, &Analysis)> =
        source.runs.iter().zip(analyses).filter_map(|(run, a)| Some((run, a.as_ref()?))).collect();
    if known.is_empty() {
        return "<p>The detections or their data are not at hand.</p>".to_owned();
    }
    let most = known.iter().flat_map(|(_, a)| &a.errors.kinds).map(|k| k.cost).fold(0.0, f64::max).max(1e-9);
    let mut rows = String::new();
    for (i, kind) in ErrorKind::ALL.into_iter().enumerate() {
        let _ = write!(rows, "<tr><th scope=\"row\">{}<small>{}</small></th>", kind.name(), escape(kind.meaning()));
        for (run, analysis) in &known {
            let Some(e) = analysis.errors.kinds.get(i) else { continue };
            let width = 100.0 * e.cost.max(0.0) / most;
            let _ = write!(
                rows,
                "<td class=\"bar r{}\" style=\"--v:{width:.1}%\">{:.1}<small>{} times</small></td>",
                run.colour,
                100.0 * e.cost,
                e.count
            );
        }
        rows.push_str("</tr>");
    }
    let heads: Vec<&str> = known.iter().map(|(run, _)| run.label.as_str()).collect();
    table("errors", "kind", &heads, &rows)
}

/// Losses, rates and the rest of each run's steps.
pub(super) fn losses(source: &Source) -> String {
    let together = source.runs.iter().map(|run| line(run, run.log.series(|s| Some(s.detection()))));
    let title = "Detection loss";
    let plot = Plot { title, x: "step", y: "sum of the four losses", bounds: None, log: false, lines: shown(together) };
    let mut out = plots(&plot.html(), "No step stands in the logs.");
    // The distilled student first: its curves are what the page is for.
    for run in source.runs.iter().rev().filter(|run| !run.log.steps.is_empty()) {
        let open = if run.log.distillation().is_some() || source.runs.len() == 1 { " open" } else { "" };
        let averaged = match run.log.steps_a_point() {
            1 => String::new(),
            n => format!("<p class=\"rule\">Each point is the mean of {n} steps.</p>"),
        };
        let _ = write!(
            out,
            "<details{open}><summary>{}</summary>{averaged}<div class=\"plots\">{}</div></details>",
            name(run),
            of_run(run)
        );
    }
    out
}

fn of_run(run: &Run) -> String {
    let log = &run.log;
    let mut out = String::new();
    let mut add = |title: &str, y: &str, log_scale: bool, lines: Vec<Line>| {
        let plot = Plot { title, x: "step", y, bounds: None, log: log_scale, lines: shown(lines.into_iter()) };
        out.push_str(&plot.html());
    };
    let term = |i: usize, name: &str, value: &dyn Fn(&StepRecord) -> Option<f64>| Line {
        name: name.to_owned(),
        class: format!("c{}", i % 6),
        points: log.series(value),
        figure: None,
    };
    let names: Vec<&str> =
        log.steps.first().map_or(Vec::new(), |step| step.losses.iter().map(|(name, _)| name.as_str()).collect());
    add(
        "Detection losses",
        "loss",
        false,
        names.iter().enumerate().map(|(i, name)| term(i, name, &|s| s.loss(name))).collect(),
    );
    if let Some(first) = log.distillation() {
        let terms = |weighted: bool| {
            let each = first.terms.iter().enumerate().map(|(i, t)| {
                term(i, &t.name, &|s| {
                    let t = s.distill.as_ref()?.terms.iter().find(|other| other.name == t.name)?;
                    Some(if weighted { t.weighted } else { t.raw })
                })
            });
            each.collect::<Vec<_>>()
        };
        add("Distillation terms, raw", "loss before weight and decay", true, terms(false));
        let mut weighted = terms(true);
        weighted.push(term(5, "detection loss", &|s| Some(s.detection())));
        add("Distillation terms, weighted", "r(t) · weight · loss, as it is added", false, weighted);
        let of = |value: fn(&docent_train::events::DistillRecord) -> f64| {
            move |s: &StepRecord| s.distill.as_ref().map(value)
        };
        add("Decay r(t)", "factor of all terms", false, vec![term(0, "r(t)", &of(|d| d.decay))]);
        add("Ratio", "distillation over detection losses", false, vec![term(1, "ratio", &of(|d| d.ratio))]);
        for (stat, _) in &first.stats {
            let value = |s: &StepRecord| {
                s.distill.as_ref()?.stats.iter().find(|(name, _)| name == stat).map(|(_, value)| *value)
            };
            let title = words(stat);
            add(&title, unit(stat), false, vec![term(2, &title, &value)]);
        }
        let diagnosis =
            |value: fn(&docent_train::events::Diagnosis) -> f64| move |s: &StepRecord| s.diagnosis.as_ref().map(value);
        let (cosine, norms) = (diagnosis(|d| d.cosine), diagnosis(|d| d.norm_ratio));
        add("Gradients: cosine", "distillation's and detection's", false, vec![term(0, "cosine", &cosine)]);
        add("Gradients: ratio of norms", "distillation's over detection's", false, vec![term(1, "ratio", &norms)]);
    }
    add("Learning rate", "per step", false, vec![term(0, "rate", &|s| Some(s.lr))]);
    let norms = vec![term(1, "student", &|s| Some(s.grad_norm)), term(2, "adapters", &|s| s.adapter_grad_norm)];
    add("Gradient's norm", "before clipping", true, norms);
    let seconds =
        vec![term(3, "step", &|s| Some(s.step_seconds)), term(4, "waiting for data", &|s| Some(s.data_seconds))];
    add("Time", "seconds a step", false, seconds);
    out
}

/// A stat's name as a title.
fn words(stat: &str) -> String {
    match stat {
        "gated_share" => "Gated share".to_owned(),
        "cls_floor" => "Class term: floor".to_owned(),
        "cls_excess" => "Class term: above its floor".to_owned(),
        other => other.replace('_', " "),
    }
}

/// What a stat counts.
fn unit(stat: &str) -> &'static str {
    match stat {
        "gated_share" => "share of positives whose box the teacher may teach",
        "positives" => "positive proposals a step",
        "gated" => "positives whose box the teacher may teach",
        "mask_mass" => "sum of the masks",
        "cls_floor" | "cls_excess" => "loss",
        "warmup" => "factor",
        _ => "value",
    }
}

/// How the page's figures came about.
pub(super) fn origin(source: &Source) -> String {
    let mut out = String::new();
    if let Some(m) = source.runs.iter().find_map(|run| run.manifest.as_ref()) {
        let revision = m.provenance.revision.as_deref().map_or(String::new(), |r| format!(" ({})", escape(r)));
        let _ = write!(
            out,
            "<p>docent {}{revision}, candle {}, {} threads of {} ({})</p><p>Command: <code>{}</code></p>",
            escape(&m.provenance.version),
            escape(&m.candle),
            m.host.threads,
            escape(&m.host.cpu),
            escape(&m.host.platform),
            escape(&m.provenance.command.join(" "))
        );
    }
    if let Some(data) = &source.dataset {
        let _ = write!(out, "<p>Data's SHA-256: <code>{}</code></p>", escape(&data.digest));
    }
    let recipe = source.recipe.to_toml().unwrap_or_default();
    let _ = write!(out, "<details><summary>The whole recipe</summary><pre>{}</pre></details>", escape(&recipe));
    out
}

fn line(run: &Run, points: Vec<(f64, f64)>) -> Line {
    Line { name: run.label.clone(), class: format!("r{}", run.colour), points, figure: None }
}

/// Lines with something to show.
fn shown(lines: impl Iterator<Item = Line>) -> Vec<Line> {
    lines.filter(|line| !line.points.is_empty()).collect()
}

fn plots(inside: &str, nothing: &str) -> String {
    if inside.is_empty() { format!("<p>{nothing}</p>") } else { format!("<div class=\"plots\">{inside}</div>") }
}

/// A run's name with its colour.
fn name(run: &Run) -> String {
    format!("<span class=\"key r{}\"></span>{}", run.colour, escape(&run.label))
}

/// A difference in points, signed and coloured.
fn change(difference: f64) -> String {
    let points = 100.0 * difference;
    let class = if points <= -0.05 {
        "loss"
    } else if points >= 0.05 {
        "win"
    } else {
        "same"
    };
    format!("<td class=\"{class}\">{points:+.1}</td>")
}

fn table(id: &str, corner: &str, heads: &[&str], rows: &str) -> String {
    let heads: String = heads.iter().map(|h| format!("<th scope=\"col\">{}</th>", escape(h))).collect();
    let corner = if corner.is_empty() { "<td></td>".to_owned() } else { format!("<th scope=\"col\">{corner}</th>") };
    format!(
        "<div class=\"wide\" tabindex=\"0\" role=\"group\" aria-label=\"{id}\"><table id=\"{id}\">\
         <thead><tr>{corner}{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
}
