//! Held-out images with the boxes of the truth and of each run, those first that distilling changed most.

use std::collections::HashMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docent_coco::{Analysis, Dataset, Detection, DetectionMatch, ImageScore};

use super::html::escape;
use super::source::{Run, Source};
use crate::data::Data;
use crate::summary::percent;

/// Images of a group, and bytes of all images together.
const PER_GROUP: usize = 12;
const UNCHANGED: usize = 4;
const BYTES: usize = 3 << 20;
/// The longer side of an embedded image, in pixels.
const LONGEST: usize = 560;
/// Boxes of a run in an image: the surest, and none below this score.
const BOXES: usize = 40;
const LEAST_SCORE: f64 = 0.05;
/// Colours of classes in the style sheet.
const COLOURS: usize = 8;

/// An image that is shown, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pick {
    /// Its position in the data.
    position: usize,
    group: Group,
    /// AP of the image: distilled minus alone, in a comparison.
    change: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Helped,
    Hurt,
    Unchanged,
    Worst,
    Best,
}

impl Group {
    const ALL: [Self; 5] = [Self::Helped, Self::Hurt, Self::Unchanged, Self::Worst, Self::Best];

    fn title(self) -> &'static str {
        match self {
            Self::Helped => "Distilling helped most",
            Self::Hurt => "Distilling hurt most",
            Self::Unchanged => "No difference",
            Self::Worst => "Lowest AP",
            Self::Best => "Highest AP",
        }
    }
}

/// The gallery's HTML, made piece by piece while the images are read.
pub(super) struct Gallery {
    controls: String,
    groups: String,
    rule: String,
}

impl Gallery {
    /// Chooses, reads and draws the pictures. What cannot be read goes to `notes`.
    pub(super) fn new(source: &Source, data: &Data, analyses: &[Option<Analysis>], notes: &mut Vec<String>) -> Self {
        let scored: Vec<(&Run, &Analysis)> =
            source.runs.iter().zip(analyses).filter_map(|(run, a)| Some((run, a.as_ref()?))).collect();
        let of = |key: &str| scored.iter().find(|(run, _)| run.key == key).map(|(_, a)| a.images.as_slice());
        let (picks, rule) = match (of("alone"), of("distilled"), scored.last()) {
            (Some(alone), Some(distilled), _) => (
                compared(alone, distilled),
                "The order is by the difference of the picture's own AP (IoU 0.50 to 0.95, detections of all classes ranked \
                 together), distilled student minus student alone; pictures without objects have none.",
            ),
            (_, _, Some((_, analysis))) => (
                ranked(&analysis.images),
                "The order is by the picture's own AP (IoU 0.50 to 0.95, detections of all classes ranked together); pictures \
                 without objects have none.",
            ),
            _ => (Vec::new(), "No run has detections yet."),
        };
        let threshold = scored.last().map_or(0.5, |(run, a)| best_threshold(run, a));
        let mut scenes = Scenes { data, scored: &scored, threshold, by_image: by_image(&scored), bytes: 0 };
        let mut groups = String::new();
        for group in Group::ALL {
            let mut cards = String::new();
            for pick in picks.iter().filter(|pick| pick.group == group) {
                if scenes.bytes > BYTES {
                    break;
                }
                match scenes.card(pick) {
                    Ok(card) => cards.push_str(&card),
                    Err(e) => notes.push(format!("a picture is missing: {e}")),
                }
            }
            if !cards.is_empty() {
                let _ = write!(groups, "<h3>{}</h3><div class=\"cards\">{cards}</div>", group.title());
            }
        }
        let limits = format!(
            "Solid boxes are right (IoU of at least 0.5 with an object of the class), dashed ones are not. Shown are at most {BOXES} \
             boxes of a run in a picture, none below {LEAST_SCORE}."
        );
        Self { controls: controls(&scored, threshold), groups, rule: format!("{rule} {limits}") }
    }

    /// The section's inside.
    pub(super) fn html(&self) -> String {
        if self.groups.is_empty() {
            return format!("<p>{}</p>", self.rule);
        }
        format!("<p class=\"rule\">{}</p>{}{}", self.rule, self.controls, self.groups)
    }
}

/// The switch between truth and runs, the threshold, the labels.
fn controls(scored: &[(&Run, &Analysis)], threshold: f64) -> String {
    let mut out = "<div class=\"controls\"><fieldset><legend>Boxes of</legend>".to_owned();
    let names = std::iter::once("truth").chain(scored.iter().map(|(run, _)| run.label.as_str()));
    for (i, name) in names.enumerate() {
        let checked = if i == scored.len() { " checked" } else { "" };
        let name = escape(name);
        let _ = write!(
            out,
            "<label><input type=\"radio\" name=\"layer\" id=\"layer-{i}\" value=\"{i}\"{checked}><span>{name}</span></label>"
        );
    }
    let _ = write!(
        out,
        "</fieldset><label class=\"slider\">score of at least <output id=\"score-shown\">{threshold:.2}</output>\
         <input type=\"range\" id=\"score\" min=\"{LEAST_SCORE}\" max=\"0.95\" step=\"0.05\" value=\"{threshold:.2}\"></label>\
         <label class=\"check\"><input type=\"checkbox\" id=\"labels\" checked> labels</label>\
         <p class=\"hint\">A picture opens all sides beside each other; in there, arrow keys go on.</p></div>"
    );
    out
}

/// Detections of each run by image: positions in the run's list, the surest first.
fn by_image(scored: &[(&Run, &Analysis)]) -> Vec<HashMap<u64, Vec<usize>>> {
    let of = |(run, _): &(&Run, &Analysis)| {
        let mut images: HashMap<u64, Vec<usize>> = HashMap::new();
        let detections = run.detections.as_deref().unwrap_or_default();
        for (i, d) in detections.iter().enumerate().filter(|(_, d)| d.score >= LEAST_SCORE) {
            images.entry(d.image_id).or_default().push(i);
        }
        for list in images.values_mut() {
            list.sort_by(|a, b| detections[*b].score.total_cmp(&detections[*a].score));
            list.truncate(BOXES);
        }
        images
    };
    scored.iter().map(of).collect()
}

/// What the images are drawn from.
struct Scenes<'a> {
    data: &'a Data,
    scored: &'a [(&'a Run, &'a Analysis)],
    threshold: f64,
    by_image: Vec<HashMap<u64, Vec<usize>>>,
    /// Of the images so far, as they stand in the page.
    bytes: usize,
}

impl Scenes<'_> {
    fn card(&mut self, pick: &Pick) -> docent_coco::Result<String> {
        let val: &Dataset = &self.data.val;
        let info = val.image(pick.position);
        let picture = STANDARD.encode(val.sample(pick.position)?.image.shrunk(LONGEST)?.to_jpeg()?);
        self.bytes += picture.len();
        let (width, height) = (info.width, info.height);
        let mut layers = String::new();
        let truth = val.annotations(pick.position).iter().map(|a| Mark {
            bbox: a.bbox,
            category: a.category_id,
            score: None,
            class: if a.iscrowd { " crowd" } else { "" },
        });
        layer(&mut layers, 0, val, (width, height), truth, self.threshold);
        for (i, ((run, analysis), by_image)) in self.scored.iter().zip(&self.by_image).enumerate() {
            let detections = run.detections.as_deref().unwrap_or_default();
            let found = by_image.get(&info.id).map_or(&[][..], Vec::as_slice);
            // The surest is drawn last, on top.
            let marks = found.iter().rev().filter_map(|&d| {
                let detection: &Detection = detections.get(d)?;
                let right = analysis.matches.get(d) != Some(&DetectionMatch::FalsePositive);
                let class = if right { "" } else { " wrong" };
                Some(Mark {
                    bbox: detection.bbox,
                    category: detection.category_id,
                    score: Some(detection.score),
                    class,
                })
            });
            layer(&mut layers, i + 1, val, (width, height), marks, self.threshold);
        }
        let mut figures = String::new();
        for (run, analysis) in self.scored {
            let ap = analysis.images.get(pick.position).and_then(|i| i.ap);
            let ap = percent(ap.unwrap_or(-1.0));
            let _ = write!(figures, "<span><span class=\"key r{}\"></span>{ap}</span>", run.colour);
        }
        if let Some(change) = pick.change {
            let class = if change < 0.0 {
                "loss"
            } else if change > 0.0 {
                "win"
            } else {
                "same"
            };
            let _ = write!(figures, "<b class=\"{class}\">{:+.1}</b>", 100.0 * change);
        }
        let name = escape(&info.file_name);
        let unit = unit((width, height));
        Ok(format!(
            "<figure class=\"card\"><button type=\"button\" aria-label=\"{name}, all sides\"><svg class=\"scene\" \
             viewBox=\"0 0 {width} {height}\" style=\"--u:{unit:.3}\" role=\"img\" aria-label=\"{name} with boxes\"><image \
             width=\"{width}\" height=\"{height}\" preserveAspectRatio=\"none\" \
             href=\"data:image/jpeg;base64,{picture}\"/>{layers}</svg></button><figcaption><span class=\"file\">{name}</span><span \
             class=\"aps\" title=\"AP of this picture\">AP {figures}</span></figcaption></figure>"
        ))
    }
}

/// The image's pixels for one of the page, where its longer side has about 340 of these: letters and distances are counted in it.
fn unit((width, height): (u32, u32)) -> f64 {
    f64::from(width.max(height)) / 340.0
}

/// A box of a layer.
struct Mark {
    bbox: [f64; 4],
    category: u64,
    /// None for the truth.
    score: Option<f64>,
    /// More classes of the style sheet.
    class: &'static str,
}

fn layer(
    out: &mut String,
    number: usize,
    data: &Dataset,
    (width, height): (u32, u32),
    marks: impl Iterator<Item = Mark>,
    threshold: f64,
) {
    let _ = write!(out, "<g class=\"layer l{number}\">");
    let unit = unit((width, height));
    let (width, height) = (f64::from(width), f64::from(height));
    for mark in marks {
        let label = data.label_of(mark.category).unwrap_or(0) as usize;
        let name = label.checked_sub(1).and_then(|i| data.categories().get(i)).map_or("?", |c| c.name.as_str());
        let [x, y, w, h] = mark.bbox;
        let (x2, y2) = ((x + w).clamp(0.0, width), (y + h).clamp(0.0, height));
        let (x, y) = (x.clamp(0.0, width), y.clamp(0.0, height));
        let colour = label.saturating_sub(1) % COLOURS;
        let (score, text, off) = match mark.score {
            Some(s) => (format!(" data-s=\"{s:.3}\""), format!("{name} {s:.2}"), s < threshold),
            None => (String::new(), name.to_owned(), false),
        };
        let off = if off { " off" } else { "" };
        // Above the box, or inside where there is no room.
        let base = if y > 13.0 * unit { y - 3.0 * unit } else { y + 12.0 * unit };
        let left = x.min((width - 7.0 * unit * text.chars().count() as f64).max(0.0));
        let _ = write!(
            out,
            "<g class=\"b k{colour}{}{off}\"{score}><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/><text \
             x=\"{left:.1}\" y=\"{base:.1}\">{}</text></g>",
            mark.class,
            x2 - x,
            y2 - y,
            escape(&text)
        );
    }
    out.push_str("</g>");
}

/// The images that changed most in both directions, each side from its most, then some that did not change.
fn compared(alone: &[ImageScore], distilled: &[ImageScore]) -> Vec<Pick> {
    let mut changes: Vec<(usize, f64)> = alone
        .iter()
        .zip(distilled)
        .enumerate()
        .filter_map(|(position, (a, d))| Some((position, d.ap? - a.ap?)))
        .collect();
    // Stable: equal changes stay in the data's order.
    changes.sort_by(|a, b| b.1.total_cmp(&a.1));
    let pick = |group| move |&(position, change): &(usize, f64)| Pick { position, group, change: Some(change) };
    let helped = changes.iter().filter(|c| c.1 > 0.0).take(PER_GROUP).map(pick(Group::Helped));
    let hurt = changes.iter().rev().filter(|c| c.1 < 0.0).take(PER_GROUP).map(pick(Group::Hurt));
    let unchanged = changes.iter().filter(|c| c.1 == 0.0).take(UNCHANGED).map(pick(Group::Unchanged));
    helped.chain(hurt).chain(unchanged).collect()
}

/// The images with the lowest and the highest AP.
fn ranked(images: &[ImageScore]) -> Vec<Pick> {
    let mut known: Vec<(usize, f64)> = images.iter().enumerate().filter_map(|(i, s)| Some((i, s.ap?))).collect();
    known.sort_by(|a, b| a.1.total_cmp(&b.1));
    let worst = PER_GROUP.min(known.len().div_ceil(2));
    let best = PER_GROUP.min(known.len() - worst);
    let pick = |group| move |&(position, _): &(usize, f64)| Pick { position, group, change: None };
    let lowest = known[..worst].iter().map(pick(Group::Worst));
    lowest.chain(known[known.len() - best..].iter().rev().map(pick(Group::Best))).collect()
}

/// The multiple of 0.05 at which the F1 (IoU 0.5, all classes together) of the run is highest: where a slider should start.
fn best_threshold(run: &Run, analysis: &Analysis) -> f64 {
    let detections = run.detections.as_deref().unwrap_or_default();
    let objects: usize = analysis.images.iter().map(|i| i.objects).sum();
    let f1 = |threshold: f64| {
        let counted = detections
            .iter()
            .zip(&analysis.matches)
            .filter(|(d, v)| d.score >= threshold && **v != DetectionMatch::Ignored);
        let (right, all) = counted
            .fold((0usize, 0usize), |(r, n), (_, v)| (r + usize::from(*v == DetectionMatch::TruePositive), n + 1));
        2.0 * right as f64 / (all + objects).max(1) as f64
    };
    let steps = (1..=18).map(|i| f64::from(i) * 0.05);
    steps.fold((0.05, -1.0), |best, t| if f1(t) > best.1 { (t, f1(t)) } else { best }).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(aps: &[Option<f64>]) -> Vec<ImageScore> {
        aps.iter().zip(1..).map(|(ap, image_id)| ImageScore { image_id, objects: 1, ap: *ap }).collect()
    }

    #[test]
    fn what_changed_most_comes_first() {
        let alone = scores(&[Some(0.5), Some(0.5), Some(0.2), None, Some(0.0), Some(0.5)]);
        let distilled = scores(&[Some(0.75), Some(0.25), Some(0.9), None, Some(0.0), Some(0.0)]);
        let picks = compared(&alone, &distilled);
        let order: Vec<(usize, Group)> = picks.iter().map(|p| (p.position, p.group)).collect();
        use Group::{Helped, Hurt, Unchanged};
        assert_eq!(order, [(2, Helped), (0, Helped), (5, Hurt), (1, Hurt), (4, Unchanged)]);
        assert_eq!(picks[1].change, Some(0.25));
        let many = scores(&vec![Some(0.5); 100]);
        assert_eq!(compared(&many, &scores(&vec![Some(0.6); 100])).len(), PER_GROUP);
    }

    #[test]
    fn a_run_alone_shows_its_worst_and_its_best_and_no_picture_twice() {
        let order = |aps: &[Option<f64>]| -> Vec<usize> { ranked(&scores(aps)).iter().map(|p| p.position).collect() };
        assert_eq!(order(&[Some(0.5), None, Some(0.1), Some(0.9)]), [2, 0, 3]);
        assert_eq!(order(&[]), [0usize; 0]);
        assert_eq!(ranked(&scores(&vec![Some(0.5); 100])).len(), 2 * PER_GROUP);
    }
}
